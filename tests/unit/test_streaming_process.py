"""The engine without threads: what each frame and each fault leads to, deterministically."""

from __future__ import annotations

import numpy as np
import pytest
from unit.fakes import SECOND, ColourSegmenter, Owner, colour_frame, eventually, states

from instructseg.core import BadInput, Instruction, InstructSegError, Mode, Sampling, State, TargetMask
from instructseg.streaming import FrameRefused, StreamingEngine


def changes(owner: Owner) -> list[tuple[State, State]]:
    return [(event.before, event.after) for event in owner.rejections]


def test_the_first_frame_already_carries_the_mask_of_its_own_pixels():
    owner = Owner()
    owner.engine.set_instruction(Instruction("a", "red"))
    frame = colour_frame(1.0, "red", "blue")
    result = owner.engine.process(frame)
    (target,) = result.targets
    assert result.frame is frame
    assert (target.state, target.instance_id, target.phrase) == (State.PRESENT, 1, "red")
    assert np.array_equal(target.mask, (frame.image == (255, 0, 0)).all(axis=-1))
    assert target.since_ns == target.grounded_stamp_ns == SECOND
    assert set(result.timings) == {"encode_s", "ground_s", "segment_s"}
    assert owner.results == [result]


def test_masks_follow_the_frame_without_asking_the_reasoner_again():
    owner = Owner()
    owner.engine.set_instruction(Instruction("a", "red"))
    for i in range(40):
        frame = colour_frame(i / 10, "red", shift=i % 8)
        (target,) = owner.engine.process(frame).targets
        assert np.array_equal(target.mask, (frame.image == (255, 0, 0)).all(axis=-1))
    assert len(owner.segmenter.clips) == 1
    assert owner.segmenter.encoded == [round(i / 10 * SECOND) for i in range(40)]


def test_without_instructions_frames_are_encoded_for_the_clips_to_come():
    owner = Owner()
    assert owner.play(0.0, 1.0, "red").targets == ()
    assert owner.segmenter.segmented == []
    owner.engine.add_instruction(Instruction("a", "red"))
    owner.show(1.1, "red")
    (clip,) = owner.segmenter.clips
    assert [e.frame.stamp_ns / SECOND for e in clip.frames] == [0.1, 0.6, 1.1]
    assert len(owner.segmenter.encoded) == 12


def test_two_targets_in_one_sentence():
    owner = Owner()
    owner.engine.set_instruction(Instruction("a", "the red and the blue one"))
    result = owner.show(0.0, "red", "blue")
    assert states(result) == [State.PRESENT, State.PRESENT]
    assert [t.instance_id for t in result.targets] == [1, 2]
    assert not (result.targets[0].mask & result.targets[1].mask).any()
    assert owner.segmenter.segmented == [(0, 2)]


def test_two_instructions_share_one_segmentation_of_the_frame():
    owner = Owner()
    owner.engine.add_instruction(Instruction("a", "red"))
    owner.engine.add_instruction(Instruction("b", "blue"))
    result = owner.show(0.0, "red", "blue")
    assert [(t.instruction.id, t.instance_id) for t in result.targets] == [("a", 1), ("b", 2)]
    assert owner.segmenter.segmented == [(0, 2)]


def test_something_that_is_not_there_is_asked_about_again_until_it_comes():
    owner = Owner()
    owner.engine.set_instruction(Instruction("a", "green"))
    result = owner.play(0.0, 2.0, "red")
    (target,) = result.targets
    assert (target.state, target.instance_id, target.mask) == (State.NO_TARGET, 0, None)
    assert len(owner.segmenter.clips) == 5  # at 0.0, 0.5, ... 2.0
    result = owner.play(2.1, 2.5, "red", "green")
    assert states(result) == [State.PRESENT]
    assert changes(owner) == [(State.GROUNDING, State.NO_TARGET), (State.NO_TARGET, State.PRESENT)]


