"""Label maps of several objects scored as the DAVIS 2017 unsupervised task does (Caelles et al. 2019, sec. 3).

Ref-DAVIS17 is scored so by VideoLISA and InstructSeg: which predicted label stands for which true object is not asked;
the assignment of labels to objects with the best mean J&F counts. The same label keeps its object in all frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from ..core import BadInput
from .region_boundary import VideoScores, outlined, score_pair, tolerance
from .scores import IGNORE, checked_stack, same_shape


def score_objects(predicted: np.ndarray, truth: np.ndarray) -> list[VideoScores]:
    """J and F of every true object over all frames, in the order of the objects' labels.

    predicted, truth: (T, H, W) integer label maps, 0 is the background; pixels whose truth is 255 (void) count
    nowhere. An object without a label left for it is scored against empty masks.
    """
    predicted, truth = _labels(predicted, "predicted"), _labels(truth, "truth")
    same_shape(predicted, truth, "label maps")
    # A label that shows only where the truth is void counts for nothing.
    objects = _values(truth, truth)
    labels = _values(predicted, truth)
    if not objects:
        raise BadInput("the truth shows no object in any frame, so there is nothing to score; leave the video out")
    # As many candidates as objects at least, the further ones empty; no label is negative.
    candidates = [*labels, *[None] * (len(objects) - len(labels))]
    pairs = [_score_frame(*maps, candidates, objects) for maps in zip(predicted, truth, strict=True)]
    j, f = np.moveaxis(np.array(pairs), (0, 3), (3, 0))  # (2, P, O, T)
    scores = [[VideoScores(j[p, o], f[p, o]) for o in range(len(objects))] for p in range(len(candidates))]
    j_and_f = np.array([[(pair.j + pair.f) / 2 for pair in row] for row in scores])
    return [scores[candidate][wanted] for wanted, candidate in enumerate(best_assignment(j_and_f))]


def best_assignment(scores: np.ndarray) -> list[int]:
    """The row for each column of (P, O) scores, P >= O, no row twice, such that their sum is largest."""
    rows, columns = np.shape(scores) if np.ndim(scores) == 2 else (0, 1)
    if rows < columns or not np.isfinite(scores).all():
        raise BadInput(f"an assignment needs finite scores with as many rows as columns; got {scores!r}")
    _, chosen = linear_sum_assignment(np.asarray(scores, np.float64).T, maximize=True)
    return chosen.tolist()


def _values(maps: np.ndarray, truth: np.ndarray) -> list[int]:
    """The labels other than 0 that occur in (T, H, W) maps where the truth is not void, ascending."""
    found: set[int] = set()
    for one, true in zip(maps, truth, strict=True):
        if one.dtype == np.uint8:  # counting is many times faster than sorting the pixels
            counts = cv2.calcHist([one], [0], (true != IGNORE).view(np.uint8), [256], [0, 256])
            found.update(np.flatnonzero(counts).tolist())
        else:
            found.update(np.unique(one[true != IGNORE]).tolist())
    return sorted(found - {0})


def _score_frame(
    predicted: np.ndarray, truth: np.ndarray, labels: Sequence[int | None], objects: Sequence[int]
) -> np.ndarray:
    """J and F ``(P, O, 2)`` of every label with every object on one frame; None stands for an empty mask."""
    void, radius = truth == IGNORE, tolerance(*truth.shape)
    truths = [outlined(truth == number, radius) for number in objects]
    scores = np.empty((len(labels), len(objects), 2))
    for row, label in zip(scores, labels, strict=True):
        mask = (predicted == label) & ~void if label is not None else np.zeros(truth.shape, bool)
        found = outlined(mask, radius)
        row[:] = [score_pair(found, wanted) for wanted in truths]
    return scores


def _labels(maps: np.ndarray, name: str) -> np.ndarray:
    checked_stack(maps, name)
    if not np.issubdtype(maps.dtype, np.integer) or not len(maps) or maps.min() < 0:
        raise BadInput(
            f"{name} must be label maps (frames, height, width) of whole numbers from 0, at least one frame; "
            f"got {maps.dtype} of shape {maps.shape}"
        )
    return maps
