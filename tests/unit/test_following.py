"""Any recipe with SAM 2's memory: who makes which mask, who is believed, and what is never shown."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.fakes import SECOND, ColourSegmenter, ColourToken, ManualClock, colour_frame, eventually, unhurried
from unit.tiny_sam2 import film, original_checkpoint, tiny_sam

from instructseg import cli
from instructseg.core import (
    Anchor,
    BadInput,
    Clip,
    EncodedFrame,
    Frame,
    Grounding,
    Instruction,
    InstructSegError,
    State,
    TargetMask,
)
from instructseg.modules.sam2_memory import Sam2MemoryModel
from instructseg.registry import with_tracker
from instructseg.streaming import EngineConfig, FrameResult, StreamingEngine
from instructseg.tracking.agreement import VISIBLE, Choice, HybridRule, choose, overlap
from instructseg.tracking.following import FollowedToken, FollowingSegmenter
from instructseg.tracking.memory import MemoryTracker, TrackedMask
from instructseg.tracking.memory_checkpoint import load_memory_tracker

RED = Instruction("a", "red")


@dataclasses.dataclass(frozen=True)
class FakeMemory:
    """Follows a mask: the frames it has seen, and where a given mask came in."""

    mask: np.ndarray
    seen: tuple[int, ...]
    given: tuple[int, ...]


class FakeTracker:
    """Shows the mask it was last given, shifted by ``drift`` columns a step. score: of every step. calls: in order."""

    load_report = None

    def __init__(self, score: float = 0.8, drift: int = 0) -> None:
        self.score, self.drift = score, drift
        self.calls: list[str] = []
        self.encoded = 0

    def encode(self, image: np.ndarray) -> int:
        self.encoded += 1
        return int(image[0, 0, 0])  # the frame's number, see ``frame``

    def start(self, features: int, mask: np.ndarray) -> FakeMemory:
        assert mask.any(), "an empty mask must not be remembered"
        self.calls.append("start")
        return FakeMemory(mask, (features,), (features,))

    def refresh(self, features: int, memory: FakeMemory, mask: np.ndarray, stepped: bool = False) -> FakeMemory:
        assert mask.any() and (memory.seen[-1] == features) is stepped
        self.calls.append("refresh stepped" if stepped else "refresh")
        seen = memory.seen if stepped else (*memory.seen, features)
        return FakeMemory(mask, seen, (*memory.given, features))

    def step(self, features: int, memories: list[FakeMemory]) -> tuple[list[TrackedMask], list[FakeMemory]]:
        self.calls.append("step")
        new = [FakeMemory(np.roll(m.mask, self.drift, 1), (*m.seen, features), m.given) for m in memories]
        return [TrackedMask(m.mask, self.score, m.mask.astype(np.uint8) * 255, self.score) for m in new], new

    def taken(self) -> list[str]:
        calls, self.calls[:] = list(self.calls), []
        return calls


def frame(number: int, *colours: str, shift: int = 0) -> Frame:
    """A frame every 0.1 s whose first pixel tells its number."""
    made = colour_frame(0.1 * number, *colours, shift=shift)
    made.image[0, 0, 0] = number
    return made


def make(
    recipe: ColourSegmenter | None = None, tracker: FakeTracker | None = None, **options
) -> tuple[FollowingSegmenter, ColourSegmenter, FakeTracker]:
    recipe, tracker = recipe or ColourSegmenter(renew_tokens=True), tracker or FakeTracker()
    return FollowingSegmenter(recipe, tracker, **options), recipe, tracker


def begin(segmenter: FollowingSegmenter, *frames: Frame) -> FollowedToken:
    (grounding,) = segmenter.ground(Clip(tuple(segmenter.encode(frames))), [RED])
    return grounding.targets[0].token


def show(segmenter: FollowingSegmenter, token: FollowedToken, picture: Frame) -> TargetMask:
    return segmenter.segment(segmenter.encode([picture])[0], [token])[0]


# The rule of the hybrid


scores = st.floats(0.0, 1.0)
rules = st.builds(HybridRule, scores, scores, st.floats(0.0, 10.0))


@unhurried
@given(scores, scores, scores, st.floats(-1.0, 20.0), rules)
def test_who_is_shown_sees_the_target(
    token: float, memory: float, both: float, alone_s: float, rule: HybridRule
) -> None:
    choice = choose(token, memory, both, alone_s, rule)
    if choice in (Choice.TOKEN, Choice.AGREED):
        assert token >= VISIBLE
    if choice in (Choice.MEMORY, Choice.AGREED):
        assert memory >= VISIBLE
    if choice is Choice.AGREED:
        assert both >= rule.agreement
    if token >= VISIBLE:
        assert choice is not Choice.NEITHER
    elif memory < VISIBLE or not 0.0 <= alone_s <= rule.alone_s:
        assert choice is Choice.NEITHER, "a memory alone is not believed for ever"


@unhurried
@given(scores, scores, scores, scores, st.floats(0.0, 5.0), rules)
def test_a_surer_token_never_loses_its_say(
    token: float, more: float, memory: float, both: float, alone_s: float, rule: HybridRule
) -> None:
    token, more = sorted((token, more))
    if choose(token, memory, both, alone_s, rule) is Choice.TOKEN:
        assert choose(more, memory, both, alone_s, rule) is Choice.TOKEN


@unhurried
@given(st.floats(VISIBLE, 1.0), st.floats(VISIBLE, 1.0), rules)
def test_where_they_disagree_the_surer_is_shown(token: float, memory: float, rule: HybridRule) -> None:
    rule = dataclasses.replace(rule, agreement=1.0)
    expected = Choice.TOKEN if token > memory + rule.margin else Choice.MEMORY
    assert choose(token, memory, 0.0, 0.0, rule) is expected


def test_a_rule_out_of_range_is_refused() -> None:
    with pytest.raises(BadInput, match="HybridRule.margin must be in 0..1; got nan"):
        HybridRule(margin=math.nan)


def test_overlap() -> None:
    left, wide = np.array([[True, False, False]]), np.array([[True, True, False]])
    assert (overlap(left, wide), overlap(left, ~wide), overlap(left & ~left, left & ~left)) == (0.5, 0.0, 0.0)


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


# With SAM 2, in miniature


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
