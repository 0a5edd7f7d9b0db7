"""J, F and J&F of video masks, and the DAVIS statistics of a list of scores.

J is region similarity (IoU), F the boundary measure (Perazzi et al., CVPR 2016, sec. 4). VideoLISA, VISA and
InstructSeg report both on ReVOS, MeViS, ReasonVOS and Ref-DAVIS17: the mean over a video's frames, then over its
expressions.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable

import cv2
import numpy as np

from ..core import BadInput
from .scores import checked_stack, object_masks, same_shape

TOLERANCE = 0.008  # of the image diagonal: how far a boundary may lie from the true one


@dataclasses.dataclass(frozen=True, eq=False)
class VideoScores:
    """J and F of each frame ``(T,)`` in [0, 1]."""

    j_per_frame: np.ndarray
    f_per_frame: np.ndarray

    @property
    def j(self) -> float:
        return float(self.j_per_frame.mean())

    @property
    def f(self) -> float:
        return float(self.f_per_frame.mean())


@dataclasses.dataclass(frozen=True)
class MeanScores:
    """Mean J and F over ``count`` pairs of video and expression."""

    j: float
    f: float
    count: int

    @property
    def j_and_f(self) -> float:
        return (self.j + self.f) / 2


@dataclasses.dataclass(frozen=True)
class DavisStatistics:
    """mean; recall: share of scores over 0.5; decay: how much the first quarter is better than the last."""

    mean: float
    recall: float
    decay: float


def score_video(predicted: np.ndarray, truth: np.ndarray) -> VideoScores:
    """J and F of every frame of a clip; both arrays (T, H, W), bool or integers where all but 0 is the object."""
    predicted, truth = _clip(predicted, truth)
    radius = tolerance(*truth.shape[1:])
    scores = np.array(
        [score_pair(outlined(p, radius), outlined(t, radius)) for p, t in zip(predicted, truth, strict=True)]
    )  # (T, 2)
    return VideoScores(scores[:, 0], scores[:, 1])


def region_similarity(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """J of each frame (T,): intersection over union of (T, H, W) masks, 1 where both are empty."""
    return score_video(predicted, truth).j_per_frame


def boundary_measure(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """F of each frame (T,): harmonic mean of boundary precision and recall of (T, H, W) masks.

    A boundary pixel is right within ``ceil(0.008 * diagonal)`` pixels of the other boundary. Without any boundary in
    both masks F is 1, in one of them 0; a mask that fills the frame has no boundary either.
    """
    return score_video(predicted, truth).f_per_frame


def dataset_scores(videos: Iterable[VideoScores]) -> MeanScores:
    """Means over pairs of video and expression, each pair of the same weight whatever its length."""
    videos = list(videos)
    if not videos:
        raise BadInput("dataset_scores needs the scores of at least one video; got none")
    return MeanScores(float(np.mean([v.j for v in videos])), float(np.mean([v.f for v in videos])), len(videos))


def davis_statistics(scores: np.ndarray) -> DavisStatistics:
    """Mean, recall and decay of the scores (N,) of one object's frames, as the DAVIS toolkit defines them.

    Decay takes four bins whose edges are inclusive on both sides: neighbours share a score.
    """
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 1 or not scores.size or not np.isfinite(scores).all():
        raise BadInput(f"davis_statistics needs one finite score a frame, at least one; got {scores!r}")
    edges = np.round(np.linspace(1, scores.size, 5) + 1e-10).astype(int) - 1
    first, last = scores[: edges[1] + 1], scores[edges[3] : edges[4] + 1]
    return DavisStatistics(float(scores.mean()), float((scores > 0.5).mean()), float(first.mean()) - float(last.mean()))


def boundary_map(masks: np.ndarray) -> np.ndarray:
    """Pixels of bool (..., H, W) masks that differ from their right, lower or lower-right neighbour.

    The last row and column are continued beyond the image, so that its edge is no boundary.
    """
    boundary = np.zeros_like(masks)
    boundary[..., :-1] = masks[..., :-1] != masks[..., 1:]
    boundary[..., :-1, :] |= masks[..., :-1, :] != masks[..., 1:, :]
    boundary[..., :-1, :-1] |= masks[..., :-1, :-1] != masks[..., 1:, 1:]
    return boundary


def dilate(maps: np.ndarray, radius: int) -> np.ndarray:
    """Bool (T, H, W) maps grown by the disk ``x² + y² <= radius²``; nothing comes in from outside the image."""
    grown = np.empty_like(maps)
    for one, result in zip(maps, grown, strict=True):
        result[:] = cv2.dilate(one.view(np.uint8), _disk(radius)).view(bool)
    return grown


@functools.cache
def _disk(radius: int) -> np.ndarray:
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return (x * x + y * y <= radius * radius).astype(np.uint8)


def _clip(predicted: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    predicted, truth = _bytes(predicted, "predicted"), _bytes(truth, "truth")
    same_shape(predicted, truth, "video masks")
    if not len(truth):
        raise BadInput(f"a video needs at least one frame to be scored; got shape {truth.shape}")
    return predicted, truth


def _bytes(masks: np.ndarray, name: str) -> np.ndarray:
    """Masks (T, H, W) as uint8, all but 0 the object; nothing is copied where they have 8 bits already."""
    if getattr(masks, "dtype", None) in (np.uint8, bool):
        checked_stack(masks, name)
    else:
        masks = object_masks(masks, name)
    return masks.view(np.uint8)


def tolerance(height: int, width: int) -> int:
    """How many pixels a boundary may lie off the true one."""
    return math.ceil(TOLERANCE * math.hypot(height, width))


@dataclasses.dataclass(frozen=True, eq=False)
class Outlined:
    """One mask of one frame, cut to where it shows something: what is compared with others.

    left, top: of the cut in the frame. mask, boundary, near ``(h, w)`` bool: near are the pixels within the tolerance
    of the boundary. Outside the cut all three are False. area, length: pixels of the mask and of its boundary.
    """

    left: int
    top: int
    mask: np.ndarray
    boundary: np.ndarray
    near: np.ndarray
    area: int
    length: int


def outlined(mask: np.ndarray, radius: int) -> Outlined:
    """Of a ``(H, W)`` mask, bool or uint8, with the tolerance in pixels."""
    shown = np.ascontiguousarray(mask).view(np.uint8)
    left, top, width, height = cv2.boundingRect(shown)  # all 0 of an empty mask
    right, bottom = left + width + radius + 1, top + height + radius + 1
    left, top = max(left - radius - 1, 0), max(top - radius - 1, 0)
    cut = shown[top:bottom, left:right] != 0
    boundary = boundary_map(cut)
    near = dilate(boundary[None], radius)[0]
    return Outlined(left, top, cut, boundary, near, np.count_nonzero(cut), np.count_nonzero(boundary))


def score_pair(predicted: Outlined, truth: Outlined) -> tuple[float, float]:
    """J and F of two masks of one frame, outlined with the same tolerance."""
    ours, theirs = _shared(predicted, truth)
    shared = np.count_nonzero(predicted.mask[ours] & truth.mask[theirs])
    union = predicted.area + truth.area - shared
    j = shared / union if union else 1.0
    if not predicted.length or not truth.length:
        # Nothing to measure: right if both lack a boundary, wrong if only one does.
        return j, 1.0 if predicted.length == truth.length else 0.0
    precision = np.count_nonzero(predicted.boundary[ours] & truth.near[theirs]) / predicted.length
    recall = np.count_nonzero(truth.boundary[theirs] & predicted.near[ours]) / truth.length
    return j, 2 * precision * recall / (precision + recall) if precision + recall else 0.0


Cut = tuple[slice, slice]


def _shared(one: Outlined, other: Outlined) -> tuple[Cut, Cut]:
    """The part of the frame that is in both cuts, as slices of each."""
    left, top = max(one.left, other.left), max(one.top, other.top)
    right = max(left, min(cut.left + cut.mask.shape[1] for cut in (one, other)))
    bottom = max(top, min(cut.top + cut.mask.shape[0] for cut in (one, other)))
    first, second = (
        (slice(top - cut.top, bottom - cut.top), slice(left - cut.left, right - cut.left)) for cut in (one, other)
    )
    return first, second
