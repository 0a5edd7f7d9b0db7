"""``instructseg train``, ``eval`` and ``recipes``: plans, bad configurations, tables, worst answers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from instructseg import cli
from instructseg.commands import evaluate, train
from instructseg.core import BadInput, EncodedFrame, Grounding, Segmenter, Target, TargetMask
from instructseg.evaluation.tabletop import SlotRecord
from instructseg.registry import RECIPES
from instructseg.training.plan import SMOKE, TrainingPlan


class EverythingSegmenter(Segmenter):
    """Finds three of everything everywhere: wrong about all that is absent, and about most that is there."""

    name = "everything"
    max_targets = 3

    def encode(self, frames):
        return [EncodedFrame(frame, None) for frame in frames]

    def ground(self, clip, instructions):
        stamps = tuple(encoded.frame.stamp_ns for encoded in clip.frames)
        targets = tuple(Target(object(), 0.9, 0.1, False) for _ in range(3))
        return [Grounding(i.id, stamps[-1], stamps, targets) for i in instructions]

    def segment(self, encoded, tokens):
        return [TargetMask(np.ones(encoded.frame.size, bool), 0.9, token) for token in tokens]


def plan_from(*words: object) -> TrainingPlan:
    return train.plan_of(cli.build_parser().parse_args(["train", "--out", "unused", *map(str, words)]))


def test_the_plan_comes_from_smoke_then_the_file_then_the_options(tmp_path: Path) -> None:
    assert plan_from() == TrainingPlan()
    assert plan_from("--smoke") == TrainingPlan(**SMOKE)
    config = tmp_path / "plan.yaml"
    config.write_text("flat_episodes: 7\nseed: 3\nlanguage_minutes: 2\n")
    plan = plan_from("--smoke", "--config", config, "--seed", "5")
    assert (plan.flat_episodes, plan.seed, plan.language_minutes, plan.tabletop_episodes) == (7, 5, 2, 0)


def test_a_shown_default_is_the_plans_default(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["train", "--help"])
    assert left.value.code == 0
    assert "(default: 3600)" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("flat_episode: 7", "unknown key(s) flat_episode in the training plan; known are flat_episodes, tabletop"),
        ("flat_episodes: many", "flat_episodes must be a whole number of at least 0; got 'many'"),
        ("flat_episodes: 1.5", "got 1.5"),
        ("flat_episodes: true", "got True"),
        ("threads: 0", "threads must be a whole number of at least 1; got 0"),
        ("language_minutes: 0", "language_minutes must be a number above 0; got 0"),
        ("language_minutes: .nan", "got nan"),
        ("- a list", "must hold lines of the form 'key: value'; got list"),
        ("", "got NoneType"),
        ("a: [b", "cannot be read"),
        ("7: x", "unknown key(s) 7"),
        ("!!python/object/apply:os.getcwd []", "cannot be read"),
    ],
)
def test_a_bad_configuration_is_one_line_that_names_it(tmp_path: Path, capsys, content: str, what: str) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(content)
    assert cli.main(["train", "--out", str(tmp_path / "o"), "--config", str(path)]) == 2
    error = capsys.readouterr().err
    assert what in error
    assert "plan.yaml" in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "o").exists()


def test_no_configuration_file_and_nothing_to_train_on(tmp_path: Path, capsys) -> None:
    assert cli.main(["train", "--out", str(tmp_path), "--config", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml cannot be read" in capsys.readouterr().err
    assert cli.main(["train", "--out", str(tmp_path), "--flat-episodes", "0", "--tabletop-episodes", "0"]) == 2
    assert "nothing to train on" in capsys.readouterr().err


def evaluate_with(segmenter: Segmenter, *words: object) -> int:
    size = ["--width", "128", "--height", "96", "--source", "flat", "--episodes", "3", "--questions", "3"]
    arguments = cli.build_parser().parse_args(["eval", "tabletop", *size, *map(str, words)])
    return arguments.run(arguments, segmenter)


def test_eval_prints_the_table_and_writes_figures_and_pictures(tmp_path: Path, capsys) -> None:
    out, pictures = tmp_path / "sub" / "figures.json", tmp_path / "pictures"
    assert evaluate_with(EverythingSegmenter(), "--out", out, "--pictures", pictures, "--split", "val") == 0
    assert "mean_iou" in capsys.readouterr().out
    report = json.loads(out.read_text())
    assert report["arguments"]["split"] == "val"
    assert report["arguments"]["episodes"] == 3
    whole = report["table"]["all"]
    assert report["n"] == whole["present"] + whole["absent"] >= 9
    assert whole["kept"] == 1.0
    assert 0.0 < whole["mean_iou"] < 0.3  # the whole frame for one thing
    errors = [1 - r["iou"] if r["present"] else r["score"] for r in report["worst"]]
    assert errors == sorted(errors, reverse=True)
    assert min(errors) > 0
    sheet = cv2.imread(str(pictures / "worst.png"))
    assert sheet.shape[1] == 4 * 320
    assert sheet[: sheet.shape[0] // 4].any()


def test_the_same_seed_draws_the_same_episodes_in_any_order() -> None:
    first = evaluate.GeneratedEpisodes("flat", "held_out", 3, 1, 64, 64)
    again = evaluate.GeneratedEpisodes("flat", "held_out", 3, 1, 64, 64)
    other = evaluate.GeneratedEpisodes("flat", "held_out", 3, 2, 64, 64)
    images = [episode.images for episode in first]
    assert len(images) == len(first) == 3
    np.testing.assert_array_equal(again[2].images, images[2])
    assert not np.array_equal(other[2].images, images[2])


def test_the_worst_come_first_and_right_answers_not_at_all() -> None:
    right = SlotRecord("attribute", "a", True, True, 0.9, 1.0, 1.0)
    refused = SlotRecord("attribute", "b", False, False, 0.2, 0.0, 0.0)
    missed = SlotRecord("attribute", "c", True, False, 0.1, 0.0, 0.0)
    alarm = SlotRecord("attribute", "d", False, True, 0.8, 0.0, 0.0)
    rough = SlotRecord("attribute", "e", True, True, 0.9, 0.7, 0.7)
    assert evaluate.worst_records([right, rough, refused, alarm, missed], 20) == [missed, alarm, rough]
    assert evaluate.worst_records([rough, alarm, missed], 1) == [missed]


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["tabletop", "--episodes", "0"], "--episodes"),
        (["tabletop", "--width", "5"], "--width"),
        (["tabletop", "--split", "train"], "--split"),
        (["refcoco"], "refcoco"),
        ([], "BENCHMARK"),
    ],
)
def test_eval_refuses_what_it_does_not_know(capsys, words: list[str], what: str) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["eval", *words])
    assert left.value.code == 2
    assert what in capsys.readouterr().err


def test_eval_refuses_places_it_cannot_write_to_before_it_works(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="is a folder; give a file"):
        evaluate_with(EverythingSegmenter(), "--out", tmp_path)
    with pytest.raises(BadInput, match="is a file; give a folder"):
        evaluate_with(EverythingSegmenter(), "--pictures", tmp_path / "file")


def test_recipes_are_listed(capsys) -> None:
    assert cli.main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["recipe", *RECIPES]


def test_the_options_of_one_recipe_are_listed(capsys) -> None:
    assert cli.main(["recipes", "unified"]) == 0
    assert "it has no options" in capsys.readouterr().out
    assert cli.main(["recipes", "sa2va"]) == 2
    assert "unknown recipe 'sa2va'; known are ['gsva'" in capsys.readouterr().err


def test_a_missing_or_unknown_command_says_so(capsys) -> None:
    for words in ([], ["paint"]):
        with pytest.raises(SystemExit) as left:
            cli.main(words)
        assert left.value.code == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.process
def test_help_imports_no_torch() -> None:
    code = "import sys, instructseg.cli as c; c.build_parser(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0
