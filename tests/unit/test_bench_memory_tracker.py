"""The memory tracker's part of the benchmark: both sides do the same work, and it is counted. Nothing here looks at
time."""

from __future__ import annotations

import pytest
import torch

from bench import memory_tracker
from bench.memory_tracker import compare, operations, smallest_iou
from bench.options import MeasurementFailed, Options
from bench.sam2_sides import Pair, configuration, random_sam


class Lines:
    """A pipe that keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, float]] = []

    def send(self, line: tuple[int, float]) -> None:
        self.sent.append(line)


def test_both_sides_give_the_same_masks_and_every_stage_takes_time() -> None:
    figures, details = compare("miniature", 2, 1, 2, "cpu", "two")
    by_name = {figure.name.removeprefix("two: "): figure for figure in figures}
    assert by_name["smallest IoU of masks with the session's"].verdict == "met"
    assert details["largest difference of logits"] < 1e-3
    assert by_name["operations of session / ours"].median > 1
    for name in (*memory_tracker.STAGES.values(), "masks in the image's size"):
        assert all(value > 0 for value in by_name[name].values)
    assert details["bytes an object"]["session"] > details["bytes an object"]["ours"] > 64 * 64 * 2


def test_the_session_keeps_every_frame_and_the_tracker_does_not() -> None:
    pair = Pair.begin(random_sam(configuration("miniature")), 1)
    sizes = []
    for _ in range(20):
        image = next(pair.images)
        pair.ours.logits(image)
        pair.session.logits(pair.ours.tracker.pixels(image))
        sizes.append((pair.ours.nbytes, pair.session.nbytes))
    ours, session = zip(*sizes, strict=True)
    assert ours[-1] == ours[-3]
    frame = 3 * 128 * 128 * 4
    assert session[-1] - session[-3] > 2 * frame


def test_the_stages_are_watched_no_longer_than_that() -> None:
    pair = Pair.begin(random_sam(configuration("miniature")), 1)
    watch = memory_tracker.Watch("cpu")
    memory_tracker.stages(pair, watch, "one", 1)
    assert not {*memory_tracker.STAGES, "_results"} & {*vars(pair.ours.tracker), *vars(pair.ours.tracker.model)}


def test_operations_of_fused_attention_are_counted() -> None:
    query, key, value = torch.randn(2, 1, 10, 32), torch.randn(2, 1, 30, 32), torch.randn(2, 1, 30, 32)
    with torch.inference_mode():
        counted = operations(lambda: torch.nn.functional.scaled_dot_product_attention(query, key, value))
    assert counted == 2 * 2 * 10 * 30 * (32 + 32)


def test_the_smallest_overlap_counts() -> None:
    ours = torch.zeros(3, 4, 4, dtype=torch.bool)
    theirs = ours.clone()
    ours[0], theirs[0] = True, True
    ours[1, :2], theirs[1, :1] = True, True
    assert smallest_iou(ours, theirs) == 0.5
    assert smallest_iou(ours[2:], theirs[2:]) == 1.0


def test_growth_is_a_slope(monkeypatch: pytest.MonkeyPatch) -> None:
    """60 frames in this process show that both run; the slope is taken from what a process tells."""
    for run in (memory_tracker.ours_for_ever, memory_tracker.session_for_ever):
        lines = Lines()
        run(lines, "", 60, device="cpu")
        assert [count for count, _ in lines.sent] == [50, 60]
        assert all(megabytes > 50 for _, megabytes in lines.sent)
    told = {"ours": 0.0005, "session": 0.3}

    def in_own_process(run, name, first, last, options) -> dict[int, float]:
        return {count: 400.0 + told[name] * count for count in (first, last)}

    monkeypatch.setattr(memory_tracker, "in_own_process", in_own_process)
    ours, session = memory_tracker.growth(Options(full=True))
    assert ours.median == pytest.approx(0.5) and ours.verdict == "met" and "500..10000" in ours.name
    assert session.median == pytest.approx(300.0) and not session.verdict


def test_two_cameras_apart_and_together() -> None:
    (ratio,) = memory_tracker.cameras_together("miniature", Options(quick=True))
    assert len(ratio.values) == 2 and min(ratio.values) > 0


def test_a_missing_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MeasurementFailed, match="--device cuda: torch finds no CUDA device"):
        memory_tracker.measure(Options(device="cuda"))
