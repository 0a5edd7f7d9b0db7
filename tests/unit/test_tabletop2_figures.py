"""Figures of version 2 of the tabletop benchmark where the right ones are known; its pictures and its commands."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from unit.fakes import ColourSegmenter
from unit.test_causal import moving_block
from unit.test_cli_train_eval import EverythingSegmenter

from instructseg import cli
from instructseg.core import BadInput, EncodedFrame, Grounding, Segmenter, Target, TargetMask
from instructseg.data.instructions import Slot
from instructseg.data.scene import CLUTTER, Episode
from instructseg.data.tabletop2.benchmark import draw_case
from instructseg.data.tabletop2.drawing import draw_episode
from instructseg.data.tabletop2.facts import WorldFacts
from instructseg.data.tabletop2.questions import Asked
from instructseg.data.tabletop2.rendering import WorldRenderer
from instructseg.data.tabletop2.world import KEY, TIMES
from instructseg.evaluation import intervals, tabletop2, tabletop2_stream
from instructseg.evaluation.timed_segmenter import Charges


@pytest.fixture(scope="module")
def renderer() -> Iterator[WorldRenderer]:
    with WorldRenderer(160, 120) as made:
        yield made


class KnowingSegmenter(Segmenter):
    """Answers from the truth; ``mistakes``: texts whose every target it refuses, or invents where there is none."""

    name = "knowing"
    max_targets = 3

    def __init__(self, episode: Episode, questions: Sequence[Asked], mistakes: frozenset[str] = frozenset()) -> None:
        self._ids = {
            round((t - episode.times[0]) * 1e9): ids for t, ids in zip(episode.times, episode.instances, strict=True)
        }
        self._slots = {question.text: question.slots for question in questions}
        self._mistakes = mistakes

    def encode(self, frames):
        return [EncodedFrame(frame, self._ids[frame.stamp_ns]) for frame in frames]

    def ground(self, clip, instructions):
        stamps = tuple(encoded.frame.stamp_ns for encoded in clip.frames)
        return [
            Grounding(i.id, stamps[-1], stamps, tuple(self._target(i.text, slot) for slot in self._slots[i.text]))
            for i in instructions
        ]

    def _target(self, text: str, slot: Slot) -> Target:
        refused = bool(slot.targets) == (text in self._mistakes)
        return Target(None if refused else slot.targets or {1}, float(not refused), float(refused), refused)

    def segment(self, encoded, tokens):
        masks = [np.isin(encoded.features, list(token)) for token in tokens]
        return [TargetMask(mask, float(mask.any()), token) for mask, token in zip(masks, tokens, strict=True)]


def evaluated(renderer: WorldRenderer, scenes: Sequence[int], mistaken_kinds: tuple[str, ...] = ()):
    answers = []
    for index in scenes:
        case = draw_case("val", index)
        episode = renderer.episode(case.world)
        mistakes = frozenset(q.text for q in case.questions if q.kind in mistaken_kinds)
        segmenter = KnowingSegmenter(episode, case.questions, mistakes)
        answers += tabletop2.evaluate_cases(segmenter, [(index, episode, case.questions)], progress=False)
    return answers


def test_the_renderer_shows_what_the_description_says(renderer: WorldRenderer) -> None:
    for split, index in (("val", 4), ("held_out", 9), ("val", 1), ("held_out", 2)):
        case = draw_case(split, index)
        facts = WorldFacts(case.world)
        episode = renderer.episode(case.world)
        assert episode.images.shape == (len(TIMES), 120, 160, 3) and episode.images.dtype == np.uint8
        assert episode.instances.shape == (len(TIMES), 120, 160)
        areas = [np.bincount(ids.ravel(), minlength=256) for ids in episode.instances]
        for item in facts.named:
            assert areas[KEY][item.id] > 5, "every named thing is in the picture"
            rows, columns = np.nonzero(episode.instances[KEY] == item.id)
            x, y = facts.now.image[item.id]
            assert abs(columns.mean() / 160 - x) < 0.06 and abs(rows.mean() / 120 - y) < 0.08
        for number in facts.returning:
            assert min(area[number] for area in areas[KEY + 1 :]) == 0, "it leaves"
            assert areas[-1][number] > 0.3 * areas[KEY][number], "it returns"
        for item in (o for o in facts.objects if o.shape == CLUTTER):
            assert areas[KEY][item.id] > 0


def test_drawn_scenes_show_the_same_things_at_the_same_places(renderer: WorldRenderer) -> None:
    overlaps = []
    for split, index in (("train", 1), ("held_out", 2), ("val", 4)):
        world = draw_case(split, index).world
        drawn, rendered = draw_episode(world, 160, 120, TIMES[:5]), renderer.episode(world, TIMES[:5])
        assert drawn.images.shape == rendered.images.shape and drawn.images.dtype == np.uint8
        assert np.array_equal(drawn.motions, rendered.motions) and drawn.objects == rendered.objects
        for item in (o for o in world.objects if o.shape != CLUTTER):
            ours, theirs = (episode.instances[KEY] == item.id for episode in (drawn, rendered))
            overlaps.append(np.count_nonzero(ours & theirs) / np.count_nonzero(ours | theirs))
            colours = [episode.images[KEY][ours & theirs].mean(axis=0) for episode in (drawn, rendered)]
            assert np.abs(colours[0] - colours[1]).max() < 60, item
    assert np.mean(overlaps) > 0.85 and min(overlaps) > 0.5
    again = draw_episode(draw_case("train", 1).world, 160, 120, TIMES[:5])
    assert np.array_equal(again.images, draw_episode(draw_case("train", 1).world, 160, 120, TIMES[:5]).images)


def test_right_answers_give_full_figures(renderer: WorldRenderer) -> None:
    table = tabletop2.summarise(evaluated(renderer, (0, 4)))
    whole = table["all"]
    assert whole["present"] >= 12 and whole["absent"] == 6
    for name in ("iou", "accuracy_0.5", "j_and_f", "t_acc", "n_acc", "f1", "giou", "ciou"):
        assert (whole[name].value, whole[name].low, whole[name].high) == (1.0, 1.0, 1.0)
    assert table["returns"]["present"] == 1
    assert table["absent"]["n_acc"].value == 1.0 and table["absent"]["f1"].value is None


def test_a_target_out_of_view_is_no_loss_where_nothing_is_shown_then(renderer: WorldRenderer) -> None:
    (returned,) = [a for a in evaluated(renderer, (4,)) if a.kind == "returns"]
    assert returned.hidden >= 1 and returned.false_masks == 0
    assert returned.j_and_f == 1.0


def test_refusals_and_false_alarms_count_where_they_happen(renderer: WorldRenderer) -> None:
    answers = evaluated(renderer, (0, 4), ("use", "absent"))
    table = tabletop2.summarise(answers)
    uses = [a for a in answers if a.kind == "use"]
    assert uses and not any(a.kept or a.iou or a.j for a in uses)
    assert table["use"]["t_acc"].value == table["use"]["j_and_f"].value == table["use"]["f1"].value == 0.0
    assert table["superlative"]["t_acc"].value == 1.0
    assert table["absent"]["n_acc"].value == table["all"]["n_acc"].value == 0.0
    assert set(tabletop2.absent_details(answers)) == {a.detail for a in answers if a.kind == "absent"}
    present, absent = table["all"]["present"], table["all"]["absent"]
    kept = [a for a in answers if a.present and a.kept]
    assert table["all"]["giou"].value == pytest.approx(sum(a.iou for a in kept) / (present + absent), abs=1e-3)
    shared, covered = (sum(getattr(a, name) for a in answers) for name in ("shared", "covered"))
    assert table["all"]["ciou"].value == pytest.approx(shared / covered, abs=1e-3) and shared < covered
    alarms, hits = 6, table["all"]["present"] - len(uses)
    assert table["all"]["f1"].value == pytest.approx(2 * hits / (2 * hits + alarms + len(uses)), abs=1e-4)


def asked(text: str, kind: str, *targets: int) -> Asked:
    return Asked(text, (Slot(frozenset(targets), frozenset(targets)),), kind, "", kind)


def test_streams_by_type_count_first_masks_and_what_is_missed() -> None:
    questions = (asked("red", "attribute", 1), asked("blue", "absent"))
    cases = [(number, moving_block(20, 2), questions) for number in (0, 1)]
    report = tabletop2_stream.stream_cases(ColourSegmenter(), cases, Charges(0.01, 0.25), progress=False)
    table = tabletop2_stream.summarise(report)
    row = table["attribute"]
    assert (row["present"], row["absent"], row["missed"].value, row["switches"].value) == (2, 0, 0.0, 0.0)
    assert 0.25 <= row["first_mask_s"].value < 0.5
    assert row["j_and_f"].value < row["instant_j_and_f"].value
    assert table["absent"]["rejected"].value == 1.0 and table["absent"]["j_and_f"].value is None
    assert "first mask s" in tabletop2.format_table(table, tabletop2_stream.COLUMNS)


def test_intervals_are_those_of_scenes_not_of_questions() -> None:
    rng = np.random.default_rng(3)
    values = (rng.random(40) < 0.7).astype(float)
    each = intervals.mean(values, range(40))
    five_times = intervals.mean(np.repeat(values, 5), np.repeat(range(40), 5))
    assert (five_times.value, five_times.low, five_times.high) == (each.value, each.low, each.high)
    assert five_times.rows == 200
    normal = 1.96 * np.sqrt(each.value * (1 - each.value) / 40)
    assert each.high - each.low == pytest.approx(2 * normal, rel=0.2)
    independent = intervals.mean(np.repeat(values, 5), range(200))
    assert independent.high - independent.low < 0.6 * (each.high - each.low)


def test_intervals_of_ratios_and_of_nothing() -> None:
    made = intervals.ratio_of_sums([1, 3], [2, 2], [0, 1])
    assert (made.value, made.low, made.high) == (1.0, 0.5, 1.5)
    assert intervals.mean([None, None], [0, 1]) == intervals.Estimate(None)
    assert str(intervals.Estimate(None)) == "-"
    assert intervals.mean([0.5], [3]) == intervals.Estimate(0.5, rows=1)
    assert str(intervals.Estimate(0.5, rows=1)) == "0.500"
    assert intervals.ratio_of_sums([1.0], [0.0], [0]).value is None


@pytest.mark.parametrize(
    ("above", "below", "scenes", "what"),
    [([1], [1, 1], [0, 1], "one length"), ([float("nan")], [1], [0], "finite"), ([1, 1], [1, 1], [0], "one length")],
)
def test_intervals_refuse_what_they_cannot_use(above, below, scenes, what: str) -> None:
    with pytest.raises(BadInput, match=what):
        intervals.ratio_of_sums(above, below, scenes)


def evaluate_with(segmenter: Segmenter, *words: object) -> int:
    size = ["--width", "160", "--height", "120", "--episodes", "2", "--split", "val"]
    arguments = cli.build_parser().parse_args(["eval", "tabletop2", *size, *map(str, words)])
    return arguments.run(arguments, segmenter)


def test_eval_writes_figures_with_intervals_and_pictures(tmp_path: Path, capsys) -> None:
    out = tmp_path / "sub" / "figures.json"
    assert evaluate_with(EverythingSegmenter(), "--out", out, "--pictures", tmp_path / "p") == 0
    printed = capsys.readouterr().out
    assert "acc@0.5" in printed and "absent targets refused:" in printed
    report = json.loads(out.read_text())
    whole = report["table"]["all"]
    assert len(report["answers"]) == whole["present"] + whole["absent"]
    assert whole["t_acc"]["value"] == 1.0 and whole["n_acc"]["value"] == 0.0
    assert 0 < whole["iou"]["low"] <= whole["iou"]["value"] <= whole["iou"]["high"] < 0.4
    assert cv2.imread(str(tmp_path / "p" / "worst.png")).any()


def test_eval_streams(tmp_path: Path, capsys) -> None:
    out = tmp_path / "stream.json"
    words = ("--stream", "--rate", 2, "--step-ms", 10, "--ground-ms", 10, "--out", out, "--episodes", 1)
    assert evaluate_with(EverythingSegmenter(), *words) == 0
    assert "switches" in capsys.readouterr().out
    report = json.loads(out.read_text())
    assert report["table"]["all"]["missed"]["value"] == 0.0
    assert report["table"]["absent"]["rejected"]["value"] == 0.0
    assert len(report["records"]) == len(report["instant"])


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--episodes", 101), "has 100 scenes; got 101"), (("--height", 100), "pictures of 4:3"),
        (("--step-ms", 5), "add --stream"), (("--stream", "--pictures", "p"), "single frames"),
    ],
)  # fmt: skip
def test_eval_refuses_before_it_works(words: tuple, what: str) -> None:
    with pytest.raises(BadInput, match=what):
        evaluate_with(EverythingSegmenter(), *words)


def test_outputs_that_cannot_be_are_refused_before_it_works(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="is a folder; give a file"):
        evaluate_with(EverythingSegmenter(), "--out", tmp_path)
    with pytest.raises(BadInput, match="is a file; give a folder"):
        evaluate_with(EverythingSegmenter(), "--pictures", tmp_path / "file")


@pytest.mark.parametrize(("name", "split"), [("tabletop2", "written"), ("tabletop", "val")])
def test_previews_show_scenes_with_their_questions(tmp_path: Path, capsys, name: str, split: str) -> None:
    words = ["data", "preview", name, "--out", str(tmp_path), "--split", split, "--count", "1"]
    assert cli.main(words) == 0
    assert "instructions" in capsys.readouterr().out
    page = cv2.imread(str(tmp_path / f"{name}_{split}_000000.png"))
    assert page.shape[1] == 4 * 320 and page.shape[0] > 360 + 2 * 240
    assert page.std() > 20


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("tabletop2", "folder"), "reads no folder; leave out folder"),
        (("tabletop2", "--split", "test"), "splits val, pairs"), (("tabletop", "--split", "written"), "splits of tab"),
        (("mevis",), "lies in a folder"),
    ],
)  # fmt: skip
def test_previews_refuse_what_is_not_there(tmp_path: Path, capsys, words: tuple[str, ...], what: str) -> None:
    assert cli.main(["data", "preview", *words, "--out", str(tmp_path / "p")]) == 2
    assert what in capsys.readouterr().err
    assert not (tmp_path / "p").exists()
