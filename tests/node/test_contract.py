"""The contract, row by row: what ``instructseg_node.interface`` lists is what a running node offers, and nothing else.

In one process with a model that finds colours; and once as a user starts it, with the recipe ``unified`` and its own
weights.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from action_msgs.msg import GoalStatus
from builtin_interfaces.msg import Time
from instructseg_msgs.action import Segment
from instructseg_msgs.msg import Instruction, Target
from instructseg_msgs.srv import SegmentOnce
from node.node_harness import KINDS, NODE, Harness, now, pixels
from node.test_node_process import running
from rclpy.action import ActionClient
from rclpy.action.graph import get_action_server_names_and_types_by_node
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from bench.scenes import make_scene
from instructseg_node import outputs
from instructseg_node.conversions import fill_image
from instructseg_node.interface import ACTIONS, INPUT, INPUTS, OUTPUT, OUTPUTS, SERVICES, Topic
from instructseg_node.node import InstructSegNode
from instructseg_node.parameters import TABLE

VISION = importlib.util.find_spec("vision_msgs") is not None
OFFERED = tuple(topic for topic in OUTPUTS if VISION or "vision_msgs" not in topic.needs)
PER_FRAME = tuple(topic.name.removeprefix("~/") for topic in OFFERED if topic.per_frame)
SWITCHES = {topic.name: word for topic in OUTPUTS for word in topic.needs.split(", ") if word.startswith("publish_")}


def kind_of(name: str) -> type:
    """The class of ``package/msg/Name``."""
    package, folder, kind = name.split("/")
    return getattr(importlib.import_module(f"{package}.{folder}"), kind)


def resolved(name: str, node: str = NODE) -> str:
    """The full name of a row of the table in the default namespace."""
    return name.replace("~", node) if name.startswith("~/") else "/" + name.lstrip("/")


def check_quality(topic: Topic, kind: str, qos: QoSProfile) -> None:
    assert kind == topic.kind, topic.name
    assert qos.reliability == (ReliabilityPolicy.RELIABLE if topic.reliable else ReliabilityPolicy.BEST_EFFORT)
    assert qos.durability == (DurabilityPolicy.TRANSIENT_LOCAL if topic.latched else DurabilityPolicy.VOLATILE)


def check_outputs(
    peer: Node,
    wait: Callable[[Callable[[], Any], str], None],
    node: str = "instructseg",
    name_of: Callable[[str], str] = resolved,
) -> None:
    """Every output as another process sees it."""
    for topic in OFFERED:
        name = name_of(topic.name)
        infos: list[Any] = []

        def found(name: str = name, infos: list[Any] = infos) -> bool:
            infos[:] = [info for info in peer.get_publishers_info_by_topic(name) if info.node_name == node]
            return bool(infos)

        wait(found, name)
        assert len(infos) == 1
        check_quality(topic, infos[0].topic_type, infos[0].qos_profile)


def check_calls(peer: Node, wait: Callable[[Callable[[], Any], str], None], node: str, namespace: str) -> None:
    """Every service and the action as another process sees them."""
    full = f"{namespace.rstrip('/')}/{node}"
    for rows, listing in (
        (SERVICES, peer.get_service_names_and_types_by_node),
        (ACTIONS, lambda node, space: get_action_server_names_and_types_by_node(peer, node, space)),
    ):
        expected = {resolved(row.name, full): [row.kind] for row in rows}
        wait(lambda ls=listing, e=expected: e.items() <= dict(ls(node, namespace)).items(), f"{sorted(expected)}")


# Names, types, quality of service


def test_the_table_names_every_topic_the_node_has_and_no_other(ros) -> None:
    harness = Harness(ros).up()
    check_outputs(harness.peer, harness.wait)
    check_calls(harness.peer, harness.wait, "instructseg", "/")
    mine = {p.topic_name: p.qos_profile.depth for p in harness.node.publishers}
    others = {"/rosout", "/parameter_events", f"{NODE}/transition_event"}
    assert {name: depth for name, depth in mine.items() if name not in others} == {
        resolved(topic.name): topic.depth for topic in OFFERED
    }
    listened = {s.topic_name: s.qos_profile.depth for s in harness.node.subscriptions}
    inputs = [topic for topic in INPUTS if "/" not in topic.name]  # the packed forms: only where they are asked for
    assert {n: d for n, d in listened.items() if n not in others} == {resolved(t.name): t.depth for t in inputs}
    for topic in inputs:
        (info,) = harness.peer.get_subscriptions_info_by_topic(resolved(topic.name))
        check_quality(topic, info.topic_type, info.qos_profile)


def test_several_cameras_with_compressed_images(ros) -> None:
    packed = {"image_transport": "compressed", "depth_transport": "compressed"}
    harness = Harness(ros, cameras=["head", "arm/wrist"], **packed).up()
    for camera in ("head", "arm/wrist"):
        for name in ("image/compressed", "camera_info", "depth/compressed"):
            (info,) = harness.peer.get_subscriptions_info_by_topic(f"/{camera}/{name}")
            check_quality(INPUT[name], info.topic_type, info.qos_profile)
    assert harness.peer.count_subscribers("/image") == 0


def test_a_parameter_that_switches_a_topic_off_is_named_in_the_table(ros) -> None:
    switches = {name for name in TABLE if name.startswith("publish_")}
    assert switches == set(SWITCHES.values())
    harness = Harness(ros, **dict.fromkeys(switches, False)).up()
    offered = {p.topic_name for p in harness.node.publishers}
    for topic in OFFERED:
        assert (resolved(topic.name) in offered) == (topic.name not in SWITCHES), topic.name


def test_namespace_and_remaps(ros) -> None:
    arguments = ["--ros-args", "-r", "__ns:=/robot", "-r", "__node:=eyes", "-r", "image:=camera/colour"]
    arguments += ["-r", "command:=/speech", "-r", "~/targets:=/found", "-r", "~/segment_once:=ask"]
    harness = Harness(ros)
    node = ros.add(
        InstructSegNode(
            segmenter_factory=harness._load, context=ros.context, use_global_arguments=False, cli_args=arguments
        )
    )
    for step in (node.trigger_configure, node.trigger_activate):
        harness.call(step)
    remapped = {"~/targets": "/found"}
    check_outputs(harness.peer, harness.wait, "eyes", lambda name: remapped.get(name) or resolved(name, "/robot/eyes"))
    inputs = {s.topic_name for s in node.subscriptions}
    assert {"/robot/camera/colour", "/robot/camera_info", "/robot/depth", "/speech", "/robot/instruction"} <= inputs
    listing = harness.peer.get_service_names_and_types_by_node
    harness.wait(lambda: "/robot/ask" in dict(listing("eyes", "/robot")), "the remapped service")
    assert {"/robot/eyes/cancel", "/robot/eyes/reset", "/robot/eyes/enable"} <= set(dict(listing("eyes", "/robot")))
    actions = get_action_server_names_and_types_by_node(harness.peer, "eyes", "/robot")
    assert dict(actions) == {"/robot/eyes/segment": ["instructseg_msgs/action/Segment"]}


# Rate and content


def test_one_message_a_processed_frame_on_every_topic_of_frames(ros) -> None:
    """Headers are those of the frames, in order, none twice; ids and pixels of one frame agree."""
    harness = Harness(ros, frame_policy="every").up()
    for name in PER_FRAME:
        harness.listen(name)
    harness.say("the red block and the green block")
    harness.wait(lambda: harness.node.engine.statistics().instructions, "the command")
    sent = [harness.show("red", "green", frame_id="wrist") for _ in range(12)]
    for name in PER_FRAME:
        harness.wait(lambda name=name: len(harness.heard[name]) >= len(sent), name)
    harness.settle()
    for name in PER_FRAME:
        assert [message.header for message in harness.heard[name]] == sent, name
    for index in range(len(sent)):
        check_one_frame({name: harness.heard[name][index] for name in PER_FRAME})
    last = harness.heard["targets"][-1]
    assert [t.state for t in last.targets] == [Target.PRESENT] * 2
    assert harness.node.engine.statistics().frames_out == len(sent)


def check_one_frame(messages: dict[str, Any]) -> None:
    """Targets and images of one frame say the same."""
    targets, size = messages["targets"], (messages["targets"].height, messages["targets"].width)
    instances, labels = pixels(messages["instance_mask"]), pixels(messages["label_mask"])
    confidence = pixels(messages["confidence_mask"])
    packed = cv2.imdecode(np.frombuffer(messages["instance_mask/compressed"].data, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(packed, instances)
    assert instances.shape == labels.shape == confidence.shape == size
    present = {t.instance_id: t for t in targets.targets if t.state == Target.PRESENT}
    assert set(np.unique(instances)) - {0} <= set(present)
    for identity, target in present.items():
        assert 0 < (instances == identity).sum() <= target.area
        assert set(labels[instances == identity]) == {target.class_id}
    np.testing.assert_array_equal(labels > 0, instances > 0)
    assert not confidence[instances == 0].any()
    for target in targets.targets:
        if target.state != Target.PRESENT:
            assert (target.area, target.box.width, target.box.height) == (0, 0, 0)
    overlay = messages["overlay"]
    assert ((overlay.height, overlay.width), overlay.encoding) == (size, "rgb8")
    jpeg = cv2.imdecode(np.frombuffer(messages["overlay/compressed"].data, np.uint8), cv2.IMREAD_COLOR)
    assert jpeg.shape[:2] == size


@pytest.mark.parametrize("frame_id", ["", "wrist_camera_optical_frame"])
@pytest.mark.parametrize("stamp", [(0, 0), (0, 1), (2**31 - 1, 999_999_999), (-5, 3)])
def test_headers_are_untouched_whatever_they_are(ros, frame_id, stamp) -> None:
    harness = Harness(ros).up("targets", "instance_mask")
    header = harness.show("red", stamp=Time(sec=stamp[0], nanosec=stamp[1]), frame_id=frame_id)
    for name in ("targets", "instance_mask"):
        harness.wait(lambda name=name: harness.heard[name], name)
        assert harness.heard[name][0].header == header
    assert np.isfinite([t.age for t in harness.heard["targets"][0].targets]).all()


def test_what_is_latched_is_heard_by_whoever_comes_late(ros) -> None:
    harness = Harness(ros).up("targets")
    harness.say("the blue block")
    harness.show_until_state(Target.NO_TARGET, "red")
    for topic in OFFERED:
        if topic.latched:
            name = topic.name.removeprefix("~/")
            late = harness.listen(name, latched=True, kind=kind_of(topic.kind))
            harness.wait(lambda late=late: late, name)
    assert harness.heard["instructions"][-1].instructions[0].instruction.text == "the blue block"
    assert harness.heard["rejection"][-1].after == Target.NO_TARGET


def test_what_is_on_demand_is_not_computed_for_nobody(ros, monkeypatch) -> None:
    computed = []
    for name in ("instance_map", "label_map", "confidence_map", "draw_overlay", "fill_compressed"):
        real = getattr(outputs, name)
        monkeypatch.setattr(outputs, name, lambda *a, _r=real, _n=name, **k: computed.append(_n) or _r(*a, **k))
    harness = Harness(ros).up("targets")
    harness.say("red")
    harness.show_until_state(Target.PRESENT, "red")
    assert computed == []


def test_the_table_is_fit_for_printing() -> None:
    rows = [*INPUTS, *OUTPUTS, *SERVICES, *ACTIONS]
    assert len({row.name for row in rows}) == len(rows)
    for row in rows:
        assert len(row.meaning) > 10 and "\n" not in row.meaning and not row.meaning.endswith(". ")
        if not row.kind.startswith("vision_msgs/"):
            assert isinstance(kind_of(row.kind), type), row.name
    assert OUTPUT["rejection"].qos == "reliable, transient local, keep last 10"
    assert INPUT["image"].qos == "best effort, volatile, keep last 1"
    assert set(KINDS) <= set(OUTPUT)


# As a user starts it


class User:
    """A camera and a listener in the namespace of the process."""

    def __init__(self, ros, node: str) -> None:
        self.peer = ros.node("user")
        self.ros, self.node = ros, node
        self.heard: dict[str, list] = {}
        scene = make_scene()
        self.text, self.image = scene.texts[0], scene.images[0]
        self._camera = self.peer.create_publisher(Image, "/arm/image", 1)
        self._instruction = self.peer.create_publisher(Instruction, "/arm/instruction", 10)
        for name in PER_FRAME:
            kind, heard = kind_of(OUTPUT[name].kind), self.heard.setdefault(name, [])
            self.peer.create_subscription(kind, resolved(f"~/{name}", node), heard.append, QoSProfile(depth=100))

    def wait(self, condition: Callable[[], Any], what: str) -> None:
        self.ros.wait(condition, what, 60.0)

    def picture(self) -> Image:
        return fill_image(Image(), self.image, "rgb8", Header(stamp=now(), frame_id="optical"))

    def show_until(self, condition: Callable[[], Any], what: str) -> None:
        deadline = time.monotonic() + 60.0
        while not condition():
            assert time.monotonic() < deadline, f"waited 60 s for {what}"
            self._camera.publish(self.picture())
            time.sleep(0.05)

    def follow(self, text: str) -> None:
        self.wait(self._instruction.get_subscription_count, "the node's subscription")
        self._instruction.publish(Instruction(id="follow", text=text))

    def whole_frames(self) -> list[dict[str, Any]]:
        """Frames that came on every topic, with a target that is PRESENT."""
        by_stamp: dict[tuple, dict[str, Any]] = {}
        for name, messages in self.heard.items():
            for message in list(messages):
                stamp = message.header.stamp
                by_stamp.setdefault((stamp.sec, stamp.nanosec), {})[name] = message
        whole = [frame for frame in by_stamp.values() if len(frame) == len(PER_FRAME)]
        return [frame for frame in whole if any(t.state == Target.PRESENT for t in frame["targets"].targets)]


@pytest.mark.process
def test_the_node_as_a_process_with_its_own_recipe(ros) -> None:
    arguments = ["-p", "autostart:=true", "-p", "device:=cpu", "-r", "__ns:=/arm", "-p", "stale_after:=30.0"]
    with running("--ros-args", *arguments) as process:
        user = User(ros, "/arm/instructseg")
        user.wait(lambda: user.peer.count_subscribers("/arm/image"), "the active node")
        check_outputs(user.peer, user.wait, name_of=lambda name: resolved(name, "/arm/instructseg"))
        check_calls(user.peer, user.wait, "instructseg", "/arm")

        user.follow(user.text)
        user.show_until(lambda: len(user.whole_frames()) >= 3, "three frames with the target")
        for frame in user.whole_frames():
            check_one_frame(frame)

        once = user.peer.create_client(SegmentOnce, "/arm/instructseg/segment_once")
        answer = once.call_async(SegmentOnce.Request(image=user.picture(), instruction=Instruction(text=user.text)))
        user.wait(answer.done, "the answer")
        assert answer.result().success, answer.result().message
        assert [t.state for t in answer.result().targets.targets] == [Target.PRESENT]

        goals = ActionClient(user.peer, Segment, "/arm/instructseg/segment")
        asked = goals.send_goal_async(Segment.Goal(instruction=Instruction(text=user.text, mode=Instruction.ONE_SHOT)))
        user.wait(asked.done, "the goal's response")
        result = asked.result().get_result_async()
        user.show_until(result.done, "the result")
        assert result.result().status == GoalStatus.STATUS_SUCCEEDED
        assert result.result().result.state == Target.PRESENT
        assert pixels(result.result().result.instance_mask).any()

        # A goal and a question that wait do not keep the process from ending.
        waiting = goals.send_goal_async(Segment.Goal(instruction=Instruction(text=user.text, id="endless")))
        user.wait(waiting.done, "the goal's response")
        once.call_async(SegmentOnce.Request(image=user.picture(), instruction=Instruction(text=user.text)))
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "Traceback" not in output and "terminate called" not in output, output
    assert os.environ["ROS_PYTHON_CHECK_FIELDS"] == "1"  # in the process, too: it inherits it
