"""What comes out on the topics for what goes in (names, types and quality of service: test_contract)."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest
from builtin_interfaces.msg import Duration
from instructseg_msgs.msg import Instruction, InstructionArray, Rejection, Target
from instructseg_msgs.srv import Cancel
from node.node_harness import NODE, Harness, pixels
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool, Trigger
from unit.fakes import colour_frame

from instructseg_node import outputs

RED = (colour_frame(0.0, "red").image == (255, 0, 0)).all(axis=-1)
GREEN = (colour_frame(0.0, "green").image == (0, 255, 0)).all(axis=-1)


def test_targets_masks_and_header_of_one_frame(ros) -> None:
    harness = Harness(ros).up("targets", "instance_mask", "label_mask", "confidence_mask", "instance_mask/compressed")
    harness.say("the red block and the green block")
    harness.show_until_state(Target.PRESENT, "red", "green", frame_id="wrist_camera_optical")
    harness.settle()
    header = harness.show("red", "green", frame_id="wrist_camera_optical")
    for name in harness.heard:
        harness.wait(lambda name=name: harness.heard[name][-1].header == header, f"{name} of the last frame")

    message = harness.heard["targets"][-1]
    assert (message.camera, message.width, message.height) == ("camera", 64, 48)
    assert [t.phrase for t in message.targets] == ["red", "green"]
    red, green = message.targets
    assert red.instruction_text == "the red block and the green block"
    assert red.instruction_id == green.instruction_id == "command-1"
    assert red.instance_id != green.instance_id
    assert red.class_id == green.class_id == 1
    assert (red.box.x, red.box.y, red.box.width, red.box.height, red.area) == (4, 8, 8, 8, 64)
    assert (red.centroid_x, red.centroid_y) == (7.5, 11.5)
    assert red.score == pytest.approx(0.9)
    assert red.rejection_score == pytest.approx(0.05)
    assert 0.0 < red.age < 2.0
    assert 0 < red.grounded_stamp.sec <= red.since.sec <= header.stamp.sec

    instances = pixels(harness.heard["instance_mask"][-1])
    assert instances.dtype == np.dtype("<u2")
    np.testing.assert_array_equal(instances == red.instance_id, RED)
    np.testing.assert_array_equal(instances == green.instance_id, GREEN)
    assert not instances[~(RED | GREEN)].any()
    assert harness.heard["label_mask"][-1].encoding == "mono8"
    np.testing.assert_array_equal(pixels(harness.heard["label_mask"][-1]), np.where(RED | GREEN, 1, 0))
    np.testing.assert_array_equal(pixels(harness.heard["confidence_mask"][-1]), np.where(RED | GREEN, 255, 0))
    packed = harness.heard["instance_mask/compressed"][-1]
    assert packed.format.startswith("16UC1; png")
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(packed.data, np.uint8), cv2.IMREAD_UNCHANGED), instances)


def test_every_processed_frame_has_targets_with_its_own_stamp_and_never_twice(ros) -> None:
    harness = Harness(ros, frame_policy="every").up("targets")
    sent = []
    for _ in range(30):
        sent.append(harness.show("red").stamp)
        time.sleep(0.005)
    harness.wait(lambda: len(harness.heard["targets"]) >= 30, "30 messages")
    assert [message.header.stamp for message in harness.heard["targets"]] == sent


def test_absent_targets_are_named_and_leave_no_pixel(ros) -> None:
    harness = Harness(ros).up("targets", "instance_mask", "label_mask")
    harness.say("the blue block")
    message = harness.show_until_state(Target.NO_TARGET, "red")
    target = message.targets[0]
    assert "rejection score 0.95" in target.reason
    assert target.rejection_score == pytest.approx(0.95)
    assert (target.instance_id, target.area, target.box.width) == (0, 0, 0)
    harness.wait(lambda: harness.heard["instance_mask"] and harness.heard["label_mask"], "masks")
    assert not any(pixels(m).any() for m in harness.heard["instance_mask"] + harness.heard["label_mask"])


def test_rejection_is_an_event_and_latched(ros) -> None:
    harness = Harness(ros).up("targets")
    harness.say("the blue block")
    harness.show_until_state(Target.NO_TARGET, "red", frame_id="eye")
    late = harness.listen("rejection", latched=True)  # a listener that comes after the event
    harness.wait(lambda: late, "the latched event")
    event = late[0]
    assert (event.before, event.after) == (Target.GROUNDING, Target.NO_TARGET)
    assert (event.instruction_id, event.instruction_text) == ("command-1", "the blue block")
    assert (event.camera, event.header.frame_id) == ("camera", "eye")
    assert event.rejection_score == pytest.approx(0.95)
    assert "rejection score" in event.reason
    harness.show_until_state(Target.PRESENT, "blue")
    harness.wait(lambda: late[-1].after == Target.PRESENT, "the event out of NO_TARGET")
    assert late[-1].before == Target.NO_TARGET
    assert all(isinstance(message, Rejection) for message in late)


def test_frames_that_stop_make_the_target_stale_without_any_mask(ros) -> None:
    harness = Harness(ros, stale_after=0.2).up("targets", "rejection", "instance_mask")
    harness.say("the red block")
    harness.show_until_state(Target.PRESENT, "red")
    changes = [(Target.PRESENT, Target.STALE)]
    harness.wait(lambda: [(m.before, m.after) for m in harness.heard["rejection"][-1:]] == changes, "STALE")
    masks = harness.settle()["instance_mask"]
    time.sleep(0.3)
    assert len(harness.heard["instance_mask"]) == masks
    harness.show_until_state(Target.PRESENT, "red")


def test_grounding_tells_what_was_looked_at(ros) -> None:
    harness = Harness(ros).up("grounding", "targets")
    harness.show_until(lambda: len(harness.heard["targets"]) >= 3, "buffered frames", "red")
    harness.say("the red block")
    harness.show_until(lambda: harness.heard["grounding"], "a grounding", "red", frame_id="eye")
    message = harness.heard["grounding"][0]
    assert (message.instruction_id, message.instruction_text) == ("command-1", "the red block")
    assert message.answer == "the red block"
    assert message.frame_stamps[-1] == message.header.stamp
    assert message.camera == "camera"
    assert 1 <= len(message.frame_stamps) <= 3
    assert message.duration > 0.0
    target = message.targets[0]
    assert (target.phrase, target.rejected) == ("red", False)
    assert target.score == pytest.approx(0.95)


def test_overlay_is_drawn_only_while_somebody_listens(ros, monkeypatch) -> None:
    drawn = []
    real = outputs.draw_overlay
    monkeypatch.setattr(outputs, "draw_overlay", lambda *a: drawn.append(1) or real(*a))
    harness = Harness(ros).up("targets")
    harness.say("the red block")
    harness.show_until_state(Target.PRESENT, "red")
    assert not drawn
    harness.listen("overlay")
    harness.listen("overlay/compressed")
    harness.show_until(lambda: harness.heard["overlay"] and harness.heard["overlay/compressed"], "overlays", "red")
    picture = harness.heard["overlay"][-1]
    assert picture.encoding == "rgb8"
    assert (pixels(picture)[RED] != (255, 0, 0)).any()
    packed = harness.heard["overlay/compressed"][-1]
    assert packed.format == "rgb8; jpeg compressed bgr8"
    assert cv2.imdecode(np.frombuffer(packed.data, np.uint8), cv2.IMREAD_COLOR).shape == (48, 64, 3)


def working_on(message: InstructionArray) -> list[str]:
    return [status.instruction.text for status in message.instructions]


@pytest.mark.parametrize(("mode", "expected"), [("replace", ["green"]), ("add", ["red", "green"])])
def test_commands_replace_or_add_and_stop_ends_all(ros, mode, expected) -> None:
    harness = Harness(ros, command_mode=mode).up("targets")
    instructions = harness.listen("instructions", latched=True)
    harness.say("red")
    harness.wait(lambda: instructions and working_on(instructions[-1]) == ["red"], "the first command")
    harness.say("green")
    harness.wait(lambda: working_on(instructions[-1]) == expected, f"{expected}")
    assert len({status.class_id for status in instructions[-1].instructions}) == len(expected)
    targets = harness.heard["targets"]
    harness.show_until(lambda: targets and len(targets[-1].targets) == len(expected), "targets", "red", "green")
    for word in ("Stop!", "cancel", "clear"):
        harness.say(word)
        harness.wait(lambda: working_on(instructions[-1]) == [], f"{word} to end all")
        harness.say("red")
        harness.wait(lambda: working_on(instructions[-1]) == ["red"], "the next command")


def test_the_same_command_again_changes_nothing(ros) -> None:
    harness = Harness(ros).up("targets")
    harness.say("the red block")
    first = harness.show_until_state(Target.PRESENT, "red").targets[0]
    harness.say("the  red block")
    harness.say("the red block")
    del harness.heard["targets"][:]
    harness.show_until(lambda: len(harness.heard["targets"]) > 8, "more targets", "red")
    for message in harness.heard["targets"]:
        assert [(t.instruction_id, t.instance_id, t.state) for t in message.targets] == [
            (first.instruction_id, first.instance_id, Target.PRESENT)
        ]


def test_instruction_messages_add_replace_time_out_and_answer_once(ros) -> None:
    harness = Harness(ros).up("targets")
    instructions = harness.listen("instructions", latched=True)
    harness.publish("instruction", Instruction(id="pick", text="red", priority=3))
    harness.publish("instruction", Instruction(text="green"))
    harness.wait(lambda: instructions and working_on(instructions[-1]) == ["red", "green"], "both")
    pick, made = instructions[-1].instructions
    assert (pick.instruction.id, pick.instruction.priority, pick.class_id) == ("pick", 3, 1)
    assert made.instruction.id.startswith("instruction-")
    assert made.class_id == 2
    harness.publish("instruction", Instruction(id="pick", text="blue"))
    harness.wait(lambda: sorted(working_on(instructions[-1])) == ["blue", "green"], "the replacement")
    assert {s.instruction.text: s.class_id for s in instructions[-1].instructions} == {"blue": 1, "green": 2}

    harness.say("stop")
    once = Instruction(id="once", text="red", mode=Instruction.ONE_SHOT)
    harness.publish("instruction", once)
    harness.wait(lambda: working_on(instructions[-1]) == ["red"], "the one-shot instruction")
    harness.show_until(lambda: working_on(instructions[-1]) == [], "its end", "red")
    answered = [m for m in harness.heard["targets"] if m.targets and m.targets[0].instruction_id == "once"]
    assert answered[-1].targets[0].state == Target.PRESENT

    harness.publish("instruction", Instruction(id="brief", text="red", timeout=Duration(nanosec=200_000_000)))
    harness.wait(lambda: working_on(instructions[-1]) == ["red"], "the brief instruction")
    harness.wait(lambda: working_on(instructions[-1]) == [], "its time-out")


def test_status_of_an_instruction_has_state_and_scores(ros) -> None:
    harness = Harness(ros).up("targets")
    instructions = harness.listen("instructions", latched=True)
    harness.say("red")
    harness.show_until_state(Target.PRESENT, "red")
    harness.wait(lambda: instructions[-1].instructions[0].state == Target.PRESENT, "PRESENT in the status")
    status = instructions[-1].instructions[0]
    assert (status.targets, status.class_id) == (1, 1)
    assert status.score == pytest.approx(0.9)
    assert status.grounded_stamp.sec > 0


def test_cameras_each_have_their_topic_and_name(ros) -> None:
    harness = Harness(ros, cameras=["head", "wrist"]).up("targets")
    harness.say("red")
    for camera in ("head", "wrist"):
        where = {"topic": f"{camera}/image", "frame_id": f"{camera}_optical"}
        message = harness.show_until_state(Target.PRESENT, "red", **where)
        assert (message.camera, message.header.frame_id) == (camera, f"{camera}_optical")


def test_compressed_transport(ros) -> None:
    harness = Harness(ros, image_transport="compressed").up("targets", "instance_mask")
    assert harness.peer.count_subscribers("image") == 0
    harness.say("red")
    harness.show_until_state(Target.PRESENT, "red", topic="image/compressed")
    harness.wait(lambda: (pixels(harness.heard["instance_mask"][-1]) > 0).any(), "a mask")
    np.testing.assert_array_equal(pixels(harness.heard["instance_mask"][-1]) > 0, RED)


def test_services_cancel_reset_and_enable(ros) -> None:
    harness = Harness(ros, stale_after=0.3)
    cancel = harness.peer.create_client(Cancel, f"{NODE}/cancel")
    reset = harness.peer.create_client(Trigger, f"{NODE}/reset")
    enable = harness.peer.create_client(SetBool, f"{NODE}/enable")
    for client, request in [(cancel, Cancel.Request()), (reset, Trigger.Request()), (enable, SetBool.Request())]:
        assert client.wait_for_service(5.0)
        answer = client.call(request, timeout_sec=5.0)
        assert not answer.success
        assert "unconfigured" in answer.message

    harness.up("targets", "rejection")
    harness.publish("instruction", Instruction(id="a", text="red"))
    harness.publish("instruction", Instruction(id="b", text="green"))
    targets = harness.heard["targets"]
    harness.show_until(lambda: targets and len(targets[-1].targets) == 2, "both instructions", "red")
    unknown = cancel.call(Cancel.Request(instruction_id="c"), timeout_sec=5.0)
    assert (unknown.success, unknown.cancelled) == (False, [])
    assert "'c'" in unknown.message
    assert cancel.call(Cancel.Request(instruction_id="b"), timeout_sec=5.0).cancelled == ["b"]

    harness.show_until_state(Target.PRESENT, "red")
    groundings = len(harness.segmenter.clips)
    assert reset.call(Trigger.Request(), timeout_sec=5.0).success
    harness.show_until_state(Target.PRESENT, "red")
    assert len(harness.segmenter.clips) > groundings

    assert enable.call(SetBool.Request(data=False), timeout_sec=5.0).success
    events = harness.heard["rejection"]
    harness.show_until(lambda: any(m.after == Target.STALE for m in events), "STALE while disabled", "red")
    assert harness.diagnostics()["message"] == "active, disabled by ~/enable"
    assert enable.call(SetBool.Request(data=True), timeout_sec=5.0).success
    harness.show_until_state(Target.PRESENT, "red")
    assert cancel.call(Cancel.Request(), timeout_sec=5.0).cancelled == ["a"]


def test_switching_off_is_stale_at_once_however_long_silence_is_borne(ros) -> None:
    harness = Harness(ros, stale_after=30.0).up("targets", "rejection", "instructions")
    harness.say("red")
    harness.show_until_state(Target.PRESENT, "red")
    enable = harness.peer.create_client(SetBool, f"{NODE}/enable")
    assert enable.call(SetBool.Request(data=False), timeout_sec=10.0).success
    harness.wait(lambda: harness.heard["rejection"][-1].after == Target.STALE, "STALE")
    assert harness.heard["rejection"][-1].reason == "switched off by ~/enable"
    harness.wait(lambda: harness.heard["instructions"][-1].instructions[0].state == Target.STALE, "STALE in the list")
    before = harness.settle()
    for _ in range(5):
        harness.show("red")
    assert harness.settle()["targets"] == before["targets"]
    assert enable.call(SetBool.Request(data=True), timeout_sec=10.0).success
    harness.show_until_state(Target.PRESENT, "red")


def test_deactivate_says_that_nothing_is_worked_on(ros) -> None:
    harness = Harness(ros).up("targets")
    harness.say("red")
    harness.show_until_state(Target.PRESENT, "red")
    harness.deactivate()
    late = harness.listen("instructions", latched=True)
    harness.wait(lambda: late, "the latched list")
    assert working_on(late[-1]) == []
    events = harness.listen("rejection", latched=True)
    harness.wait(lambda: events and events[-1].after == Target.STALE, "STALE at the end")


def test_a_best_effort_listener_hears_the_masks_too(ros) -> None:
    harness = Harness(ros).up("targets")
    heard = []
    qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    harness.peer.create_subscription(Image, f"{NODE}/instance_mask", heard.append, qos)
    harness.show_until(lambda: heard, "a mask", "red")
