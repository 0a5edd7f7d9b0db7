"""Simulated time: order of events, processes that sleep, what a call of the model is charged."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.fakes import SECOND, ColourSegmenter, colour_frame, unhurried

from instructseg.core import BadInput, Clip, Instruction, InstructSegError
from instructseg.evaluation.simulated_stream import SimulatedStream
from instructseg.evaluation.stream_clock import SimulatedClock
from instructseg.evaluation.timed_segmenter import Charges, RecordedEncodings, TimedSegmenter
from instructseg.streaming import EngineConfig


@given(st.lists(st.integers(0, 50), max_size=30))
@unhurried
def test_events_happen_in_the_order_of_their_times_and_of_their_announcement(times: list[int]) -> None:
    clock, seen = SimulatedClock(), []
    for number, when in enumerate(times):
        clock.at(when, lambda number=number: seen.append((clock(), number)))
    clock.run(25)
    assert seen == sorted((when, number) for number, when in enumerate(times) if when <= 25)
    assert clock() == 25
    clock.run(100)
    assert len(seen) == len(times)


def test_an_event_of_the_past_happens_now() -> None:
    clock, seen = SimulatedClock(70), []
    clock.at(3, lambda: seen.append(clock()))
    clock.run(80)
    assert seen == [70]


def test_two_processes_take_their_time_side_by_side() -> None:
    clock, seen = SimulatedClock(), []

    def worker(name: str, step_s: float) -> None:
        for _ in range(3):
            clock.spend(step_s)
            seen.append((clock() / SECOND, name))

    clock.process(lambda: worker("fast", 1.0), "fast")
    clock.process(lambda: worker("slow", 2.5), "slow")
    started = time.monotonic()
    clock.run(10 * SECOND)
    assert seen == [(1.0, "fast"), (2.0, "fast"), (2.5, "slow"), (3.0, "fast"), (5.0, "slow"), (7.5, "slow")]
    assert time.monotonic() - started < 5.0  # nobody really slept
    clock.close()


def test_a_process_waits_for_what_another_one_does() -> None:
    clock, box, seen = SimulatedClock(), [], []

    def taker() -> None:
        while True:
            clock.wait_until(lambda: bool(box))
            seen.append((clock(), box.pop()))
            clock.spend(3e-9)

    clock.process(taker, "taker")
    for when, thing in ((1, "a"), (2, "b"), (9, "c")):
        clock.at(when, lambda thing=thing: box.append(thing))
    clock.run(20)
    assert seen == [(1, "a"), (4, "b"), (9, "c")]
    clock.close()


def test_an_exception_of_a_process_reaches_the_one_who_runs_the_clock() -> None:
    clock = SimulatedClock()
    clock.process(lambda: {}["nothing"], "faulty")
    with pytest.raises(KeyError, match="nothing"):
        clock.run(1)
    clock.close()


def test_a_closed_clock_has_no_threads_left_and_runs_no_more() -> None:
    before, clock = threading.active_count(), SimulatedClock()
    clock.process(lambda: clock.spend(5.0), "sleeper")
    clock.process(lambda: clock.wait_until(lambda: False), "waiter")
    clock.run(1)
    assert threading.active_count() == before + 2
    clock.close()
    clock.close()
    assert threading.active_count() == before
    with pytest.raises(InstructSegError, match="closed"):
        clock.run(2)


def test_what_is_only_for_processes_and_only_for_others() -> None:
    clock, raised = SimulatedClock(), []
    with pytest.raises(InstructSegError, match="wait_until is for processes"):
        clock.wait_until(lambda: True)
    clock.spend(1.5)
    assert clock() == 1.5 * SECOND
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(BadInput, match="needs 0 or more seconds"):
            clock.spend(bad)

    def close_from_inside() -> None:
        try:
            clock.close()
        except InstructSegError as error:
            raised.append(str(error))

    clock.process(close_from_inside, "insider")
    clock.run(2 * SECOND)
    assert raised == ["a process cannot close its own clock; do it where the clock is run"]
    clock.close()


def test_calls_are_charged_what_was_fixed_and_what_was_measured() -> None:
    clock, slow = SimulatedClock(), ColourSegmenter()
    slow.delays = {"ground": 0.05}
    timed = TimedSegmenter(slow, clock, Charges(step_s=2.0))
    encoded = timed.encode([colour_frame(0.0, "red")])[0]
    assert clock() == 2 * SECOND
    (grounding,) = timed.ground(Clip((encoded,)), [Instruction("a", "red")])
    assert 2.05 * SECOND <= clock() < 4 * SECOND
    before = clock()
    timed.segment(encoded, [target.token for target in grounding.targets])
    assert clock() == before + 2 * SECOND
    slow.raising = {"encode"}
    with pytest.raises(RuntimeError):
        timed.encode([encoded.frame])
    assert clock() == before + 4 * SECOND  # failing takes its time too
    assert (timed.name, timed.sampling, timed.max_targets) == ("colours", slow.sampling, 3)
    timed.resolution_scale = 0.5  # what the engine sets is meant for the recipe
    assert slow.resolution_scale == 0.5
    for field in ("step_s", "ground_s"):
        with pytest.raises(BadInput, match=field):
            Charges(**{field: -0.1})


def test_recorded_encodings_are_given_again_only_when_asked_for() -> None:
    inner = ColourSegmenter()
    recorded, frames = RecordedEncodings(inner), [colour_frame(t, "red") for t in (0.0, 0.1, 0.2)]
    first = recorded.encode(frames[:2])
    recorded.encode(frames[:1])
    assert len(inner.encoded) == 3
    recorded.recall = True
    again = recorded.encode(frames)
    assert len(inner.encoded) == 4
    assert again[1] is first[1]
    assert [encoded.frame for encoded in again] == frames


def test_a_simulated_camera_drops_like_a_real_one_and_cannot_wait() -> None:
    with pytest.raises(BadInput, match="frame_policy 'latest'"):
        SimulatedStream(ColourSegmenter(), EngineConfig(frame_policy="every"))
    seen = []
    with SimulatedStream(ColourSegmenter(), None, Charges(0.25, 0.0), on_result=seen.append) as stream:
        for i in range(10):
            stream.show(colour_frame(i / 10, "red"))
        stream.run(SECOND)
        statistics = stream.engine.statistics()
    assert [result.frame.stamp_ns / SECOND for result in seen] == [0.0, 0.2, 0.5, 0.7]
    assert [round(result.age_s, 6) for result in seen] == [0.25, 0.3, 0.25, 0.3]
    assert statistics.drops == {"replaced": 5}


def test_a_silent_simulated_camera_makes_targets_stale() -> None:
    events = []
    with SimulatedStream(ColourSegmenter(), charges=Charges(0.0, 0.0), on_rejection=events.append) as stream:
        stream.engine.set_instruction(Instruction("a", "red"))
        for i in range(5):
            stream.show(colour_frame(i / 10, "red"))
        stream.run(2 * SECOND)
    assert [event.after.name for event in events] == ["STALE"]
    assert np.isclose(events[0].stamp_ns / SECOND, 1.0)  # 0.5 s without a frame, seen at the next look
