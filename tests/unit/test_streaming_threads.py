"""The engine with its two threads: hand-over, latest-first, obsolete results, stopping."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from unit.fakes import SECOND, ColourSegmenter, Owner, colour_frame, eventually

from instructseg.core import Instruction, State
from instructseg.streaming import StreamingEngine


def test_a_fault_in_the_choice_of_what_to_ask_does_not_end_the_grounding_thread():
    owner = Owner()
    sampling, owner.segmenter.sampling = owner.segmenter.sampling, None  # a recipe that broke after it was loaded
    with owner:
        owner.engine.set_instruction(Instruction("a", "red"))
        owner.send(0.0, "red")
        assert eventually(lambda: owner.engine.statistics().faults.get("grounding", 0) > 0)
        owner.segmenter.sampling = sampling
        owner.wait_for(State.PRESENT, 1.0, "red")


def test_masks_go_on_while_the_reasoner_thinks_and_the_first_one_is_of_the_present_frame():
    owner = Owner(ColourSegmenter(renew_tokens=True))
    owner.segmenter.gates["ground"] = threading.Event()
    with owner:
        owner.send(0.0, "red")
        owner.engine.set_instruction(Instruction("a", "red"))
        assert owner.segmenter.entered["ground"].wait(20.0)
        for i in range(1, 6):
            owner.send(i / 10, "red", shift=i)
            assert owner.states() == [State.GROUNDING]
        assert len(owner.results) == 6
        owner.segmenter.gates["ground"].set()
        assert eventually(lambda: owner.groundings)
        owner.send(0.6, "red", shift=6)
        (target,) = owner.results[-1].targets
        assert target.state is State.PRESENT and target.grounded_stamp_ns == 0
        assert np.array_equal(target.mask, (owner.results[-1].frame.image == (255, 0, 0)).all(axis=-1))
        # The token was carried over every frame since the key frame before it was used.
        replayed = [stamp for stamp, _ in owner.segmenter.segmented]
        assert replayed == [round(i / 10 * SECOND) for i in range(1, 7)]
        assert owner.segmenter.last_tokens[0].seen == tuple(replayed[:-1])
        assert owner.engine.statistics().groundings == {"done": 1}


def test_a_token_that_does_not_change_is_not_carried_over_every_frame():
    owner = Owner()
    owner.segmenter.gates["ground"] = threading.Event()
    with owner:
        owner.send(0.0, "red")
        owner.engine.set_instruction(Instruction("a", "red"))
        assert owner.segmenter.entered["ground"].wait(20.0)
        for i in range(1, 6):
            owner.send(i / 10, "red")
        owner.segmenter.gates["ground"].set()
        assert eventually(lambda: owner.groundings)
        assert len(owner.segmenter.segmented) == 1


def test_a_token_that_is_read_anew_on_every_frame_is_not_carried_over_any():
    owner = Owner(ColourSegmenter(renew_tokens=True))
    owner.segmenter.carries_tokens = False
    owner.segmenter.gates["ground"] = threading.Event()
    with owner:
        owner.send(0.0, "red")
        owner.engine.set_instruction(Instruction("a", "red"))
        assert owner.segmenter.entered["ground"].wait(20.0)
        for i in range(1, 6):
            owner.send(i / 10, "red")
        owner.segmenter.gates["ground"].set()
        assert eventually(lambda: owner.groundings)
        assert owner.segmenter.segmented == []
        owner.send(0.6, "red")
        assert owner.states() == [State.PRESENT]
        assert [stamp for stamp, _ in owner.segmenter.segmented] == [round(0.6 * SECOND)]


def test_a_new_instruction_is_grounded_at_once_on_what_is_buffered():
    with Owner() as owner:
        for i in range(11):
            owner.send(i / 10, "red")
        owner.engine.set_instruction(Instruction("a", "red"))
        assert eventually(lambda: owner.groundings)  # without another frame
        (clip,) = owner.segmenter.clips
        assert [e.frame.stamp_ns / SECOND for e in clip.frames] == [0.0, 0.5, 1.0]
        assert owner.groundings[0].camera == "camera" and owner.groundings[0].duration_s > 0
        owner.send(1.1, "red")
        assert owner.states() == [State.PRESENT]
        assert len(owner.segmenter.encoded) == 12


@pytest.mark.parametrize("change", ["cancel", "replace", "reset", "resolution", "time jump"])
def test_an_answer_that_has_become_obsolete_is_thrown_away(change):
    owner = Owner()
    owner.segmenter.gates["ground"] = threading.Event()
    with owner:
        owner.send(10.0, "red")
        owner.engine.set_instruction(Instruction("a", "red"))
        assert owner.segmenter.entered["ground"].wait(20.0)
        if change == "cancel":
            owner.engine.cancel("a")
        elif change == "replace":
            owner.engine.set_instruction(Instruction("a", "blue"))
        elif change == "reset":
            owner.engine.reset()
        elif change == "resolution":
            owner.send(10.1, "red", size=(32, 64))
        else:
            owner.send(1.0, "red")
        owner.segmenter.gates["ground"].set()
        assert eventually(lambda: owner.engine.statistics().groundings.get("discarded") == 1)
        answered = [(g.instruction.text, g.grounding.key_stamp_ns) for g in owner.groundings]
        assert ("red", 10 * SECOND) not in answered
        assert all(target.mask is None for result in owner.results for target in result.targets)


def test_a_frame_on_its_way_during_a_reset_is_dropped():
    owner = Owner()
    with owner:
        owner.send(0.0, "red")
        gate = owner.segmenter.gates["encode"] = threading.Event()
        owner.segmenter.entered["encode"].clear()
        owner.engine.submit_frame(colour_frame(0.1, "red"))
        assert owner.segmenter.entered["encode"].wait(20.0)
        owner.engine.reset()
        gate.set()
        assert eventually(lambda: owner.engine.statistics().drops == {"reset": 1})
        assert owner.engine.statistics().queue_depths["buffer:camera"] == 0
        assert len(owner.results) == 1


def test_nothing_is_grounded_on_frames_that_are_no_longer_live():
    with Owner() as owner:
        owner.send(0.0, "red")
        owner.clock.advance(2.0)
        owner.engine.check_stale()
        owner.engine.set_instruction(Instruction("a", "red"))
        time.sleep(0.05)
        owner.wait_for(State.PRESENT, 3.0, "red")
        assert [clip.key.frame.stamp_ns for clip in owner.segmenter.clips] == [3 * SECOND]


def test_latest_first_drops_what_waits_and_counts_every_frame():
    owner = Owner()
    owner.segmenter.gates["encode"] = threading.Event()
    with owner:
        owner.engine.submit_frame(colour_frame(0.0, "red"))
        assert owner.segmenter.entered["encode"].wait(20.0)
        started = time.monotonic()
        for i in range(1, 20):
            owner.engine.submit_frame(colour_frame(i / 10, "red"))
        assert time.monotonic() - started < 1.0  # never blocks
        owner.segmenter.gates["encode"].set()
        assert eventually(lambda: len(owner.results) == 2)
        seen = owner.engine.statistics()
    assert [result.frame.stamp_ns for result in owner.results] == [0, round(1.9 * SECOND)]
    assert (seen.frames_in, seen.frames_out, seen.drops) == (20, 2, {"replaced": 18})


def test_every_frame_is_processed_under_the_policy_every():
    owner = Owner(frame_policy="every")
    owner.segmenter.delays["encode"] = 0.002
    with owner:
        owner.engine.set_instruction(Instruction("a", "red"))
        for i in range(60):
            owner.engine.submit_frame(colour_frame(i / 10, "red"))
        assert eventually(lambda: len(owner.results) == 60)
    assert [result.frame.stamp_ns for result in owner.results] == [round(i / 10 * SECOND) for i in range(60)]
    assert owner.engine.statistics().drops == {}


def test_frames_faster_than_max_rate_are_dropped():
    with Owner(max_rate=5.0) as owner:
        owner.send(0.0, "red")
        owner.engine.submit_frame(colour_frame(0.05, "red"))
        owner.send(0.2, "red")
        assert owner.engine.statistics().drops == {"rate_limit": 1}


def test_bad_frames_from_a_camera_are_counted_and_do_not_stop_the_others():
    with Owner() as owner:
        owner.send(5.0, "red")
        owner.engine.submit_frame(colour_frame(5.0, "red"))
        owner.engine.submit_frame(colour_frame(4.9, "red"))
        owner.engine.submit_frame(colour_frame(5.1, "red", camera="other"))
        owner.send(5.2, "red")
        assert owner.engine.statistics().drops == {"stamp_repeated": 1, "stamp_backwards": 1, "unknown_camera": 1}
        assert any("0.100 s before" in message for message in owner.said)


@pytest.mark.parametrize("step", ["encode", "ground", "segment"])
def test_the_engine_outlives_a_fault_in_every_step(step):
    with Owner() as owner:
        owner.segmenter.raising = {step}
        owner.engine.set_instruction(Instruction("a", "red"))
        last = owner.wait_for(State.ERROR, 0.0, "red")
        assert all(target.mask is None for result in owner.results for target in result.targets)
        assert f"{step} failed" in owner.engine.statistics().last_error
        owner.segmenter.raising = set()
        owner.wait_for(State.PRESENT, last + 0.1, "red")


def test_a_stuck_segmenter_makes_targets_stale_although_frames_arrive():
    with Owner() as owner:
        owner.engine.set_instruction(Instruction("a", "red"))
        last = owner.wait_for(State.PRESENT, 0.0, "red")
        gate = owner.segmenter.gates["encode"] = threading.Event()
        owner.segmenter.entered["encode"].clear()
        owner.engine.submit_frame(colour_frame(last + 0.1, "red"))
        assert owner.segmenter.entered["encode"].wait(20.0)
        owner.clock.advance(0.7)
        owner.engine.submit_frame(colour_frame(last + 0.8, "red"))
        owner.engine.check_stale()
        event = owner.rejections[-1]
        assert event.after is State.STALE and "none was processed" in event.reason
        gate.set()


def test_higher_priority_is_grounded_first():
    owner = Owner()
    gate = owner.segmenter.gates["ground"] = threading.Event()
    with owner:
        owner.send(0.0, "red")
        owner.engine.add_instruction(Instruction("first", "red"))
        assert owner.segmenter.entered["ground"].wait(20.0)
        owner.engine.add_instruction(Instruction("low", "red", priority=1))
        owner.engine.add_instruction(Instruction("high", "red", priority=5))
        gate.set()
        assert eventually(lambda: len(owner.groundings) == 3)
        assert [g.instruction.id for g in owner.groundings] == ["first", "high", "low"]


def test_start_and_stop_are_idempotent_and_the_engine_starts_again():
    owner = Owner()
    with owner:
        owner.engine.start()
        owner.engine.set_instruction(Instruction("a", "red"))
        owner.wait_for(State.PRESENT, 10.0, "red")
    assert owner.engine.stop() is True and not owner.engine.running
    assert owner.rejections[-1].after is State.STALE and owner.rejections[-1].reason == "the engine was stopped"
    owner.engine.submit_frame(colour_frame(99.0, "red"))
    assert owner.engine.statistics().drops == {"not_running": 1}
    with owner:
        owner.wait_for(State.PRESENT, 9.5, "red")  # with stamps shortly before the old ones


def test_stop_waits_for_the_reasoner_and_publishes_nothing_afterwards():
    owner = Owner()
    owner.segmenter.delays["ground"] = 0.3
    with owner:
        owner.send(0.0, "red")
        owner.engine.set_instruction(Instruction("a", "red"))
        assert owner.segmenter.entered["ground"].wait(20.0)
        count = len(owner.results)
        assert owner.engine.stop() is True
    assert len(owner.results) == count
    assert not [t for t in threading.enumerate() if t.name.startswith("instructseg-")]


def test_stop_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr("instructseg.streaming.engine.STOP_TIMEOUT_S", 0.2)
    owner = Owner()
    gate = owner.segmenter.gates["ground"] = threading.Event()
    with owner:
        owner.send(0.0, "red")
        owner.engine.set_instruction(Instruction("a", "red"))
        assert owner.segmenter.entered["ground"].wait(20.0)
        started = time.monotonic()
        assert owner.engine.stop() is False
        assert time.monotonic() - started < 2.0
        assert any("instructseg-grounding did not end within 0.2 s" in message for message in owner.said)
        owner.engine.start()  # a new run does not take up what the old one was doing
        gate.set()
        assert eventually(lambda: owner.engine.statistics().groundings.get("discarded") == 1)
        owner.wait_for(State.PRESENT, 1.0, "red")


def test_what_ends_after_stop_changes_and_publishes_nothing(monkeypatch):
    monkeypatch.setattr("instructseg.streaming.engine.STOP_TIMEOUT_S", 0.2)
    owner = Owner()
    with owner:
        owner.engine.set_instruction(Instruction("a", "red"))
        last = owner.wait_for(State.PRESENT, 0.0, "red")
        gate = owner.segmenter.gates["segment"] = threading.Event()
        owner.segmenter.entered["segment"].clear()
        owner.engine.submit_frame(colour_frame(last + 0.1, "red"))
        assert owner.segmenter.entered["segment"].wait(20.0)
        count = len(owner.results)
        assert owner.engine.stop() is False
        gate.set()
        assert eventually(lambda: not [t for t in threading.enumerate() if t.name == "instructseg-masks"])
    assert len(owner.results) == count
    seen = owner.engine.statistics()
    assert seen.instructions[0].state is State.STALE and owner.rejections[-1].after is State.STALE
    assert seen.drops == {"reset": 1} and seen.memory["buffered_images"] == 0


def test_stop_from_a_callback():
    stopped = threading.Event()

    def stop(_: object) -> None:
        engine.stop()
        stopped.set()

    engine = StreamingEngine(ColourSegmenter(), on_result=stop)
    engine.start()
    engine.submit_frame(colour_frame(0.0, "red"))
    assert stopped.wait(20.0)
    assert eventually(lambda: not [t for t in threading.enumerate() if t.name.startswith("instructseg-")])


@pytest.mark.parametrize("cameras", [("camera",), ("camera", "left", "right")])
def test_many_threads_of_commands_and_frames_leave_it_whole(cameras):
    """Every result obeys the rules whatever happens around it; TargetState itself refuses a mask without PRESENT."""
    owner = Owner(ground_period=0.05, lost_after=0.2, max_instructions=3, refresh_period=0.1, cameras=cameras)
    owner.segmenter.aims["blue"] = ["red", "blue"]  # other targets than before, in another order
    stop = threading.Event()

    def command() -> None:
        for i in range(300):
            if stop.is_set():
                return
            name = "abc"[i % 3]
            if i % 7 == 0:
                owner.engine.cancel(name)
            elif i % 31 == 0:
                owner.engine.reset()
            else:
                owner.engine.add_instruction(Instruction(name, ("red and blue", "green", "blue")[i % 5 % 3]))
            if i % 11 == 0:
                owner.segmenter.raising = {("ground", "segment", "encode")[i % 3]} if i % 2 else set()
            owner.engine.check_stale()
            owner.engine.statistics()
            time.sleep(0.001)

    with owner:
        commander = threading.Thread(target=command)
        commander.start()
        for i in range(200):
            colours = ["red", "blue"] if i % 30 < 20 else ["green"]
            for camera in cameras:
                owner.engine.submit_frame(colour_frame(i / 20, *colours, camera=camera))
            time.sleep(0.002)
        stop.set()
        commander.join(20.0)
        assert not commander.is_alive()
        owner.segmenter.raising = set()
        assert eventually(lambda: owner.engine.statistics().queue_depths["waiting"] == 0)
        owner.engine.set_instruction(Instruction("z", "red"))
        owner.wait_for(State.PRESENT, 20.0, "red")
        seen = owner.engine.statistics()
    assert seen.frames_in == seen.frames_out + sum(seen.drops.values())
    assert "processing" not in seen.faults and "grounding" not in seen.faults
    for result in owner.results:
        ids = [t.instance_id for t in result.targets if t.instance_id]
        assert len(ids) == len(set(ids))
        for target in result.targets:
            assert target.mask is None or target.mask.shape == result.frame.size
