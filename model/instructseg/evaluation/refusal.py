"""Scores of referring segmentation with targets that may be absent: gRefCOCO and Ref-ZOM as GSVA scores them.

GSVA and MLLMSeg publish these figures. Their scorer still measures the mask of a target that was refused by mistake
(a second forward pass yields it); ``refused_masks="blank"`` gives the stricter figure, where a refused mask is empty.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Literal

import numpy as np

from ..core import BadInput
from .image_iou import COUNT_EPSILON, cumulative_iou, overlap
from .scores import ratio


@dataclasses.dataclass(frozen=True)
class RefusalScores:
    """Figures in [0, 1]; None where the data has nothing to divide by.

    n_acc: share of absent targets that were refused. t_acc: share of present targets that were not.
    """

    giou: float
    ciou: float | None
    n_acc: float | None
    t_acc: float | None
    absent: int
    present: int


def refusal_scores(
    samples: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]],
    protocol: Literal["grefcoco", "refzom"] = "grefcoco",
    refused_masks: Literal["scored", "blank"] = "scored",
) -> RefusalScores:
    """Scores over images, each a triple of predicted masks (n, H, W), true masks (n, H, W) and refusals (n,) bool.

    A target is absent where its true mask holds no pixel but 0. The two protocols differ in one point: the area of a
    mask drawn for an absent target enters the cIoU's union in ``grefcoco`` only.
    Thresholds: logits >= 0 (GSVA), probability >= 0.5 (MLLMSeg).
    """
    if protocol not in ("grefcoco", "refzom"):
        raise BadInput(f"protocol must be 'grefcoco' or 'refzom'; got {protocol!r}")
    if refused_masks not in ("scored", "blank"):
        raise BadInput(f"refused_masks must be 'scored' or 'blank'; got {refused_masks!r}")
    absent = refused_absent = present = kept_present = intersection = union = 0
    iou_sum = 0.0  # over present targets; an absent one counts 1 if refused, else 0
    for predicted, truth, refused in samples:
        found = overlap(predicted, truth)
        refused = _refusals(refused, len(truth))
        if refused_masks == "blank":
            found = overlap(np.where(refused[:, None, None], 0, predicted != 0), truth)
        shared, covered = found.intersection[:, 1], found.union[:, 1]  # (n,) each
        empty = ~np.any(truth != 0, axis=(1, 2))  # (n,)
        absent += int(empty.sum())
        present += int((~empty).sum())
        refused_absent += int((empty & refused).sum())
        kept_present += int((~empty & ~refused).sum())
        iou_sum += float(np.sum((shared / (covered + 1e-8))[~empty]))
        drawn = ~empty | (~refused if protocol == "grefcoco" else False)
        intersection += int(shared[~empty].sum())
        union += int(covered[drawn].sum())
    if not absent + present:
        raise BadInput("refusal_scores needs at least one target; got none")
    return RefusalScores(
        (refused_absent + iou_sum) / (absent + present + COUNT_EPSILON),
        cumulative_iou(intersection, union),
        ratio(refused_absent, absent),
        ratio(kept_present, present),
        absent,
        present,
    )


def refusals_in_answer(output_ids: np.ndarray, seg_id: int, rej_id: int) -> np.ndarray:
    """(n,) bool: whether the k-th [SEG] or [REJ] of an answer's token ids (L,) is a [REJ]; it belongs to mask k."""
    ids = np.asarray(output_ids)
    if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
        raise BadInput(f"output_ids must be one row of integer token ids; got {ids.dtype} of shape {ids.shape}")
    if seg_id == rej_id:
        raise BadInput(f"[SEG] and [REJ] must be different tokens; both have the id {seg_id}")
    return ids[(ids == seg_id) | (ids == rej_id)] == rej_id


def _refusals(refused: np.ndarray, targets: int) -> np.ndarray:
    refused = np.asarray(refused)
    if refused.dtype.kind not in "biu" or not np.isin(refused, (0, 1)).all():
        raise BadInput(f"refusals must be booleans, one a target; got {refused.dtype} {refused!r}")
    if refused.shape != (targets,):
        raise BadInput(f"there must be one refusal for each of {targets} targets; got shape {refused.shape}")
    return refused.astype(bool)