def test_leaving_the_view_and_coming_back_keeps_the_id():
    owner = Owner()
    owner.engine.set_instruction(Instruction("a", "red and blue"))
    owner.play(0.0, 1.0, "red", "blue")
    assert states(owner.show(1.1, "blue")) == [State.OCCLUDED, State.PRESENT]
    assert states(owner.play(1.2, 2.1, "blue")) == [State.OCCLUDED, State.PRESENT]
    assert states(owner.show(2.2, "blue")) == [State.LOST, State.PRESENT]
    owner.play(2.3, 4.0, "blue")
    result = owner.play(4.1, 5.0, "red", "blue")
    assert states(result) == [State.PRESENT, State.PRESENT]
    assert [t.instance_id for t in result.targets] == [1, 2]
    assert changes(owner)[0] == (State.OCCLUDED, State.LOST)
    assert changes(owner)[-1][1] is State.PRESENT


def test_a_short_occlusion_is_over_with_the_first_good_mask():
    owner = Owner()
    owner.engine.set_instruction(Instruction("a", "red"))
    owner.show(0.0, "red")
    assert states(owner.play(0.1, 0.8)) == [State.OCCLUDED]
    assert states(owner.show(0.9, "red")) == [State.PRESENT]
    assert len(owner.segmenter.clips) == 1 and owner.rejections == []


def test_uncertain_has_no_mask():
    owner = Owner()
    owner.segmenter.rejection["red"] = 0.47
    owner.engine.set_instruction(Instruction("a", "red"))
    (target,) = owner.show(0.0, "red").targets
    assert target.state is State.UNCERTAIN and target.mask is None and "too close" in target.reason


def test_refresh_asks_about_present_targets_too():
    owner = Owner(refresh_period=1.0)
    owner.engine.set_instruction(Instruction("a", "red"))
    owner.play(0.0, 2.5, "red")
    assert len(owner.segmenter.clips) == 3
    owner.segmenter.rejection["red"] = 0.9
    assert states(owner.play(2.6, 3.0, "red")) == [State.NO_TARGET]


# Faults of the segmenter


@pytest.mark.parametrize("step", ["encode", "segment"])
def test_a_fault_on_a_frame_is_error_without_mask_and_recovers_after_a_new_grounding(step):
    owner = Owner()
    owner.engine.set_instruction(Instruction("a", "red"))
    owner.show(0.0, "red")
    owner.segmenter.raising = {step}
    (target,) = owner.show(0.1, "red").targets
    assert target.state is State.ERROR and target.mask is None
    assert f"{step} failed: RuntimeError: {step} broke on purpose" in target.reason
    owner.segmenter.raising = set()
    assert states(owner.show(0.2, "red")) == [State.ERROR]
    (target,) = owner.play(0.3, 0.7, "red").targets
    assert (target.state, target.instance_id) == (State.PRESENT, 1)
    assert len(owner.segmenter.clips) == 2
    assert owner.engine.statistics().faults == {step: 1}
    assert changes(owner) == [(State.PRESENT, State.ERROR), (State.ERROR, State.PRESENT)]


def test_a_fault_in_ground_is_error_for_that_instruction_and_backs_off():
    owner = Owner()
    owner.engine.add_instruction(Instruction("a", "red"))
    owner.show(0.0, "red", "blue")
    owner.segmenter.raising = {"ground"}
    owner.engine.add_instruction(Instruction("b", "blue"))
    result = owner.play(0.1, 4.0, "red", "blue")
    assert states(result) == [State.PRESENT, State.ERROR]
    assert len(owner.segmenter.clips) == 1 + 4  # at 0.1, then 0.5, 1.0 and 2.0 s later
    owner.segmenter.raising = set()
    assert states(owner.play(4.1, 8.0, "red", "blue")) == [State.PRESENT, State.PRESENT]
    assert owner.engine.statistics().groundings == {"done": 2, "failed": 4}


