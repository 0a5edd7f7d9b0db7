"""Messages as the 3-D code reads them, without ROS."""

from __future__ import annotations

import array
import types

import numpy as np

HEADER = types.SimpleNamespace(stamp=types.SimpleNamespace(sec=3, nanosec=5), frame_id="optical")


def depth_message(values: np.ndarray, encoding: str = "", *, pad: int = 0, big: bool = False, **fields):
    """A depth image; float32 becomes 32FC1 and uint16 16UC1. ``pad`` bytes of rubbish follow each row."""
    encoding = encoding or {"float32": "32FC1", "uint16": "16UC1"}[values.dtype.name]
    sent = np.ascontiguousarray(values.astype(values.dtype.newbyteorder(">" if big else "<")))
    rows = sent.view(np.uint8).reshape(len(values), -1)
    rows = np.concatenate([rows, np.full((len(rows), pad), 0xAB, np.uint8)], axis=1)
    made = {
        "header": HEADER, "height": values.shape[0], "width": values.shape[1], "encoding": encoding,
        "is_bigendian": int(big), "step": rows.shape[1], "data": array.array("B", rows.tobytes()),
    }  # fmt: skip
    return types.SimpleNamespace(**(made | fields))


def info_message(width: int = 640, height: int = 480, f: float = 600.0, roi=(0, 0, 0, 0), **fields):
    """A camera_info with its centre in the middle; roi: x offset, y offset, width, height."""
    cx, cy = (width - 1) / 2, (height - 1) / 2
    region = dict(zip(("x_offset", "y_offset", "width", "height"), roi, strict=True))
    made = {
        "header": HEADER, "width": width, "height": height, "distortion_model": "plumb_bob", "d": [0.0] * 5,
        "k": np.array([f, 0, cx, 0, f, cy, 0, 0, 1]), "p": np.array([f, 0, cx, 0, 0, f, cy, 0, 0, 0, 1, 0.0]),
        "binning_x": 0, "binning_y": 0, "roi": types.SimpleNamespace(**region),
    }  # fmt: skip
    return types.SimpleNamespace(**(made | fields))
