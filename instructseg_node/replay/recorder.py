"""Everything a node publishes, with /diagnostics, into one MCAP file: python -m instructseg_node.replay.recorder.

Messages are stored as the bytes that came, at the time they came (with --clock on the clock of /clock). A raw image
topic that also exists as ``/compressed`` is recorded in that form alone: a tenth of the size, and lossless for masks.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import TracebackType

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node, NodeNameNonExistentError
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rosbags.interfaces import Connection
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosgraph_msgs.msg import Clock

from instructseg.core import BadInput, InstructSegError

from ..conversions import stamp_ns
from .bag_types import typestore
from .player import message_class

OTHER_TOPICS = ("/diagnostics",)  # outside the node's own namespace
DISCOVERY_S = 0.1  # between two looks at what the node offers
DRAIN_S = 0.3  # silence that ends the recording once it was told to end
DRAIN_LIMIT_S = 3.0  # and the end of it where the node keeps talking
RAW_IMAGE = "sensor_msgs/msg/Image"


class BagClock:
    """The time of /clock, carried on between its ticks by the computer's own clock.

    A tick that was delivered late would set the clock back, so the offset is that of the least delayed tick of the last
    ``window``. rate: seconds of /clock a second.
    """

    def __init__(self, rate: float = 1.0, window: int = 100) -> None:
        self._rate = rate
        self._offsets: deque[int] = deque(maxlen=window)

    def tick(self, clock_ns: int, monotonic_ns: int) -> None:
        self._offsets.append(clock_ns - round(monotonic_ns * self._rate))

    def time_ns(self, monotonic_ns: int) -> int | None:
        """What /clock said, or would have said, at that time of the computer's; None before the first tick."""
        return round(monotonic_ns * self._rate) + max(self._offsets) if self._offsets else None


class BagFile:
    """One MCAP file, which appears under its name when it is complete. A context manager."""

    def __init__(self, path: Path) -> None:
        if path.suffix != ".mcap":
            raise BadInput(f"the recording must end in .mcap; got {path}")
        self.path = path
        self.messages = 0
        self._folder = path.with_name(f".{path.stem}.partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self._folder, ignore_errors=True)
        self._types = typestore()
        self._writer = Writer(self._folder, version=9, storage_plugin=StoragePlugin.MCAP)
        self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)

    def __enter__(self) -> BagFile:
        self._writer.open()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._writer.__exit__(kind, error, trace)
            if kind is None:
                (self._folder / f"{self._folder.name}.mcap").replace(self.path)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def add_topic(self, topic: str, kind: str) -> Connection:
        return self._writer.add_connection(topic, kind, typestore=self._types)

    def write(self, connection: Connection, time_ns: int, data: bytes) -> None:
        self._writer.write(connection, time_ns, data)
        self.messages += 1


