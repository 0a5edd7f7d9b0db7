"""Render the demo scene into a bag (MCAP) with commands and ground truth: python -m instructseg_node.demo.record.

Topics: /camera/image/compressed (JPEG), /camera/depth/compressed (16UC1 PNG, millimetres, every fifth image),
/camera/camera_info, /command, and under /ground_truth the instance images (mono8 PNG) and, with each command, what is
expected of it (JSON). Nothing depends on the clock or the machine's name: the same scene gives the same bytes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from rosbags.rosbag2 import Reader, ReaderError, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from instructseg.core import BadInput, InstructSegError
from instructseg.data import demo_scene, tabletop

from . import commands as command_list

WIDTH, HEIGHT, RATE = 640, 480, 15
DEPTH_EVERY = 5  # images per depth image: keeps the bag small
JPEG_QUALITY = 70
START_NS = 1_700_000_000 * 10**9
FRAME_ID = "camera_color_optical_frame"
IMAGE, DEPTH, INFO = "/camera/image/compressed", "/camera/depth/compressed", "/camera/camera_info"
INSTANCES, EXPECTATIONS, COMMAND = "/ground_truth/instance_mask/compressed", "/ground_truth/expectations", "/command"
TYPES = {
    IMAGE: "sensor_msgs/msg/CompressedImage",
    DEPTH: "sensor_msgs/msg/CompressedImage",
    INFO: "sensor_msgs/msg/CameraInfo",
    INSTANCES: "sensor_msgs/msg/CompressedImage",
    COMMAND: "std_msgs/msg/String",
    EXPECTATIONS: "std_msgs/msg/String",
}
_STORE = get_typestore(Stores.ROS2_JAZZY)


class Entry(NamedTuple):
    """One message of the bag: time in nanoseconds, topic, CDR bytes."""

    time_ns: int
    topic: str
    data: bytes


def render_camera(seed: int = 0, duration: float = demo_scene.DURATION) -> Iterator[Entry]:
    """What the camera sees, and the ground truth of it, in order of time."""
    spec = demo_scene.demo_spec(seed)
    table = tabletop.Tabletop(WIDTH, HEIGHT, samples=4)
    try:
        for index in range(round(duration * RATE)):
            stamp = START_NS + round(index * 1e9 / RATE)
            rgb, instance, depth = table.render(spec, index / RATE)
            yield Entry(stamp, INFO, _camera_info(table.intrinsics(spec), stamp))
            if index % DEPTH_EVERY == 0:
                millimetres = np.where(depth < 10, np.round(depth * 1000), 0).astype(np.uint16)
                yield Entry(stamp, DEPTH, _compressed(millimetres, "16UC1", stamp))
            yield Entry(stamp, INSTANCES, _compressed(instance, "mono8", stamp))
            yield Entry(stamp, IMAGE, _compressed(rgb, "rgb8", stamp))
    finally:
        table.close()


def read_camera(bag: Path) -> Iterator[Entry]:
    """The same from an existing recording; :class:`BadInput` where there is none."""
    try:
        with Reader(bag) as reader:
            wanted = [c for c in reader.connections if c.topic not in (COMMAND, EXPECTATIONS)]
            for connection, time_ns, data in reader.messages(wanted):
                yield Entry(time_ns, connection.topic, bytes(data))
    except (ReaderError, OSError) as error:
        raise BadInput(f"cannot read the recording {bag}: {error}; record it without --reuse") from error


def add_commands(camera: Sequence[Entry], path: Path) -> list[Entry]:
    """The camera's messages and, in order of time, the commands of a file with what is expected of each."""
    masks = [entry for entry in camera if entry.topic == INSTANCES]
    if not masks:
        raise BadInput(f"the recording holds no {INSTANCES}: nothing can be expected of a command")
    first = masks[0].time_ns
    times = np.array([(entry.time_ns - first) / 1e9 for entry in masks])
    areas = np.stack([np.bincount(_instances(entry).ravel(), minlength=256) for entry in masks])
    duration = round(float(times[-1]) + 1 / RATE, 6)
    commands = command_list.load(path, demo_scene.NAMES, duration)
    facts = command_list.expectations(commands, demo_scene.NAMES, times, areas)
    string = _STORE.types["std_msgs/msg/String"]
    entries = list(camera)
    for command, fact in zip(commands, facts, strict=True):
        stamp = first + round(command.start * 1e9)
        text = json.dumps({**fact, "first_stamp_ns": first})
        entries.append(Entry(stamp, EXPECTATIONS, _cdr(EXPECTATIONS, string(data=text))))
        entries.append(Entry(stamp, COMMAND, _cdr(COMMAND, string(data=command.text))))
    return sorted(entries, key=lambda entry: entry.time_ns)  # stable: the order within a stamp stays


