"""Several cameras, one model: batches, turns, and one camera's trouble that must not become another's."""

from __future__ import annotations

import threading
import time

import numpy as np
from unit.fakes import SECOND, ColourSegmenter, Owner, colour_frame, eventually

from instructseg.core import Instruction, State

NAMES = ("front", "left", "right")


def submit(owner: Owner, seconds: float, *names: str) -> None:
    owner.clock.ns = round(seconds * SECOND)
    for name in names:
        owner.engine.submit_frame(colour_frame(seconds, "red", camera=name))


def newest_state(owner: Owner, camera: str) -> State | None:
    for result in reversed(owner.results):
        if result.frame.camera == camera and result.targets:
            return result.targets[0].state
    return None


def wait_for_all(owner: Owner, state: State, start: float, *names: str) -> float:
    for step in range(200):
        seconds = start + step / 10
        wanted = len(owner.results) + len(names)
        submit(owner, seconds, *names)
        assert eventually(lambda wanted=wanted: len(owner.results) >= wanted)
        if all(newest_state(owner, name) is state for name in names):
            return seconds
        time.sleep(0.005)
    raise AssertionError(f"never all {state.name}")


def test_frames_that_wait_together_are_encoded_together_and_each_gets_its_own_masks():
    owner = Owner(cameras=NAMES)
    with owner:
        owner.engine.set_instruction(Instruction("a", "red"))
        last = wait_for_all(owner, State.PRESENT, 0.0, *NAMES)
        gate = owner.segmenter.gates["encode"] = threading.Event()
        owner.segmenter.entered["encode"].clear()
        submit(owner, last + 0.1, "front")
        assert owner.segmenter.entered["encode"].wait(20.0)
        owner.segmenter.batches.clear()
        count = len(owner.results)
        for shift, name in enumerate(NAMES):
            frame = colour_frame(last + 0.2, "red", camera=name, shift=shift)
            owner.engine.submit_frame(frame)
        gate.set()
        assert eventually(lambda: len(owner.results) == count + 4)
        assert [sorted(batch) for batch in owner.segmenter.batches] == [["front"], sorted(NAMES)]
        for result in owner.results[-3:]:
            (target,) = result.targets
            assert np.array_equal(target.mask, (result.frame.image == (255, 0, 0)).all(axis=-1))
        assert sorted(result.frame.camera for result in owner.results[-3:]) == sorted(NAMES)
        seen = owner.engine.statistics()
        assert seen.frames_in == seen.frames_out + sum(seen.drops.values())


def test_a_slow_camera_is_served_whenever_it_sends_although_another_never_stops():
    owner = Owner(cameras=("fast", "slow"))
    owner.segmenter.delays["encode"] = 0.004
    stop = threading.Event()

    def flood() -> None:
        stamp = 0
        while not stop.is_set():
            stamp += 1
            owner.engine.submit_frame(colour_frame(stamp / 1000, "red", camera="fast"))
            time.sleep(0.0005)

    with owner:
        flooding = threading.Thread(target=flood)
        flooding.start()
        try:
            for i in range(20):
                owner.engine.submit_frame(colour_frame(i / 10, "red", camera="slow"))
                before = sum(result.frame.camera == "fast" for result in owner.results)
                served = [round(i / 10 * SECOND)]
                assert eventually(
                    lambda served=served: (
                        [r.frame.stamp_ns for r in owner.results if r.frame.camera == "slow"][-1:] == served
                    )
                )
                after = sum(result.frame.camera == "fast" for result in owner.results)
                assert after - before <= 4  # the frame being worked on, and those that came after its answer
        finally:
            stop.set()
            flooding.join(20.0)
    assert owner.engine.statistics().drops.keys() <= {"replaced", "stopped", "reset"}


def test_a_camera_whose_frames_break_the_encoder_is_in_error_alone():
    owner = Owner(cameras=NAMES)
    with owner:
        owner.engine.set_instruction(Instruction("a", "red"))
        last = wait_for_all(owner, State.PRESENT, 0.0, *NAMES)
        owner.segmenter.broken_cameras = {"left"}
        owner.segmenter.delays["encode"] = 0.01  # so that all wait while the first one is being encoded
        owner.segmenter.batches.clear()
        for step in range(1, 30):
            count = len(owner.results)
            submit(owner, last + step / 10, *NAMES)
            assert eventually(lambda wanted=count + 3: len(owner.results) >= wanted)
        states = {result.frame.camera: result.targets[0].state for result in owner.results[-3:]}
        assert states == {"front": State.PRESENT, "left": State.ERROR, "right": State.PRESENT}
        batches = [batch for batch in owner.segmenter.batches if len(batch) > 1]
        assert sum("left" in batch for batch in batches) <= 1  # then it is left out
        assert any(sorted(batch) == ["front", "right"] for batch in batches)
        assert owner.engine.statistics().faults == {"encode": 29}  # one a frame of that camera, none of the others
        owner.segmenter.broken_cameras = set()
        wait_for_all(owner, State.PRESENT, last + 4.0, *NAMES)


