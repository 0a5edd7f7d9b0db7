"""One image topic of a rosbag2 bag (MCAP or SQLite), any picture by its stamp. No ROS is needed.

The stamps are those of the headers: when a picture was taken, not when it was recorded. One pass over the topic builds
the index from stamp to the recorder's time, by which bags are searched; pictures are read and decoded when asked for.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from ...core import BadInput
from ...image_messages import compressed_to_labels, compressed_to_rgb, image_to_labels, image_to_rgb

RAW, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"


class BagImages:
    """``stamps``: of all pictures, ascending, nanoseconds ``(N,)`` int64. Can be pickled; used by threads and by
    processes that were forked, each opens the bag for itself."""

    def __init__(self, bag: Path, topic: str) -> None:
        """Raises BadInput where the bag cannot be read or has no pictures on that topic."""
        self.bag, self.topic = bag, topic
        self._start()
        found: dict[int, int] = {}
        for time_ns, data in self._messages(None, None):
            found.setdefault(self._stamp(data), time_ns)  # a picture recorded twice counts once
        if not found:
            raise BadInput(f"{bag}: the topic {topic} has no message")
        self.stamps = np.array(sorted(found), np.int64)
        self._times = np.array([found[stamp] for stamp in sorted(found)], np.int64)

    def __len__(self) -> int:
        return len(self.stamps)

    def __contains__(self, stamp: int) -> bool:
        at = int(np.searchsorted(self.stamps, stamp))
        return at < len(self.stamps) and int(self.stamps[at]) == stamp

    def rgb(self, stamp: int) -> np.ndarray:
        """``(H, W, 3)`` uint8 RGB of the picture with this stamp. Raises BadInput naming bag, topic and stamp."""
        return self._decoded(stamp, {RAW: image_to_rgb, COMPRESSED: compressed_to_rgb})

    def labels(self, stamp: int) -> np.ndarray:
        """``(H, W)`` integers of the label image with this stamp. Raises BadInput naming bag, topic and stamp."""
        return self._decoded(stamp, {RAW: image_to_labels, COMPRESSED: compressed_to_labels})

    @functools.cached_property
    def size(self) -> tuple[int, int]:
        """(height, width) of the first picture; one camera's pictures have one size."""
        height, width, _ = self.rgb(int(self.stamps[0])).shape
        return height, width

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_lock", "_opened", "_process")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._opened: Reader | None = None
        self._process = os.getpid()

    def _decoded(self, stamp: int, decoders: dict[str, Any]) -> np.ndarray:
        if stamp not in self:
            raise BadInput(f"{self.bag}: {self.topic} has no picture with the stamp {stamp}")
        time_ns = int(self._times[np.searchsorted(self.stamps, stamp)])
        with contextlib.closing(self._messages(time_ns, time_ns + 1)) as messages:
            found = next((data for _, data in messages if self._stamp(data) == stamp), None)
        if found is None:
            raise BadInput(f"{self.bag} has changed since it was opened: {self.topic} at {stamp} is gone")
        return self._decode(found, stamp, decoders)

    def _decode(self, data: bytes, stamp: int, decoders: dict[str, Any]) -> np.ndarray:
        try:
            return decoders[self._kind](_store().deserialize_cdr(data, self._kind))
        except Exception as error:  # a damaged message makes the deserialiser raise whatever it leads to
            raise BadInput(f"{self.bag}: {self.topic} at {stamp}: {error}") from error

    def _stamp(self, data: bytes) -> int:
        """Of the header, which comes first: 4 bytes of CDR's own, seconds, nanoseconds."""
        if len(data) < 12:
            raise BadInput(f"{self.bag}: {self.topic} holds a message of {len(data)} bytes, too short for an image")
        order = "little" if data[1] & 1 else "big"
        seconds = int.from_bytes(data[4:8], order, signed=True)
        return seconds * 10**9 + int.from_bytes(data[8:12], order)

    def _messages(self, start: int | None, stop: int | None) -> Iterator[tuple[int, bytes]]:
        """(recorder's time, bytes) of the topic's messages within [start, stop)."""
        if self._process != os.getpid():  # forked: the file's position is shared, and a lock may be held for ever
            self._start()
        with self._lock:
            try:
                reader = self._reader()
                wanted = [c for c in reader.connections if c.topic == self.topic]
                self._kind = self._checked_kind(reader, wanted)
                for _, time_ns, data in reader.messages(wanted, start, stop):
                    yield time_ns, bytes(data)
            except BadInput:
                raise
            except Exception as error:  # MCAP, SQLite and both compressions raise their own kinds on damaged files
                raise BadInput(f"the bag {self.bag} cannot be read: {error or type(error).__name__}") from error

    def _reader(self) -> Reader:
        if self._opened is None:
            reader = Reader(self.bag)
            reader.open()
            self._opened = reader
        return self._opened

    def _checked_kind(self, reader: Reader, wanted: list[Any]) -> str:
        if not wanted:
            there = sorted({c.topic for c in reader.connections if c.msgtype in (RAW, COMPRESSED)})
            raise BadInput(f"{self.bag} has no topic {self.topic}; image topics: {', '.join(there) or 'none'}")
        kinds = {c.msgtype for c in wanted}
        if len(kinds) > 1 or not kinds <= {RAW, COMPRESSED}:
            raise BadInput(
                f"{self.bag}: {self.topic} is of type {', '.join(sorted(kinds))}; allowed: {RAW} or {COMPRESSED}"
            )
        return kinds.pop()


@functools.cache
def _store() -> Typestore:
    return get_typestore(Stores.ROS2_JAZZY)