def test_masks_of_the_wrong_size_are_an_error_and_never_published():
    owner = Owner()
    owner.engine.set_instruction(Instruction("a", "red"))
    owner.show(0.0, "red")
    owner.segmenter.segment = lambda encoded, tokens: [TargetMask(np.ones((8, 8), bool), 0.9, t) for t in tokens]
    (target,) = owner.show(0.1, "red").targets
    assert target.state is State.ERROR and "shape (48, 64)" in target.reason


# Frames that jump


def test_stamps_going_backwards_are_refused_and_counted():
    owner = Owner()
    owner.engine.set_instruction(Instruction("a", "red"))
    owner.show(5.0, "red")
    with pytest.raises(FrameRefused, match="0.500 s before") as caught:
        owner.show(4.5, "red")
    assert caught.value.cause == "stamp_backwards"
    assert owner.engine.statistics().drops == {"stamp_backwards": 1}
    assert states(owner.show(5.1, "red")) == [State.PRESENT]


def test_a_long_way_back_in_time_is_a_new_start():
    owner = Owner()
    owner.engine.set_instruction(Instruction("a", "red"))
    owner.play(100.0, 101.0, "red")
    (target,) = owner.show(3.0, "red").targets
    assert (target.state, target.instance_id, target.since_ns) == (State.PRESENT, 1, 3 * SECOND)
    assert len(owner.segmenter.clips[-1].frames) == 1
    assert owner.engine.statistics().resets == {"time_jump": 1}


def test_another_resolution_flushes_and_grounds_anew():
    owner = Owner()
    owner.engine.set_instruction(Instruction("a", "red"))
    owner.play(0.0, 1.0, "red")
    result = owner.show(1.1, "red", size=(32, 80))
    (target,) = result.targets
    assert target.state is State.PRESENT and target.mask.shape == (32, 80)
    assert (target.instance_id, target.grounded_stamp_ns) == (1, round(1.1 * SECOND))
    assert [len(clip.frames) for clip in owner.segmenter.clips] == [1, 1]
    assert owner.engine.statistics().resets == {"resolution_change": 1}
    assert any("64x48 to 80x32" in message for message in owner.said)


def test_frames_of_an_unknown_camera_are_refused():
    owner = Owner(cameras=("left", "right"))
    with pytest.raises(FrameRefused, match="'left', 'right'") as caught:
        owner.show(0.0, "red", camera="rear")
    assert caught.value.cause == "unknown_camera"


def test_memory_stays_bounded():
    owner = Owner(buffer_frames=7, buffer_s=100.0)
    owner.engine.set_instruction(Instruction("a", "red"))
    for i in range(300):
        owner.show(i / 10, "red" if i % 50 < 25 else "blue")
        owner.results.clear()
    seen = owner.engine.statistics()
    assert seen.queue_depths["buffer:camera"] == 7
    assert seen.memory["buffered_images"] == 7 * 48 * 64 * 3


# Cameras


def test_two_cameras_have_targets_and_ids_of_their_own():
    owner = Owner(cameras=("left", "right"))
    owner.engine.set_instruction(Instruction("a", "red"))
    (left,) = owner.show(0.0, "red", camera="left").targets
    (right,) = owner.show(0.1, "blue", camera="right").targets
    assert (left.state, left.instance_id) == (State.PRESENT, 1)
    assert right.state is State.NO_TARGET
    assert [event.camera for event in owner.rejections] == ["right"]


def test_an_instruction_for_one_camera_leaves_the_other_alone():
    owner = Owner(cameras=("left", "right"))
    owner.engine.set_instruction(Instruction("a", "red", cameras=("right",)))
    assert owner.show(0.0, "red", camera="left").targets == ()
    assert states(owner.show(0.1, "red", camera="right")) == [State.PRESENT]
    with pytest.raises(BadInput, match=r"left, right; got rear"):
        owner.engine.add_instruction(Instruction("b", "red", cameras=("rear",)))


# Instructions


