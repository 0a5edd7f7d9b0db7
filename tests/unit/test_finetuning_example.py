"""The example of docs/finetuning_example.md at tiny length: it records, trains, compares and draws."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from instructseg import cli
from instructseg.data.benchmarks import open_dataset
from instructseg.data.samples import Kind
from instructseg.data.scene import Episode, SceneObject
from instructseg.training.finetuning.configuration import read_config

ROOT = Path(__file__).parents[2]


pytestmark = pytest.mark.usefixtures("log_as_before")


@pytest.fixture(scope="module")
def example() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("finetuning_example", ROOT / "scripts" / "finetuning_example.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look their annotations up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_everything_that_is_said_is_right(example: ModuleType) -> None:
    things = (SceneObject(1, "mug", "red"), SceneObject(2, "block", "blue"), SceneObject(3, "block", "red"))
    episode = Episode(
        np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 8, 8), np.uint8), np.zeros(1), np.zeros((1, 3)), things, 0
    )
    said = {e.text: e.objects for e in example.expressions_about(episode, np.random.default_rng(0))}
    present = {text: objects for text, objects in said.items() if objects}
    assert present == {
        "the beaker": (1,), "the red beaker": (1,), "all crates": (2, 3), "the blue crate": (2,), "the red crate": (3,),
    }  # fmt: skip
    assert len(said) == len(present) + example.ABSENT
    assert all(word in example.NAMES.values() for word in (text.split()[-1] for text in set(said) - set(present)))
    assert "the crate" not in said, "there are two"
    assert example.in_its_words("all crates") == "all blocks"


def test_from_recordings_to_figures_and_a_picture(
    example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert example.main(["record", str(tmp_path), "--train", "2", "--held-out", "1", "--steps", "2"]) == 0
    train, held_out = (open_dataset("recordings", tmp_path / "recordings", split) for split in ("train", "val"))
    assert {s.footage.name for s in train}.isdisjoint(s.footage.name for s in held_out)
    assert len(held_out[0].footage) == example.FRAMES and any(s.kind is Kind.NO_TARGET for s in held_out)
    assert read_config(tmp_path / "run.yaml").steps == 2
    assert example.main(["record", str(tmp_path)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert cli.main(["train", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "run")]) == 0
    assert example.main(["compare", str(tmp_path)]) == 0
    figures = json.loads((tmp_path / "comparison.json").read_text())
    asked = len(held_out) * len(example.ASKED)
    assert [row["present"] + row["absent"] for row in figures.values()] == [asked] * 3
    assert figures["before"]["T-acc"] == 0.0, "words that the shipped model does not know name nothing to it"
    picture = cv2.imread(str(tmp_path / "comparison.jpg"))
    width, height = example.PANEL
    assert picture.shape == (5 * (height + example.HEADING) + example.HEADING, 3 * width, 3)


def test_the_page_and_the_example_have_the_same_configuration(example: ModuleType) -> None:
    page = (ROOT / "docs" / "finetuning_example.md").read_text(encoding="utf-8")
    for key in ("recipe", "checkpoint"):
        assert f"    {key}: {example.CONFIG[key]}\n" in page
    assert all(f'"the {name}"' in page for name in example.NAMES.values())
