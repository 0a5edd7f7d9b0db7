"""A camera and a listener in one process: python -m bench.camera FILE RATE SECONDS SETTLE_SECONDS TIMEOUT_SECONDS.

It publishes the benchmark's scene and one command over DDS, subscribes to what a planner reads, and writes to ``FILE``
when each image was sent and how old each mask was when it came.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rclpy
from instructseg_msgs.msg import TargetArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.subscription import Subscription
from sensor_msgs.msg import Image
from std_msgs.msg import String

from instructseg.core import State
from instructseg_node import dds
from instructseg_node.conversions import fill_image, stamp_ns
from instructseg_node.interface import INPUT, OUTPUT
from instructseg_node.outputs import header_of
from instructseg_node.qos import profile

from .scenes import Scene, make_scene

NODE = "/instructseg"


class Camera:
    """Publishes images at a rate, notes stamps and arrivals (nanoseconds, seconds)."""

    def __init__(self, node: Node) -> None:
        self.sent_ns: list[int] = []
        self.arrivals: list[tuple[int, float]] = []  # (stamp of the frame, age of its mask)
        self.present = 0  # target lists with a target that is PRESENT
        self._node = node
        self._image = node.create_publisher(Image, "image", qos_profile_sensor_data)
        self._command = node.create_publisher(String, "command", profile(INPUT["command"]))
        self._subscriptions = [
            self._listen("instance_mask", Image, self._on_mask),
            self._listen("label_mask", Image, lambda message: None),
            self._listen("targets", TargetArray, self._on_targets),
        ]

    def wait_for_node(self, timeout_s: float) -> bool:
        """Whether the node listens, and is listened to, within the time."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            heard = all(self._node.count_publishers(s.topic_name) for s in self._subscriptions)
            if heard and self._image.get_subscription_count() and self._command.get_subscription_count():
                return True
            time.sleep(0.05)
        return False

    def film(self, scene: Scene, rate: float, seconds: float) -> None:
        """One command, then images for so long; a late image is sent at once, none is left out."""
        self._command.publish(String(data=f"segment {scene.texts[0]}"))
        started = time.monotonic()
        for index in range(round(seconds * rate)):
            time.sleep(max(0.0, started + index / rate - time.monotonic()))
            stamp = time.time_ns()
            image = scene.image(round(index * scene.rate / rate))
            self._image.publish(fill_image(Image(), image, "rgb8", header_of(stamp, "optical")))
            self.sent_ns.append(stamp)

    def _listen(self, name: str, kind: type, callback: Callable[[Any], None]) -> Subscription:
        return self._node.create_subscription(kind, f"{NODE}/{name}", callback, profile(OUTPUT[name]))

    def _on_mask(self, message: Image) -> None:
        stamp = stamp_ns(message.header.stamp)
        self.arrivals.append((stamp, (time.time_ns() - stamp) / 1e9))

    def _on_targets(self, message: TargetArray) -> None:
        self.present += any(target.state == State.PRESENT.value for target in message.targets)


def main(arguments: list[str]) -> int:
    rate, seconds, settle_s, timeout_s = map(float, arguments[2:6])
    scene = make_scene()
    rclpy.init(args=[])
    node = rclpy.create_node("bench_camera")
    dds.assert_loopback_only()
    camera = Camera(node)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    spinning = threading.Thread(target=executor.spin, name="listener")
    spinning.start()
    try:
        if not camera.wait_for_node(timeout_s):
            print(f"the node was not there after {timeout_s:g} s", file=sys.stderr)
            return 1
        print("filming", flush=True)
        camera.film(scene, rate, settle_s + seconds)
        time.sleep(1.0)  # the last masks are on their way
    finally:
        executor.shutdown()
        spinning.join(10.0)
        node.destroy_node()
        rclpy.try_shutdown()
    notes = {"sent_ns": camera.sent_ns, "arrivals": camera.arrivals, "present": camera.present}
    Path(arguments[1]).write_text(json.dumps(notes), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
