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
from instructseg.training.plan import SMOKE, TrainingPlan, plan_of
from instructseg.training.stopping import StopRequest, TrainingPaused


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
    return train.plan_from(cli.build_parser().parse_args(["train", "--out", "unused", *map(str, words)]))


def test_the_plan_comes_from_smoke_then_the_file_then_the_settings(tmp_path: Path) -> None:
    assert plan_from() == TrainingPlan()
    assert plan_from("--smoke") == plan_of(SMOKE)
    path = tmp_path / "plan.yaml"
    path.write_text("scenes: {flat: 7}\nseed: 3\nlanguage: {minutes: 2}\n")
    plan = plan_from("--smoke", "--plan", path, "--set", "seed=5", "--set", "perception.batch=2")
    assert (plan.scenes, plan.seed, plan.language.minutes, plan.perception.batch) == ({"flat": 7}, 5, 2, 2)
    assert plan.perception.minutes == SMOKE["perception"]["minutes"]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("flat_episodes: 7", "unknown key flat_episodes; known are scenes, validation"),
        ("scenes: {flat: many}", "scenes.flat must be a whole number of at least 0; got 'many'"),
        ("threads: 0", "threads must be a whole number of at least 1 and at most 1024; got 0"),
        ("language: {minutes: .nan}", "language.minutes must be a number above 0; got nan"),
        ("seed: 1\nseed: 2", "the key 'seed' twice"),
        ("- a list", "must hold lines of the form 'key: value'; got list"),
        ("", "got NoneType"),
        ("a: [b", "cannot be read"),
        ("7: x", "unknown key 7"),
        ("!!python/object/apply:os.getcwd []", "cannot be read"),
    ],
)
def test_a_bad_plan_is_one_line_that_names_it(tmp_path: Path, capsys, content: str, what: str) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(content)
    assert cli.main(["train", "--out", str(tmp_path / "o"), "--plan", str(path)]) == 2
    error = capsys.readouterr().err
    assert what in error
    assert "plan.yaml" in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--plan", "none.yaml"], "none.yaml cannot be read"),
        (["--set", "scenes={}"], "nothing to train on"),
        (["--set", "seed"], "--set seed must have the form KEY=VALUE"),
    ],
)
def test_what_is_no_plan_at_all(tmp_path: Path, capsys, words: list[str], what: str) -> None:
    assert cli.main(["train", "--out", str(tmp_path / "o"), *words]) == 2
    assert what in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_no_place_to_train_in_and_no_time_to_train_for(tmp_path: Path, capsys) -> None:
    (tmp_path / "file").touch()
    assert cli.main(["train", "--smoke", "--out", str(tmp_path / "file")]) == 2
    assert "is a file; give a folder" in capsys.readouterr().err
    with pytest.raises(SystemExit) as left:
        cli.main(["train", "--smoke", "--out", str(tmp_path), "--stop-after", "0"])
    assert left.value.code == 2


@pytest.mark.parametrize(("signalled", "code"), [(False, 75), (True, 130)])
def test_a_training_that_was_stopped_says_that_it_is_not_finished(
    tmp_path: Path, capsys, monkeypatch, signalled: bool, code: int
) -> None:
    from instructseg.training import run

    def paused(out: Path, plan: TrainingPlan, stop: StopRequest) -> None:
        assert stop.minutes == 3.5 and plan == plan_of(SMOKE)
        if signalled:
            stop.signalled.set()
        raise TrainingPaused("perception stopped at step 7, which is saved")

    monkeypatch.setattr(run, "run_training", paused)
    assert cli.main(["train", "--smoke", "--out", str(tmp_path), "--stop-after", "3.5"]) == code
    said = capsys.readouterr().out
    assert said == "not finished: perception stopped at step 7, which is saved; run the same command again to go on\n"


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
