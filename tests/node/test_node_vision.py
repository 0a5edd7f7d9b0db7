"""The node with the real vision_msgs: three more topics. How it runs without the package is in test_node_3d.py."""

from __future__ import annotations

import pytest
from instructseg_msgs.msg import Instruction, Target
from node.node_harness import NODE, SUCCESS, Harness, pixels
from node.test_node_3d import Robot
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
from unit.vision_stand_ins import FIELDS

kinds = pytest.importorskip("vision_msgs.msg", reason="the ROS package vision_msgs is not installed: pip has none")


def test_the_stand_ins_of_the_unit_tests_have_the_fields_of_the_package() -> None:
    for name, fields in FIELDS.items():
        real = getattr(kinds, name).get_fields_and_field_types()
        assert {field: kind.removesuffix("_") for field, kind in real.items()} == fields, name


def test_label_info_is_latched_and_follows_every_change_of_the_vocabulary(ros) -> None:
    harness = Harness(ros).up("targets", "label_mask")
    infos = harness.listen("label_info", latched=True, kind=kinds.LabelInfo)

    def labels() -> dict[int, str]:
        return {entry.class_id: entry.class_name for entry in infos[-1].class_map}

    harness.wait(lambda: infos and labels() == {}, "the empty vocabulary")
    info = harness.peer.get_publishers_info_by_topic(f"{NODE}/label_info")[0]
    assert info.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    assert info.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
    mine = [p for p in harness.node.publishers if p.topic_name == f"{NODE}/label_info"]
    assert [p.qos_profile.depth for p in mine] == [1]
    harness.publish("instruction", Instruction(id="a", text="red"))
    harness.publish("instruction", Instruction(id="b", text="green"))
    harness.wait(lambda: labels() == {1: "red", 2: "green"}, "both names")
    assert infos[-1].threshold == 0.5
    harness.show_until_state(Target.PRESENT, "red", "green")
    harness.wait(lambda: set(pixels(harness.heard["label_mask"][-1]).ravel()) == {0, 1, 2}, "both values in the mask")
    count = len(infos)
    harness.show_until_state(Target.PRESENT, "red", "green")
    harness.settle()
    assert len(infos) == count  # frames change nothing
    harness.publish("instruction", Instruction(id="a", text="blue"))
    harness.wait(lambda: labels() == {1: "blue", 2: "green"}, "the new text")
    harness.say("stop")
    harness.wait(lambda: labels() == {}, "the empty vocabulary again")
    for step in (harness.deactivate, harness.cleanup, harness.configure, harness.activate):
        assert step() == SUCCESS
    count = len(infos)
    harness.publish("instruction", Instruction(id="c", text="red"))
    harness.wait(lambda: len(infos) > count and labels() == {1: "red"}, "the vocabulary of the next activation")


def test_detections_in_pixels_and_in_space(ros) -> None:
    robot = Robot(ros)
    flat = robot.harness.listen("detections", kind=kinds.Detection2DArray)
    space = robot.harness.listen("detections_3d", kind=kinds.Detection3DArray)
    robot.harness.say("red")
    robot.show_until(lambda: flat and flat[-1].detections and space and space[-1].detections, "detections", "red")
    (found,), target = flat[-1].detections, robot.harness.heard["targets"][-1].targets[0]
    assert found.id == str(target.instance_id) and found.results[0].hypothesis.class_id == str(target.class_id)
    assert (found.bbox.center.position.x, found.bbox.center.position.y, found.bbox.size_x) == (7.5, 11.5, 8.0)
    (found,) = space[-1].detections
    assert space[-1].header.frame_id == found.header.frame_id == "optical"
    assert found.bbox.center.position.z == pytest.approx(0.8, abs=1e-6)
    assert found.bbox.size.x == pytest.approx(0.8 * 7 / 60, abs=1e-6)
    robot.show_until(lambda: not flat[-1].detections and not space[-1].detections, "empty lists", "green")


def test_nothing_of_it_where_the_parameters_say_so(ros) -> None:
    harness = Harness(ros, publish_detections=False, publish_3d=False).up("targets")
    mine = {p.topic_name for p in harness.node.publishers}
    assert not mine & {f"{NODE}/{name}" for name in ("detections", "detections_3d", "label_info")}
    assert harness.diagnostics()["vision_msgs"] == "installed"
