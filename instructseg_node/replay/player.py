"""Play a rosbag2 bag (MCAP or SQLite) over DDS, message bytes and header stamps untouched: ``instructseg_play BAG``.

With ``--clock`` the player also publishes the bag's time on /clock, before each message and at a fixed rate between
them, so that a node with ``use_sim_time`` measures ages (its clock minus the frame's stamp) as it would on the robot.
It publishes nothing before every expected subscriber is there.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.utilities import remove_ros_args
from rosbags.interfaces import Connection
from rosbags.interfaces import QosDurability as BagDurability
from rosgraph_msgs.msg import Clock

from instructseg.core import BadInput, InstructSegError

from ..outputs import time_of
from .bags import open_bag, read
from .pace import Pace

LEAD_S = 0.5  # /clock runs this long before the first message: the nodes' clocks are set by then


class NobodyListens(InstructSegError):
    """An expected subscriber did not appear in time."""


@dataclasses.dataclass(frozen=True)
class Playback:
    """How to play. rate: bag seconds a second. clock_hz: of /clock, 0: no clock. topics: names or prefixes ending in
    ``*``; empty: all. expect: how many subscribers a topic (of this bag or any other) must have before the first
    message. timeout_s: for that. tail_s: seconds that /clock goes on after the last message."""

    rate: float = 1.0
    clock_hz: float = 0.0
    topics: tuple[str, ...] = ()
    expect: Mapping[str, int] = dataclasses.field(default_factory=dict)
    timeout_s: float = 60.0
    tail_s: float = 0.0

    def __post_init__(self) -> None:
        limits = {
            "rate": (0.01, 100.0),
            "clock_hz": (0.0, 1000.0),
            "timeout_s": (0.0, 86400.0),
            "tail_s": (0.0, 3600.0),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise BadInput(f"{name} is {value:g}; allowed: {low:g} to {high:g}")
        for topic, count in self.expect.items():
            if not topic.startswith("/") or count < 1:
                raise BadInput(f"expect is {topic!r} = {count}; a full topic name and at least 1 subscriber are needed")


class BagPlayer:
    """Publishers for the chosen topics of one bag. ``report`` gets lines for people."""

    def __init__(
        self, node: Node, bag: Path, playback: Playback, report: Callable[[str], None] = lambda line: None
    ) -> None:
        self._node = node
        self._playback = playback
        self._report = report
        self._reader = open_bag(bag)
        try:
            self._connections = [c for c in self._reader.connections if chosen(c.topic, playback.topics)]
            if not self._connections or not self._reader.message_count:
                there = ", ".join(sorted({c.topic for c in self._reader.connections})) or "none"
                raise BadInput(f"{bag} has no message on {', '.join(playback.topics) or 'any topic'}; topics: {there}")
            self._publishers = {c.id: self._publisher(c) for c in self._connections}
            self._clock = node.create_publisher(Clock, "/clock", 10) if playback.clock_hz else None
        except BaseException:
            self._reader.close()
            raise
        self._zero_ns = self._reader.start_time
        tick = self._tick if self._clock else None
        self._pace = Pace(self._zero_ns, playback.rate, playback.clock_hz, tick, self._doze)

    def close(self) -> None:
        self._reader.close()

    def wait_for_subscribers(self) -> None:
        """Return once everybody expected is there. Raises NobodyListens naming the topics where somebody is missing."""
        deadline = time.monotonic() + self._playback.timeout_s
        while missing := self._missing():
            if time.monotonic() >= deadline:
                raise NobodyListens(
                    f"after {self._playback.timeout_s:g} s: {'; '.join(missing)}. "
                    "Does the subscriber run, in the same ROS_DOMAIN_ID, with matching topic names?"
                )
            self._doze(0.02)

    def play(self) -> int:
        """Publish everything at its time; the number of messages. ExternalShutdownException when told to end."""
        count, shown = 0, 0.0
        total = (self._reader.end_time - self._zero_ns) / 1e9
        self._pace.start(LEAD_S if self._clock else 0.0)
        for connection, stamp_ns, data in read(self._reader, self._connections):
            self._pace.run_until(stamp_ns)
            self._publishers[connection.id].publish(bytes(data))
            count += 1
            at = (stamp_ns - self._zero_ns) / 1e9
            if time.monotonic() - shown >= 1.0 or at >= total:
                shown = time.monotonic()
                self._report(f"playing {at:5.1f} of {total:.1f} s, {count} messages")
        self._pace.run_until(self._reader.end_time + round(self._playback.tail_s * self._playback.rate * 1e9))
        return count

    def _tick(self, bag_ns: int) -> None:
        self._clock.publish(Clock(clock=time_of(bag_ns)))

    def _doze(self, seconds: float) -> None:
        """Sleep, but notice within a quarter of a second that rclpy has been shut down."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0.0:
            time.sleep(min(left, 0.25))
            if not self._node.context.ok():
                raise ExternalShutdownException

    def _missing(self) -> list[str]:
        """Topics with fewer subscribers than expected. Topics of the bag count those that are matched with us."""
        ours = {c.topic: self._publishers[c.id] for c in self._connections}
        missing = []
        for topic, wanted in self._playback.expect.items():
            publisher = ours.get(topic)
            there = publisher.get_subscription_count() if publisher else self._node.count_subscribers(topic)
            if there < wanted:
                missing.append(f"{topic} has {there} of {wanted} subscribers")
        return missing

    def _publisher(self, connection: Connection) -> Publisher:
        """Reliable, so that every subscriber matches; latched where the recording was."""
        offered = getattr(connection.ext, "offered_qos_profiles", ())
        latched = any(qos.durability == BagDurability.TRANSIENT_LOCAL for qos in offered)
        durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
        qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=durability)
        return self._node.create_publisher(message_class(connection.msgtype), connection.topic, qos)