class OneByOne(ColourSegmenter):
    """A recipe that cannot take several frames."""

    def encode(self, frames):
        if len(frames) > 1:
            self.batches.append([frame.camera for frame in frames])
            raise ValueError("one frame at a time, please")
        return super().encode(frames)


def test_a_recipe_that_cannot_encode_batches_is_told_once_and_gets_single_frames():
    owner = Owner(OneByOne(), cameras=NAMES)
    owner.segmenter.delays["encode"] = 0.01
    with owner:
        owner.engine.set_instruction(Instruction("a", "red"))
        wait_for_all(owner, State.PRESENT, 0.0, *NAMES)
        for step in range(10):
            count = len(owner.results)
            submit(owner, 30.0 + step / 10, *NAMES)
            assert eventually(lambda wanted=count + 3: len(owner.results) >= wanted)
        assert sum(len(batch) > 1 for batch in owner.segmenter.batches) == 1
        assert owner.engine.statistics().faults == {}
        assert any("one frame at a time, please" in message for message in owner.said)


def test_a_dead_camera_harms_none():
    owner = Owner(cameras=NAMES)
    with owner:
        owner.engine.set_instruction(Instruction("a", "red"))
        last = wait_for_all(owner, State.PRESENT, 0.0, *NAMES)
        groundings = len(owner.groundings)
        for step in range(1, 15):
            count = len(owner.results)
            submit(owner, last + step / 10, "front", "right")
            assert eventually(lambda wanted=count + 2: len(owner.results) >= wanted)
            owner.engine.check_stale()
        assert [(event.camera, event.after) for event in owner.rejections if event.after is State.STALE] == [
            ("left", State.STALE)
        ]
        assert newest_state(owner, "front") is newest_state(owner, "right") is State.PRESENT
        assert len(owner.groundings) == groundings  # nobody is asked about it, so nobody waits for the answer
        wait_for_all(owner, State.PRESENT, last + 10.0, *NAMES)
        ids = {r.frame.camera: r.targets[0].instance_id for r in owner.results[-3:]}
        assert len(set(ids.values())) == 3


class Joining(ColourSegmenter):
    """Segments the frames of several cameras in one call; together: their cameras, by call. broken: it raises."""

    joins_cameras = True

    def __init__(self) -> None:
        super().__init__()
        self.together: list[list[str]] = []
        self.broken = False

    def segment_together(self, frames):
        self.together.append([encoded.frame.camera for encoded, _ in frames])
        if self.broken:
            raise RuntimeError("too many at once")
        return super().segment_together(frames)


def look_at_all(owner: Owner, start: float, rounds: int) -> None:
    """Frames of all cameras that wait together."""
    owner.segmenter.delays["encode"] = 0.01
    for step in range(rounds):
        count = len(owner.results)
        owner.clock.ns = round((start + step / 10) * SECOND)
        for shift, name in enumerate(NAMES):
            owner.engine.submit_frame(colour_frame(start + step / 10, "red", camera=name, shift=shift))
        assert eventually(lambda wanted=count + 3: len(owner.results) >= wanted)


def test_masks_of_frames_that_wait_together_are_computed_together_where_the_recipe_gains_by_it():
    owner = Owner(Joining(), cameras=NAMES)
    with owner:
        owner.engine.set_instruction(Instruction("a", "red"))
        last = wait_for_all(owner, State.PRESENT, 0.0, *NAMES)
        look_at_all(owner, last + 0.1, 10)
        assert any(len(cameras) > 1 for cameras in owner.segmenter.together)
        assert all(len(set(cameras)) == len(cameras) > 1 for cameras in owner.segmenter.together)
        for result in owner.results[-9:]:
            (target,) = result.targets
            assert np.array_equal(target.mask, (result.frame.image == (255, 0, 0)).all(axis=-1))
            assert result.timings["segment_s"] >= 0.0


def test_masks_that_cannot_be_computed_together_are_computed_one_by_one():
    owner = Owner(Joining(), cameras=NAMES)
    with owner:
        owner.engine.set_instruction(Instruction("a", "red"))
        last = wait_for_all(owner, State.PRESENT, 0.0, *NAMES)
        owner.segmenter.broken = True
        look_at_all(owner, last + 0.1, 5)
        assert owner.segmenter.together
        assert [newest_state(owner, name) for name in NAMES] == [State.PRESENT] * 3
        assert any("too many at once" in message for message in owner.said)
        assert owner.engine.statistics().faults == {}
