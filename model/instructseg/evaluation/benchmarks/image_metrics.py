"""Figures of image sets: RefCOCO's family, gRefCOCO, ReasonSeg and semantic sets, by the functions of
:mod:`..image_iou`, :mod:`..refusal` and :mod:`..box_precision`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...data.samples import Sample
from ..box_precision import box_iou, tight_box
from ..image_iou import COUNT_EPSILON, cumulative_iou, mask_ious, overlap
from ..scores import IGNORE
from .metrics import (
    UNKNOWN,
    Columns,
    Judged,
    Metric,
    Table,
    predicted_mask,
    rows_of,
    sample_labels,
    share,
    truth_of,
    usable,
    with_lost,
)
from .predictions import Prediction

PRECISIONS = (0.5, 0.6, 0.7, 0.8, 0.9)
IGNORED = {"": IGNORE, " (ignored as background)": 0, " (ignored as target)": 1}  # value of ignored pixels


class ImageIou(Metric):
    """gIoU, cIoU, precision at IoU thresholds and, where things have boxes, of boxes. Where cIoU is the headline, also
    gIoU as the mean over images of their means (MLLMSeg)."""

    def __init__(self, headline: str) -> None:
        self.headline = headline

    def judge(
        self, samples: Sequence[Sample], predictions: Sequence[Prediction | None], at: Sequence[int]
    ) -> list[Judged]:
        return [self._one(*item) for item in zip(samples, predictions, at, strict=True)]

    def _one(self, sample: Sample, prediction: Prediction | None, index: int) -> Judged:
        truth = truth_of(sample, 0)
        wanted = truth.union.astype(np.uint8)
        given = usable(prediction)
        mask = predicted_mask(prediction, sample, 0, wanted.shape) if given else np.zeros(wanted.shape, bool)
        values: dict[str, float] = {"known": 1.0}
        forms = IGNORED if truth.ignore is not None else {"": IGNORE}
        for name, value in forms.items():
            labels = wanted.copy()
            if truth.ignore is not None:
                labels[truth.ignore] = value
            found = overlap(mask[None], labels[None])
            values[f"iou{name}"] = float(mask_ious(found)[0, 1]) if given else 0.0
            values[f"shared{name}"] = float(found.intersection[0, 1])
            values[f"union{name}"] = float(found.union[0, 1])
        for name in IGNORED:  # without ignored pixels all three are the same
            for key in ("iou", "shared", "union"):
                values.setdefault(f"{key}{name}", values[key])
        values["ignores"] = float(truth.ignore is not None)
        values["box"] = _box_hit(sample, mask)
        return Judged(index, sample.id, sample.footage.name, values, 1.0 - values["iou"], sample_labels(sample))

    def nothing(self, index: int, name: str) -> Judged:
        values = {"known": 0.0, "ignores": 0.0, "box": 0.0}
        values |= {f"{key}{form}": 0.0 for key in ("iou", "shared", "union") for form in IGNORED}
        return Judged(index, name, name, values, 1.0, (UNKNOWN,))

    def table(self, columns: Columns, labels: Sequence[tuple[str, ...]]) -> Table:
        rows = {}
        ignores, boxes = columns["ignores"].any(), not np.isnan(columns["box"]).any()
        for name, has in rows_of(labels).items():
            row: dict[str, float | None] = {}
            for form in IGNORED if ignores else ("",):
                iou = columns[f"iou{form}"][has]
                row[f"gIoU{form}"] = float(iou.sum() / (len(iou) + COUNT_EPSILON))
                union = with_lost(columns[f"union{form}"][has].sum(), columns["known"][has])
                row[f"cIoU{form}"] = cumulative_iou(columns[f"shared{form}"][has].sum(), union)
            row |= {f"P@{k}": float((columns["iou"][has] > k).mean()) for k in PRECISIONS}
            if self.headline == "cIoU":
                row["gIoU per image"] = _mean_of_means(columns["iou"][has], columns["group"][has])
            if boxes:
                row["box P@0.5"] = float(columns["box"][has].mean())
            rows[name] = row | {"samples": int(has.sum())}
        return rows


class Refusal(Metric):
    """gRefCOCO as GSVA and MLLMSeg score it, and the stricter form in which a refused mask is empty."""

    headline = "gIoU"

    def judge(
        self, samples: Sequence[Sample], predictions: Sequence[Prediction | None], at: Sequence[int]
    ) -> list[Judged]:
        return [self._one(*item) for item in zip(samples, predictions, at, strict=True)]

    def _one(self, sample: Sample, prediction: Prediction | None, index: int) -> Judged:
        truth = truth_of(sample, 0)
        wanted = truth.union.astype(np.uint8)
        if truth.ignore is not None:
            wanted[truth.ignore] = IGNORE
        given = usable(prediction)
        refused = given and prediction.refused
        mask = predicted_mask(prediction, sample, 0, wanted.shape) if given else np.zeros(wanted.shape, bool)
        values = {"present": float(wanted.any()), "refused": float(refused), "given": float(given)}
        for form, shown in (("", mask), (" (refused blank)", mask & (not refused))):
            found = overlap(shown[None], wanted[None])
            values[f"shared{form}"] = float(found.intersection[0, 1])
            values[f"union{form}"] = float(found.union[0, 1])
        score = _gres_iou(values, "")
        return Judged(index, sample.id, sample.footage.name, values, 1.0 - score, sample_labels(sample))

    def nothing(self, index: int, name: str) -> Judged:
        names = ("present", "refused", "given", "shared", "union", "shared (refused blank)", "union (refused blank)")
        values = dict.fromkeys(names, 0.0) | {"present": np.nan}
        return Judged(index, name, name, values, 1.0, (UNKNOWN,))

    def table(self, columns: Columns, labels: Sequence[tuple[str, ...]]) -> Table:
        """What could not be read counts as zero among what is there and among what is not."""
        present, refused = columns["present"] == 1, columns["refused"] == 1
        absent = columns["present"] == 0
        known = present | absent
        lost = (~known).sum()
        row: dict[str, float | None] = {}
        for form in ("", " (refused blank)"):
            shared, union = columns[f"shared{form}"], columns[f"union{form}"]
            right = (absent & refused).sum() + (shared[present] / (union[present] + 1e-8)).sum()
            row[f"gIoU{form}"] = float(right / (len(present) + COUNT_EPSILON))
            drawn = present | (absent & ~refused)
            row[f"cIoU{form}"] = cumulative_iou(shared[present].sum(), with_lost(union[drawn].sum(), known))
        row["N-acc"] = share((absent & refused).sum(), absent.sum() + lost)
        row["T-acc"] = share((present & ~refused & (columns["given"] == 1)).sum(), present.sum() + lost)
        return {"overall": row | {"samples": len(present)}}


def _gres_iou(values: dict[str, float], form: str) -> float:
    if not values["present"]:
        return values["refused"]
    return values[f"shared{form}"] / (values[f"union{form}"] + 1e-8)


def _box_hit(sample: Sample, mask: np.ndarray) -> float:
    """1 where the mask's box meets the annotated one by more than half; NaN where the set has no boxes."""
    boxes = sample.extra.get("boxes")
    if boxes is None:
        return float("nan")
    found = tight_box(mask)
    if found is None or len(boxes) != 1:
        return 0.0
    x, y, width, height = boxes[0]
    return float(box_iou(found, (x, y, x + width, y + height)) > 0.5)


def _mean_of_means(values: np.ndarray, groups: np.ndarray) -> float:
    _, place = np.unique(groups, return_inverse=True)
    means = np.bincount(place, values) / np.bincount(place)
    return float(means.sum() / (len(means) + COUNT_EPSILON))