def write(bag: Path, entries: Sequence[Entry]) -> None:
    """Write a bag, in place of the one that may be there."""
    bag.parent.mkdir(parents=True, exist_ok=True)
    if bag.exists() and not (bag / "metadata.yaml").exists():
        raise BadInput(f"{bag} exists and is no bag; choose another folder or remove it")
    with tempfile.TemporaryDirectory(dir=bag.parent) as folder:
        fresh = Path(folder) / bag.name
        with Writer(fresh, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
            connections = {topic: writer.add_connection(topic, kind, typestore=_STORE) for topic, kind in TYPES.items()}
            for entry in entries:
                writer.write(connections[entry.topic], entry.time_ns, entry.data)
        if bag.exists():
            shutil.rmtree(bag)
        fresh.rename(bag)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 0 on success, 2 on bad input."""
    parser = argparse.ArgumentParser(prog="record_demo", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("data/demo"), help="folder of the bag (default data/demo)")
    default = Path(__file__).parents[2] / "config" / "demo_commands.yaml"
    parser.add_argument(
        "--commands", type=Path, default=default, help="command file (default config/demo_commands.yaml)"
    )
    parser.add_argument("--seed", type=int, default=0, help="tones and gloss of the things")
    parser.add_argument(
        "--reuse", action="store_true", help="keep the pictures of the bag in --out, renew the commands"
    )
    options = parser.parse_args(arguments)
    try:
        command_list.load(options.commands, demo_scene.NAMES, demo_scene.DURATION)  # before minutes of rendering
        camera = list(read_camera(options.out) if options.reuse else render_camera(options.seed))
        entries = add_commands(camera, options.commands)
        write(options.out, entries)
    except InstructSegError as error:
        print(f"record_demo: {error}", file=sys.stderr)
        return 2
    size = sum(file.stat().st_size for file in options.out.iterdir()) / 1e6
    print(f"{options.out}: {len(entries)} messages, {size:.1f} MB")
    return 0


def _camera_info(intrinsics: tuple[float, float, float, float], stamp: int) -> bytes:
    fx, fy, cx, cy = intrinsics
    types = _STORE.types
    region = types["sensor_msgs/msg/RegionOfInterest"](x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    message = types[TYPES[INFO]](
        header=_header(stamp),
        height=HEIGHT,
        width=WIDTH,
        distortion_model="plumb_bob",
        d=np.zeros(5),
        k=np.array([fx, 0, cx, 0, fy, cy, 0, 0, 1], dtype=float),
        r=np.eye(3).ravel(),
        p=np.array([fx, 0, cx, 0, 0, fy, cy, 0, 0, 0, 1, 0], dtype=float),
        binning_x=0,
        binning_y=0,
        roi=region,
    )
    return _cdr(INFO, message)


def _compressed(image: np.ndarray, encoding: str, stamp: int) -> bytes:
    """JPEG for rgb8, PNG for everything else."""
    if encoding == "rgb8":
        codec, options = "jpeg", [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
        done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    else:
        codec = "png"
        done, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    if not done:
        raise BadInput(f"an image of {image.dtype} {image.shape} cannot be stored as {codec}")
    stored = "bgr8" if encoding == "rgb8" else encoding
    kind = _STORE.types["sensor_msgs/msg/CompressedImage"]
    return _cdr(
        IMAGE, kind(header=_header(stamp), format=f"{encoding}; {codec} compressed {stored}", data=data.ravel())
    )


def _instances(entry: Entry) -> np.ndarray:
    message = _STORE.deserialize_cdr(entry.data, TYPES[INSTANCES])
    return cv2.imdecode(np.asarray(message.data, np.uint8), cv2.IMREAD_UNCHANGED)


def _header(stamp: int) -> Any:
    time = _STORE.types["builtin_interfaces/msg/Time"](sec=stamp // 10**9, nanosec=stamp % 10**9)
    return _STORE.types["std_msgs/msg/Header"](stamp=time, frame_id=FRAME_ID)


def _cdr(topic: str, message: Any) -> bytes:
    return bytes(_STORE.serialize_cdr(message, TYPES[topic]))


if __name__ == "__main__":
    sys.exit(main())
