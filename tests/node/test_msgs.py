"""instructseg_msgs: every interface is there, starts safe, and goes over the wire as topic, service and action."""

from __future__ import annotations

import array
import re
from pathlib import Path

import numpy as np
import pytest
from action_msgs.msg import GoalStatus
from builtin_interfaces.msg import Duration, Time
from instructseg_msgs import action, msg, srv
from instructseg_msgs.action import Segment
from instructseg_msgs.msg import Box, GroundedTarget, Grounding, Instruction, Rejection, Target, TargetArray
from instructseg_msgs.srv import Cancel, SegmentOnce
from rclpy.action import ActionClient, ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.task import Future
from ros_runner import RosRunner
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from instructseg.core import Mode, State

SOURCES = Path(__file__).parents[2] / "ros2_ws" / "src" / "instructseg_msgs"
STAMP = Time(sec=1_700_000_000, nanosec=999_999_999)


def test_every_source_file_is_built_and_importable() -> None:
    for folder, module in (("msg", msg), ("srv", srv), ("action", action)):
        names = {path.stem for path in (SOURCES / folder).glob(f"*.{folder}")}
        assert names
        for name in names:
            assert type(getattr(module, name)).__name__.startswith("Metaclass_"), name


def test_installed_fields_are_those_of_the_sources() -> None:
    """An installed wheel that is older than the sources would let every other test pass on the wrong messages."""
    for path in (SOURCES / "msg").glob("*.msg"):
        lines = [line.split("#")[0].strip() for line in path.read_text().splitlines()]
        fields = [line.split()[1] for line in lines if line and "=" not in line]
        assert list(getattr(msg, path.stem).get_fields_and_field_types()) == fields, path.name


def test_every_field_is_explained() -> None:
    """Each file says what it is for, each field its meaning, unit or frame: the wire is read by other people's code."""
    for path in [*SOURCES.glob("msg/*.msg"), *SOURCES.glob("srv/*.srv"), *SOURCES.glob("action/*.action")]:
        text = path.read_text()
        assert text.startswith("# "), f"{path.name} does not say what it is for"
        bare = [line for line in text.splitlines() if line.strip() not in ("", "---") and "# " not in line]
        assert not bare, f"{path.name}: no comment on {bare}"


def test_states_and_modes_are_those_of_the_model_side() -> None:
    constants = {name: getattr(Target, name) for name in State.__members__}
    assert constants == {state.name: state.value for state in State}
    assert {name: getattr(Instruction, name) for name in Mode.__members__} == {mode.name: mode.value for mode in Mode}
    declared = re.findall(r"^uint8 ([A-Z_]+)=", (SOURCES / "msg" / "Target.msg").read_text(), re.MULTILINE)
    assert set(declared) == set(State.__members__)


def test_a_target_nobody_filled_in_is_not_present() -> None:
    target = Target()
    assert target.state == Target.GROUNDING != Target.PRESENT
    assert (target.instance_id, target.area, target.box.width, target.box.height) == (0, 0, 0, 0)
    assert Instruction().mode == Instruction.TRACK
    assert Cancel.Response().success is False
    assert SegmentOnce.Response().success is False
    assert Segment.Result().state != Target.PRESENT


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("instance_id", 65536), ("instance_id", -1), ("state", 256), ("state", Target), ("score", "high"),
        ("score", np.float32(0.5)), ("area", np.int64(3)), ("area", 1.5), ("instruction_text", b"mug"), ("box", (1, 2)),
    ],
)  # fmt: skip
def test_wrong_values_are_refused(field: str, value: object) -> None:
    """The test session runs with field checks on; without them these would fail in publish(), or not at all."""
    with pytest.raises(AssertionError):
        setattr(Target(), field, value)


def test_target_array_over_a_topic(ros: RosRunner) -> None:
    sent = target_array()
    heard: list[TargetArray] = []
    node = ros.node("topics")
    node.create_subscription(TargetArray, "targets", heard.append, 5)
    publisher = node.create_publisher(TargetArray, "targets", 5)
    ros.wait(publisher.get_subscription_count, "the subscription")
    publisher.publish(sent)
    ros.wait(lambda: heard, "the message")
    assert heard == [sent]
    assert heard[0].header.stamp == STAMP


def test_late_subscriber_gets_the_rejection(ros: RosRunner) -> None:
    latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    sent = Rejection(
        header=Header(stamp=STAMP, frame_id="head_optical"), camera="head", instruction_id="1", instance_id=3,
        instruction_text="the red mug", before=Target.PRESENT, after=Target.LOST, score=0.25, rejection_score=0.5,
        reason="not seen for 1.2 s",
    )  # fmt: skip
    heard: list[Rejection] = []
    ros.node("early").create_publisher(Rejection, "rejection", latched).publish(sent)
    ros.node("late").create_subscription(Rejection, "rejection", heard.append, latched)
    ros.wait(lambda: heard, "the latched event")
    assert heard == [sent]


