"""From the masks of targets to what messages say about them. NumPy and OpenCV only."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np

from ..tracking import TargetState


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


def confidence_map(targets: Sequence[TargetState], instances: np.ndarray) -> np.ndarray:
    """``(H, W)`` uint8 confidence of the target that owns each pixel of an instance map, 0 = nothing.

    A target that brings no confidence of its own counts as sure (255) inside its mask.
    """
    image = np.zeros(instances.shape, np.uint8)
    for target in targets:
        if target.mask is not None:
            mine = instances == target.instance_id
            image[mine] = 255 if target.confidence is None else target.confidence[mine]
    return image
