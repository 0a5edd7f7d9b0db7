"""The node under test with a colour segmenter, a camera and a listener beside it, all in one private context."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from instructseg_msgs import msg as ros_msgs
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from ros_runner import RosRunner
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header, String
from unit.fakes import ColourSegmenter, colour_frame

from instructseg_node.conversions import fill_compressed, fill_image
from instructseg_node.node import InstructSegNode

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
NODE = "/instructseg"
KINDS = {
    "targets": ros_msgs.TargetArray,
    "instance_mask": Image,
    "label_mask": Image,
    "confidence_mask": Image,
    "overlay": Image,
    "instance_mask/compressed": CompressedImage,
    "overlay/compressed": CompressedImage,
    "rejection": ros_msgs.Rejection,
    "grounding": ros_msgs.Grounding,
    "instructions": ros_msgs.InstructionArray,
}

# Found again quickly, given up slowly: a test machine may be too busy to keep a camera's pace.
PATIENT = {"ground_period": 0.05, "stale_after": 5.0, "lost_after": 5.0}


def now() -> Time:
    seconds, rest = divmod(time.time_ns(), 1_000_000_000)
    return Time(sec=seconds, nanosec=rest)


class Harness:
    """segmenter: what the node's factory gives. loads: how often it was asked. Keyword arguments are parameters."""

    def __init__(self, runner: RosRunner, *, factory: Callable | None = None, **values: Any) -> None:
        self.runner = runner
        self.segmenter = ColourSegmenter()
        self.loads: list[Any] = []
        self.heard: dict[str, list] = {}
        self._publishers: dict[str, Any] = {}
        overrides = [Parameter(name, value=value) for name, value in (PATIENT | values).items()]
        self.node = InstructSegNode(
            segmenter_factory=factory or self._load,
            context=runner.context,
            parameter_overrides=overrides,
            use_global_arguments=False,
        )
        runner.add(self.node)
        self.peer = runner.node("peer")

    def _load(self, settings: Any) -> ColourSegmenter:
        self.loads.append(settings)
        return self.segmenter

    # Life

    def call(self, action: Callable[[], Any]) -> Any:
        """Run something on the executor's thread, where the services would."""
        future = self.runner.executor.create_task(action)
        self.runner.wait(future.done, f"{action}")
        return future.result()

    def configure(self) -> TransitionCallbackReturn:
        return self.call(self.node.trigger_configure)

    def activate(self) -> TransitionCallbackReturn:
        return self.call(self.node.trigger_activate)

    def deactivate(self) -> TransitionCallbackReturn:
        return self.call(self.node.trigger_deactivate)

    def cleanup(self) -> TransitionCallbackReturn:
        return self.call(self.node.trigger_cleanup)

    def up(self, *listen: str) -> Harness:
        """Active, with the camera and the command line connected, and the listener on these outputs."""
        assert self.configure() == SUCCESS
        assert self.activate() == SUCCESS
        for name in listen:
            self.listen(name)
        return self

    # Listening

    def listen(self, name: str, *, latched: bool = False, kind: type | None = None) -> list:
        """Collect what comes on an output of the node (or on an absolute topic) from now on."""
        topic = name if name.startswith("/") else f"{NODE}/{name}"
        qos = QoSProfile(depth=100)
        if latched:
            qos.durability = DurabilityPolicy.TRANSIENT_LOCAL
        messages = self.heard[name] = []
        kind = kind or KINDS[name]
        self.peer.create_subscription(kind, topic, messages.append, qos)
        self.wait(lambda: self.peer.count_publishers(topic), f"a publisher of {topic}")
        self.wait(lambda: self.node.count_subscribers(topic), f"the subscription of {topic}")
        return messages

    def diagnostics(self) -> dict[str, str]:
        """The values of the next report's stream status, with ``level`` and ``message``."""
        return self.next_report()[f"{NODE[1:]}: stream"]

    def listen_to_diagnostics(self) -> list[DiagnosticArray]:
        return self.listen("/diagnostics", kind=DiagnosticArray)

    def next_report(self) -> dict[str, dict[str, str]]:
        reports = self.heard["/diagnostics"] if "/diagnostics" in self.heard else self.listen_to_diagnostics()
        before = len(reports)
        self.call(self.node._report)  # not waiting for the timer saves a second a time
        self.wait(lambda: len(reports) > before, "a diagnostic report")
        return {
            status.name: {"level": status.level, "message": status.message, "hardware": status.hardware_id}
            | {pair.key: pair.value for pair in status.values}
            for status in reports[-1].status
        }

    # Speaking

    def publish(self, topic: str, message: Any) -> None:
        publisher = self._publishers.get(topic)
        if publisher is None:
            publisher = self._publishers[topic] = self.peer.create_publisher(type(message), topic, 10)
        self.wait(publisher.get_subscription_count, f"a subscriber of {topic}")
        publisher.publish(message)

    def say(self, text: str) -> None:
        self.publish("command", String(data=text))

    def show(self, *colours: str, topic: str = "image", stamp: Time | None = None, frame_id: str = "optical") -> Header:
        """Publish one picture with these coloured squares; its header."""
        header = Header(stamp=stamp or now(), frame_id=frame_id)
        image = colour_frame(0.0, *colours).image
        if topic.endswith("/compressed"):
            self.publish(topic, fill_compressed(CompressedImage(), image, "rgb8", header, codec="png"))
        else:
            self.publish(topic, fill_image(Image(), image, "rgb8", header))
        return header

    def show_until(self, condition: Callable[[], Any], what: str, *colours: str, **where: Any) -> None:
        """Publish pictures at about 60 Hz until the condition holds."""
        deadline = time.monotonic() + 10.0
        while not condition():
            assert time.monotonic() < deadline, f"waited 10 s for {what}"
            self.show(*colours, **where)
            time.sleep(0.015)

    def show_until_state(
        self, state: int, *colours: str, frame_id: str = "optical", **where: Any
    ) -> ros_msgs.TargetArray:
        """Pictures until the first target of a message about them is in this state; that message."""
        targets = self.heard["targets"]
        del targets[:]
        found: list[ros_msgs.TargetArray] = []

        def reached() -> bool:
            found[:] = [
                m for m in list(targets) if m.header.frame_id == frame_id and m.targets and m.targets[0].state == state
            ]
            return bool(found)

        self.show_until(reached, f"state {state}", *colours, frame_id=frame_id, **where)
        return found[0]

    def dropped(self, cause: str = "") -> int:
        """How many inputs were dropped for this cause, or in all."""
        drops = self.node._engine.statistics().drops
        return drops.get(cause, 0) if cause else sum(drops.values())

    def settle(self) -> dict[str, int]:
        """Wait until nothing more arrives; how many messages were heard on each output."""
        counts: dict[str, int] = {}
        while counts != (counts := {name: len(messages) for name, messages in self.heard.items()}):
            time.sleep(0.15)
        return counts

    def wait(self, condition: Callable[[], Any], what: str) -> None:
        self.runner.wait(condition, what)


def pixels(message: Image) -> np.ndarray:
    dtype = {"16UC1": "<u2", "mono8": np.uint8, "rgb8": np.uint8}[message.encoding]
    channels = 3 if message.encoding == "rgb8" else 1
    rows = np.frombuffer(message.data, dtype).reshape(message.height, message.width, channels)
    return rows if channels == 3 else rows[..., 0]