def chosen(topic: str, patterns: Sequence[str]) -> bool:
    """Whether a topic is named by one of the patterns (a name, or a prefix and ``*``); no pattern: every topic."""
    return not patterns or any(topic.startswith(p[:-1]) if p.endswith("*") else topic == p for p in patterns)


def message_class(name: str) -> Any:
    """The class of ``package/msg/Type``; BadInput where the package is not installed."""
    package, _, kind = name.partition("/msg/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), kind)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadInput(
            f"the message type {name!r} of the bag is not installed here; choose topics without it"
        ) from error


def parse(arguments: Sequence[str]) -> tuple[Path, Playback]:
    """The command line. Raises BadInput, or ends the process as argparse does."""
    parser = argparse.ArgumentParser(prog="instructseg_play", description=__doc__.splitlines()[0])
    parser.add_argument("bag", type=Path, help="folder of the bag, or one .mcap or .db3 file")
    parser.add_argument("--rate", type=float, default=1.0, help="bag seconds a second (default 1)")
    parser.add_argument("--clock", type=float, default=0.0, metavar="HZ", help="publish /clock at this rate")
    parser.add_argument("--topics", nargs="+", default=[], metavar="TOPIC", help="only these; a prefix may end in *")
    parser.add_argument(
        "--expect", nargs="+", default=[], metavar="TOPIC[=N]", help="wait for N subscribers (default 1) of this topic"
    )
    parser.add_argument("--timeout", type=float, default=60.0, metavar="S", help="for that wait (default 60)")
    parser.add_argument(
        "--tail", type=float, default=0.0, metavar="S", help="keep /clock running after the last message"
    )
    options = parser.parse_args(arguments)
    expect = {}
    for entry in options.expect:
        topic, _, count = entry.partition("=")
        if count and not count.isdecimal():
            raise BadInput(f"--expect {entry}: TOPIC or TOPIC=NUMBER is needed")
        expect[topic] = int(count or 1)
    playback = Playback(options.rate, options.clock, tuple(options.topics), expect, options.timeout, options.tail)
    return options.bag, playback


def main(arguments: Sequence[str] | None = None) -> int:
    """Play one bag. arguments: as in sys.argv. Exit code 0: all was played, 1: nobody listened or interrupted, 2: bad
    input."""
    node = player = None
    try:
        bag, playback = parse(remove_ros_args(arguments)[1:])
        rclpy.init(args=arguments)
        node = rclpy.create_node("instructseg_play")
        player = BagPlayer(node, bag, playback, lambda line: print(line, flush=True))
        player.wait_for_subscribers()
        print(f"played {player.play()} messages", flush=True)
    except (KeyboardInterrupt, ExternalShutdownException):
        print("instructseg_play: interrupted", file=sys.stderr)
        return 1
    except InstructSegError as error:
        print(f"instructseg_play: {error}", file=sys.stderr)
        return 1 if isinstance(error, NobodyListens) else 2
    finally:
        if player is not None:
            player.close()
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