class Recorder:
    """Follows what one node offers and writes it to the file. target: the node's full name. clock: None to store the
    computer's time; else what comes before the first tick of /clock is kept until then."""

    def __init__(self, node: Node, file: BagFile, target: str, clock: BagClock | None = None) -> None:
        namespace, _, name = target.rpartition("/")
        if not target.startswith("/") or not name:
            raise BadInput(f"the node to record must be given by its full name, as in /instructseg; got {target!r}")
        self._node, self._file = node, file
        self._target = (name, namespace or "/")
        self._prefix = f"{target}/"
        self._clock = clock
        self._early: list[tuple[Connection, int, bytes]] = []
        self._subscriptions: dict[str, object] = {}
        self._seen: set[str] = set()
        self.heard_ns = time.monotonic_ns()  # when the last message came
        if clock is not None:
            clock_qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
            node.create_subscription(Clock, "/clock", self._on_clock, clock_qos)

    @property
    def topics(self) -> list[str]:
        return sorted(self._subscriptions)

    def discover(self) -> list[str]:
        """Subscribe to what is new; the new topics."""
        try:
            offered = dict(self._node.get_publisher_names_and_types_by_node(*self._target))
        except NodeNameNonExistentError:
            return []
        wanted = sorted(t for t in offered if t.startswith(self._prefix) or t in OTHER_TOPICS)
        new = [t for t in wanted if t not in self._subscriptions and f"{t}/compressed" not in wanted]
        # A raw image waits for the second look: its compressed sibling may be discovered a moment later.
        new = [t for t in new if t in self._seen or offered[t][0] != RAW_IMAGE]
        self._seen.update(wanted)
        for topic in new:
            self._subscribe(topic, offered[topic][0])
        return new

    def _subscribe(self, topic: str, kind: str) -> None:
        """With the QoS of the publishers, so that what they keep for late subscribers comes too."""
        offers = [info.qos_profile for info in self._node.get_publishers_info_by_topic(topic)]
        latched = any(qos.durability == DurabilityPolicy.TRANSIENT_LOCAL for qos in offers)
        durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
        qos = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE, durability=durability)
        connection = self._file.add_topic(topic, kind)
        callback = partial(self._write, connection)
        self._subscriptions[topic] = self._node.create_subscription(message_class(kind), topic, callback, qos, raw=True)

    def finish(self) -> None:
        """Write what was kept for a /clock that never came, with the computer's time."""
        offset = time.time_ns() - time.monotonic_ns()
        for connection, monotonic_ns, data in self._early:
            self._file.write(connection, monotonic_ns + offset, data)
        self._early.clear()

    def _write(self, connection: Connection, data: bytes) -> None:
        self.heard_ns = time.monotonic_ns()
        time_ns = self._clock.time_ns(self.heard_ns) if self._clock else time.time_ns()
        if time_ns is None:
            self._early.append((connection, self.heard_ns, data))
        else:
            self._file.write(connection, time_ns, data)

    def _on_clock(self, message: Clock) -> None:
        self._clock.tick(stamp_ns(message.clock), time.monotonic_ns())
        while self._early:
            connection, monotonic_ns, data = self._early.pop(0)
            self._file.write(connection, self._clock.time_ns(monotonic_ns), data)


def record(path: Path, target: str, clock: BagClock | None = None) -> int:
    """Record until SIGINT or SIGTERM, and then until nothing comes any more; the number of messages."""
    told: list[int] = []  # when
    for number in (signal.SIGINT, signal.SIGTERM):
        # A note and no exception: one that is raised inside a write would leave half a record behind.
        signal.signal(number, lambda got, frame: told.append(time.monotonic_ns()))
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("instructseg_recorder")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        with BagFile(path) as file:
            recorder = Recorder(node, file, target, clock)
            look_at = 0.0
            while not told or _draining(time.monotonic_ns(), told[0], recorder.heard_ns):
                if time.monotonic() >= look_at:
                    look_at = time.monotonic() + DISCOVERY_S
                    for topic in recorder.discover():
                        print(f"recording {topic}", flush=True)
                executor.spin_once(timeout_sec=DISCOVERY_S)
            recorder.finish()
            return file.messages
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()


def _draining(now_ns: int, told_ns: int, heard_ns: int) -> bool:
    return now_ns - max(told_ns, heard_ns) < DRAIN_S * 1e9 and now_ns - told_ns < DRAIN_LIMIT_S * 1e9


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. Exit code 0: recorded something, 1: nothing came, 2: bad input."""
    parser = argparse.ArgumentParser(prog="recorder", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the .mcap file, replaced if it exists")
    parser.add_argument("--node", default="/instructseg", help="full name of the node (default /instructseg)")
    parser.add_argument("--clock", action="store_true", help="store the time of /clock, not the computer's")
    parser.add_argument("--rate", type=float, default=1.0, help="seconds of /clock a second (default 1)")
    options = parser.parse_args(arguments)
    try:
        count = record(options.out, options.node, BagClock(options.rate) if options.clock else None)
    except InstructSegError as error:
        print(f"recorder: {error}", file=sys.stderr)
        return 2
    print(f"recorded {count} messages, {options.out.stat().st_size / 1e6:.1f} MB in {options.out}", flush=True)
    return 0 if count else 1


if __name__ == "__main__":
    sys.exit(main())
