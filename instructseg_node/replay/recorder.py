"""Everything a node publishes, with /diagnostics, into one MCAP recording.

Messages are stored as the bytes that came. A raw image topic that also exists as ``/compressed`` is recorded in that
form alone: a tenth of the size, and lossless for masks.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node, NodeNameNonExistentError
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosbags.interfaces import Connection, Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from instructseg.core import BadInput

from .bag_types import add_package, typestore
from .player import message_class

OTHER_TOPICS = ("/diagnostics",)  # outside the node's own namespace
HIDDEN = "/_"  # in the names of topics that belong to actions
_EVER = QosTime(9223372036, 854775807)  # as rosbag2 writes it
LATCHED = Qos(
    QosHistory.KEEP_LAST, 10, QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL, _EVER, _EVER,
    QosLiveliness.AUTOMATIC, _EVER, False,
)  # fmt: skip
# QoS events are nothing to us, and each would be a further thing that every spin of the executor waits for.
NO_EVENTS = SubscriptionEventCallbacks(use_default_callbacks=False)
RAW_IMAGE = "sensor_msgs/msg/Image"


class BagFile:
    """One recording, which appears under its name when it is complete: a bag's folder, or a single file where the name
    ends in ``.mcap``. A context manager; what is under that name already is replaced at the end."""

    def __init__(self, path: Path) -> None:
        if path.suffix in (".db3", ".bag"):
            raise BadInput(f"the recording is written as MCAP: a folder, or a file that ends in .mcap; got {path}")
        self.path = path
        self.messages = 0
        name = path.stem if path.suffix == ".mcap" else path.name
        self._types = typestore()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._partial = Path(tempfile.mkdtemp(".partial", f".{name}.", path.parent))
        self._folder = self._partial / name
        self._writer = Writer(self._folder, version=9, storage_plugin=StoragePlugin.MCAP)
        self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)

    def __enter__(self) -> BagFile:
        self._writer.open()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._writer.__exit__(kind, error, trace)
            if kind is None:
                self._appear()
        finally:
            shutil.rmtree(self._partial, ignore_errors=True)

    def add_topic(self, topic: str, kind: str, latched: bool = False) -> Connection:
        """latched: who plays the recording keeps its last messages for late subscribers.

        Raises MissingTypes where the definition of a type is not to be found.
        """
        if kind not in self._types.fielddefs:
            add_package(self._types, kind.partition("/")[0])
        offered = [LATCHED] if latched else []
        return self._writer.add_connection(topic, kind, typestore=self._types, offered_qos_profiles=offered)

    def write(self, connection: Connection, time_ns: int, data: bytes) -> None:
        self._writer.write(connection, time_ns, data)
        self.messages += 1

    def _appear(self) -> None:
        if self.path.suffix == ".mcap":
            (self._folder / f"{self._folder.name}.mcap").replace(self.path)
            return
        if self.path.exists():
            shutil.rmtree(self.path)
        self._folder.rename(self.path)


def is_ours(file: Path) -> bool:
    """Whether a file in a bag's folder is one that a :class:`BagFile` may have written."""
    return file.is_file() and (file.name == "metadata.yaml" or file.suffix == ".mcap")


class Recorder:
    """Follows what one node offers and writes it to the file. target: the node's full name. now_ns: the time to store
    messages under. skip: topics of the node (without its name) that are left out. heard: called with the bytes of a
    topic (without the node's name, or full) after they were written."""

    def __init__(
        self,
        node: Node,
        file: BagFile,
        target: str,
        now_ns: Callable[[], int],
        skip: tuple[str, ...] = (),
        heard: Mapping[str, Callable[[bytes], None]] | None = None,
    ) -> None:
        namespace, _, name = target.rpartition("/")
        if not target.startswith("/") or not name:
            raise BadInput(f"the node to record must be given by its full name, as in /instructseg; got {target!r}")
        self._node, self._file, self._now_ns = node, file, now_ns
        self._target = (name, namespace or "/")
        self._prefix = f"{target}/"
        self._skip = {self._prefix + topic for topic in skip}
        self._heard = {t if t.startswith("/") else self._prefix + t: call for t, call in (heard or {}).items()}
        self._subscriptions: dict[str, object] = {}
        self._seen: set[str] = set()

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
        wanted = [t for t in wanted if HIDDEN not in t]
        new = [t for t in wanted if t not in self._subscriptions and f"{t}/compressed" not in wanted]
        # A raw image waits for the second look: its compressed sibling may be discovered a moment later.
        new = [t for t in new if t not in self._skip and (t in self._seen or offered[t][0] != RAW_IMAGE)]
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
        connection = self._file.add_topic(topic, kind, latched)
        callback = partial(self._write, connection, self._heard.get(topic))
        self._subscriptions[topic] = self._node.create_subscription(
            message_class(kind), topic, callback, qos, raw=True, event_callbacks=NO_EVENTS
        )

    def _write(self, connection: Connection, heard: Callable[[bytes], None] | None, data: bytes) -> None:
        self._file.write(connection, self._now_ns(), data)
        if heard is not None:
            heard(data)
