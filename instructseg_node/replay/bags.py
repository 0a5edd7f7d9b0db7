"""Reading bags with errors that are ours: whatever the reader raises on a broken file becomes BadInput naming it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.interfaces import Connection, MessageDefinitionFormat
from rosbags.rosbag2 import Reader
from rosbags.typesys import get_types_from_idl, get_types_from_msg
from rosbags.typesys.store import Typestore

from instructseg.core import BadInput

from .bag_types import typestore

IMAGE, COMPRESSED, INFO = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/CameraInfo"
STRING = "std_msgs/msg/String"
# Single values a pixel, as masks have them: NumPy type, little-endian.
_MASKS = {"mono8": "u1", "8UC1": "u1", "mono16": "<u2", "16UC1": "<u2", "16SC1": "<i2", "32SC1": "<i4"}


def open_bag(bag: Path) -> Reader:
    """An open reader of a bag's folder, or of a single ``.mcap`` or ``.db3`` file; BadInput where it is none."""
    reader = None
    try:
        reader = Reader(bag)
        reader.open()
    except Exception as error:  # a broken file makes the reader raise nearly anything: all of it is about the file
        hint = ""
        if bag.is_dir() and not (bag / "metadata.yaml").exists():
            hint = "; a bag's folder holds metadata.yaml beside its files"
        elif "end magic" in str(error):
            hint = "; the recording was cut off: `mcap recover` (of the MCAP tools) saves what is there"
        raise BadInput(f"cannot read the bag {bag}: {_words(error)}{hint}") from error
    return reader


def read(
    reader: Reader, connections: Sequence[Connection], start: int | None = None, stop: int | None = None
) -> Iterator[tuple[Connection, int, bytes]]:
    """The messages on these connections with log times (ns) in [start, stop), in order of time; none for none."""
    if not connections or not reader.message_count:
        return
    messages = reader.messages(list(connections), start=start, stop=stop)
    while True:
        try:
            found = next(messages)
        except StopIteration:
            return
        except Exception as error:  # as above
            raise BadInput(f"the bag {reader.path} is broken: {_words(error)}") from error
        yield found


class Decoder:
    """CDR bytes to messages: this installation's types, and the bag's own definitions of types unknown here.

    A bag without definitions (SQLite before Iron) is read with the types that are known.
    """

    def __init__(self, connections: Sequence[Connection] = ()) -> None:
        self.types: Typestore = typestore()
        for connection in connections:
            if connection.msgtype not in self.types.fielddefs:
                self._learn(connection)

    def knows(self, connection: Connection) -> bool:
        return connection.msgtype in self.types.fielddefs

    def decode(self, connection: Connection, data: bytes) -> Any:
        """The message; BadInput where the bytes are none of this type."""
        if not self.knows(connection):
            raise BadInput(
                f"{connection.topic} holds {connection.msgtype}, which is not known here, and the bag has no definition"
            )
        try:
            return self.types.deserialize_cdr(data, connection.msgtype)
        except Exception as error:  # short or mangled bytes end in errors of struct, NumPy or the generated code
            raise BadInput(
                f"a message on {connection.topic} is no {connection.msgtype} ({len(data)} bytes): {_words(error)}"
            ) from error

    def _learn(self, connection: Connection) -> None:
        definition = connection.msgdef
        readers = {
            MessageDefinitionFormat.MSG: lambda: get_types_from_msg(definition.data, connection.msgtype),
            MessageDefinitionFormat.IDL: lambda: get_types_from_idl(definition.data),
        }
        if definition.format not in readers:
            return
        try:
            found = readers[definition.format]()
            self.types.register({name: fields for name, fields in found.items() if name not in self.types.fielddefs})
        except Exception:
            return


def message_counts(path: Path) -> dict[str, int]:
    """Messages of a bag by topic."""
    with closing(open_bag(path)) as reader:
        counts: dict[str, int] = {}
        for connection in reader.connections:
            counts[connection.topic] = counts.get(connection.topic, 0) + connection.msgcount
        return counts


def mask_values(message: Any, topic: str) -> np.ndarray:
    """``(H, W)`` whole numbers of a mask: Image with one channel, or CompressedImage as PNG. BadInput else."""
    if not hasattr(message, "encoding"):
        pixels = decoded(bytes(message.data), topic)
        if pixels.ndim != 2 or "jp" in message.format.lower():  # JPEG changes the values
            raise BadInput(f"a mask on {topic} is {message.format[:40]!r}; a PNG with one channel is needed")
        return pixels
    if message.encoding not in _MASKS:
        raise BadInput(f"a mask on {topic} is {message.encoding[:40]!r}; allowed: {', '.join(_MASKS)}")
    dtype = np.dtype(_MASKS[message.encoding])
    dtype = dtype.newbyteorder(">") if message.is_bigendian else dtype
    height, width, step = int(message.height), int(message.width), int(message.step)
    data = np.ascontiguousarray(message.data).view(np.uint8)
    if step < width * dtype.itemsize or len(data) < height * step:
        raise BadInput(f"a mask on {topic} of {width} x {height} with step {step} has {len(data)} bytes: too few")
    rows = data[: height * step].reshape(height, step)[:, : width * dtype.itemsize]  # (H, W * bytes)
    return np.ascontiguousarray(rows).view(dtype)  # (H, W)


def decoded(data: bytes, topic: str) -> np.ndarray:
    """A compressed picture as it is stored (``(H, W)`` or ``(H, W, 3)`` BGR); BadInput where it is none."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if image is None:
        raise BadInput(f"an image on {topic} cannot be decoded ({len(data)} bytes)")
    return image


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