def test_replace_add_cancel_and_their_reports():
    owner = Owner()
    owner.engine.set_instruction(Instruction("a", "red"))
    owner.engine.add_instruction(Instruction("b", "blue"))
    owner.engine.add_instruction(Instruction("b", "green"))
    assert [[(s.instruction.id, s.active) for s in report] for report in owner.instructions[:2]] == [
        [("a", True)],
        [("a", True), ("b", True)],
    ]
    assert [(s.instruction.text, s.active, s.reason) for s in owner.instructions[2]] == [
        ("red", True, "waiting for the reasoner"),
        ("green", True, "waiting for the reasoner"),
        ("blue", False, "replaced"),
    ]
    owner.engine.set_instruction(Instruction("c", "green"))
    assert [s.instruction.id for s in owner.engine.statistics().instructions] == ["c"]
    assert owner.engine.cancel("a") == []
    assert owner.engine.cancel("c") == ["c"]
    owner.engine.add_instruction(Instruction("d", "red"))
    owner.engine.add_instruction(Instruction("e", "red"))
    assert owner.engine.cancel(None) == ["d", "e"]
    assert owner.engine.statistics().instructions == ()
    assert owner.show(0.0, "red").targets == ()


def test_the_same_instruction_again_changes_nothing():
    owner = Owner()
    owner.engine.set_instruction(Instruction("a", "red"))
    owner.show(0.0, "red")
    owner.engine.set_instruction(Instruction("a", "red"))
    owner.show(0.1, "red")
    assert len(owner.segmenter.clips) == 1


def test_too_many_instructions_are_refused_but_replacing_one_is_not():
    owner = Owner(max_instructions=2)
    owner.engine.add_instruction(Instruction("a", "red"))
    owner.engine.add_instruction(Instruction("b", "red"))
    with pytest.raises(BadInput, match=r"at most 2 instructions.*a, b: cancel one before adding 'c'"):
        owner.engine.add_instruction(Instruction("c", "red"))
    owner.engine.add_instruction(Instruction("b", "blue"))
    owner.engine.set_instruction(Instruction("c", "red"))
    assert [s.instruction.id for s in owner.engine.statistics().instructions] == ["c"]


@pytest.mark.parametrize(
    "bad",
    [
        "red",
        Instruction("", "red"),
        Instruction("x" * 257, "red"),
        Instruction("a", "  "),
        Instruction("a", "red", class_id=0),
        Instruction("a", "red", class_id=256),
        Instruction("a", "red", class_id=1.5),
        Instruction("a", "red", timeout_s=-1.0),
        Instruction("a", "red", timeout_s=float("nan")),
        Instruction("a", "red", timeout_s=float("inf")),
        Instruction("a", "red", timeout_s=None),
        Instruction("a", "red", class_id=True),
        Instruction("a", "red", priority="high"),
        Instruction("a", "red", priority=None),
        Instruction("a", "red", mode=1),
        Instruction("a", "red", cameras="left"),
        Instruction("a", "red", cameras=("",)),
    ],
)
def test_an_unusable_instruction_is_refused_and_ends_no_other(bad):
    owner = Owner()
    owner.engine.set_instruction(Instruction("good", "red"))
    for method in (owner.engine.set_instruction, owner.engine.add_instruction):
        with pytest.raises(BadInput, match="Instruction"):
            method(bad)
    assert [s.instruction.id for s in owner.engine.statistics().instructions] == ["good"]


@pytest.mark.parametrize(("colours", "state"), [(("red",), State.PRESENT), (("blue",), State.NO_TARGET)])
def test_one_shot_ends_with_its_first_answer(colours, state):
    owner = Owner()
    owner.engine.set_instruction(Instruction("a", "red", mode=Mode.ONE_SHOT))
    assert states(owner.show(0.0, *colours)) == [state]
    (ended,) = owner.instructions[-1]
    assert owner.show(0.1, *colours).targets == ()
    assert owner.instructions[-1] == ()
    assert (ended.active, ended.state, ended.reason) == (False, state, f"answered: {state.name}")
    assert owner.engine.statistics().instructions == ()


