"""Masks as they are kept: COCO run lengths, and probabilities as grey PNG where a protocol merges them."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco

from ...core import BadInput
from ...data.readers.coco_masks import decode_segmentation


def encode_mask(mask: np.ndarray) -> dict[str, Any] | None:
    """COCO's compressed run lengths of a ``(H, W)`` bool mask; None for an empty one."""
    return _runs(mask) if mask.any() else None


def empty_runs(height: int, width: int) -> dict[str, Any]:
    """COCO's run lengths of a mask without a pixel."""
    return _runs(np.zeros((height, width), bool))


def _runs(mask: np.ndarray) -> dict[str, Any]:
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(edge) for edge in encoded["size"]], "counts": encoded["counts"].decode("ascii")}


def decode_mask(runs: Any, size: tuple[int, int], where: str) -> np.ndarray:
    """``(H, W)`` bool of that size; empty for None. Raises BadInput, also for a mask of another size."""
    if runs is None:
        return np.zeros(size, bool)
    return decode_segmentation(runs, *size, where)


def encode_soft(confidence: np.ndarray) -> str:
    """``(H, W)`` uint8 probabilities of 0 to 255 as PNG in base64."""
    return base64.b64encode(cv2.imencode(".png", confidence)[1].tobytes()).decode("ascii")


def decode_soft(text: Any, size: tuple[int, int], where: str) -> np.ndarray:
    """``(H, W)`` float32 in [0, 1]; zeros for None. Raises BadInput."""
    if text is None:
        return np.zeros(size, np.float32)
    try:
        data = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
        grey = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if data.size else None
    except (TypeError, ValueError, binascii.Error, cv2.error):
        grey = None
    if grey is None or grey.shape != tuple(size):
        raise BadInput(f"{where} must be a grey PNG of {size[1]} x {size[0]} pixels in base64; got {str(text)[:40]!r}")
    return grey.astype(np.float32) / 255
