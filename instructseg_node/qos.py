"""The quality of service of a row of the interface table, as rclpy wants it."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from .interface import Topic


def profile(topic: Topic, depth: int | None = None) -> QoSProfile:
    """As the table says. Outputs are reliable, so that both kinds of subscriber match; images are taken best effort, so
    that every camera driver matches; what a late subscriber must hear is latched (transient local). depth: another one
    than the table's."""
    reliability = ReliabilityPolicy.RELIABLE if topic.reliable else ReliabilityPolicy.BEST_EFFORT
    durability = DurabilityPolicy.TRANSIENT_LOCAL if topic.latched else DurabilityPolicy.VOLATILE
    return QoSProfile(depth=depth or topic.depth, reliability=reliability, durability=durability)
