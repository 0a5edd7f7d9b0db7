"""J, F and J&F of video masks, and the DAVIS statistics of a list of scores.

J is region similarity (IoU), F the boundary measure (Perazzi et al., CVPR 2016, sec. 4). VideoLISA, VISA and
InstructSeg report both on ReVOS, MeViS, ReasonVOS and Ref-DAVIS17: the mean over a video's frames, then over its
expressions.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import numpy as np

from ..core import BadInput
from .scores import object_masks, same_shape

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
    return VideoScores(_region(predicted, truth), _boundary(predicted, truth))


def region_similarity(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """J of each frame (T,): intersection over union of (T, H, W) masks, 1 where both are empty."""
    return _region(*_clip(predicted, truth))


def boundary_measure(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """F of each frame (T,): harmonic mean of boundary precision and recall of (T, H, W) masks.

    A boundary pixel is right within ``ceil(0.008 * diagonal)`` pixels of the other boundary. Without any boundary in
    both masks F is 1, in one of them 0; a mask that fills the frame has no boundary either.
    """
    return _boundary(*_clip(predicted, truth))


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
    """Pixels of bool (T, H, W) masks that differ from their right, lower or lower-right neighbour.

    The last row and column are continued beyond the image, so that its edge is no boundary.
    """
    wide = np.pad(masks, ((0, 0), (0, 1), (0, 1)), mode="edge")  # (T, H + 1, W + 1)
    right, below, diagonal = wide[:, :-1, 1:], wide[:, 1:, :-1], wide[:, 1:, 1:]
    return (masks != right) | (masks != below) | (masks != diagonal)


def dilate(maps: np.ndarray, radius: int) -> np.ndarray:
    """Bool (T, H, W) maps grown by the disk ``x² + y² <= radius²``; nothing comes in from outside the image."""
    height, width = maps.shape[1:]
    padded = np.pad(maps, ((0, 0), (0, 0), (radius + 1, radius)))
    counts = np.cumsum(padded, axis=2, dtype=np.int32)  # (T, H, W + 2 radius + 1)
    grown = np.zeros_like(maps)
    for dy in range(min(radius, height - 1) + 1):
        half = math.isqrt(radius * radius - dy * dy)  # the disk's half width dy rows off its centre
        after, before = radius + 1 + half, radius - half
        line = counts[:, :, after : after + width] > counts[:, :, before : before + width]  # (T, H, W)
        grown[:, dy:] |= line[:, : height - dy]
        grown[:, : height - dy] |= line[:, dy:]
    return grown


def _clip(predicted: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    predicted, truth = object_masks(predicted, "predicted"), object_masks(truth, "truth")
    same_shape(predicted, truth, "video masks")
    if not len(truth):
        raise BadInput(f"a video needs at least one frame to be scored; got shape {truth.shape}")
    return predicted, truth


def _region(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    shared = np.count_nonzero(predicted & truth, axis=(1, 2))
    union = np.count_nonzero(predicted | truth, axis=(1, 2))
    return np.where(union == 0, 1.0, shared / np.maximum(union, 1))


def _boundary(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    radius = math.ceil(TOLERANCE * math.hypot(*truth.shape[1:]))
    found, wanted = boundary_map(predicted), boundary_map(truth)
    found_count = np.count_nonzero(found, axis=(1, 2))
    wanted_count = np.count_nonzero(wanted, axis=(1, 2))
    right = np.count_nonzero(found & dilate(wanted, radius), axis=(1, 2))
    met = np.count_nonzero(wanted & dilate(found, radius), axis=(1, 2))
    precision, recall = right / np.maximum(found_count, 1), met / np.maximum(wanted_count, 1)
    total = precision + recall
    scores = 2 * precision * recall / np.where(total == 0, 1.0, total)
    # Without a boundary there is nothing to measure: right if both lack one, wrong if only one does (there the
    # formula has given 0 already).
    return np.where((found_count == 0) & (wanted_count == 0), 1.0, scores)