def test_one_shot_waits_while_the_answer_is_uncertain():
    owner = Owner()
    owner.segmenter.rejection["red"] = 0.5
    owner.engine.set_instruction(Instruction("a", "red", mode=Mode.ONE_SHOT))
    assert states(owner.play(0.0, 1.0, "red")) == [State.UNCERTAIN]
    owner.segmenter.rejection["red"] = 0.1
    assert states(owner.play(1.1, 1.5, "red")) == [State.PRESENT]
    assert owner.show(1.6, "red").targets == ()


def test_a_time_out_ends_with_a_reason_with_frames_and_without():
    owner = Owner()
    owner.engine.set_instruction(Instruction("a", "green", timeout_s=2.0))
    owner.play(10.0, 11.9, "red")
    assert len(owner.engine.statistics().instructions) == 1
    owner.show(12.0, "red")
    assert owner.engine.statistics().instructions == ()
    assert owner.instructions[-1][0].reason.startswith("timed out after 2 s in state NO_TARGET: rejection score 0.95")

    owner.engine.set_instruction(Instruction("b", "red", timeout_s=2.0))
    owner.clock.advance(2.0)
    owner.engine.check_stale()
    assert owner.engine.statistics().instructions == ()


# Supervision


def test_no_frames_is_stale_and_a_short_pause_goes_on_with_the_token():
    owner = Owner()
    owner.engine.set_instruction(Instruction("a", "red"))
    owner.show(10.0, "red")
    owner.clock.advance(0.5)
    owner.engine.check_stale()
    assert owner.rejections == []
    owner.clock.advance(0.1)
    owner.engine.check_stale()
    owner.engine.check_stale()
    assert changes(owner) == [(State.PRESENT, State.STALE)]
    assert owner.rejections[0].reason == "no frame from camera 'camera' for 0.6 s"
    assert owner.rejections[0].stamp_ns == round(10.6 * SECOND)
    assert owner.engine.statistics().instructions[0].state is State.STALE
    (target,) = owner.show(10.8, "red").targets
    assert target.state is State.PRESENT and target.since_ns == round(10.8 * SECOND)
    assert len(owner.segmenter.clips) == 1


def test_a_clock_that_is_set_back_does_not_hide_a_dead_camera():
    owner = Owner()
    owner.engine.set_instruction(Instruction("a", "red"))
    owner.show(1000.0, "red")
    owner.clock.ns = 5 * SECOND
    owner.engine.check_stale()
    owner.clock.advance(0.6)
    owner.engine.check_stale()
    assert changes(owner) == [(State.PRESENT, State.STALE)]
    assert owner.rejections[0].stamp_ns == round(1000.6 * SECOND)


def test_after_a_long_pause_the_reasoner_is_asked_before_any_mask():
    owner = Owner()
    owner.engine.set_instruction(Instruction("a", "red"))
    owner.show(10.0, "red")
    owner.clock.advance(60.0)
    owner.engine.check_stale()
    owner.segmenter.rejection["red"] = 0.9
    assert states(owner.show(70.0, "red")) == [State.NO_TARGET]
    assert [after for _, after in changes(owner)] == [State.STALE, State.LOST, State.NO_TARGET]


def test_a_camera_that_never_sent_a_frame_is_stale_too():
    owner = Owner(cameras=("left",))
    owner.clock.advance(1000.0)
    owner.engine.set_instruction(Instruction("a", "red"))
    owner.clock.advance(0.6)
    owner.engine.check_stale()
    assert owner.rejections[0].reason == "no frame yet from camera 'left'"
    (target,) = owner.show(2.0, "red", camera="left").targets  # stamps of a time base of their own
    assert target.state is State.PRESENT and target.since_ns == 2 * SECOND


