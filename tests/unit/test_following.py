"""Any recipe with SAM 2's memory: who makes which mask, who is believed, and what is never shown."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.fake_tracker import RED, FakeMemory, FakeTracker, begin, frame, make, show
from unit.fakes import SECOND, ColourSegmenter, ColourToken, unhurried
from unit.test_agreement import rules, scores

from instructseg.core import (
    Anchor,
    BadInput,
    Clip,
    EncodedFrame,
    Grounding,
    Instruction,
    InstructSegError,
    State,
    TargetMask,
)
from instructseg.streaming import EngineConfig, StreamingEngine
from instructseg.tracking.agreement import VISIBLE, HybridRule
from instructseg.tracking.following import FollowingSegmenter
from instructseg.tracking.memory import TrackedMask

# Memory between the recipe's masks


def test_between_groundings_the_memory_alone_works() -> None:
    segmenter, recipe, tracker = make()
    token = begin(segmenter, frame(1, "red"))
    assert tracker.taken() == ["start"] and recipe.segmented == [(SECOND // 10, 1)]
    first = show(segmenter, token, frame(1, "red"))
    assert first.token is token and first.mask.sum() == 64 and not tracker.taken(), "the key frame is not seen twice"
    for number in (2, 3):
        mask = show(segmenter, token, frame(number))
        assert mask.token.stamp_ns == number * SECOND // 10 and mask.score == 0.8
        token = mask.token
    assert tracker.taken() == ["step", "step"] and len(recipe.segmented) == 1
    assert token.memory.seen == (1, 2, 3)


def test_the_recipe_looks_again_after_a_period() -> None:
    segmenter, recipe, tracker = make(anchor_period_s=0.3)
    token = begin(segmenter, frame(1, "red"))
    for number in range(2, 9):
        token = show(segmenter, token, frame(number, "red", shift=number)).token
    assert tracker.taken() == ["start", "step", "step", "refresh", "step", "step", "refresh", "step"]
    assert [stamp * 10 // SECOND for stamp, _ in recipe.segmented] == [1, 4, 7]
    assert token.memory.given == (1, 4, 7) and token.memory.seen == tuple(range(1, 9))
    assert token.own.seen == tuple(n * SECOND // 10 for n in (1, 4, 7)), (
        "the recipe's token is carried from look to look"
    )


def test_what_the_recipe_does_not_see_is_not_reported_until_its_next_look() -> None:
    segmenter, _, tracker = make(anchor_period_s=0.3)
    token = begin(segmenter, frame(1, "red"))
    shown = []
    for number in range(2, 9):
        mask = show(segmenter, token, frame(number, *(["red"] if number in (2, 3, 7, 8) else [])))
        shown.append(mask.score)
        token = mask.token
        assert not mask.disagrees, "one of them sees nothing"
    assert shown == [0.8, 0.8, 0.02, 0.02, 0.02, 0.9, 0.8]
    assert tracker.taken() == ["start", "step", "step", "step", "step", "step", "refresh", "step"]


def test_a_weak_or_empty_first_mask_is_not_remembered() -> None:
    segmenter, recipe, tracker = make()
    recipe.score = lambda pixels: 0.49
    token = begin(segmenter, frame(1, "red"))
    recipe.score = lambda pixels: 0.9  # sure of an empty mask
    token = show(segmenter, token, frame(2)).token
    assert token.memory is None and not tracker.taken() and len(recipe.segmented) == 2
    token = show(segmenter, token, frame(3, "red")).token
    assert tracker.taken() == ["start"] and token.memory.seen == (3,)


def test_a_clock_that_went_back_is_no_reason_to_wait() -> None:
    segmenter, _, _ = make(anchor_period_s=60.0)
    token = begin(segmenter, frame(5, "red"))
    assert show(segmenter, token, frame(2, "red")).token.looked_ns == 2 * SECOND // 10


def test_tokens_do_not_change() -> None:
    segmenter, _, _ = make(tracker=FakeTracker(drift=3))
    token = begin(segmenter, frame(1, "red"))
    once, again = (show(segmenter, token, frame(2, "red")) for _ in range(2))
    assert np.array_equal(once.mask, again.mask) and not np.array_equal(once.mask, token.shown.mask)
    assert token.stamp_ns == SECOND // 10 and token.memory.seen == (1,)


def test_targets_of_different_age_keep_their_places() -> None:
    segmenter, _, tracker = make(anchor_period_s=0.3)
    old, new = begin(segmenter, frame(1, "red")), begin(segmenter, frame(4, "red"))
    weak = dataclasses.replace(old, memory=None)
    tracker.taken()
    masks = segmenter.segment(segmenter.encode([frame(4, "red", shift=2)])[0], [new, weak, old, new])
    assert [m.token.memory.seen for m in masks] == [(4,), (4,), (1, 4), (4,)]
    assert tracker.taken() == ["start", "refresh"]


def test_scores_that_are_none_are_an_error() -> None:
    segmenter, recipe, _ = make(anchor_period_s=0.0)
    token = begin(segmenter, frame(1, "red"))
    recipe.score = lambda pixels: math.nan
    with pytest.raises(InstructSegError, match="scores in 0..1; got .nan"):
        show(segmenter, token, frame(2, "red"))


# Answers about an earlier frame of the clip


class Anchored(ColourSegmenter):
    """Answers about the frame ``at`` of the clip, with a mask it has made already."""

    at = 0

    def ground(self, clip: Clip, instructions: list[Instruction]) -> list[Grounding]:
        seen = clip.frames[self.at]
        (mask,) = ColourSegmenter.segment(self, seen, [ColourToken((255, 0, 0))])
        anchor = Anchor(self.at, dataclasses.replace(mask, token=None))
        groundings = super().ground(clip, instructions)
        return [
            dataclasses.replace(g, targets=tuple(dataclasses.replace(t, anchor=anchor) for t in g.targets))
            for g in groundings
        ]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_an_earlier_mask_is_carried_through_the_clip(at: int) -> None:
    segmenter, recipe, tracker = make(Anchored(), FakeTracker(drift=2))
    recipe.at = at
    frames = segmenter.encode([frame(n, "red") for n in (1, 2, 3)])
    (target,) = segmenter.ground(Clip(tuple(frames)), [RED])[0].targets
    assert tracker.taken() == ["start"] + ["step"] * (2 - at)
    assert target.token.memory.seen == (1, 2, 3)[at:]
    assert target.score == (0.95 if at == 2 else 0.8), "what is known of the key frame"
    assert (target.token.stamp_ns, target.anchor) == (3 * SECOND // 10, None)
    assert len(recipe.segmented) == 1, "the mask was not made twice"
    (now,) = segmenter.segment(frames[2], [target.token])
    assert now.token is target.token and np.argwhere(now.mask)[:, 1].min() == 4 + 2 * (2 - at)


def test_an_anchor_outside_the_clip_is_an_error() -> None:
    segmenter, recipe, _ = make(Anchored())
    recipe.at = -1
    with pytest.raises(InstructSegError, match="a frame of the 1 of the clip; got -1"):
        begin(segmenter, frame(1, "red"))


# Both on every frame


def hybrid(score: float = 0.8, drift: int = 0, **rule: float):
    return make(tracker=FakeTracker(score, drift), hybrid=HybridRule(**rule))


def test_where_both_agree_the_memorys_mask_is_shown_with_the_surer_score() -> None:
    segmenter, recipe, tracker = hybrid(drift=1)
    token = begin(segmenter, frame(1, "red"))
    mask = show(segmenter, token, frame(2, "red"))
    assert np.argwhere(mask.mask)[:, 1].min() == 5 and mask.score == 0.9 and not mask.disagrees
    assert tracker.taken() == ["start", "step"] and len(recipe.segmented) == 2


def test_a_surer_token_anchors_the_memory_anew() -> None:
    segmenter, _, tracker = hybrid(score=0.6, drift=20)
    token = begin(segmenter, frame(1, "red"))
    mask = show(segmenter, token, frame(2, "red"))
    assert tracker.taken() == ["start", "step", "refresh stepped"]
    assert np.argwhere(mask.mask)[:, 1].min() == 4 and mask.score == 0.9 and mask.disagrees
    assert mask.token.memory.seen == (1, 2) and mask.token.memory.given == (1, 2)


def test_a_surer_memory_is_shown_against_the_token() -> None:
    segmenter, recipe, tracker = hybrid(score=0.95)
    token = begin(segmenter, frame(1, "red"))
    recipe.score = lambda pixels: 0.6
    mask = show(segmenter, token, frame(2, "red", shift=30))
    assert np.argwhere(mask.mask)[:, 1].min() == 4 and mask.score == 0.95 and mask.disagrees
    assert tracker.taken() == ["start", "step"]


def test_a_memory_alone_is_believed_for_a_while() -> None:
    segmenter, _, _ = hybrid(alone_s=0.25)
    token, shown = begin(segmenter, frame(1, "red")), []
    for number in range(2, 8):
        mask = show(segmenter, token, frame(number, *(["red"] if number == 7 else [])))
        shown.append(mask.score)
        token = mask.token
    assert shown == [0.8, 0.8, 0.0, 0.0, 0.0, 0.9]


def test_a_weak_first_mask_leaves_the_hybrid_to_the_token() -> None:
    segmenter, recipe, tracker = hybrid()
    recipe.score = lambda pixels: 0.3
    token = begin(segmenter, frame(1, "red"))
    assert show(segmenter, token, frame(2, "red")).score == 0.3 and not tracker.taken()


# Whatever a recipe and a tracker say


class Scripted(ColourSegmenter):
    """A mask of the same eight pixels with the next score of a script; an empty one for 0."""

    script: list[float]

    def segment(self, encoded: EncodedFrame, tokens: list[ColourToken]) -> list[TargetMask]:
        self.segmented.append((encoded.frame.stamp_ns, len(tokens)))
        score = self.script[encoded.frame.stamp_ns * 10 // SECOND]
        mask = np.zeros(encoded.frame.size, bool)
        mask[0, :8] = score > 0
        return [TargetMask(mask, score, token) for token in tokens]


class ScriptedTracker(FakeTracker):
    """Its scores come from a script by frame; below 0.1 its mask is empty."""

    script: list[float]

    def step(self, features: int, memories: list[FakeMemory]) -> tuple[list[TrackedMask], list[FakeMemory]]:
        masks, new = super().step(features, memories)
        score = self.script[features] if self.script[features] >= 0.1 else 0.0
        return [dataclasses.replace(m, mask=m.mask & (score > 0), score=score) for m in masks], new


@unhurried
@given(
    st.lists(st.tuples(scores, scores), min_size=3, max_size=12),
    st.sampled_from([0.0, 0.25, math.inf]),
    st.none() | rules,
    st.sampled_from([0, 20]),
)
def test_a_mask_is_shown_only_where_somebody_sees_the_target(
    script: list[tuple[float, float]], period_s: float, rule: HybridRule | None, drift: int
) -> None:
    """And every memory has seen every frame since it began, in order, whatever happened."""
    recipe, tracker = Scripted(), ScriptedTracker(drift=drift)
    recipe.script, tracker.script = [list(column) for column in zip(*script, strict=True)]
    segmenter, _, _ = make(recipe, tracker, anchor_period_s=period_s, hybrid=rule)
    token = begin(segmenter, frame(0, "red"))
    last_look = recipe.script[0]
    for number in range(1, len(script)):
        before = len(recipe.segmented)
        mask = show(segmenter, token, frame(number, "red"))
        looked = len(recipe.segmented) > before
        last_look = recipe.script[number] if looked else last_look
        own, memory = recipe.script[number] if looked else 0.0, tracker.script[number]
        assert 0.0 <= mask.score <= 1.0 and mask.mask.shape == (48, 64)
        if mask.score >= VISIBLE:
            assert mask.mask.any() and (own >= VISIBLE or memory >= VISIBLE)
        if rule is None and last_look < VISIBLE:
            assert mask.score < VISIBLE, "not before the recipe has seen it again"
        assert looked or token.memory is not None
        token = mask.token
        if token.memory is not None:
            assert list(token.memory.seen) == list(range(token.memory.seen[0], number + 1))


# What else a wrapper must hand on


def test_maps_are_made_when_needed_once_and_kept_for_few_frames() -> None:
    segmenter, _, tracker = make(images_kept=2)
    frames = segmenter.encode([frame(n, "red") for n in range(1, 6)])
    assert tracker.encoded == 0, "a frame that nothing is followed on costs nothing"
    token = segmenter.ground(Clip((frames[0],)), [RED])[0].targets[0].token
    for encoded in frames[1:]:
        token = segmenter.segment(encoded, [token, token])[0].token
    assert tracker.encoded == 5
    assert [encoded.features.tracked.known for encoded in frames] == [False, False, False, True, True]


def test_the_recipe_is_described_as_before() -> None:
    recipe = ColourSegmenter()
    recipe.notes, recipe.notes_untracked = ("slow", "rough"), ("slow",)
    segmenter, _, _ = make(recipe)
    assert (segmenter.name, segmenter.device, segmenter.max_targets) == ("colours", "cpu", 3)
    assert (segmenter.sampling, segmenter.notes, segmenter.carries_tokens) == (recipe.sampling, ("rough",), True)


def test_two_trackers_are_one_too_many() -> None:
    segmenter, _, tracker = make()
    with pytest.raises(BadInput, match="a tracker carries the masks of this recipe already"):
        FollowingSegmenter(segmenter, tracker)
    with pytest.raises(BadInput, match="anchor_period_s must be 0 or more seconds; got nan"):
        make(anchor_period_s=math.nan)


# Beside a twin


class Jumper(FakeTracker):
    """From its fourth frame to its seventh it is sure of a place 40 columns to the right: another thing like it."""

    def step(self, features: int, memories: list[FakeMemory]) -> tuple[list[TrackedMask], list[FakeMemory]]:
        self.drift = 40 if 4 <= features <= 7 else 0
        return super().step(features, memories)


def test_a_memory_that_goes_over_to_a_twin_is_neither_shown_nor_kept() -> None:
    segmenter, _, _ = make(tracker=Jumper())
    engine = StreamingEngine(segmenter, EngineConfig(ground_on_loss=False))
    engine.add_instruction(Instruction("a", "red"))
    shown = [engine.process(frame(number, "red")).targets[0] for number in range(1, 11)]
    present = [number for number, target in enumerate(shown, 1) if target.state is State.PRESENT]
    assert present == [1, 2, 3, 8, 9, 10]
    assert {target.reason for target in shown[3:7]} == {
        "not visible: what looks like it is too far from where it was last seen"
    }
    assert len({target.mask.tobytes() for target in shown if target.mask is not None}) == 1
    assert {target.instance_id for target in shown if target.mask is not None} == {1}


def test_looks_and_resolution_are_the_recipes() -> None:
    segmenter, recipe, _ = make()
    assert segmenter.resolution_scale is None
    token = begin(segmenter, frame(1, "red"))
    assert segmenter.likeness(token, token) is None
    recipe.likeness = lambda old, new: 0.25 if old is new is token.own else 1.0
    recipe.resolution_scale, recipe.reduced_scale = 1.0, 0.6
    assert segmenter.likeness(token, token) == 0.25
    segmenter.resolution_scale = segmenter.reduced_scale
    assert recipe.resolution_scale == 0.6