def test_grounding_over_a_topic(ros: RosRunner) -> None:
    slots = [GroundedTarget(phrase="the fork", score=0.75), GroundedTarget(phrase="the knife", rejected=True)]
    sent = Grounding(
        header=Header(stamp=STAMP), instruction_id="1", frame_stamps=[Time(sec=1), STAMP], targets=slots, duration=0.5
    )
    heard: list[Grounding] = []
    node = ros.node("topics")
    node.create_subscription(Grounding, "grounding", heard.append, 10)
    publisher = node.create_publisher(Grounding, "grounding", 10)
    ros.wait(publisher.get_subscription_count, "the subscription")
    publisher.publish(sent)
    ros.wait(lambda: heard, "the message")
    assert heard == [sent]


def test_services(ros: RosRunner) -> None:
    def cancel(request: Cancel.Request, response: Cancel.Response) -> Cancel.Response:
        response.success = True
        response.cancelled = [request.instruction_id]
        return response

    def segment_once(request: SegmentOnce.Request, response: SegmentOnce.Response) -> SegmentOnce.Response:
        pixels = np.frombuffer(request.image.data, np.uint8).reshape(request.image.height, request.image.width, 3)
        mask = (pixels[..., 0] > 127).astype(np.uint16)
        response.success = True
        response.instance_mask = image(mask, "16UC1")
        response.targets.targets = [Target(instruction_text=request.instruction.text, area=int(mask.sum()))]
        return response

    server, client = ros.node("server"), ros.node("client")
    server.create_service(Cancel, "cancel", cancel)
    server.create_service(SegmentOnce, "segment_once", segment_once)
    cancelling = client.create_client(Cancel, "cancel")
    segmenting = client.create_client(SegmentOnce, "segment_once")
    ros.wait(cancelling.service_is_ready, "~/cancel")
    ros.wait(segmenting.service_is_ready, "~/segment_once")

    assert cancelling.call(Cancel.Request(instruction_id="7"), timeout_sec=10).cancelled == ["7"]

    picture = np.zeros((480, 640, 3), np.uint8)
    picture[10:20, 30:50, 0] = 255
    request = SegmentOnce.Request(image=image(picture, "rgb8"), instruction=Instruction(text="the red block"))
    answer = segmenting.call(request, timeout_sec=10)
    assert answer.success
    assert answer.targets.targets == [Target(instruction_text="the red block", area=200)]
    mask = np.frombuffer(answer.instance_mask.data, np.uint16).reshape(480, 640)
    assert np.array_equal(mask, picture[..., 0] // 255)


def test_action_with_feedback_and_cancel(ros: RosRunner) -> None:
    cancel_asked = Future(executor=ros.executor)

    async def execute(goal: ServerGoalHandle) -> Segment.Result:
        goal.publish_feedback(Segment.Feedback(state=Target.PRESENT, score=0.5, area=12, age=0.25))
        await cancel_asked
        goal.canceled()
        return Segment.Result(state=Target.NO_TARGET, reason=f"{goal.request.instruction.text}: cancelled")

    def accept_cancel(_goal: ServerGoalHandle) -> CancelResponse:
        cancel_asked.set_result(True)
        return CancelResponse.ACCEPT

    server = ActionServer(ros.node("server"), Segment, "segment", execute, cancel_callback=accept_cancel)
    client = ActionClient(ros.node("client"), Segment, "segment")
    ros.wait(client.server_is_ready, "~/segment")
    feedback: list[Segment.Feedback] = []
    goal = Segment.Goal(instruction=Instruction(id="1", text="the mug", timeout=Duration(sec=2)))
    sending = client.send_goal_async(goal, feedback_callback=lambda message: feedback.append(message.feedback))
    ros.wait(sending.done, "acceptance")
    handle = sending.result()
    assert handle.accepted
    ros.wait(lambda: feedback, "feedback")
    finished = handle.get_result_async()
    handle.cancel_goal_async()
    ros.wait(finished.done, "the result")

    assert feedback == [Segment.Feedback(state=Target.PRESENT, score=0.5, area=12, age=0.25)]
    assert finished.result().status == GoalStatus.STATUS_CANCELED
    assert finished.result().result == Segment.Result(state=Target.NO_TARGET, reason="the mug: cancelled")
    ros.stop()
    server.destroy()
    client.destroy()


def target_array() -> TargetArray:
    """Numbers that float32 holds exactly, so that messages can be compared as they are."""
    target = Target(
        instruction_id="1", instruction_text="the red mug left of the bowl, größer als 2 \N{GREEK SMALL LETTER ALPHA}",
        class_id=255, instance_id=65535, phrase="the red mug", state=Target.PRESENT, score=0.875, rejection_score=0.125,
        box=Box(x=1, y=2, width=3, height=4), area=9, centroid_x=2.5, centroid_y=3.25, since=Time(sec=5),
        grounded_stamp=STAMP, age=0.0625,
    )  # fmt: skip
    header = Header(stamp=STAMP, frame_id="head_camera_optical_frame")
    return TargetArray(header=header, camera="head", width=640, height=480, targets=[target, Target()])


def image(pixels: np.ndarray, encoding: str) -> Image:
    data = array.array("B")
    data.frombytes(np.ascontiguousarray(pixels).tobytes())
    step = pixels.strides[0]
    return Image(height=pixels.shape[0], width=pixels.shape[1], encoding=encoding, step=step, data=data)
