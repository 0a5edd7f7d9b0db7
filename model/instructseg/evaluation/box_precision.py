"""Precision at a box IoU of 0.5: referring comprehension scored from masks, as MLLMSeg does."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

from ..core import BadInput
from .scores import object_masks


@dataclasses.dataclass(frozen=True)
class BoxPrecision:
    """Share of ``expressions`` whose box hits, in [0, 1]."""

    precision: float
    expressions: int


def box_precision(samples: Iterable[tuple[np.ndarray, np.ndarray]], threshold: float = 0.5) -> BoxPrecision:
    """Over images, each a pair of predicted masks (n, H, W) and annotated boxes (n, 4) as x, y, width, height.

    A hit is a box IoU over ``threshold``. A mask without a pixel never hits, nor does an annotation without area;
    both count as expressions. Masks: probability > 0.5.
    """
    if not 0 <= threshold < 1:
        raise BadInput(f"threshold must be in 0..1 (below 1); got {threshold}")
    hits = expressions = 0
    for masks, boxes in samples:
        masks, boxes = object_masks(masks, "predicted"), _boxes(boxes, len(masks))
        for mask, (x, y, width, height) in zip(masks, boxes, strict=True):
            found = tight_box(mask)
            hits += found is not None and box_iou(found, (x, y, x + width, y + height)) > threshold
        expressions += len(masks)
    if not expressions:
        raise BadInput("box_precision needs at least one expression; got none")
    return BoxPrecision(hits / expressions, expressions)


def tight_box(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    """(x_min, y_min, x_max, y_max) of a bool mask's (H, W) outermost pixels, in pixel indices; None if empty."""
    if not mask.any():
        return None
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def box_iou(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    """IoU of two boxes (x_min, y_min, x_max, y_max); 0 where neither has an area."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(width, 0) * max(height, 0)
    union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)) - shared
    return float(shared / union) if union > 0 else 0.0


def _boxes(boxes: np.ndarray, expressions: int) -> np.ndarray:
    boxes = np.asarray(boxes)
    if boxes.dtype.kind not in "iuf" or boxes.shape != (expressions, 4):
        raise BadInput(
            f"boxes must be numbers (x, y, width, height), one row for each of {expressions} masks; "
            f"got {boxes.dtype} of shape {boxes.shape}"
        )
    boxes = boxes.astype(np.float64)
    if not np.isfinite(boxes).all() or (boxes[:, 2:] < 0).any():
        raise BadInput("boxes must be finite, with a width and height of at least 0 pixels")
    return boxes
