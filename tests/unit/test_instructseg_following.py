"""InstructSeg with a memory tracker between the passes of its language model, in miniature."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from unit.tiny_instructseg import coloured_frame, tiny_checkpoint
from unit.tiny_sam2 import tiny_sam, transformers_checkpoint

import instructseg
from instructseg.core import Clip, EncodedFrame, Instruction, Segmenter, State
from instructseg.recipes.instructseg.history import History
from instructseg.recipes.instructseg.processing import EVERY_FRAME, InstructSegSegmenter
from instructseg.streaming import EngineConfig, StreamingEngine
from instructseg.streaming.checks import checked_grounding, checked_masks
from instructseg.tracking.following import FollowingSegmenter

MUG = Instruction("a", "the red mug")
LOW = {"threshold": "0.01"}  # which even random weights pass


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("instructseg") / "checkpoint")


def load(checkpoint: Path, dtype: str = "float32", **options: str) -> Segmenter:
    return instructseg.load("instructseg", checkpoint, "cpu", dtype, {**LOW, **options})


@pytest.fixture(scope="module")
def segmenter(checkpoint: Path) -> InstructSegSegmenter:
    return load(checkpoint)


def film(segmenter: Segmenter, count: int, seed: int = 0, **size: int) -> list[EncodedFrame]:
    return segmenter.encode([coloured_frame(0.2 * i, seed=seed, **size) for i in range(count)])


def ground(segmenter: Segmenter, frames: list[EncodedFrame], instruction: Instruction = MUG):
    return checked_grounding(segmenter.ground(Clip(tuple(frames)), [instruction]), instruction)


@pytest.fixture(scope="module")
def tracker_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return transformers_checkpoint(tmp_path_factory.mktemp("sam2"), tiny_sam())


@pytest.fixture(scope="module")
def following(checkpoint: Path, tracker_checkpoint: Path) -> FollowingSegmenter:
    return load(checkpoint, masks="tracker", tracker_checkpoint=str(tracker_checkpoint))


def test_only_the_tracker_has_to_see_every_frame(segmenter: InstructSegSegmenter, following) -> None:
    assert (segmenter.carries_tokens, following.carries_tokens) == (False, True)


def test_the_tracker_carries_masks_without_the_language_model(following: FollowingSegmenter, monkeypatch) -> None:
    frames = film(following, 4)
    token = ground(following, frames[:2]).targets[0].token
    monkeypatch.setattr(following.recipe.reader.model, "read", lambda *a, **k: pytest.fail("the language model ran"))
    first = following.segment(frames[1], [token])[0]
    assert first.token is token and first.mask.any()
    for frame in frames[2:]:
        before = token
        found = following.segment(frame, [token, token])
        checked_masks(found, [0, 1], frame.frame)
        token = found[0].token
        assert token.memory.frame == before.memory.frame + 1 and token.stamp_ns == frame.frame.stamp_ns
        assert np.array_equal(found[0].mask, found[1].mask)


def test_references_on_both_sides_are_carried_to_the_present(checkpoint: Path, tracker_checkpoint: Path) -> None:
    segmenter = load(checkpoint, references="published", masks="tracker", tracker_checkpoint=str(tracker_checkpoint))
    assert any("two references before the newest" in note for note in segmenter.notes)
    frames = film(segmenter, 5)
    grounding = ground(segmenter, frames)
    assert grounding.key_stamp_ns == frames[2].frame.stamp_ns
    token = grounding.targets[0].token
    assert token.stamp_ns == frames[4].frame.stamp_ns and token.memory.frame == 2
    reader, own = segmenter.recipe.reader, [frame.features.own for frame in frames]
    question = reader.question(MUG.text)
    near = tuple(reader.reference(own[i], question) for i in (0, 1, 3, 4))
    masks = reader.look(own[2], [History(question, near)], 0.01, 1)[0]
    tracker = segmenter.tracker
    memory = tracker.start(frames[2].features.tracked(), masks.hard[0].numpy())
    for frame in frames[3:]:
        (mask,), (memory,) = tracker.step(frame.features.tracked(), [memory])
    assert np.array_equal(segmenter.segment(frames[4], [token])[0].mask, mask.mask)


def test_the_engine_with_tracker_and_refresh(following: FollowingSegmenter) -> None:
    engine = StreamingEngine(following, EngineConfig(refresh_period=0.25, present_threshold=0.01))
    engine.set_instruction(MUG)
    results = [engine.process(coloured_frame(0.1 * i)) for i in range(6)]
    assert results[0].targets[0].state is State.PRESENT
    assert results[-1].targets[0].grounded_stamp_ns > 0


def test_notes_tell_who_makes_the_masks(segmenter: InstructSegSegmenter, following: FollowingSegmenter) -> None:
    assert EVERY_FRAME in segmenter.notes
    assert not any("every frame" in note for note in following.notes)
    assert EVERY_FRAME not in FollowingSegmenter(segmenter, following.tracker).notes


def test_warm_up(segmenter: InstructSegSegmenter, following: FollowingSegmenter) -> None:
    for model in (segmenter, following):
        model.warm_up(48, 64)
