"""``instructseg train CONFIG`` from data on disk to a checkpoint that loads, and what it says of a bad call."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from unit import miniature_data, tiny_mllmseg

import instructseg
from instructseg import cli

pytestmark = pytest.mark.usefixtures("log_as_before")


def configuration(folder: Path, **values: Any) -> Path:
    """A run on two miniature data sets, beside them in ``folder``. values: further keys."""
    if not (folder / "weights").exists():
        miniature_data.refcoco(folder / "images")
        miniature_data.grefcoco(folder / "images")
        tiny_mllmseg.tiny_checkpoint(folder / "weights")
    data = [{"benchmark": "refcoco", "root": "images"}, {"benchmark": "grefcoco", "root": "images", "weight": 2}]
    table = {"recipe": "mllmseg", "checkpoint": "weights", "data": data, "steps": 4, "batch": 2, "workers": 0}
    (folder / "run.yaml").write_text(yaml.safe_dump(table | {"learning_rate": 1e-3, "device": "cpu"} | values))
    return folder / "run.yaml"


def train(*words: object) -> int:
    return cli.main(["train", *map(str, words)])


def test_from_data_on_disk_to_a_checkpoint_that_loads(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config, out = configuration(tmp_path, ema_decay=0.5, lora={"rank": 2}), tmp_path / "out"
    assert train(config, "--out", out) == 0
    said = capsys.readouterr().out
    assert f"checkpoint: {out / 'checkpoint'}" in said and "--recipe mllmseg" in said
    assert instructseg.load("mllmseg", out / "checkpoint", device="cpu").load_report.missing == ()
    belongs = json.loads((out / "adapters" / "adapters.json").read_text())["belongs_to"]
    assert (belongs["recipe"], belongs["lora_rank"]) == ("mllmseg", 2)
    assert json.loads((out / "config.json").read_text())["data"][1]["weight"] == 2
    assert "grefcoco train: 2 scenes" in (out / "train.log").read_text()
    # A second call is no accident's loss; a third one only exports.
    assert train(config, "--out", out) == 2
    assert "already holds a run that came to step-00000004" in capsys.readouterr().err
    adapters = (out / "adapters" / "adapters.safetensors").read_bytes()
    (out / "adapters" / "adapters.safetensors").unlink()
    assert train(config, "--out", out, "--export") == 0
    assert (out / "adapters" / "adapters.safetensors").read_bytes() == adapters


def test_the_same_configuration_begins_and_ends_the_same(tmp_path: Path) -> None:
    """Also the new LoRA, which begins at random."""
    config = configuration(tmp_path, steps=1, seed=5)
    for name in ("one", "two"):
        torch.rand(3)  # whatever happened before
        assert train(config, "--out", tmp_path / name) == 0
    first, second = (load_file(tmp_path / name / "adapters" / "adapters.safetensors") for name in ("one", "two"))
    for name, tensor in first.items():  # threads add in any order
        torch.testing.assert_close(second[name], tensor, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"data": [{"benchmark": "refcoko", "root": "images"}]}, "unknown benchmark 'refcoko'; known are: refcoco,"),
        ({"data": [{"benchmark": "refcoco", "root": "images", "split": "dev"}]}, "has no split 'dev'; it has: train"),
        ({"data": [{"benchmark": "reasonseg", "root": "images"}]}, "holds no reasonseg"),
        ({"recipe": "unified"}, "is not a configuration of the recipe 'unified'"),
        ({"recipe": "gsva"}, "is not a checkpoint of GSVA or LISA"),
        ({"checkpoint": "elsewhere"}, "checkpoint 'elsewhere' does not exist"),
        ({"batch": 3, "accumulation": 2}, "batch must be a multiple of accumulation x processes (2 x 1); got 3"),
        ({"options": {"max_target": 2}}, "recipe mllmseg has no option 'max_target'"),
        ({"device": "tpu"}, "device must be auto, cpu, cuda or cuda:N; got 'tpu'"),
    ],
)
def test_what_cannot_be_trained_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture, values: dict[str, Any], said: str
) -> None:
    assert train(configuration(tmp_path, **values), "--out", tmp_path / "out") == 2
    assert said in capsys.readouterr().err


def test_what_a_run_began_with_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "out"
    begun = configuration(tmp_path)
    shutil.copytree(tmp_path / "weights", out / "checkpoint")
    config = configuration(tmp_path, checkpoint=str(out / "checkpoint"), steps=1)
    before = {path.name: path.read_bytes() for path in (out / "checkpoint").iterdir()}
    assert begun == config and train(config, "--out", out) == 2
    assert "would be overwritten by the export into" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (out / "checkpoint").iterdir()} == before
    (tmp_path / "file").touch()
    assert train(config, "--out", tmp_path / "file") == 2
    assert "is a file; give a folder" in capsys.readouterr().err


def test_options_of_the_default_recipe_and_a_configuration_do_not_mix(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = configuration(tmp_path)
    for words, said in (
        ((config, "--out", tmp_path, "--smoke"), "--smoke belongs to the default recipe's training"),
        ((config, "--out", tmp_path, "--set", "seed=3"), "--set belongs to the default recipe's training"),
        ((config, "--out", tmp_path, "--stop-after", "3"), "--stop-after belongs to the default recipe's training"),
        (("--out", tmp_path, "--resume"), "--resume and --export need a CONFIG"),
        ((config, "--out", tmp_path / "none", "--export"), "holds no saved state; train first"),
    ):
        assert train(*words) == 2
        assert said in capsys.readouterr().err
