"""From target states to label images and geometry. NumPy and OpenCV only.

Fail closed: pixels come from masks of PRESENT targets and from nothing else, whatever a target state may carry.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from instructseg.core import State


@dataclasses.dataclass(frozen=True, eq=False)
class LabelImages:
    """instance: ``(H, W)`` uint16 instance ids; label: ``(H, W)`` uint8 class ids; confidence: ``(H, W)`` uint8.
    0 everywhere that no target is."""

    instance: np.ndarray
    label: np.ndarray
    confidence: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Box (x, y, width, height), area and centroid (x, y) of a mask in pixels; all zero for no mask."""

    x: int = 0
    y: int = 0
    width: int = 0
    height: int = 0
    area: int = 0
    centroid_x: float = 0.0
    centroid_y: float = 0.0


def live_mask(target: Any) -> np.ndarray | None:
    """The target's mask if it may be shown: only PRESENT ever has pixels."""
    return target.mask if target.state is State.PRESENT else None


def paint(targets: Sequence[Any], size: tuple[int, int], *, with_confidence: bool = False) -> LabelImages:
    """Label images of one frame of ``size`` (height, width). Overlaps go to the higher score, then the smaller area;
    ids are never summed. A confidence image is made on demand (255 where a target brings no confidence of its own)."""
    instance = np.zeros(size, np.uint16)
    label = np.zeros(size, np.uint8)
    confidence = np.zeros(size, np.uint8) if with_confidence else None
    shown = [(target, mask) for target in targets if (mask := live_mask(target)) is not None]
    # Painted from the weakest to the strongest, so that the strongest stays on top.
    for target, mask in sorted(shown, key=lambda pair: (pair[0].score, -cv2.countNonZero(pair[1].view(np.uint8)))):
        instance[mask] = target.instance_id
        label[mask] = target.instruction.class_id
        if confidence is not None:
            confidence[mask] = 255 if target.confidence is None else target.confidence[mask]
    return LabelImages(instance, label, confidence)


def geometry(mask: np.ndarray | None) -> Geometry:
    """Box, area and centroid of a ``(H, W)`` bool mask."""
    if mask is None:
        return Geometry()
    pixels = np.ascontiguousarray(mask).view(np.uint8)
    x, y, width, height = cv2.boundingRect(pixels)
    if width == 0:
        return Geometry()
    moments = cv2.moments(pixels[y : y + height, x : x + width], binaryImage=True)
    area = moments["m00"]
    return Geometry(x, y, width, height, int(area), x + moments["m10"] / area, y + moments["m01"] / area)
