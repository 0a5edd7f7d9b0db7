"""The running node with depth that comes compressed: the same places, and what cannot be unpacked is counted."""

from __future__ import annotations

import array
import struct
from typing import Any

import cv2
import numpy as np
import pytest
from node.node_harness import now
from node.test_node_3d import CX, CY, F, Robot, depth_picture
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

A, B = 10100.0, -1009.0  # as compressedDepth stores 32FC1 by default: quantisation 100, at most 10 m
MILLIMETRES = np.round(depth_picture() * 1000).astype(np.uint16)
PNG = cv2.imencode(".png", MILLIMETRES)[1].tobytes()


def packed(header: Header, format: str, data: bytes) -> CompressedImage:
    return CompressedImage(header=header, format=format, data=array.array("B", data))


class PackedRobot(Robot):
    """Its depth camera sends one of the packed forms. kind: what the pixels are before."""

    def __init__(self, ros: Any, *listen: str, transport: str, kind: str = "16UC1", **values: Any) -> None:
        super().__init__(ros, *listen, depth_transport=transport, **values)
        self.transport, self.kind = transport, kind

    def send_depth(self, topic: str, depth: np.ndarray, header: Header) -> None:
        stored = np.round(depth * 1000 if self.kind == "16UC1" else A / depth + B).astype(np.uint16)
        file = cv2.imencode(".png", stored)[1].tobytes()
        if self.transport == "compressed":
            message = packed(header, "16UC1; png compressed ", file)
        else:
            head = struct.pack("<i2f", 0, *((A, B) if self.kind == "32FC1" else (0.0, 0.0)))
            message = packed(header, f"{self.kind}; compressedDepth png", head + file)
        self.harness.publish(f"{topic}/{self.transport}", message)


@pytest.mark.parametrize(
    ("transport", "kind"), [("compressed", "16UC1"), ("compressedDepth", "16UC1"), ("compressedDepth", "32FC1")]
)
def test_the_place_is_that_of_the_raw_image(ros, transport: str, kind: str) -> None:
    robot = PackedRobot(ros, "masked_depth", "target_pose", transport=transport, kind=kind)
    robot.harness.say("red")
    robot.show_until(lambda: robot.heard["target_pose"], "a pose", "red")
    position = robot.heard["target_pose"][-1].pose.position
    expected = [(7.5 - CX) / F * 0.8, (11.5 - CY) / F * 0.8, 0.8]
    np.testing.assert_allclose([position.x, position.y, position.z], expected, atol=1e-4)
    masked = robot.heard["masked_depth"][-1]
    assert (masked.encoding, masked.height, masked.width) == (kind, 48, 64)
    listened = {s.topic_name for s in robot.harness.node.subscriptions}
    assert f"/depth/{transport}" in listened and "/depth" not in listened


def test_what_holds_no_depth_is_counted_by_cause_and_the_node_goes_on(ros) -> None:
    robot = PackedRobot(ros, "target_cloud", transport="compressed")
    header = Header(stamp=now(), frame_id="optical")
    jpeg = cv2.imencode(".jpg", (MILLIMETRES // 256).astype(np.uint8))[1].tobytes()
    for format, data in (
        ("16UC1; compressedDepth png", bytes(12) + PNG),
        ("rgb8; jpeg compressed bgr8", jpeg),
        ("16UC1; png compressed ", jpeg),
        ("16UC1; png compressed ", PNG[:-20]),
        ("16UC1; png compressed ", b""),
    ):
        robot.harness.publish("depth/compressed", packed(header, format, data))
    for cause, count in {"depth_format": 2, "depth_compressed": 2, "depth_data": 1}.items():
        robot.harness.wait(lambda cause=cause, count=count: robot.harness.dropped(cause) == count, cause)
    robot.harness.say("red")
    robot.show_until(lambda: robot.heard["target_cloud"], "a cloud after all that", "red")


def test_a_damaged_file_gives_no_place_and_the_masks_go_on(ros) -> None:
    class Damaged(PackedRobot):
        def send_depth(self, topic: str, depth: np.ndarray, header: Header) -> None:
            broken = PNG[:60] + bytes(8) + PNG[68:]
            self.harness.publish(f"{topic}/compressed", packed(header, "16UC1; png compressed ", broken))

    robot = Damaged(ros, "target_cloud", "target_pose", "masked_depth", transport="compressed")
    robot.harness.say("red")
    robot.present("red")
    robot.harness.wait(lambda: int(robot.figures().get("3d refused depth_compressed", 0)) > 0, "the count")
    robot.harness.settle()
    assert not any(robot.heard.values())


def test_another_transport_is_taken_up_at_the_next_activation(ros) -> None:
    robot = PackedRobot(ros, "target_pose", transport="compressedDepth")
    harness = robot.harness

    def change(value: str) -> str:
        """Why it was refused; empty: it was not."""
        parameter = Parameter("depth_transport", value=value)
        return harness.call(lambda: harness.node.set_parameters([parameter])[0]).reason

    assert "the node is active" in change("raw")
    harness.deactivate()
    assert "allowed: 'raw', 'compressed', 'compressedDepth'" in change("rvl")
    assert change("compressed") == ""
    robot.transport = "compressed"
    harness.activate()
    harness.say("red")
    robot.show_until(lambda: robot.heard["target_pose"], "a pose", "red")
