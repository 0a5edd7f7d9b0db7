"""What holds for the whole engine after any frames, faults, answers and commands in any order."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.fakes import COLOURS, SECOND, ColourSegmenter, ColourToken, Owner, colour_frame, unhurried

from instructseg.core import (
    BadInput,
    Clip,
    EncodedFrame,
    Grounding,
    Instruction,
    Mode,
    State,
    Target,
    TargetMask,
)
from instructseg.streaming import Ending, EngineConfig, FrameResult
from instructseg.streaming.book import InstructionBook

often = settings(unhurried, max_examples=150)
CAMERAS = ("left", "right")
NAMES = {rgb: name for name, rgb in COLOURS.items()}
some_colours = st.sets(st.sampled_from(list(COLOURS)), min_size=1).map(sorted)
FRAMES = st.tuples(
    st.just("frame"), st.sampled_from(CAMERAS), some_colours, st.sampled_from([0.05, 0.1, 0.4, 1.3]), st.integers(0, 4)
)
AIMS = st.tuples(st.just("aim"), st.lists(st.sampled_from(list(COLOURS)), max_size=3, unique=True))
# What is in view, what the answer points at, and for how many frames.
SCENES = st.tuples(
    st.sampled_from([["red"], ["blue"], ["blue", "red"]]),
    st.sampled_from([["red"], ["blue"], ["red", "blue"], ["blue", "red"]]),
    st.integers(1, 12),
)
COMMANDS = st.one_of(
    st.tuples(
        st.just("add"), st.sampled_from("abc"), st.sampled_from(["red", "blue and red", "it"]), st.integers(0, 2)
    ),
    st.tuples(st.just("set"), st.sampled_from("abc"), st.sampled_from(["green", "it"])),
    st.tuples(st.just("cancel"), st.sampled_from(["a", "b", None])),
    AIMS,
    st.tuples(st.just("score"), st.sampled_from([0.9, 0.55, 0.45, 0.1])),
    st.tuples(st.just("doubt"), st.sampled_from([0.05, 0.48, 0.95])),
    st.tuples(st.just("break"), st.sets(st.sampled_from(["encode", "ground", "segment"]))),
    st.tuples(st.just("silence"), st.sampled_from([0.2, 0.6, 3.0])),
)
CHANGES = st.one_of(
    st.tuples(st.just("change"), st.just("max_targets"), st.integers(1, 3)),
    st.tuples(st.just("change"), st.just("max_instructions"), st.integers(1, 3)),
    st.tuples(st.just("change"), st.just("reacquire"), st.sampled_from(["place", "looks"])),
    st.tuples(st.just("change"), st.just("ground_on_motion"), st.booleans()),
    st.tuples(st.just("change"), st.just("present_threshold"), st.sampled_from([0.3, 0.5, 0.95])),
    st.tuples(st.just("change"), st.just("reject_threshold"), st.sampled_from([0.02, 0.5])),
    st.tuples(st.just("ask"), st.sampled_from("abc"), st.sampled_from(["red", "it"]), st.sampled_from([0.0, 0.3])),
    st.tuples(st.just("pause")),
    st.tuples(st.just("resume")),
)
LIES = st.tuples(
    st.just("lie"),
    st.sampled_from(
        [None, "fewer masks", "more masks", "score", "size", "confidence", "fewer answers", "other id", "likeness"]
        + ["more targets", "no targets", "rejection"]
    ),
)
RESTARTS = st.sampled_from([("reset",), ("time jump",), ("resolution",)])


# While the model works on the next frame, somebody does this.
MEANWHILE = st.tuples(
    st.just("meanwhile"), st.sampled_from(["encode", "ground", "segment"]), st.one_of(COMMANDS, CHANGES, RESTARTS)
)


class Unreliable(ColourSegmenter):
    """lie: in what the interface is broken. meanwhile: by step, what is done while it runs, once."""

    def __init__(self) -> None:
        super().__init__(renew_tokens=True)
        self.lie: str | None = None
        self.meanwhile: dict[str, Callable[[], None]] = {}

    def _begin(self, step: str) -> None:
        self.meanwhile.pop(step, lambda: None)()
        super()._begin(step)

    def ground(self, clip: Clip, instructions: Sequence[Instruction]) -> list[Grounding]:
        answers = super().ground(clip, instructions)
        if self.lie == "fewer answers":
            return answers[1:]
        if self.lie == "other id":
            return [dataclasses.replace(answer, instruction_id="another") for answer in answers]
        return [dataclasses.replace(answer, targets=self._told(answer.targets)) for answer in answers]

    def _told(self, targets: tuple[Target, ...]) -> tuple[Target, ...]:
        if self.lie == "rejection":
            return tuple(dataclasses.replace(target, rejection_score=math.nan) for target in targets)
        return {"more targets": targets * 5, "no targets": ()}.get(self.lie, targets)

    def segment(self, encoded: EncodedFrame, tokens: Sequence[ColourToken]) -> list[TargetMask]:
        masks = super().segment(encoded, tokens)
        wrong = {
            "score": {"score": math.nan},
            "size": {"mask": np.ones((5, 5), bool)},
            "confidence": {"confidence": np.ones((5, 5), np.uint8)},
        }
        if self.lie in wrong:
            return [dataclasses.replace(mask, **wrong[self.lie]) for mask in masks]
        return {"fewer masks": masks[1:], "more masks": masks * 2}.get(self.lie, masks)

    def likeness(self, old: ColourToken, new: ColourToken) -> float | None:
        return math.nan if self.lie == "likeness" else None


class World:
    """An engine, and the time and shape of the frames it sees."""

    def __init__(self, **config) -> None:
        segmenter = Unreliable()
        segmenter.tokens_identify = True
        segmenter.aims["it"] = ["red"]
        self.owner = Owner(
            segmenter, cameras=CAMERAS, max_instructions=3, lost_after=0.3, stale_after=0.5, max_targets=3, **config
        )
        self.now = 100.0
        self.size = (24, 64)

    def do(self, step: tuple) -> FrameResult | None:
        kind, *values = step
        owner, segmenter = self.owner, self.owner.segmenter
        if kind == "frame":
            camera, colours, pause, shift = values
            self.now += pause
            owner.clock.ns = round(self.now * SECOND)
            return owner.engine.process(colour_frame(self.now, *colours, camera=camera, shift=shift, size=self.size))
        if kind == "add":
            owner.engine.add_instruction(Instruction(values[0], values[1], priority=values[2]))
        elif kind == "set":
            owner.engine.set_instruction(Instruction(*values))
        elif kind == "cancel":
            owner.engine.cancel(*values)
        elif kind == "aim":
            segmenter.aims["it"] = values[0]
        elif kind == "score":
            segmenter.score = lambda pixels: values[0] if pixels else 0.02
        elif kind == "doubt":
            segmenter.rejection = {"red": values[0]}
        elif kind == "break":
            segmenter.raising = values[0]
        elif kind == "silence":
            self.now += values[0]
            self._look_after()
        elif kind == "ask":
            owner.engine.add_instruction(Instruction(values[0], values[1], mode=Mode.ONE_SHOT, timeout_s=values[2]))
        elif kind == "change":
            owner.engine.reconfigure(dataclasses.replace(owner.engine.config, **{values[0]: values[1]}))
        elif kind == "lie":
            segmenter.lie = values[0]
        elif kind == "heal":
            segmenter.lie, segmenter.raising = None, set()
            owner.engine.resume()
        elif kind == "meanwhile":
            segmenter.meanwhile[values[0]] = lambda: self.try_to(values[1])
        elif kind == "pause":
            owner.engine.pause("switched off")
        elif kind == "resume":
            owner.engine.resume()
        elif kind == "reset":
            owner.engine.reset()
        elif kind == "time jump":
            self.now -= 50.0
            self._look_after()
        elif kind == "resolution":
            self.size = (self.size[0] ^ 8, 64)
        return None

    def try_to(self, step: tuple) -> FrameResult | None:
        """None where it is refused."""
        try:
            return self.do(step)
        except BadInput:
            return None

    def _look_after(self) -> None:
        self.owner.clock.ns = round(self.now * SECOND)
        self.owner.engine.check_stale()


@often
@given(st.lists(st.one_of(FRAMES, FRAMES, COMMANDS, RESTARTS), min_size=10, max_size=60), st.sampled_from([0.0, 0.4]))
def test_what_always_holds(steps, refresh_period):
    world = World(refresh_period=refresh_period)
    engine = world.owner.engine
    for step in steps:
        result = world.do(step)
        statuses = engine.statistics().instructions
        assert len(statuses) <= 3 and len({status.instruction.id for status in statuses}) == len(statuses)
        used = [i for status in statuses for i in status.instance_ids]
        assert len(set(used)) == len(used)
        assert all(status.reason and status.active for status in statuses)
        for target in () if result is None else result.targets:
            assert (target.mask is not None) == (target.state is State.PRESENT)
            assert target.mask is None or target.mask.shape == result.frame.size
            assert target.instance_id == 0 or target.instance_id in used or not _works_on(statuses, target.instruction)
    for event in world.owner.rejections:
        assert event.before is not event.after and event.reason and event.camera in CAMERAS
    reports = [[(s.instruction, s.state, s.active, s.live) for s in report] for report in world.owner.instructions]
    assert all(earlier != later for earlier, later in pairwise(reports))
    seen = engine.statistics()
    assert seen.frames_in == seen.frames_out + sum(seen.drops.values())


def _works_on(statuses, instruction: Instruction) -> bool:
    return any(status.instruction == instruction for status in statuses)


# Two things that are both in view, frame after frame, so that there is something to lose.
STEADY = st.builds(lambda shift: ("frame", "left", ["blue", "red"], 0.1, shift), st.integers(0, 4))
ANYTHING = st.one_of(
    STEADY, STEADY, STEADY, st.just(("heal",)), FRAMES, COMMANDS, CHANGES, LIES, MEANWHILE, MEANWHILE, RESTARTS
)


@often
@given(st.lists(ANYTHING, min_size=10, max_size=60), st.sampled_from([0.05, 0.4]))
def test_what_always_holds_whatever_the_recipe_answers_and_whatever_happens_meanwhile(steps, refresh_period):
    world = World(refresh_period=refresh_period, ground_period=0.05)
    owner, engine = world.owner, world.owner.engine
    for step in [("add", "a", "blue and red", 0), *steps]:
        count = len(owner.results)
        world.try_to(step)
        statuses, most = engine.statistics().instructions, engine.config.max_targets
        used = [i for status in statuses for i in status.instance_ids]
        assert len(set(used)) == len(used) == len(engine._state.book._ids)  # none is kept of what has ended
        assert all(
            len(tracker.targets) <= most for camera in CAMERAS for tracker in engine._state.book.trackers(camera)
        )
        for result in owner.results[count:]:
            check(result, engine.config.max_targets)
            assert not engine._state.paused or all(target.mask is None for target in result.targets)
        # A recipe that lies is told so; the engine itself stumbles over nothing.
        last_error = engine.statistics().last_error
        assert not any(kind in last_error for kind in ("KeyError", "IndexError", "TypeError", "AttributeError"))
    seen = engine.statistics()
    assert seen.frames_in == seen.frames_out + sum(seen.drops.values())
    engine.cancel()
    endings = Counter(id(status.instruction) for report in owner.instructions for status in report if status.ending)
    assert set(endings.values()) <= {1} and len(engine._state.book._ids) == 0


DONE_MEANWHILE = [
    ("change", "max_targets", 1),
    ("change", "max_instructions", 1),
    ("change", "reacquire", "looks"),
    ("change", "ground_on_motion", True),
    ("change", "present_threshold", 0.95),
    ("change", "reject_threshold", 0.02),
    ("add", "a", "red", 0),
    ("add", "a", "blue and red", 2),
    ("set", "b", "it"),
    ("ask", "a", "red", 0.3),
    ("cancel", None),
    ("pause",),
    ("silence", 3.0),
    ("reset",),
]


@pytest.mark.parametrize("command", DONE_MEANWHILE, ids=lambda command: " ".join(map(str, command)))
@pytest.mark.parametrize(("step", "call"), [("encode", 0), ("ground", 0), ("segment", 0), ("segment", 1)])
def test_nothing_stumbles_whatever_is_done_in_the_middle_of_a_step(step, call, command):
    """Of a frame on which two targets in view are asked about anew: the first masks are for the comparison of the new
    tokens with the old ones, the second ones are the frame's."""
    world = World(refresh_period=0.05, ground_period=0.05)
    owner, segmenter, done = world.owner, world.owner.segmenter, []

    def interfere() -> None:
        done.append(world.try_to(command))

    world.do(("add", "a", "blue and red", 0))
    for number in range(10):
        if number == 4:
            first = [interfere, lambda: segmenter.meanwhile.update({step: interfere})][call]
            segmenter.meanwhile[step] = first
        world.try_to(("frame", "left", ["blue", "red"], 0.1, number % 5))
    assert done == [None] and owner.engine.statistics().faults == {}
    for result in owner.results:
        check(result, 3)
    world.do(("heal",))
    world.do(("change", "present_threshold", 0.5))
    world.do(("change", "reject_threshold", 0.5))
    world.do(("set", "c", "red"))
    (target,) = world.do(("frame", "left", ["red"], 0.1, 0)).targets
    assert target.state is State.PRESENT and len(owner.engine._state.book._ids) == 1