def test_reset_forgets_frames_and_targets_but_not_the_instructions():
    owner = Owner()
    owner.engine.set_instruction(Instruction("a", "red"))
    owner.play(10.0, 11.0, "red")
    owner.engine.reset()
    seen = owner.engine.statistics()
    assert seen.queue_depths["buffer:camera"] == 0 and seen.resets == {"reset": 1}
    assert seen.instructions[0].state is State.GROUNDING
    (target,) = owner.show(10.5, "red").targets  # an earlier stamp is fine after a reset
    assert target.state is State.PRESENT and len(owner.segmenter.clips) == 2


def test_bad_input_of_the_owner_is_counted_by_cause():
    owner = Owner()
    owner.engine.count_bad_input("bad_step")
    owner.engine.count_bad_input("bad_step")
    assert owner.engine.statistics().drops == {"bad_step": 2}


def test_a_callback_that_raises_is_counted_and_does_no_harm():
    def broken(_):
        raise ValueError("owner's fault")

    engine = StreamingEngine(
        ColourSegmenter(), on_result=broken, on_rejection=broken, on_grounding=broken, on_instructions=broken
    )
    engine.set_instruction(Instruction("a", "green"))
    assert states(engine.process(colour_frame(0.0, "red"))) == [State.NO_TARGET]
    assert set(engine.statistics().faults) == {
        "callback on_result",
        "callback on_rejection",
        "callback on_grounding",
        "callback on_instructions",
    }


def test_a_log_that_raises_is_counted_and_stops_nothing():
    def log(level: int, message: str) -> None:
        raise ValueError("no space left")

    results = []
    segmenter = ColourSegmenter()
    engine = StreamingEngine(segmenter, on_result=results.append, log=log)
    engine.set_instruction(Instruction("a", "red"))
    with engine:
        segmenter.raising = {"encode"}
        engine.submit_frame(colour_frame(0.0, "red"))
        assert eventually(lambda: len(results) == 1)
        engine.submit_frame(colour_frame(0.0, "red"))  # the same stamp: dropped, and said so
        segmenter.raising = set()
        engine.submit_frame(colour_frame(1.0, "red"))
        assert eventually(lambda: len(results) == 2)
    assert engine.statistics().faults["callback log"] >= 2
    assert "no space left" in engine.statistics().last_error


def test_an_event_is_told_although_its_instruction_ends_with_the_same_frame():
    owner = Owner(lost_after=0.2)
    owner.engine.set_instruction(Instruction("a", "red", timeout_s=0.4))
    owner.show(0.0, "red")
    owner.play(0.1, 0.3)
    assert owner.rejections == []
    assert [i.id for i in owner.show(0.4).ended] == ["a"]
    assert changes(owner) == [(State.OCCLUDED, State.LOST)]


def test_callbacks_may_call_the_engine():
    engine = StreamingEngine(ColourSegmenter(), on_result=lambda _: engine.cancel(None))
    engine.set_instruction(Instruction("a", "red"))
    assert states(engine.process(colour_frame(0.0, "red"))) == [State.PRESENT]
    assert engine.process(colour_frame(0.1, "red")).targets == ()


def test_process_is_refused_while_the_threads_run():
    owner = Owner()
    with owner.engine, pytest.raises(InstructSegError, match="submit_frame"):
        owner.show(0.0, "red")
    assert states(owner.show(0.1, "red")) == []


def test_a_clip_longer_than_the_buffer_is_warned_about():
    owner = Owner(ColourSegmenter(Sampling(sparse=4, dense=1, horizon_s=10.0)), buffer_s=3.0)
    assert any("buffer_s 3 is shorter than the 10 s" in message for message in owner.said)


def test_the_same_frames_give_the_same_results():
    def run() -> list:
        owner = Owner()
        owner.engine.set_instruction(Instruction("a", "red and green"))
        for i in range(60):
            owner.show(i / 10, *(["red"] if i % 20 < 12 else ["green", "blue"]))
        return [
            (t.instruction.id, t.instance_id, t.state, t.score, t.reason, t.since_ns, t.mask is not None)
            for result in owner.results
            for t in result.targets
        ]

    assert run() == run()
