"""Configurations of fine-tuning: complete, typed, and refused with the key, the value and what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from instructseg.core import BadInput
from instructseg.training.finetuning.configuration import RunConfig, config_of, keys_of, read_config
from instructseg.training.finetuning.optimisation import optimisation_of
from instructseg.training.learner import Published

SMALLEST = {"recipe": "gsva", "checkpoint": "owner/name", "data": [{"benchmark": "refcoco", "root": "."}]}


def test_paths_start_at_the_file_and_what_is_left_out_is_published(tmp_path: Path) -> None:
    for name in ("data", "weights"):
        (tmp_path / "a" / name).mkdir(parents=True)
    values = {"recipe": "mllmseg", "checkpoint": "weights", "data": [{"benchmark": "refcoco", "root": "data"}]}
    path = tmp_path / "a" / "run.yaml"
    path.write_text(yaml.safe_dump(values) + "learning_rate: 4e-5\nlora: {rank: 8}\noptions: {max_targets: 3}\n")
    config = read_config(path)
    assert config.checkpoint == str(tmp_path / "a" / "weights") and config.data[0].root == tmp_path / "a" / "data"
    assert (config.learning_rate, config.lora.rank, config.options) == (4e-5, 8, {"max_targets": "3"})
    plan = optimisation_of(config, Published(1.0, (0.9, 0.95), 0.1, 2.0, 0.03, "cosine", 70, 6))
    assert (plan.learning_rate, plan.weight_decay, plan.steps, plan.batch) == (4e-5, 0.1, 70, 6)


def test_a_hub_id_stays_one() -> None:
    assert config_of(SMALLEST, Path(".")).checkpoint == "owner/name"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"stepz": 3}, "unknown key stepz; known are recipe, checkpoint, data"),
        ({"steps": -1}, "steps must be a whole number of at least 1; got -1"),
        ({"steps": 1.5}, "steps must be a whole number of at least 1; got 1.5"),
        ({"steps": True}, "got True"),
        ({"learning_rate": 0}, "learning_rate must be a number above 0; got 0"),
        ({"learning_rate": float("nan")}, "got nan"),
        ({"learning_rate": "fast"}, "got 'fast'"),
        ({"precision": "fp16"}, "precision must be fp32 or bf16; got 'fp16'"),
        ({"schedule": "step"}, "schedule must be linear, cosine, constant; got 'step'"),
        ({"distributed": "horovod"}, "distributed must be none, ddp, fsdp; got 'horovod'"),
        ({"ema_decay": 1}, "ema_decay must be a number above 0 and at most 0.999999; got 1"),
        ({"gradient_checkpointing": "yes"}, "gradient_checkpointing must be true or false; got 'yes'"),
        ({"lora": {"rank": 0}}, "lora.rank must be a whole number of at least 1 and at most 4096; got 0"),
        ({"lora": {"r": 4}}, "unknown key lora.r; known are rank, alpha, dropout"),
        ({"lora": 8}, "lora must hold lines of the form 'key: value'; got int"),
        ({"data": []}, "data must be a list of at least one data set with benchmark and root; got []"),
        ({"data": [{"root": "."}]}, "key data[0].benchmark is missing"),
        ({"data": [{"benchmark": "refcoco", "root": ".", "weight": -2}]}, "data[0].weight must be a number above 0"),
        ({"data": [{"benchmark": "refcoco", "root": "nowhere"}]}, "data root nowhere (refcoco) is no folder"),
        ({"recipe": "sam"}, "recipe must be one of gsva, instructseg, lisa, mllmseg"),
        ({"recipe": None}, "recipe must be a text; got None"),
        ({"checkpoint": " "}, "checkpoint must name a folder, a file or a hub id"),
    ],
)
def test_a_bad_value_is_named_with_its_key(change: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput) as caught:
        config_of(SMALLEST | change, Path("."))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        "- a list",
        "",
        "a: [b",
        "steps: 3\nsteps: 4",
        "data: [{root: a, root: b}]",
        "!!python/object/apply:os.getcwd []",
        "\xff",
    ],
)
def test_a_file_that_is_no_configuration_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(BadInput, match=r"run\.yaml"):
        read_config(path)


def test_every_key_explains_itself() -> None:
    rows = {name: (allowed, default, text) for name, allowed, default, text in keys_of(RunConfig)}
    assert rows["recipe"][1] == "needed" and rows["batch"][1] == "as published" and rows["ema_decay"][1] == "off"
    assert all(allowed and text for allowed, _, text in rows.values())
