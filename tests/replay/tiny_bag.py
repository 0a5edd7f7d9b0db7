"""A three-second recording of coloured squares with the topics of the demo recording, and the demo's node on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from instructseg_node.demo.records import EXPECTATIONS, IMAGE, TRUTH

STORE = get_typestore(Stores.ROS2_JAZZY)
RATE, FRAMES, START_NS = 15, 45, 1_700_000_000 * 10**9
COMPRESSED, STRING = "sensor_msgs/msg/CompressedImage", "std_msgs/msg/String"
RED_ID = 7
COMMANDS = (  # start, end, text, instance ids, verdict
    (0.2, 1.6, "the red square", [RED_ID], "present"),
    (1.6, 3.0, "the blue square", [], "absent"),
)


def stamp(index: int) -> int:
    return START_NS + round(index * 1e9 / RATE)


def write_tiny_bag(path: Path, storage: StoragePlugin = StoragePlugin.MCAP) -> Path:
    """Pictures as PNG, so that the colours stay what they are."""
    entries: list[tuple[int, str, str, Any]] = []
    for index in range(FRAMES):
        image = np.full((120, 160, 3), 127, np.uint8)
        truth = np.zeros((120, 160), np.uint8)
        square = np.s_[20:60, 20 + index : 60 + index]
        image[square], truth[square] = (0, 0, 255), RED_ID  # BGR
        entries.append((stamp(index), TRUTH, COMPRESSED, compressed(truth, stamp(index))))
        entries.append((stamp(index), IMAGE, COMPRESSED, compressed(image, stamp(index))))
    for start, end, text, ids, verdict in COMMANDS:
        at = START_NS + round(start * 1e9)
        window = {"start": start, "end": end, "verdict": verdict}
        slot = {"objects": ["red_square"] if ids else [], "instance_ids": ids, "windows": [window]}
        facts = {"text": text, "kind": "test", "start": start, "end": end, "slots": [slot]}
        entries.append((at, EXPECTATIONS, STRING, STORE.types[STRING](data=json.dumps(facts))))
        entries.append((at, "/command", STRING, STORE.types[STRING](data=text)))
    entries.sort(key=lambda entry: entry[0])
    with Writer(path, version=9, storage_plugin=storage) as writer:
        kinds = {topic: kind for _, topic, kind, _ in entries}
        connections = {t: writer.add_connection(t, kind, typestore=STORE) for t, kind in kinds.items()}
        for time_ns, topic, kind, message in entries:
            writer.write(connections[topic], time_ns, STORE.serialize_cdr(message, kind))
    return path


def compressed(image: np.ndarray, stamp_ns: int) -> Any:
    time = STORE.types["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    header = STORE.types["std_msgs/msg/Header"](stamp=time, frame_id="optical")
    data = cv2.imencode(".png", image)[1].ravel()
    return STORE.types[COMPRESSED](header=header, format="png", data=data)
