"""gIoU and cIoU of image masks (referring and reasoning segmentation), ignored pixels left out.

gIoU is the mean of the masks' IoU, cIoU the summed intersection over the summed union. Same in VideoLISA, GSVA, VISA
and InstructSeg; MLLMSeg averages gIoU over images (``average="images"``). The small constants in the denominators
are the published ones, so a perfect mask scores a hair below 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Literal

import numpy as np

from ..core import BadInput
from .scores import IGNORE, labelled_truth, object_masks, ratio, same_shape

COUNT_EPSILON = 1e-5  # the published averages divide by count + 1e-5


@dataclasses.dataclass(frozen=True, eq=False)
class Overlap:
    """Pixels of intersection and union of n masks, ``(n, 2)`` int64 each: background, target."""

    intersection: np.ndarray
    union: np.ndarray


@dataclasses.dataclass(frozen=True)
class ImageScores:
    """gIoU and cIoU in [0, 1] over ``masks`` masks; cIoU is None where there was neither prediction nor target."""

    giou: float
    ciou: float | None
    masks: int


def overlap(predicted: np.ndarray, truth: np.ndarray) -> Overlap:
    """Intersection and union of background and target; pixels whose truth is 255 count nowhere.

    predicted: (n, H, W) bool, or integers where all but 0 is the target. truth: (n, H, W) of 0, 1 and 255.
    """
    predicted, truth = object_masks(predicted, "predicted"), labelled_truth(truth, "truth")
    same_shape(predicted, truth, "image masks")
    seen, wanted = truth != IGNORE, truth == 1
    background = ~predicted & seen, ~wanted & seen
    target = predicted & seen, wanted
    intersection = [_pixels(found & true) for found, true in (background, target)]
    union = [_pixels(found | true) for found, true in (background, target)]
    return Overlap(np.stack(intersection, axis=1), np.stack(union, axis=1))  # (n, 2)


def mask_ious(found: Overlap) -> np.ndarray:
    """(n, 2) IoU of background and target, intersection / (union + 1e-5); 1 where the union is empty."""
    return found.intersection / (found.union + 1e-5) + (found.union == 0)


def image_scores(
    samples: Iterable[tuple[np.ndarray, np.ndarray]], average: Literal["masks", "images"] = "masks"
) -> ImageScores:
    """gIoU and cIoU of the target class over images, each a pair of predicted and true masks (n, H, W).

    average: ``masks`` weighs every mask alike, ``images`` every image alike (its masks are averaged first).
    Thresholds: logits > 0 (VideoLISA, GSVA, VISA, InstructSeg), probability >= 0.5 (MLLMSeg).
    """
    if average not in ("masks", "images"):
        raise BadInput(f"average must be 'masks' or 'images'; got {average!r}")
    ious: list[float] = []
    intersection = union = masks = 0
    for number, (predicted, truth) in enumerate(samples):
        found = overlap(predicted, truth)
        scores = mask_ious(found)[:, 1]
        if average == "images" and not len(scores):
            raise BadInput(f"image {number} has no mask, so its mean IoU is not defined; leave it out of the list")
        ious += [scores.mean()] if average == "images" else list(scores)
        intersection += int(found.intersection[:, 1].sum())
        union += int(found.union[:, 1].sum())
        masks += len(scores)
    if not masks:
        raise BadInput("image_scores needs at least one mask; got none")
    giou = float(np.sum(ious)) / (len(ious) + COUNT_EPSILON)
    return ImageScores(giou, cumulative_iou(intersection, union), masks)


def cumulative_iou(intersection: int, union: int) -> float | None:
    """Summed intersection / (summed union + 1e-10); None where the union is empty."""
    return None if union == 0 else ratio(intersection, union + 1e-10)


def _pixels(masks: np.ndarray) -> np.ndarray:
    return np.count_nonzero(masks, axis=(1, 2)).astype(np.int64)
