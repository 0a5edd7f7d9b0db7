"""Label maps of several objects scored as the DAVIS 2017 unsupervised task does (Caelles et al. 2019, sec. 3).

Ref-DAVIS17 is scored so by VideoLISA and InstructSeg: which predicted label stands for which true object is not asked;
the assignment of labels to objects with the best mean J&F counts. The same label keeps its object in all frames.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from ..core import BadInput
from .region_boundary import VideoScores, score_video
from .scores import IGNORE, checked_stack, same_shape


def score_objects(predicted: np.ndarray, truth: np.ndarray) -> list[VideoScores]:
    """J and F of every true object over all frames, in the order of the objects' labels.

    predicted, truth: (T, H, W) integer label maps, 0 is the background; pixels whose truth is 255 (void) count
    nowhere. An object without a label left for it is scored against empty masks.
    """
    predicted, truth = _labels(predicted, "predicted"), _labels(truth, "truth")
    same_shape(predicted, truth, "label maps")
    void = truth == IGNORE
    objects, labels = (np.setdiff1d(maps[~void], [0]) for maps in (truth, predicted))
    if not objects.size:
        raise BadInput("the truth shows no object in any frame, so there is nothing to score; leave the video out")
    # As many candidates as objects at least, the further ones empty; no label is negative.
    candidates = [*labels, *[-1] * (len(objects) - len(labels))]
    scores = [
        [score_video((predicted == label) & ~void, truth == wanted) for wanted in objects] for label in candidates
    ]  # (P, O)
    j_and_f = np.array([[(pair.j + pair.f) / 2 for pair in row] for row in scores])
    return [scores[candidate][wanted] for wanted, candidate in enumerate(best_assignment(j_and_f))]


def best_assignment(scores: np.ndarray) -> list[int]:
    """The row for each column of (P, O) scores, P >= O, no row twice, such that their sum is largest."""
    rows, columns = np.shape(scores) if np.ndim(scores) == 2 else (0, 1)
    if rows < columns or not np.isfinite(scores).all():
        raise BadInput(f"an assignment needs finite scores with as many rows as columns; got {scores!r}")
    _, chosen = linear_sum_assignment(np.asarray(scores, np.float64).T, maximize=True)
    return chosen.tolist()


def _labels(maps: np.ndarray, name: str) -> np.ndarray:
    checked_stack(maps, name)
    if not np.issubdtype(maps.dtype, np.integer) or not len(maps) or maps.min() < 0:
        raise BadInput(
            f"{name} must be label maps (frames, height, width) of whole numbers from 0, at least one frame; "
            f"got {maps.dtype} of shape {maps.shape}"
        )
    return maps.astype(np.int64)
