"""Any recipe with the real memory of SAM 2, in miniature: by hand, through the engine, from the command line."""

from __future__ import annotations

import itertools
import json
import re
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from unit.fake_tracker import RED, FakeTracker, begin, frame, make, show
from unit.fakes import ColourSegmenter, ColourToken, ManualClock, eventually
from unit.tiny_sam2 import film, original_checkpoint, tiny_sam

from instructseg import cli
from instructseg.core import (
    BadInput,
    EncodedFrame,
    Frame,
    State,
    TargetMask,
)
from instructseg.modules.sam2_memory import Sam2MemoryModel
from instructseg.registry import with_tracker
from instructseg.streaming import EngineConfig, FrameResult, StreamingEngine
from instructseg.tracking.agreement import HybridRule
from instructseg.tracking.following import FollowingSegmenter
from instructseg.tracking.memory import MemoryTracker
from instructseg.tracking.memory_checkpoint import load_memory_tracker


@pytest.fixture(scope="module")
def tracker() -> MemoryTracker:
    return MemoryTracker(Sam2MemoryModel(tiny_sam(presence=6.0)))


def test_memory_mode_is_the_tracker_by_hand(tracker: MemoryTracker) -> None:
    images, masks = film(5)
    memory = tracker.start(tracker.encode(images[0]), masks[0])
    segmenter = FollowingSegmenter(Painted(masks[0]), tracker)
    token = begin(segmenter, Frame(images[0], 0))
    for number, image in enumerate(images[1:], 1):
        (expected,), (memory,) = tracker.step(tracker.encode(image), [memory])
        mask = show(segmenter, token, Frame(image, number))
        assert np.array_equal(mask.mask, expected.mask) and mask.score == expected.score
        token = mask.token
    assert token.memory.frame == 4


def test_a_new_anchor_is_the_tracker_refreshed_by_hand(tracker: MemoryTracker) -> None:
    images, masks = film(2)
    segmenter = FollowingSegmenter(Painted(masks[0]), tracker, hybrid=HybridRule(agreement=1.0, margin=0.0))
    memory = tracker.start(tracker.encode(images[0]), masks[0])
    _, (memory,) = tracker.step(tracker.encode(images[1]), [memory])
    memory = tracker.refresh(tracker.encode(images[1]), memory, masks[0], stepped=True)
    mask = show(segmenter, begin(segmenter, Frame(images[0], 0)), Frame(images[1], 1))
    assert np.array_equal(mask.mask, masks[0])
    assert [d.frame for d in mask.token.memory.conditioning] == [d.frame for d in memory.conditioning] == [0, 1]
    assert (mask.token.memory.conditioning[1].value == memory.conditioning[1].value).all()


class Painted(ColourSegmenter):
    """Finds one and the same mask in every frame, and is sure of it."""

    def __init__(self, mask: np.ndarray) -> None:
        super().__init__()
        self.mask = mask
        self.rejection = {"red": 0.05}

    def segment(self, encoded: EncodedFrame, tokens: list[ColourToken]) -> list[TargetMask]:
        return [TargetMask(self.mask, 1.0, token) for token in tokens]


@pytest.mark.parametrize("mode", ["memory", "hybrid"])
def test_through_the_engine(tmp_path: Path, mode: str) -> None:
    checkpoint = original_checkpoint(tmp_path, tiny_sam(presence=6.0))
    segmenter = with_tracker(ColourSegmenter(), mode, checkpoint, 0.35)
    assert len(segmenter.load_report.loaded) == len(load_memory_tracker(checkpoint).load_report.loaded)
    segmenter.warm_up(48, 64)
    engine = StreamingEngine(segmenter, EngineConfig(present_threshold=0.2))
    engine.add_instruction(RED)
    states = [engine.process(frame(n, "red")).targets[0].state for n in range(1, 8)]
    assert set(states) == {State.PRESENT}
    engine.reset()
    assert engine.process(frame(1, "blue")).targets[0].state is State.NO_TARGET, "nothing is remembered"