def check(result: FrameResult, most: int) -> None:
    """What holds for every result that was published."""
    shown = [target.instance_id for target in result.targets if target.mask is not None]
    assert len(set(shown)) == len(shown)
    for target in result.targets:
        assert (target.mask is not None) == (target.state is State.PRESENT)
        assert target.mask is None or target.mask.shape == result.frame.size
        assert target.confidence is None or target.confidence.shape == result.frame.size
        assert 0.0 <= target.score <= 1.0 and 0.0 <= target.rejection_score <= 1.0
    for status in result.answered:
        assert status.ending is Ending.ANSWERED and any(status.instruction is ended for ended in result.ended)
    of_each = Counter(id(target.instruction) for target in result.targets)
    assert max(of_each.values(), default=0) <= most


@often
@given(st.lists(st.tuples(SCENES, st.none() | COMMANDS), min_size=2, max_size=12), st.sampled_from([0.0, 0.4]))
def test_an_id_never_moves_to_another_thing_and_time_never_runs_back(scenes, refresh_period):
    world = World(refresh_period=refresh_period)
    world.do(("add", "a", "it", 0))
    colour_of: dict[int, str] = {}
    since: dict[int, int] = {}
    for (colours, aims, frames), command in scenes:
        world.do(("aim", aims))
        for shift in range(frames):
            result = world.do(("frame", "left", colours, 0.1, shift % 5))
            for target in result.targets:
                if target.mask is not None:
                    (pixel,) = {tuple(rgb) for rgb in result.frame.image[target.mask]}
                    assert colour_of.setdefault(target.instance_id, NAMES[pixel]) == NAMES[pixel]
                if target.instance_id:
                    assert target.since_ns >= since.get(target.instance_id, 0)
                    since[target.instance_id] = target.since_ns
        if command is not None:
            world.do(command)


