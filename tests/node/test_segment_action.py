"""Action ``~/segment``: goals that are taken, told about, answered, cancelled, replaced and ended by the node."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from action_msgs.msg import GoalStatus
from builtin_interfaces.msg import Duration
from instructseg_msgs.action import Segment
from instructseg_msgs.msg import Instruction, Target
from instructseg_msgs.srv import Cancel
from node.node_harness import NODE, Harness, pixels
from rclpy.action import ActionClient
from std_srvs.srv import Trigger
from unit.fakes import colour_frame

from instructseg.core import Frame, Mode, State
from instructseg.core import Instruction as CoreInstruction
from instructseg.streaming import FrameResult
from instructseg.tracking import TargetState
from instructseg_node.segment_action import End, result_message

SUCCEEDED, CANCELED, ABORTED = GoalStatus.STATUS_SUCCEEDED, GoalStatus.STATUS_CANCELED, GoalStatus.STATUS_ABORTED
RED = (colour_frame(0.0, "red").image == (255, 0, 0)).all(axis=-1)
ONE_SHOT = Instruction.ONE_SHOT


class Sent:
    """One goal as its client sees it."""

    def __init__(self, harness: Harness, client: ActionClient, fields: dict) -> None:
        self.feedback: list = []
        self._harness = harness
        goal = Segment.Goal(instruction=Instruction(**fields))
        sending = client.send_goal_async(goal, lambda message: self.feedback.append(message.feedback))
        harness.wait(sending.done, "the goal's response")
        self.handle = sending.result()
        self.accepted = self.handle.accepted
        self._result = self.handle.get_result_async() if self.accepted else None

    @property
    def over(self) -> bool:
        return self._result.done()

    def wait_for_feedback(self) -> Segment.Feedback:
        count = len(self.feedback)
        self._harness.show_until(lambda: len(self.feedback) > count, "feedback", "red")
        return self.feedback[-1]

    def result(self, *colours: str) -> tuple[int, Segment.Result]:
        """Status and result, while a camera shows these colours."""
        if colours:
            self._harness.show_until(self._result.done, "the result", *colours)
        self._harness.wait(self._result.done, "the result")
        return self._result.result().status, self._result.result().result


class Goals:
    def __init__(self, harness: Harness) -> None:
        self._harness = harness
        self._client = ActionClient(harness.peer, Segment, f"{NODE}/segment")
        assert self._client.wait_for_server(10.0)

    def send(self, text: str = "red", **fields) -> Sent:
        return Sent(self._harness, self._client, {"text": text} | fields)


def call(harness: Harness, kind, name: str, request):
    client = harness.peer.create_client(kind, f"{NODE}/{name}")
    assert client.wait_for_service(10.0)
    future = client.call_async(request)
    harness.wait(future.done, name)
    return future.result()


def texts(harness: Harness) -> list[str]:
    return [status.instruction.text for status in harness.node.engine.statistics().instructions]


@pytest.fixture
def harness(ros) -> Harness:
    return Harness(ros).up("targets")


def test_one_shot_succeeds_with_the_mask_of_the_frame_that_answered_it(harness) -> None:
    instructions = harness.listen("instructions", latched=True)
    sent = Goals(harness).send("the red block", id="pick", mode=ONE_SHOT)
    status, result = sent.result("red")
    assert (status, result.state, result.reason) == (SUCCEEDED, Target.PRESENT, "answered: PRESENT")
    (target,) = result.targets.targets
    assert (target.instruction_id, target.state, target.area) == ("pick", Target.PRESENT, 64)
    assert result.targets.header == result.instance_mask.header
    np.testing.assert_array_equal(pixels(result.instance_mask), np.where(RED, target.instance_id, 0))
    on_topic = [m for m in harness.heard["targets"] if m.targets and m.targets[0].state == Target.PRESENT]
    assert [m.header for m in on_topic] == [result.targets.header]
    assert sent.feedback[-1].state == Target.PRESENT and sent.feedback[-1].area == 64
    harness.wait(lambda: instructions[-1].instructions == [], "no instruction left")


def test_one_shot_succeeds_also_where_nothing_is_there(harness) -> None:
    status, result = Goals(harness).send("the blue block", mode=ONE_SHOT).result("red")
    assert (status, result.state) == (SUCCEEDED, Target.NO_TARGET)
    assert [t.state for t in result.targets.targets] == [Target.NO_TARGET]
    assert (result.instance_mask.width, result.instance_mask.height) == (64, 48)
    assert not pixels(result.instance_mask).any()


def test_one_shot_without_an_answer_in_time_is_aborted(harness) -> None:
    harness.segmenter.rejection["red"] = 0.5  # neither here nor there
    brief = Duration(nanosec=300_000_000)
    status, result = Goals(harness).send("red", mode=ONE_SHOT, timeout=brief).result("red")
    assert (status, result.state) == (ABORTED, Target.UNCERTAIN)
    assert result.reason.startswith("timed out after 0.3 s in state UNCERTAIN")
    assert not pixels(result.instance_mask).any()


def test_track_goes_on_until_it_is_cancelled_and_tells_at_most_ten_times_a_second(harness) -> None:
    sent = Goals(harness).send("red")
    harness.show_until_state(Target.PRESENT, "red")
    del sent.feedback[:]
    frames, started = len(harness.heard["targets"]), time.monotonic()
    harness.show_until(lambda: len(sent.feedback) >= 5, "feedback", "red")
    seconds = time.monotonic() - started
    assert len(sent.feedback) <= seconds * 10 + 2
    assert len(harness.heard["targets"]) - frames > len(sent.feedback)
    told = sent.feedback[-1]
    assert (told.state, told.area) == (Target.PRESENT, 64)
    assert told.score == pytest.approx(0.9)
    assert 0.0 < told.age < 5.0
    harness.wait(sent.handle.cancel_goal_async().done, "the cancellation")
    status, result = sent.result()
    assert (status, result.state, result.reason) == (CANCELED, Target.PRESENT, "cancelled")
    assert pixels(result.instance_mask).any()
    assert texts(harness) == []


def test_track_succeeds_when_its_time_is_up(harness) -> None:
    sent = Goals(harness).send("red", timeout=Duration(nanosec=500_000_000))
    status, result = sent.result("red")
    assert status == SUCCEEDED and result.reason.startswith("timed out after 0.5 s in state ")
    assert texts(harness) == []


def test_a_goal_that_never_saw_a_frame_ends_with_nothing(harness) -> None:
    sent = Goals(harness).send("red")
    harness.wait(sent.handle.cancel_goal_async().done, "the cancellation")
    status, result = sent.result()
    assert (status, result.state) == (CANCELED, Target.GROUNDING)
    assert result.targets.targets == [] and result.instance_mask.height == 0


def test_a_mask_from_before_the_camera_fell_silent_is_not_in_the_result(ros) -> None:
    harness = Harness(ros, stale_after=0.1).up("targets")
    sent = Goals(harness).send("red")
    harness.show_until_state(Target.PRESENT, "red")
    harness.wait(lambda: sent.feedback and sent.feedback[-1].state == Target.STALE, "STALE in the feedback")
    assert sent.feedback[-1].area == 0 and 0.1 < sent.feedback[-1].age < 10.0
    harness.wait(sent.handle.cancel_goal_async().done, "the cancellation")
    status, result = sent.result()
    assert (status, result.state) == (CANCELED, Target.STALE)
    assert [(t.state, t.area) for t in result.targets.targets] == [(Target.STALE, 0)]
    assert not pixels(result.instance_mask).any()


def test_two_goals_at_once_and_a_newer_one_with_the_same_id_replaces_the_older(harness) -> None:
    goals = Goals(harness)
    first, other = goals.send("red", id="a"), goals.send("green", id="b")
    assert first.wait_for_feedback() and other.wait_for_feedback()
    second = goals.send("blue", id="a")
    status, result = first.result()
    assert (status, result.reason) == (ABORTED, "replaced")
    assert sorted(texts(harness)) == ["blue", "green"]
    third = goals.send("blue", id="a")  # the very same words again are another goal
    assert second.result()[0] == ABORTED
    assert third.wait_for_feedback() and other.wait_for_feedback()
    assert not third.over and not other.over
    assert {status.instruction.class_id for status in harness.node.engine.statistics().instructions} == {1, 2}


def test_the_same_goal_again_and_again_ends_every_one_before(harness) -> None:
    goals = Goals(harness)
    sent = [goals.send("red", id="a") for _ in range(4)]  # no frame comes, so that all of them end alike
    assert [one.result()[0] for one in sent[:3]] == [ABORTED] * 3
    assert not sent[3].over and len(harness.node._goals) == 1


def test_a_goal_ends_although_the_topics_cannot_be_served(harness, monkeypatch) -> None:
    sent = Goals(harness).send("red", id="a")
    monkeypatch.setattr(harness.node._outputs, "publish_instructions", lambda statuses: 1 / 0)
    assert call(harness, Cancel, "cancel", Cancel.Request(instruction_id="a")).success
    assert sent.result()[0] == ABORTED


def test_the_longest_time_that_a_message_holds(harness) -> None:
    longest = Duration(sec=2**31 - 1, nanosec=999_999_999)
    instructions = harness.listen("instructions", latched=True)
    assert Goals(harness).send("red", id="a", timeout=longest).accepted
    harness.wait(lambda: instructions and instructions[-1].instructions, "the instruction")
    assert instructions[-1].instructions[0].instruction.timeout.sec == 2**31 - 1


def end_by_command(harness: Harness) -> None:
    harness.say("stop")


def end_by_another_command(harness: Harness) -> None:
    harness.say("green")


def end_by_instruction(harness: Harness) -> None:
    harness.publish("instruction", Instruction(id="a", text="green"))


def end_by_cancel(harness: Harness) -> None:
    assert call(harness, Cancel, "cancel", Cancel.Request(instruction_id="a")).success


def end_by_reset(harness: Harness) -> None:
    assert call(harness, Trigger, "reset", Trigger.Request()).success


def end_by_deactivate(harness: Harness) -> None:
    harness.deactivate()


@pytest.mark.parametrize(
    ("end", "words", "state"),
    [
        (end_by_command, "cancelled", Target.PRESENT),
        (end_by_another_command, "replaced", Target.PRESENT),
        (end_by_instruction, "replaced", Target.PRESENT),
        (end_by_cancel, "cancelled", Target.PRESENT),
        (end_by_reset, "~/reset was called", Target.GROUNDING),
        (end_by_deactivate, "the node was deactivated", Target.STALE),
    ],
)
def test_whatever_else_ends_the_instruction_aborts_the_goal(harness, end, words, state) -> None:
    sent = Goals(harness).send("red", id="a")
    harness.show_until_state(Target.PRESENT, "red")
    assert sent.wait_for_feedback()
    end(harness)
    status, result = sent.result()
    assert (status, result.reason, result.state) == (ABORTED, words, state)
    assert pixels(result.instance_mask).any() == (state == Target.PRESENT)
    assert [t.state for t in result.targets.targets] == [state]
    assert len(harness.node._goals) == 0
    if harness.node.engine is not None:
        assert "red" not in texts(harness)


def test_a_goal_after_deactivate_and_activate(harness) -> None:
    goals = Goals(harness)
    before = goals.send("red", id="a")
    harness.deactivate()
    assert before.result()[0] == ABORTED
    harness.activate()
    assert goals.send("red", id="a", mode=ONE_SHOT).result("red")[0] == SUCCEEDED


BAD = [
    ({"text": ""}, "instruction.text ''"),
    ({"text": "red\x07"}, "instruction.text"),
    ({"text": "r" * 100_000}, "instruction.text"),
    ({"id": "tab\t"}, "instruction.id"),
    ({"id": "i" * 257}, "at most 256"),
    ({"mode": 7}, "instruction.mode is 7; allowed: 0 (TRACK), 1 (ONE_SHOT)"),
    ({"timeout": Duration(sec=-1)}, "instruction.timeout is -1 s"),
    ({"cameras": ["rear"]}, "Instruction.cameras must be among camera; got rear"),
]


def test_bad_goals_are_refused_with_the_reason_and_leave_others_alone(harness, capfd) -> None:
    goals = Goals(harness)
    good = goals.send("red", id="a")
    for fields, words in BAD:
        harness.node._complaints._said.clear()  # every reason, not one in five seconds
        assert not goals.send(**({"id": "a", "text": "red"} | fields)).accepted
        said = capfd.readouterr().err
        assert f"goal refused: {words}" in said or words in said, (words, said)
        assert len(said) < 1000
    assert harness.dropped("goal") == len(BAD)
    assert texts(harness) == ["red"] and len(harness.node._goals) == 1
    assert good.wait_for_feedback()


def test_one_goal_too_many_is_refused(ros) -> None:
    harness = Harness(ros, max_instructions=1).up()
    goals = Goals(harness)
    first = goals.send("red", id="a")
    assert not goals.send("green", id="b").accepted
    assert goals.send("blue", id="a").accepted
    assert first.result()[0] == ABORTED


@pytest.mark.parametrize("phase", ["unconfigured", "inactive"])
def test_a_node_that_is_not_active_takes_no_goal(ros, phase, capfd) -> None:
    harness = Harness(ros)
    if phase == "inactive":
        harness.configure()
    assert not Goals(harness).send("red").accepted
    assert f"goal refused: the node is {phase}: activate it" in capfd.readouterr().err
    assert harness.diagnostics()["last refused goal"] == f"the node is {phase}: activate it"


def test_a_model_error_is_told_and_the_goal_goes_on(harness) -> None:
    sent = Goals(harness).send("red")
    harness.show_until_state(Target.PRESENT, "red")
    harness.segmenter.raising.add("segment")
    harness.show_until_state(Target.ERROR, "red")
    harness.show_until(lambda: sent.feedback[-1].state == Target.ERROR, "ERROR in the feedback", "red")
    assert sent.feedback[-1].area == 0
    harness.segmenter.raising.clear()
    harness.show_until(lambda: sent.feedback[-1].state == Target.PRESENT, "PRESENT again", "red")


def test_images_and_commands_are_taken_while_goals_wait(harness) -> None:
    harness.segmenter.gates["ground"] = threading.Event()
    sent = [Goals(harness).send("red", id=name) for name in "abc"]
    seen = len(harness.heard["targets"])
    harness.show_until(lambda: len(harness.heard["targets"]) > seen + 5, "frames", "red")
    harness.say("stop")
    for goal in sent:
        status, result = goal.result()
        assert (status, result.reason, result.state) == (ABORTED, "cancelled", Target.GROUNDING)
    harness.segmenter.gates["ground"].set()


def test_a_goal_ends_even_where_the_topics_fail(harness, monkeypatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("publishing broke on purpose")

    monkeypatch.setattr(harness.node._outputs, "_publish_overlay", broken)
    assert Goals(harness).send("red", mode=ONE_SHOT).result("red")[0] == SUCCEEDED
    assert harness.node.engine.statistics().faults["callback on_result"] > 0


def shown(camera: str, stamp: int, state: State) -> FrameResult:
    frame = Frame(np.zeros((16, 20, 3), np.uint8), stamp, camera, camera)
    mask = np.ones((16, 20), bool) if state is State.PRESENT else None
    target = TargetState(CoreInstruction("a", "red", mode=Mode.TRACK), stamp, state, 0.5, 0.1, "", 0, 0, mask=mask)
    return FrameResult(frame, (target,), 0.0, {})


def test_the_camera_that_shows_the_final_state_is_told_of() -> None:
    frames = [shown("left", 1, State.PRESENT), shown("right", 2, State.LOST), shown("rear", 3, State.LOST)]
    found = result_message(End(True, State.PRESENT, "x"), frames)
    assert (found.targets.camera, found.instance_mask.header.frame_id) == ("left", "left")
    assert pixels(found.instance_mask).all()
    lost = result_message(End(True, State.LOST, "x"), frames)
    assert lost.targets.camera == "rear" and not pixels(lost.instance_mask).any()
    stale = result_message(End(False, State.STALE, "gone"), frames[:1])
    assert [(t.state, t.reason, t.area) for t in stale.targets.targets] == [(Target.STALE, "gone", 0)]
