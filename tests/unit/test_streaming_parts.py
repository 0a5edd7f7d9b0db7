"""Configuration, buffer, admission, box, outbox, statistics: each by itself, each with bad input."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.fakes import SECOND, colour_frame, eventually, unhurried

from instructseg.core import BadInput, EncodedFrame, Grounding, Instruction, Sampling, Target, TargetMask
from instructseg.streaming import EngineConfig, FrameBuffer, FrameRefused
from instructseg.streaming.admission import Admission
from instructseg.streaming.book import InstructionBook
from instructseg.streaming.box import QUEUE_FRAMES, FrameBox
from instructseg.streaming.checks import SegmenterFault, checked_encodings, checked_grounding, checked_masks
from instructseg.streaming.outbox import Outbox
from instructseg.streaming.statistics import Recorder, percentile, resident_bytes


def encoded(seconds: float, **kwargs) -> EncodedFrame:
    return EncodedFrame(colour_frame(seconds, "red", **kwargs), features=object())


# Configuration


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("buffer_s", -1.0),
        ("buffer_s", math.nan),
        ("buffer_frames", 0),
        ("buffer_frames", 2.5),
        ("ground_period", 0.0),
        ("present_threshold", 1.5),
        ("reject_threshold", "0.5"),
        ("lost_after", -0.1),
        ("stale_after", math.inf),
        ("max_targets", True),
        ("max_instructions", 0),
        ("max_rate", -1.0),
        ("max_age", -1.0),
        ("reacquire", "colour"),
        ("reacquire_within", -1.0),
        ("refresh_period", -1.0),
        ("ground_on_loss", 1),
        ("ground_on_motion", 0),
        ("motion_change", 0.0),
        ("view_change", 1.5),
        ("frame_policy", "newest"),
        ("cameras", ["left"]),
        ("cameras", ("left", "left")),
        ("cameras", ("",)),
    ],
)
def test_a_bad_setting_is_refused_by_name_and_value(field, value):
    with pytest.raises(BadInput, match=f"EngineConfig.{field}"):
        EngineConfig(**{field: value})


# Buffer


def test_buffer_is_bounded_by_seconds_and_by_count():
    buffer = FrameBuffer(seconds=1.0, frames=5)
    for i in range(20):
        buffer.push(encoded(i * 0.3))
    assert [e.frame.stamp_ns for e in buffer] == [round(i * 0.3 * SECOND) for i in range(16, 20)]
    for i in range(20):
        buffer.push(encoded(6 + i * 0.01))
    assert len(buffer) == 5
    assert buffer.image_bytes == 5 * 48 * 64 * 3


@unhurried
@given(st.lists(st.integers(1, SECOND), max_size=60), st.floats(0.0, 3.0), st.integers(1, 10))
def test_buffer_bounds_always_hold(steps, seconds, frames):
    buffer, stamp = FrameBuffer(seconds, frames), 0.0
    for step in steps:
        stamp += step / SECOND
        buffer.push(encoded(stamp, size=(24, 48)))
        stamps = [e.frame.stamp_ns for e in buffer]
        assert 1 <= len(stamps) <= frames
        assert stamps[-1] == buffer.newest_ns == round(stamp * SECOND)
        assert stamps[-1] - stamps[0] <= round(seconds * 1e9)


@unhurried
@given(st.lists(st.integers(1, SECOND), min_size=1, max_size=80), st.floats(0.0, 3.0), st.integers(1, 10), st.data())
def test_a_held_stamp_stays_reachable_within_the_count(steps, seconds, frames, data):
    buffer, stamp, held = FrameBuffer(seconds, frames), 0.0, None
    begin, end = sorted(data.draw(st.tuples(st.integers(0, len(steps)), st.integers(0, len(steps)))))
    for i, step in enumerate(steps):
        stamp += step / SECOND
        buffer.push(encoded(stamp, size=(16, 16)))
        if i == begin:
            held = buffer.newest_ns
            buffer.hold(held)
        stamps = [e.frame.stamp_ns for e in buffer]
        assert len(stamps) <= frames
        assert stamps == sorted(set(stamps)) and stamps[-1] == buffer.newest_ns
        if frames >= 3 and begin <= i < end:
            assert held in stamps  # the frame that was reasoned on is still there, with frames up to the newest one
        if i == end:
            buffer.let_go()
    buffer.let_go()
    buffer.push(encoded(stamp + 4.0, size=(16, 16)))
    assert len(buffer) == 1


def test_held_frames_are_thinned_out_evenly():
    buffer = FrameBuffer(1.0, 16)
    for i in range(100):
        buffer.push(encoded(i * 0.1, size=(16, 16)))
        if i == 9:
            buffer.hold(buffer.newest_ns)
    stamps = np.array([e.frame.stamp_ns for e in buffer]) / SECOND
    gaps = np.diff(stamps)
    assert (stamps[0], stamps[-1], len(stamps)) == (0.9, 9.9, 16)
    assert gaps.max() <= 4 * gaps.min() + 1e-9
    assert gaps.max() < 1.0  # 9 s in 16 frames: 0.6 s on average
    buffer.flush()
    buffer.push(encoded(20.0, size=(16, 16)))
    buffer.push(encoded(22.0, size=(16, 16)))
    assert len(buffer) == 1  # a flush holds nothing


def test_buffer_refuses_what_does_not_follow():
    buffer = FrameBuffer(3.0, 10)
    buffer.push(encoded(1.0))
    with pytest.raises(BadInput, match="later than"):
        buffer.push(encoded(1.0))
    with pytest.raises(BadInput, match="frame size"):
        buffer.push(encoded(2.0, size=(32, 64)))
    epoch = buffer.epoch
    buffer.flush()
    assert buffer.epoch == epoch + 1 and buffer.newest_ns is None and buffer.size is None
    buffer.push(encoded(0.5, size=(32, 64)))
    assert buffer.size == (32, 64)


@pytest.mark.parametrize(("seconds", "frames"), [(-1.0, 5), (math.nan, 5), (1.0, 0)])
def test_buffer_refuses_bad_bounds(seconds, frames):
    with pytest.raises(BadInput, match="FrameBuffer"):
        FrameBuffer(seconds, frames)


def test_clip_of_the_buffer_ends_in_the_newest_frame():
    buffer = FrameBuffer(3.0, 64)
    with pytest.raises(BadInput, match="empty"):
        buffer.clip(Sampling())
    for i in range(11):
        buffer.push(encoded(i * 0.1))
    clip = buffer.clip(Sampling(sparse=3, dense=2, horizon_s=1.0))
    assert [e.frame.stamp_ns for e in clip.frames] == [0, SECOND // 2, SECOND]
    assert clip.dense == (1, 2)
    assert [e.frame.stamp_ns for e in buffer.after(SECOND * 8 // 10)] == [SECOND * 9 // 10, SECOND]


# Book


def test_the_end_of_an_instruction_makes_running_work_obsolete_and_is_reported_once():
    book = InstructionBook(EngineConfig())
    book.add(Instruction("a", "red"), ("left",), {"left": 5}, now_ns=7)
    (tracker,) = book.trackers("left")
    generation = tracker.generation
    assert book.holds(tracker, generation)
    assert book.end("a", "cancelled") and not book.end("a", "cancelled")
    assert tracker.generation != generation and not book.holds(tracker, tracker.generation)
    assert [(s.instruction.id, s.active, s.reason) for s in book.take_ended()] == [("a", False, "cancelled")]
    assert book.take_ended() == () and len(book) == 0


# Admission


def cause_of(admission: Admission, frame, **kwargs) -> str:
    try:
        admission.admit(frame, **kwargs)
    except FrameRefused as refused:
        return refused.cause
    return "taken"


def test_stamps_must_advance_and_a_long_way_back_is_a_restart():
    admission = Admission()
    causes = [cause_of(admission, colour_frame(s)) for s in (10.0, 10.0, 9.9, 9.0, 10.1, 9.05, 9.2, 9.0)]
    assert causes == ["taken", "stamp_repeated", "stamp_backwards", "stamp_backwards"] + ["taken"] * 3 + [
        "stamp_backwards"
    ]


def test_unknown_cameras_are_refused():
    admission = Admission(("left", "right"))
    assert cause_of(admission, colour_frame(0, camera="left")) == "taken"
    assert cause_of(admission, colour_frame(0, camera="right")) == "taken"
    assert cause_of(admission, colour_frame(0, camera="rear")) == "unknown_camera"


def test_without_names_the_first_camera_is_the_only_one_also_after_a_reset():
    admission = Admission()
    assert admission.cameras == ()
    assert cause_of(admission, colour_frame(5, camera="wrist")) == "taken"
    assert cause_of(admission, colour_frame(6, camera="head")) == "unknown_camera"
    admission.forget()
    assert cause_of(admission, colour_frame(7, camera="head")) == "unknown_camera"
    assert cause_of(admission, colour_frame(4.5, camera="wrist")) == "taken"


def test_what_is_no_frame_is_bad_input():
    with pytest.raises(BadInput, match="a Frame is needed; got ndarray"):
        Admission().admit(np.zeros((48, 64, 3), np.uint8))


@unhurried
@given(st.lists(st.floats(0.001, 0.2), min_size=1, max_size=80), st.floats(1.0, 60.0))
def test_rate_limit_is_kept_on_average(steps, rate):
    admission, stamp, taken = Admission(max_rate=rate), 0.0, 0
    for step in [0.0, *steps]:
        stamp += step
        taken += cause_of(admission, colour_frame(stamp)) == "taken"
    assert taken <= stamp * rate + 2.2


def test_a_camera_at_the_allowed_rate_loses_nothing_by_its_jitter():
    admission = Admission(max_rate=15.0)
    stamps = [i / 15 + (0.003 if i % 2 else -0.003) for i in range(1, 100)]
    assert [cause_of(admission, colour_frame(s)) for s in stamps] == ["taken"] * 99
    assert cause_of(admission, colour_frame(stamps[-1] + 0.001), limit_rate=False) == "taken"


# Box


def test_latest_keeps_one_frame_a_camera_in_turn():
    box = FrameBox(keep_every=False)
    box.open()
    frames = [colour_frame(0, camera="a"), colour_frame(0, camera="b"), colour_frame(1, camera="a")]
    assert [box.put(frame) for frame in frames] == [None, None, "replaced"]
    assert box.take() is frames[2]
    assert box.take() is frames[1]


def test_the_camera_served_longest_ago_comes_first():
    box = FrameBox(keep_every=False)
    box.open()
    taken = []
    for turn in range(6):
        box.put(colour_frame(turn, camera="fast"))
        if turn in (0, 3):
            box.put(colour_frame(turn, camera="slow"))
            box.put(colour_frame(turn, camera="slower"))
        taken.append(box.take().camera)
    assert taken == ["fast", "slow", "slower", "fast", "slow", "slower"]


def test_frames_of_other_cameras_that_wait_are_taken_together_but_not_under_every():
    frames = [colour_frame(0, camera=name) for name in "abcd"]
    for keep_every in (False, True):
        box = FrameBox(keep_every)
        box.open()
        for frame in frames:
            box.put(frame)
        assert box.take() is frames[0]
        assert box.take_more(2) == ([] if keep_every else frames[1:3])
        assert box.take() is frames[1 if keep_every else 3]


def test_a_closed_box_takes_nothing_and_wakes_who_waits():
    box = FrameBox(keep_every=False)
    assert box.put(colour_frame(0)) == "not_running"
    box.open()
    got = []
    waiting = threading.Thread(target=lambda: got.append(box.take()))
    waiting.start()
    box.close()
    waiting.join(20.0)
    assert got == [None]


def test_every_makes_the_sender_wait_and_loses_nothing():
    box = FrameBox(keep_every=True)
    box.open()
    frames = [colour_frame(i) for i in range(QUEUE_FRAMES + 3)]
    sender = threading.Thread(target=lambda: [box.put(frame) for frame in frames])
    sender.start()
    assert eventually(lambda: len(box) == QUEUE_FRAMES)
    assert sender.is_alive()
    assert [box.take() for _ in frames] == frames
    sender.join(20.0)
    assert not sender.is_alive()


def test_a_waiting_sender_is_released_when_the_box_closes():
    box = FrameBox(keep_every=True)
    box.open()
    causes = []
    sender = threading.Thread(target=lambda: causes.extend(box.put(colour_frame(i)) for i in range(QUEUE_FRAMES + 1)))
    sender.start()
    assert eventually(lambda: len(box) == QUEUE_FRAMES)
    assert box.close() == QUEUE_FRAMES
    sender.join(20.0)
    assert causes == [None] * QUEUE_FRAMES + ["not_running"]


# Outbox


def test_events_keep_their_order_even_when_a_callback_adds_one_and_another_raises():
    errors, seen = [], []
    outbox = Outbox(lambda name, error: errors.append((name, str(error))))

    def callback(event):
        seen.append(event)
        if event == 1:
            outbox.add("again", callback, 3)
            outbox.deliver()
        if event == 2:
            raise ValueError("not mine")

    outbox.add("nobody", None, 0)
    outbox.add("first", callback, 1)
    outbox.add("second", callback, 2)
    outbox.deliver()
    assert seen == [1, 2, 3]
    assert errors == [("second", "not mine")]


# What a recipe hands back


def test_encodings_are_checked():
    frame, other = colour_frame(0), colour_frame(0, camera="other")
    right = [EncodedFrame(frame, 1), EncodedFrame(other, 2)]
    assert checked_encodings(right, [frame, other]) == right
    for wrong in ([], [1, 2], right[:1], right[::-1], [right[0], EncodedFrame(colour_frame(0), 1)]):
        with pytest.raises(SegmenterFault, match="encode"):
            checked_encodings(wrong, [frame, other])


def test_groundings_are_checked():
    instruction = Instruction("a", "red")
    for wrong in (
        [],
        ["no grounding"],
        [Grounding("b", 0, (0,), ())],
        [Grounding("a", 0, (0,), (Target(1, 0.5, math.nan, False),))],
        [Grounding("a", 0, (0,), (Target(1, 1.5, 0.5, False),))],
        [Grounding("a", 0, (0,), ("no target",))],
    ):
        with pytest.raises(SegmenterFault):
            checked_grounding(wrong, instruction)


@pytest.mark.parametrize(
    "mask",
    [
        TargetMask(np.zeros((48, 64), np.uint8), 0.5, 1),
        TargetMask(np.zeros((24, 32), bool), 0.5, 1),
        TargetMask(None, 0.5, 1),
        TargetMask(np.zeros((48, 64), bool), math.nan, 1),
        TargetMask(np.zeros((48, 64), bool), 1.1, 1),
        TargetMask(np.zeros((48, 64), bool), 0.5, 1, confidence=np.zeros((48, 64), np.float32)),
    ],
)
def test_masks_are_checked(mask):
    with pytest.raises(SegmenterFault):
        checked_masks([mask], [1], colour_frame(0))


def test_there_must_be_one_mask_for_each_token():
    with pytest.raises(SegmenterFault, match="2 tokens"):
        checked_masks([], [1, 2], colour_frame(0))


# Statistics


def test_percentiles_by_nearest_rank():
    assert percentile([], 0.5) == 0.0
    assert percentile([3.0], 0.99) == 3.0
    assert percentile(range(100), 0.5) == 50
    assert percentile(range(100), 0.99) == 99


def test_rates_ages_and_counters():
    recorder = Recorder()
    for i in range(31):
        recorder.frame_in(i * SECOND // 10)
        if i % 2:
            recorder.frame_out(i * SECOND // 10, 0.05, {"encode_s": 0.01})
    recorder.count("drops", "replaced")
    recorder.fault("ground", "ground failed: broken")
    seen = recorder.snapshot(3 * SECOND, {"waiting": 1}, (), 123)
    assert (seen.frames_in, seen.frames_out) == (31, 15)
    assert seen.rate_in == pytest.approx(10.0, rel=0.05)
    assert seen.rate_out == pytest.approx(5.0, rel=0.1)
    assert (seen.age_p50, seen.durations["encode_s"]) == (0.05, 0.01)
    assert (seen.drops, seen.faults, seen.last_error) == ({"replaced": 1}, {"ground": 1}, "ground failed: broken")
    assert seen.memory["buffered_images"] == 123
    later = recorder.snapshot(60 * SECOND, {}, (), 0)
    assert (later.rate_in, later.rate_out) == (0.0, 0.0)


def test_resident_memory_is_of_a_plausible_size():
    assert 5e6 < resident_bytes() < 1e11