def test_a_grounding_that_took_long_is_carried_over_every_frame_since() -> None:
    """The fake moves its mask by a column a step: where the first mask stands tells how many frames were seen."""
    segmenter, recipe, tracker = make(ColourSegmenter(), FakeTracker(drift=1))
    gate = recipe.gates["ground"] = threading.Event()
    results: list[FrameResult] = []
    with StreamingEngine(segmenter, on_result=results.append, clock_ns=ManualClock()) as engine:
        engine.add_instruction(RED)
        engine.submit_frame(frame(1, "red"))
        assert recipe.entered["ground"].wait(20.0)
        for number in range(2, 8):
            engine.submit_frame(frame(number, "red"))
            assert eventually(lambda n=number: len(results) == n)
        gate.set()
        assert eventually(lambda: "step" in tracker.calls and engine.statistics().groundings.get("done") == 1)
        engine.submit_frame(frame(8, "red"))
        assert eventually(lambda: len(results) == 8)
    assert [r.targets[0].state for r in results[:7]] == [State.GROUNDING] * 7
    assert results[7].targets[0].state is State.PRESENT
    assert np.argwhere(results[7].targets[0].mask)[:, 1].min() == 4 + 7


def test_what_the_choice_of_a_tracker_needs(tmp_path: Path) -> None:
    recipe = ColourSegmenter()
    assert with_tracker(recipe, "token") is recipe
    with pytest.raises(BadInput, match="tracker must be one of token, memory, hybrid; got 'xmem'"):
        with_tracker(recipe, "xmem", "somewhere")
    with pytest.raises(BadInput, match="tracker 'hybrid' needs a tracker checkpoint.*none is given"):
        with_tracker(recipe, "hybrid", "")
    with pytest.raises(BadInput, match=str(tmp_path / "nowhere")):
        with_tracker(recipe, "memory", tmp_path / "nowhere")


# From the command line


def test_segment_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    for number in range(3):
        picture = cv2.cvtColor(frame(number, "red").image, cv2.COLOR_RGB2BGR)
        assert cv2.imwrite(str(frames / f"{number}.png"), picture)
    words = ["segment", str(frames), "red", "--device", "cpu", "--out", str(tmp_path / "out"), "--tracker", "hybrid"]
    assert cli.main(words) == 2
    assert "tracker 'hybrid' needs a tracker checkpoint" in capsys.readouterr().err
    words += ["--tracker-checkpoint", str(original_checkpoint(tmp_path / "sam2", tiny_sam()))]
    assert cli.main(words) == 0
    report = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert (len(report["frames"]), report["recipe"], report["tracker"]) == (3, "unified", "hybrid")


def test_inspect_command_accounts_for_both_checkpoints(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    checkpoint = original_checkpoint(tmp_path / "sam2", tiny_sam())
    assert cli.main(["inspect", "--device", "cpu"]) == 0
    alone = int(re.search(r"(\d+) tensors loaded", capsys.readouterr().out)[1])
    assert cli.main(["inspect", "--device", "cpu", "--tracker", "memory", "--tracker-checkpoint", str(checkpoint)]) == 0
    both = int(re.search(r"(\d+) tensors loaded", capsys.readouterr().out)[1])
    assert both == alone + len(load_memory_tracker(checkpoint).load_report.loaded)


def test_targets_of_several_cameras_together_are_what_they_are_apart(tracker: MemoryTracker) -> None:
    """Two cameras with pictures of different sizes, one of them with two targets."""
    images, masks = film(3)
    cameras = images, [np.ascontiguousarray(image[:-8]) for image in images]
    apart = []
    for pictures in cameras:
        segmenter = FollowingSegmenter(Painted(masks[0][: len(pictures[0])]), tracker)
        apart.append([begin(segmenter, Frame(pictures[0], 0))])
    apart[0] *= 2
    together = apart
    for number in (1, 2):
        frames = [segmenter.encode([Frame(pictures[number], number)])[0] for pictures in cameras]
        expected = [segmenter.segment(*pair) for pair in zip(frames, apart, strict=True)]
        found = segmenter.segment_together(list(zip(frames, together, strict=True)))
        for one, other in zip(itertools.chain(*expected), itertools.chain(*found), strict=True):
            assert np.array_equal(one.mask, other.mask)
            assert one.score == pytest.approx(other.score, abs=1e-5)
        apart, together = ([[mask.token for mask in row] for row in rows] for rows in (expected, found))
    again = segmenter.segment_together(list(zip(frames, together, strict=True)))
    assert [[mask.token for mask in row] for row in again] == together, "the same frame is not stepped twice"
