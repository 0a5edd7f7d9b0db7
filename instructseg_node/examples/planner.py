"""A planner that may only move while the target is seen: fail closed, in the fewest lines.

It waits for PRESENT, takes the target's pose and cloud where depth is there (else its box), and stops at once on
any other state and on silence. Silence is judged on a clock that always runs: neither a paused simulation nor a dead
node keeps the robot going. Replace `go` and `stop` by what your robot does.

    instructseg_planner --ros-args -p silence:=0.5 -p instruction_id:=mug
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import rclpy
from geometry_msgs.msg import PoseStamped
from instructseg_msgs.msg import Target, TargetArray
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header

from instructseg.core import State
from instructseg_node.conversions import stamp_ns


class Planner(Node):
    """moving: what the robot is told. Topics lie under ``instructseg/``; remap them as for any node."""

    def __init__(self, **node_arguments) -> None:
        super().__init__("instructseg_planner", **node_arguments)
        self.silence = self.declare_parameter("silence", 0.5).value  # seconds without ~/targets that stop the robot
        self.max_age = self.declare_parameter("max_age", 1.0).value  # seconds; an older answer, or place, is none
        self.instruction_id = self.declare_parameter("instruction_id", "").value  # empty: whatever is asked for
        self.require_pose = self.declare_parameter("require_pose", False).value  # move only where depth tells the place
        self.moving = False
        self._heard = time.monotonic()
        self._seen_since: int | None = None  # stamp of the first frame that shows the target without a gap since
        self._pose: PoseStamped | None = None
        self._cloud: PointCloud2 | None = None
        self.create_subscription(PoseStamped, "instructseg/target_pose", self._on_pose, qos_profile_sensor_data)
        self.create_subscription(PointCloud2, "instructseg/target_cloud", self._on_cloud, qos_profile_sensor_data)
        self.create_subscription(TargetArray, "instructseg/targets", self._on_targets, 5)
        self.create_timer(0.02, self._watch, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def go(self, target: Target) -> None:
        """Towards the target: by its pose and cloud where depth gives them, else by its place in the image."""
        where = f"pixel ({target.centroid_x:.0f}, {target.centroid_y:.0f})"
        if self._pose is not None:
            at = self._pose.pose.position
            where = f"({at.x:.3f}, {at.y:.3f}, {at.z:.3f}) m in {self._pose.header.frame_id}"
        if self._cloud is not None:
            where += f", {self._cloud.width * self._cloud.height} points"
        if not self.moving:
            self.get_logger().info(f"moving: {target.instruction_text} at {where}")
        self.moving = True

    def stop(self, why: str) -> None:
        """At once; also the answer to everything that is not known. What was known of the place is forgotten."""
        if self.moving:
            self.get_logger().warning(f"stopped: {why}")
        self.moving = False
        self._seen_since = self._pose = self._cloud = None

    def _on_targets(self, message: TargetArray) -> None:
        self._heard = time.monotonic()
        ours = [t for t in message.targets if self.instruction_id in ("", t.instruction_id)]
        present = [t for t in ours if t.state == Target.PRESENT]
        if not present:
            self.stop(", ".join(f"{State(t.state).name} {t.reason}".strip() for t in ours) or "nothing is asked for")
        elif abs(present[0].age) > self.max_age:  # far below 0: camera and node have different clocks, so nobody knows
            self.stop(f"the newest answer is {present[0].age:.2f} s old")
        else:
            others = any(t.state == Target.PRESENT for t in message.targets if t not in ours)
            self._seen_since = None if others else self._seen_since or stamp_ns(message.header.stamp)
            if others:
                self._pose = self._cloud = None  # they may be about another instruction's target
            self._pose = self._if_recent(self._pose, message.header)
            self._cloud = self._if_recent(self._cloud, message.header)
            if self._pose is not None or not self.require_pose:
                self.go(max(present, key=lambda target: target.score))
            elif self.moving:
                self.stop(f"no pose for {self.max_age:g} s: does depth still come?")

    def _if_recent(self, place: PoseStamped | PointCloud2 | None, header: Header) -> PoseStamped | PointCloud2 | None:
        """A target that is still seen may have left the place where depth last showed it."""
        recent = place is not None and stamp_ns(header.stamp) - stamp_ns(place.header.stamp) <= self.max_age * 1e9
        return place if recent else None

    def _on_pose(self, message: PoseStamped) -> None:
        """Pose and cloud come after the targets of their frame; one from before the target was seen is not its own."""
        if self._seen_since is not None and stamp_ns(message.header.stamp) >= self._seen_since:
            self._pose = message

    def _on_cloud(self, message: PointCloud2) -> None:
        if self._seen_since is not None and stamp_ns(message.header.stamp) >= self._seen_since:
            self._cloud = message

    def _watch(self) -> None:
        silent = time.monotonic() - self._heard
        if silent > self.silence:
            self.stop(f"nothing heard for {silent:.2f} s")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until told to end; the robot is stopped first. Exit code 0, or 2 where a parameter cannot be taken."""
    rclpy.init(args=arguments)
    executor = SingleThreadedExecutor()  # before the node is seen: a signal from then on finds it whole
    planner = None
    try:
        planner = Planner()
        executor.add_node(planner)
        executor.spin()
    except ParameterException as error:
        print(f"instructseg_planner cannot start: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except (rclpy_implementation.RCLError, rclpy_implementation.InvalidHandle):
        # What a signal between the executor's check and its wait looks like: an end, no fault.
        if rclpy.ok():
            raise
    finally:
        if planner is not None:
            planner.stop("the planner ends")
            planner.destroy_node()
        executor.shutdown()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