@often
@given(st.lists(st.one_of(FRAMES, COMMANDS, RESTARTS), min_size=5, max_size=40), st.floats(0.501, 100.0))
def test_nothing_is_reported_present_when_no_frame_has_come_for_stale_after(steps, silence):
    world = World()
    for step in steps:
        world.do(step)
    world.owner.clock.advance(silence)
    world.owner.engine.check_stale()
    assert {status.state for status in world.owner.engine.statistics().instructions} <= {State.STALE}
    count = len(world.owner.rejections)
    world.owner.engine.check_stale()  # the same silence is not told twice
    assert len(world.owner.rejections) == count


BOOK_STEPS = st.one_of(
    st.tuples(st.just("add"), st.sampled_from("abcd"), st.sampled_from(["red", "blue"]), st.sampled_from(list(Mode))),
    st.tuples(st.just("end"), st.sampled_from("abcd")),
    st.tuples(st.just("expire"), st.integers(0, 3)),
    st.tuples(st.just("take")),
)


@often
@given(st.lists(BOOK_STEPS, max_size=40))
def test_every_instruction_that_was_added_ends_exactly_once(steps):
    book, added, ended, now = InstructionBook(EngineConfig(max_instructions=2)), Counter(), Counter(), 0
    for kind, *values in steps:
        if kind == "add":
            instruction = Instruction(values[0], values[1], mode=values[2], timeout_s=2.0)
            known = {status.instruction.id: status.instruction for status in book.statuses()}
            if len(known) == 2 and instruction.id not in known:
                with pytest.raises(BadInput, match="at most 2"):
                    book.add(instruction, CAMERAS, {}, now)
            else:
                book.add(instruction, CAMERAS, {}, now)
                added[instruction.id] += known.get(instruction.id) != instruction
        elif kind == "end":
            known = {status.instruction.id for status in book.statuses()}
            assert (book.end(values[0], "cancelled") is not None) == (values[0] in known)
        elif kind == "expire":
            now += values[0] * SECOND
            book.expire(now)
        else:
            ended.update(status.instruction.id for status in book.take_ended())
        assert len(book) <= 2
        for tracker in (t for camera in CAMERAS for t in book.trackers(camera)):
            assert book.holds(tracker, tracker.generation) and not book.holds(tracker, tracker.generation - 1)
    for status in book.statuses():
        book.end(status.instruction.id, "over")
    ended.update(status.instruction.id for status in book.take_ended())
    assert ended == added and book.take_ended() == () and len(book) == 0
