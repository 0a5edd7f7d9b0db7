"""Write a recording: a bag with pictures and instance masks, and the ``recording.yaml`` that annotates it.

For simulators and labelling tools; what comes out is read by :mod:`.recordings` and plays back over DDS as any bag.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from pycocotools import mask as coco
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from ...core import BadInput
from .recording_file import NAMES, Interval, RecordedExpression, RecordingFile, as_yaml, read_recording

IMAGE_TOPIC, MASK_TOPIC = "/camera/image_raw", "/ground_truth/instance_mask"
BAG, MASK_FILE = "bag", "masks.json"
_RAW, _COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
_STORAGE = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}

Pictures = Literal["jpeg", "png", "raw"]


def write_recording(
    folder: Path,
    frames: Iterable[tuple[int, np.ndarray, np.ndarray | None]],
    expressions: Sequence[RecordedExpression],
    objects: Mapping[int, str],
    splits: Mapping[str, Sequence[Interval]],
    *,
    pictures: Pictures = "png",
    masks: Literal["png", "raw", "rle"] = "png",
    storage: Literal["mcap", "sqlite3"] = "mcap",
    frame_id: str = "camera_optical",
) -> Path:
    """Write ``<folder>/recording.yaml`` and ``<folder>/bag``; returns the former's path. The folder must not exist.

    frames: in order of time ``(stamp in ns, (H, W, 3) uint8 RGB, (H, W) integers)``, the last the id of the object at
    each pixel, 0 for none, or None where the frame is not annotated; taken one at a time. objects: names by id.
    splits: intervals in seconds after the first frame, ``{"train": [(0, math.inf)]}``. pictures: ``jpeg`` is small and
    lossy, ``raw`` needs no decoding. masks: label images in the bag, or run lengths in ``masks.json``.
    Raises BadInput; then nothing was written.
    """
    for name, value, allowed in (
        ("pictures", pictures, ("jpeg", "png", "raw")),
        ("masks", masks, ("png", "raw", "rle")),
        ("storage", storage, tuple(_STORAGE)),
    ):
        if value not in allowed:
            raise BadInput(f"{name} is {value!r}; allowed: {', '.join(allowed)}")
    if folder.exists():
        raise BadInput(f"{folder} exists already; choose another folder or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        fresh = Path(temporary) / folder.name
        fresh.mkdir()
        image_topic = IMAGE_TOPIC if pictures == "raw" else f"{IMAGE_TOPIC}/compressed"
        mask_topic = {"raw": MASK_TOPIC, "png": f"{MASK_TOPIC}/compressed"}.get(masks, "")
        with Writer(fresh / BAG, version=9, storage_plugin=_STORAGE[storage]) as writer:
            camera = _Topic(writer, image_topic, "rgb8", pictures, frame_id)
            truth = _Topic(writer, mask_topic, "16UC1", masks, frame_id) if mask_topic else None
            runs = _write_frames(frames, camera, truth)
        if truth is None:
            (fresh / MASK_FILE).write_text(json.dumps(runs), encoding="utf-8")
        about = RecordingFile(
            path=fresh / NAMES[0],
            bag=fresh / BAG,
            image_topic=image_topic,
            mask_bag=fresh / BAG,
            mask_topic=mask_topic,
            mask_file=None if mask_topic else fresh / MASK_FILE,
            objects=dict(objects),
            splits={name: tuple((float(a), float(b)) for a, b in parts) for name, parts in splits.items()},
            expressions=tuple(expressions),
        )
        about.path.write_text(as_yaml(about), encoding="utf-8")
        read_recording(about.path)  # what was asked for may contradict itself
        shutil.move(fresh, folder)
    return folder / NAMES[0]


def _write_frames(
    frames: Iterable[tuple[int, np.ndarray, np.ndarray | None]], camera: _Topic, truth: _Topic | None
) -> dict[str, Any]:
    """Everything into the bag; returns the run lengths by stamp where masks go to a file."""
    runs: dict[str, Any] = {}
    last, size = -1, None
    for stamp, image, labels in frames:
        if stamp <= last:
            raise BadInput(f"the frame with the stamp {stamp} comes after {last}; stamps must ascend")
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or (size or image.shape) != image.shape:
            raise BadInput(f"frames must be uint8 (H, W, 3) of one size; got {image.dtype} {image.shape} at {stamp}")
        last, size = stamp, image.shape
        camera.write(stamp, image)
        if labels is None:
            continue
        if (
            labels.shape != image.shape[:2]
            or labels.dtype.kind not in "iu"
            or not 0 <= labels.min() <= labels.max() < 65536
        ):
            raise BadInput(
                f"the mask at {stamp} must hold ids from 0 to 65535 in the frame's size {image.shape[:2]}; got "
                f"{labels.dtype} {labels.shape}"
            )
        if truth is not None:
            truth.write(stamp, labels.astype(np.uint16))
        else:
            runs[str(stamp)] = {str(i): _rle(labels == i) for i in np.unique(labels).tolist() if i}
    if size is None:
        raise BadInput("a recording needs at least one frame; got none")
    return runs


class _Topic:
    """One topic of images in the bag that is written. encoding: of raw pictures; codec: raw, png or jpeg."""

    def __init__(self, writer: Writer, name: str, encoding: str, codec: str, frame_id: str) -> None:
        self._store = get_typestore(Stores.ROS2_JAZZY)
        self._writer, self._encoding, self._codec, self._frame_id = writer, encoding, codec, frame_id
        self._kind = _RAW if codec == "raw" else _COMPRESSED
        self._connection = writer.add_connection(name, self._kind, typestore=self._store)

    def write(self, stamp: int, image: np.ndarray) -> None:
        types = self._store.types
        time = types["builtin_interfaces/msg/Time"](sec=stamp // 10**9, nanosec=stamp % 10**9)
        header = types["std_msgs/msg/Header"](stamp=time, frame_id=self._frame_id)
        message = types[self._kind](header=header, **self._fields(np.ascontiguousarray(image)))
        self._writer.write(self._connection, stamp, self._store.serialize_cdr(message, self._kind))

    def _fields(self, image: np.ndarray) -> dict[str, Any]:
        if self._codec == "raw":
            return {
                "height": image.shape[0], "width": image.shape[1], "encoding": self._encoding, "is_bigendian": 0,
                "step": image.strides[0], "data": image.astype(image.dtype.newbyteorder("<")).view(np.uint8).ravel(),
            }  # fmt: skip
        stored = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
        options = [cv2.IMWRITE_PNG_COMPRESSION, 1] if self._codec == "png" else [cv2.IMWRITE_JPEG_QUALITY, 90]
        done, data = cv2.imencode(".png" if self._codec == "png" else ".jpg", stored, options)
        if not done:
            raise BadInput(f"a picture of {image.dtype} {image.shape} cannot be stored as {self._codec}")
        inner = "bgr8" if image.ndim == 3 else self._encoding
        return {"format": f"{self._encoding}; {self._codec} compressed {inner}", "data": data.reshape(-1)}


def _rle(mask: np.ndarray) -> dict[str, Any]:
    encoded = coco.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode("ascii")}
