"""Ref-DAVIS17: the objects of a video as one label map for each annotator, matched as the unsupervised task of DAVIS
does (:mod:`..davis_merge`, :mod:`..davis_objects`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...data.samples import Sample
from ..davis_merge import first_object, fuse_soft
from ..davis_objects import score_objects
from ..scores import IGNORE
from .masks import decode_soft
from .metrics import Columns, Judged, Metric, Table, predicted_mask, truth_of, usable
from .predictions import Prediction


class DavisObjects(Metric):
    """fusion: how masks of several objects become one map, ``first`` (VideoLISA) or ``soft`` (InstructSeg)."""

    headline = "J&F"
    whole = True

    def __init__(self, fusion: str) -> None:
        self.fusion = fusion

    def judge(
        self, samples: Sequence[Sample], predictions: Sequence[Prediction | None], at: Sequence[int]
    ) -> list[Judged]:
        """One entry an object and annotator."""
        truth = _truth_labels(samples)
        judged = []
        for annotator in sorted({s.extra["annotator"] for s in samples}):
            rows = [i for i, s in enumerate(samples) if s.extra["annotator"] == annotator]
            rows.sort(key=lambda i: int(samples[i].objects[0]))
            maps = self._predicted([samples[i] for i in rows], [predictions[i] for i in rows], truth.shape)
            scores = dict(zip(_numbers(truth), score_objects(maps, truth), strict=True))
            for i in rows:
                number = int(samples[i].objects[0])
                if number not in scores:
                    continue  # an object that no frame shows has no truth to be scored by
                given = usable(predictions[i])
                j, f = (scores[number].j, scores[number].f) if given else (0.0, 0.0)
                values = {"j": j, "f": f, "annotator": float(annotator), "given": float(given)}
                name = samples[i].footage.name
                judged.append(
                    Judged(at[i], samples[i].id, name, values, 1.0 - (j + f) / 2, (f"annotator {annotator}",))
                )
        return judged

    def _predicted(
        self, samples: Sequence[Sample], predictions: Sequence[Prediction | None], shape: tuple[int, ...]
    ) -> np.ndarray:
        """Label maps ``(T, H, W)``; an object without a prediction has no pixel in them."""
        given = [(s, p) for s, p in zip(samples, predictions, strict=True) if usable(p)]
        maps = np.zeros(shape, np.uint8)
        for index in range(shape[0]) if given else ():
            if self.fusion == "soft" and all(p.soft for _, p in given):
                where = (f"prediction of {p.id}, frame {index}" for _, p in given)
                planes = [decode_soft(p.soft[index], shape[1:], w) for (_, p), w in zip(given, where, strict=True)]
                maps[index] = fuse_soft(np.stack(planes)[:, None])[0]  # (O, 1, H, W) to (H, W)
            else:
                maps[index] = first_object(np.stack([predicted_mask(p, s, index, shape[1:]) for s, p in given]))
        return maps

    def nothing(self, index: int, name: str) -> Judged:
        values = {"j": 0.0, "f": 0.0, "annotator": float("nan"), "given": 0.0}
        return Judged(index, name, name.split("/")[0], values, 1.0)

    def table(self, columns: Columns, labels: Sequence[tuple[str, ...]]) -> Table:
        """Means over objects by annotator, then over annotators; what could not be read is zero, an equal part of it
        for each annotator."""
        lost = np.isnan(columns["annotator"])
        rows: Table = {}
        annotators = np.unique(columns["annotator"][~lost])
        for annotator in annotators:
            own = columns["annotator"] == annotator
            count = own.sum() + lost.sum() / len(annotators)
            j, f = (float(columns[name][own].sum() / count) for name in ("j", "f"))
            rows[f"annotator {int(annotator)}"] = {"J": j, "F": f, "J&F": (j + f) / 2, "samples": round(count)}
        if not rows:
            return {"overall": {"J": 0.0, "F": 0.0, "J&F": 0.0, "samples": len(lost)}}
        overall = {key: float(np.mean([row[key] for row in rows.values()])) for key in ("J", "F", "J&F")}
        return {"overall": overall | {"samples": len(lost)}, **rows}


def _truth_labels(samples: Sequence[Sample]) -> np.ndarray:
    """``(T, H, W)`` uint8: 0, the object's number, or 255 for void."""
    one_each = {s.objects[0]: s for s in samples}
    maps = []
    for index in range(len(samples[0].footage)):
        labels = None
        for number, sample in one_each.items():
            truth = truth_of(sample, index)
            if labels is None:
                labels = np.zeros(truth.union.shape, np.uint8)
            labels[truth.union] = int(number)
            if truth.ignore is not None:
                labels[truth.ignore] = IGNORE
        maps.append(labels)
    return np.stack(maps)


def _numbers(truth: np.ndarray) -> list[int]:
    return sorted(set(np.unique(truth).tolist()) - {0, IGNORE})
