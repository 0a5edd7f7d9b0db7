"""The causal evaluation on streams whose right figures are known by construction."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from unit.fakes import COLOURS, SECOND, ColourSegmenter
from unit.test_cli_train_eval import EverythingSegmenter, evaluate_with

from instructseg.core import BadInput
from instructseg.data.instructions import Question, Slot
from instructseg.data.scene import Episode, SceneObject
from instructseg.evaluation.causal import PublishedMask, held_masks, score_slot
from instructseg.evaluation.tabletop_stream import (
    StreamFigures,
    StreamReport,
    ask_stream,
    evaluate_stream,
    format_stream,
    stream_frames,
    stream_times,
    summarise,
)
from instructseg.evaluation.timed_segmenter import Charges
from instructseg.streaming import EngineConfig

SIDE = 16  # of the drawn block, in pixels
RATE = 10.0


def moving_block(frames: int, speed: int, colour: str = "red", gone: range = range(0)) -> Episode:
    """A block that moves by ``speed`` pixels a frame to the right; the instruction comes with frame 2."""
    images = np.full((frames, 48, 120, 3), 127, np.uint8)
    instances = np.zeros((frames, 48, 120), np.uint8)
    for i in range(frames):
        if i not in gone:
            area = (i, slice(16, 16 + SIDE), slice(4 + speed * i, 4 + speed * i + SIDE))
            images[area], instances[area] = COLOURS[colour], 1
    still = np.zeros((frames, 1), np.int64)
    return Episode(images, instances, np.arange(frames) / RATE, still, (SceneObject(1, "block", colour),), 2)


def ask(episode: Episode, text: str, step_s: float, ground_s: float = 0.0, targets: tuple[int, ...] = (1,)):
    """The one slot's record and the stream's figures."""
    question = Question(text, (Slot(frozenset(targets), frozenset(targets)),), "attribute")
    figures = StreamFigures()
    charges = Charges(step_s, ground_s)
    frames = stream_frames(episode)
    (record,) = ask_stream(ColourSegmenter(), episode, frames, question, charges, EngineConfig(), figures)
    return record, figures


def shifted_iou(pixels: int) -> float:
    """IoU of the block with itself, moved by that many pixels."""
    return (SIDE - pixels) / (SIDE + pixels)


@pytest.mark.parametrize(("step_s", "late"), [(0.0, 0), (0.04, 0), (0.1, 1), (0.19, 3)])
def test_a_still_scene_loses_nothing_once_the_first_mask_is_out(step_s: float, late: int) -> None:
    # The frame before the instruction is still being encoded when the answer comes (step_s later than it, at least),
    # and gets the first mask: at 1.3 s with 0.1 s a step, at 1.57 s with 0.19 s. The first frame that counts is 1.2 s.
    record, _ = ask(moving_block(20, 0), "red", step_s)
    assert record.visible == 18
    assert record.j == pytest.approx(1 - late / 18)
    assert record.f == pytest.approx(1 - late / 18)
    assert record.first_mask_s == pytest.approx(2 * step_s, abs=0.11)
    assert record.first_j == 1.0


def test_an_answer_within_the_frame_period_loses_nothing_on_a_moving_block() -> None:
    record, figures = ask(moving_block(20, 4), "red", 0.04)
    assert (record.j, record.f, record.fresh) == (1.0, 1.0, 18)
    assert figures.ages_s == pytest.approx([0.08] * 18)


def test_a_moving_block_loses_what_it_moved_meanwhile() -> None:
    # Encoding and segmenting take one and a half frame periods: from the frame that is taken at 1 s on, of three
    # frames one sees the mask of the frame before, two that of the frame two before.
    record, figures = ask(moving_block(26, 2), "red", 0.075)
    lost = [shifted_iou(2), shifted_iou(4), shifted_iou(4)]
    assert record.j == pytest.approx(reference_mean(record.visible, lost), abs=1e-9)
    assert record.published_j_and_f > record.j_and_f  # what is held for longer is more wrong
    assert set(np.round(figures.ages_s, 6)) == {0.15, 0.2}
    assert figures.drops["replaced"] > 0


def reference_mean(frames: int, lost: list[float]) -> float:
    """Mean J of a block that moves by 2 pixels a frame, replayed by hand: camera every 0.1 s, 0.15 s a frame."""
    free_at, published = 0.0, []
    first = 1  # of the two frames before the instruction, which are only encoded, in half the time
    taken = {0: 0.075, first: 0.175}
    free_at = taken[first]
    while free_at < 10.0:
        newest = max(i for i in range(200) if i * 0.1 <= free_at + 1e-9)
        done = set(taken)
        start = free_at if newest not in done else (newest + 1) * 0.1
        frame = newest if newest not in done else newest + 1
        taken[frame] = free_at = start + 0.15
        published.append((free_at, frame))
    scores = []
    for i in range(2, 2 + frames):
        known = [frame for when, frame in published if when < (i + 1) * 0.1 - 1e-9]
        scores.append(shifted_iou(2 * (i - known[-1])) if known else 0.0)
    assert {round(s, 9) for s in scores[6:]} == {round(s, 9) for s in lost}
    return float(np.mean(scores))


def test_a_slow_reasoner_costs_the_frames_until_its_first_mask_and_nothing_more() -> None:
    record, figures = ask(moving_block(22, 2), "red", 0.0, ground_s=0.75)
    # Instruction just before frame 2; the answer is there 0.75 s later, the first mask is that of frame 10.
    assert record.first_mask_s == pytest.approx(0.8)
    assert (record.first_j, record.visible, record.masks) == (1.0, 20, 12)
    assert record.j == pytest.approx(12 / 20)
    assert figures.groundings == {"done": 1}


def test_masks_of_what_is_not_there_are_errors() -> None:
    alarm, _ = ask(moving_block(12, 1), "red", 0.0, targets=())
    assert (alarm.present, alarm.hidden, alarm.false_masks, alarm.j) == (False, 10, 10, None)
    refused, _ = ask(moving_block(12, 1), "blue", 0.0, targets=())
    assert (refused.present, refused.false_masks, refused.masks) == (False, 0, 0)
    missed, _ = ask(moving_block(12, 1), "blue", 0.0)
    assert (missed.present, missed.j, missed.f, missed.first_mask_s) == (True, 0.0, 0.0, None)


def test_a_mask_that_is_out_of_date_when_the_target_goes_is_an_error() -> None:
    prompt, _ = ask(moving_block(20, 0, gone=range(8, 14)), "red", 0.04)
    assert (prompt.visible, prompt.hidden, prompt.false_masks, prompt.j) == (12, 6, 0, 1.0)
    late, _ = ask(moving_block(20, 0, gone=range(8, 14)), "red", 0.06)
    assert late.false_masks > 0
    assert late.j < 1.0


def published(*masks: tuple[float, int, bool]) -> list[PublishedMask]:
    return [PublishedMask(round(t * SECOND), i, np.ones((16, 16), bool) if seen else None) for t, i, seen in masks]


def test_a_mask_is_held_until_it_expires_or_is_taken_back() -> None:
    stamps = [round(t * SECOND) for t in (1.0, 1.1, 1.2, 1.3, 1.4, 1.5)]
    held, fresh = held_masks(published((1.05, 7, True)), stamps, round(1.6 * SECOND), 0.2)
    assert [p is not None for p in held] == [True, True, True, False, False, False]
    assert fresh.tolist() == [True, False, False, False, False, False]
    held, fresh = held_masks(published((1.05, 7, True), (1.15, 0, False), (1.31, 7, True)), stamps, 1600000000, 9.0)
    assert [p is not None for p in held] == [True, False, False, True, True, True]
    assert fresh.tolist() == [True, False, False, True, False, False]
    held, _ = held_masks(published((1.1, 7, True)), stamps, round(1.6 * SECOND), 9.0)
    assert held[0] is None and held[1] is not None  # published the moment frame 1 came: that one was current


def test_switches_are_counted_between_masks() -> None:
    stamps = [round(t * SECOND) for t in (1.0, 1.1, 1.2, 1.3)]
    truth = np.ones((4, 16, 16), bool)
    masks = published((1.0, 1, True), (1.1, 0, False), (1.2, 2, True), (1.3, 1, True))
    record = score_slot(masks, stamps, round(1.4 * SECOND), truth)
    assert (record.switches, record.masks, record.present) == (2, 3, True)
    assert record.j == 0.75
    assert record.published_j_and_f == 1.0


def test_times_and_truths_that_do_not_fit_are_refused() -> None:
    truth = np.ones((2, 16, 16), bool)
    with pytest.raises(BadInput, match="one truth for each of 3 frames; got 2"):
        score_slot([], [1, 2, 3], 4, truth)
    with pytest.raises(BadInput, match="increasing stamps"):
        score_slot([], [1, 1], 4, truth)
    with pytest.raises(BadInput, match="increasing stamps"):
        score_slot([], [1, 2], 2, truth)
    with pytest.raises(BadInput, match="in the order of their times"):
        score_slot(published((1.0, 1, True), (0.5, 1, True)), [1, 2], 4, truth)


def test_the_summary_of_nothing_and_of_one() -> None:
    table = summarise(StreamReport([], [], StreamFigures()))
    assert table["all"]["present"] == 0 and table["all"]["j"] is None and table["all"]["false_masks"] is None
    text = format_stream(table, StreamFigures())
    assert "age of results p50 / p95 / p99: - / - / - ms" in text
    record, figures = ask(moving_block(12, 1), "red", 0.0)
    whole = summarise(StreamReport([record], [record], figures))["all"]
    assert (whole["j_and_f"], whole["missed"], whole["switches"], whole["rejected"]) == (1.0, 0.0, 0, None)


def test_stream_times_begin_before_the_instruction() -> None:
    times, key = stream_times(10.0, 3.0)
    assert times[key] == 0.0
    assert (times[0], times[-1], len(times)) == (-1.5, 3.0, 46)
    times, key = stream_times(1.0, 0.1)
    assert len(times) == key + 2  # at least one frame after it


def test_faults_of_the_model_are_told() -> None:
    broken = ColourSegmenter()
    broken.raising = {"segment"}
    question = Question("red", (Slot(frozenset({1}), frozenset({1})),), "attribute")
    episode, figures = moving_block(12, 1), StreamFigures()
    frames = stream_frames(episode)
    (record,) = ask_stream(broken, episode, frames, question, Charges(0.0, 0.0), EngineConfig(), figures)
    assert record.j == 0.0
    assert figures.faults["segment"] > 0
    text = format_stream(summarise(StreamReport([record], [], figures)), figures)
    assert "last fault: segment failed: RuntimeError: segment broke on purpose" in text


def test_the_command_is_repeatable_with_fixed_times(tmp_path: Path, capsys) -> None:
    reports = []
    for name in ("one.json", "two.json"):
        words = ("--stream", "--rate", "5", "--seconds", "1", "--step-ms", "30", "--ground-ms", "250")
        assert evaluate_with(EverythingSegmenter(), *words, "--out", tmp_path / name) == 0
        reports.append(json.loads((tmp_path / name).read_text()))
    printed = capsys.readouterr().out
    assert "J&F at once" in printed and "age of results p50 / p95 / p99: 60 / 60 / 60 ms" in printed
    for report in reports:
        report["arguments"].pop("out")
    assert reports[0] == reports[1]
    whole = reports[0]["table"]["all"]
    assert reports[0]["n"] == whole["present"] + whole["absent"] == len(reports[0]["instant"])
    assert whole["first_mask_s"] == 0.46  # two frames pass before the answer is there; the third takes 60 ms
    assert whole["instant_j_and_f"] > whole["j_and_f"] > 0.0
    assert whole["rejected"] in (0.0, None)


def test_the_command_measures_the_time_by_default(tmp_path: Path, capsys) -> None:
    assert evaluate_with(EverythingSegmenter(), "--stream", "--seconds", "0.5", "--out", tmp_path / "a.json") == 0
    capsys.readouterr()
    stream = json.loads((tmp_path / "a.json").read_text())["stream"]
    assert 0.0 < stream["age_p50_s"] < 0.5
    assert stream["groundings"]["done"] >= 9


def test_options_that_do_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="leave out --stream"):
        evaluate_with(EverythingSegmenter(), "--stream", "--pictures", tmp_path)
    with pytest.raises(BadInput, match="add --stream"):
        evaluate_with(EverythingSegmenter(), "--step-ms", "5")


def test_no_episodes_give_an_empty_report() -> None:
    report = evaluate_stream(ColourSegmenter(), [], "val", progress=False)
    assert (report.records, report.instant, report.figures.frames_in) == ([], [], 0)
