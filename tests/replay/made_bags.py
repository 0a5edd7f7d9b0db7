"""Bags of drawn squares for replay tests: any topics, stamps, storages and faults."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

STORE = get_typestore(Stores.ROS2_JAZZY)
T = STORE.types
SECOND = 1_000_000_000
ZERO = 1_700_000_000 * SECOND
IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
INFO, STRING = "sensor_msgs/msg/CameraInfo", "std_msgs/msg/String"
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
SQUARE = np.s_[20:60, 30:70]
Entry = tuple[int, str, str, Any]  # log time in ns, topic, type, message or CDR bytes


def header(stamp_ns: int, frame_id: str = "optical") -> Any:
    time = T["builtin_interfaces/msg/Time"](sec=stamp_ns // SECOND, nanosec=stamp_ns % SECOND)
    return T["std_msgs/msg/Header"](stamp=time, frame_id=frame_id)


def picture(colour: str = "red") -> np.ndarray:
    """``(96, 128, 3)`` RGB: one square on grey."""
    image = np.full((96, 128, 3), 127, np.uint8)
    image[SQUARE] = COLOURS[colour]
    return image


def raw(pixels: np.ndarray, encoding: str, stamp_ns: int, frame_id: str = "optical") -> Any:
    height, width = pixels.shape[:2]
    data = np.ascontiguousarray(pixels).view(np.uint8).ravel()
    return T[IMAGE](
        header=header(stamp_ns, frame_id), height=height, width=width, encoding=encoding, is_bigendian=0,
        step=len(data) // height, data=data,
    )  # fmt: skip


def compressed(pixels: np.ndarray, stamp_ns: int, kind: str = "rgb8; png compressed bgr8") -> Any:
    stored = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    data = cv2.imencode(".png", np.ascontiguousarray(stored))[1].ravel()
    return T[COMPRESSED](header=header(stamp_ns), format=kind, data=data)


def camera_info(stamp_ns: int) -> Any:
    region = T["sensor_msgs/msg/RegionOfInterest"](x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    return T[INFO](
        header=header(stamp_ns), height=96, width=128, distortion_model="plumb_bob", d=np.zeros(5), k=np.eye(3).ravel(),
        r=np.eye(3).ravel(), p=np.eye(3, 4).ravel(), binning_x=0, binning_y=0, roi=region,
    )  # fmt: skip


def write(path: Path, entries: Iterable[Entry], storage: StoragePlugin = StoragePlugin.MCAP, **options: Any) -> Path:
    """In order of log time. options: compression (mode, format); own: definitions of types that nobody knows."""
    entries = sorted(entries, key=lambda entry: entry[0])
    writer = Writer(path, version=9, storage_plugin=storage)
    if "compression" in options:
        writer.set_compression(*options["compression"])
    with writer:
        connections = {}
        for time_ns, topic, kind, message in entries:
            if topic not in connections:
                own = options.get("own", {}).get(kind)
                given = {"msgdef": own, "rihs01": "RIHS01_1"} if own else {"typestore": STORE}
                connections[topic] = writer.add_connection(topic, kind, **given)
            data = message if isinstance(message, bytes) else STORE.serialize_cdr(message, kind)
            writer.write(connections[topic], time_ns, data)
    return path


def camera(topic: str, count: int, period_s: float = 0.1, colour: str = "red", first: int = ZERO) -> list[Entry]:
    """Raw pictures of one camera, stamped with their log times."""
    times = [first + round(i * period_s * SECOND) for i in range(count)]
    return [(time, topic, IMAGE, raw(picture(colour), "rgb8", time)) for time in times]
