"""What leaves the node as vision_msgs, where that package is installed: 2-D detections and the names of the labels."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

from rclpy.lifecycle import LifecycleNode
from rclpy.publisher import Publisher
from std_msgs.msg import Header

from instructseg.streaming import FrameResult, InstructionStatus

from .interface import OUTPUT
from .parameters import Settings
from .qos import profile
from .spatial import vision


class VisionOutputs:
    """``~/detections`` and ``~/label_info``. kinds: vision_msgs.msg, or None; note: what is missing, or ""."""

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        found = vision.load()
        self.kinds: ModuleType | None = None if isinstance(found, str) else found
        topics = ", ".join(f"~/{name}" for name in vision.TOPICS)
        self.note = f"{found}: {topics} are not offered" if isinstance(found, str) else ""
        self._publishers: dict[str, Publisher] = {}
        self._labels: dict[int, str] | None = None  # as last published
        self._said = False

    def open(self, settings: Settings) -> None:
        if not settings.publish_detections:
            return
        if self.kinds is None:
            if not self._said:
                self._node.get_logger().info(self.note)
            self._said = True
            return
        self._open("detections", self.kinds.Detection2DArray)
        self._open("label_info", self.kinds.LabelInfo)

    def close(self) -> None:
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers.clear()
        self._labels = None

    def publish_result(self, result: FrameResult, header: Header) -> None:
        publisher = self._publishers.get("detections")
        if publisher is not None and publisher.get_subscription_count():
            publisher.publish(vision.detections(self.kinds, result, header))

    def publish_labels(self, statuses: Sequence[InstructionStatus], settings: Settings) -> None:
        """The names of the label values, where they have changed: latched, so nobody needs to have listened."""
        labels = {s.instruction.class_id: s.instruction.text for s in statuses if s.active}
        if "label_info" not in self._publishers or labels == self._labels:
            return
        self._labels = labels
        header = Header(stamp=self._node.get_clock().now().to_msg())
        message = vision.label_info(self.kinds, labels, settings.present_threshold, header)
        self._publishers["label_info"].publish(message)

    def _open(self, name: str, kind: Any) -> None:
        row = OUTPUT[name]
        self._publishers[name] = self._node.create_lifecycle_publisher(kind, row.name, profile(row))
