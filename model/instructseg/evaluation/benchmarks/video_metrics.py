"""Figures of video sets scored one expression at a time: J and F of :mod:`..region_boundary`, ReVOS's A and R of
:mod:`..robustness`, the semi-supervised sets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ...core import BadInput
from ...data.samples import Kind, Sample
from ..region_boundary import outlined, score_pair, tolerance
from ..robustness import mean_defined, pixel_accuracy, robustness
from .metrics import (
    UNKNOWN,
    Columns,
    Judged,
    Metric,
    Table,
    defined_mean,
    mean,
    predicted_mask,
    rows_of,
    sample_labels,
    share,
    truth_of,
    usable,
)
from .predictions import Prediction


class RegionBoundary(Metric):
    """J, F and J&F: means over a video's annotated frames, then over expressions. skips: the published script leaves
    missing predictions out of the mean; that figure is given too, named so."""

    headline = "J&F"

    def __init__(self, skips: bool = False) -> None:
        self.skips = skips

    def judge(
        self, samples: Sequence[Sample], predictions: Sequence[Prediction | None], at: Sequence[int]
    ) -> list[Judged]:
        return [self._one(*item) for item in zip(samples, predictions, at, strict=True)]

    def _one(self, sample: Sample, prediction: Prediction | None, index: int) -> Judged:
        values = self._values(sample, prediction)
        error = 1.0 - (values["j"] + values["f"]) / 2
        return Judged(index, sample.id, sample.footage.name, values, error, sample_labels(sample))

    def _values(self, sample: Sample, prediction: Prediction | None) -> dict[str, float]:
        given = usable(prediction)
        scores, drawn, shown = [], False, False
        for found, wanted in frame_pairs(sample, prediction, self._frames(sample)):
            radius = tolerance(*wanted.shape)
            scores.append(score_pair(outlined(found, radius), outlined(wanted, radius)))
            drawn, shown = drawn or bool(found.any()), shown or bool(wanted.any())
        if not scores:
            raise BadInput(f"{sample.id}: no frame of it has an annotation that is scored")
        j, f = np.array(scores).mean(axis=0) if given else (0.0, 0.0)
        return {"j": float(j), "f": float(f), "given": float(given), "shown": float(shown), "drawn": float(drawn)}

    def _frames(self, sample: Sample) -> range:
        return range(len(sample.footage))

    def nothing(self, index: int, name: str) -> Judged:
        values = {"j": 0.0, "f": 0.0, "given": 0.0, "shown": np.nan, "drawn": np.nan}
        return Judged(index, name, name, values, 1.0, (UNKNOWN,))

    def table(self, columns: Columns, labels: Sequence[tuple[str, ...]]) -> Table:
        rows = {name: self._row(columns, has) for name, has in rows_of(labels).items()}
        absent = columns["shown"] == 0
        if absent.any():  # MeViS of 2025, recordings
            present, given = columns["shown"] == 1, columns["given"] == 1
            lost = np.isnan(columns["shown"]).sum()  # what could not be read counts against both
            rows["overall"]["N-acc"] = share((absent & given & (columns["drawn"] == 0)).sum(), absent.sum() + lost)
            rows["overall"]["T-acc"] = share((present & (columns["drawn"] == 1)).sum(), present.sum() + lost)
        return rows

    def _row(self, columns: Columns, has: np.ndarray) -> dict[str, float | None]:
        row = _j_and_f(columns, has)
        if self.skips and (columns["given"][has] == 0).any():
            kept = has & (columns["given"] == 1)
            row |= {f"{name} (missing skipped)": value for name, value in _j_and_f(columns, kept).items()}
        return row | {"samples": int(has.sum())}


class SemiSupervised(RegionBoundary):
    """DAVIS 2017: one object at a time, without the frame on which it is given and, as in the published toolkit,
    without the last one."""

    def _frames(self, sample: Sample) -> range:
        return range(int(sample.extra["key_frame"]) + 1, len(sample.footage) - 1)


class Revos(RegionBoundary):
    """ReVOS: referring, reasoning, and overall as the mean of the two; A and R as published and corrected."""

    FORMS = ("published", "corrected")

    def _values(self, sample: Sample, prediction: Prediction | None) -> dict[str, float]:
        values = super()._values(sample, prediction)
        values |= dict.fromkeys((f"{k} ({form})" for k in "AR" for form in self.FORMS), 0.0)
        if usable(prediction):
            values |= self._accuracy(sample, prediction)
        # Rounded to hundredths of a percent before averaging, as in the published script.
        return values | {key: round(100 * values[key], 2) / 100 for key in ("j", "f")}

    def _accuracy(self, sample: Sample, prediction: Prediction) -> dict[str, float]:
        figures: dict[str, list[float]] = {f"{k} ({form})": [] for k in "AR" for form in self.FORMS}
        for index in self._frames(sample):
            truth = truth_of(sample, index)
            if truth is None:
                continue
            wanted = truth.masks.sum(axis=0, dtype=np.uint8)[None]  # overlapping objects add up, as published
            found = predicted_mask(prediction, sample, index, truth.union.shape)[None].view(np.uint8) * np.uint8(255)
            foreground = sample.truth.foreground(index)[None].view(np.uint8)
            for form in self.FORMS:
                figures[f"A ({form})"] += pixel_accuracy(found, wanted, form).tolist()
                figures[f"R ({form})"] += robustness(found, wanted, foreground, form).tolist()
        means = {name: mean_defined(np.array(values)) for name, values in figures.items()}
        return {name: np.nan if value is None else value for name, value in means.items()}

    def nothing(self, index: int, name: str) -> Judged:
        judged = super().nothing(index, name)
        judged.values.update(dict.fromkeys((f"{k} ({form})" for k in "AR" for form in self.FORMS), 0.0))
        return judged

    def table(self, columns: Columns, labels: Sequence[tuple[str, ...]]) -> Table:
        """What could not be read counts as zero in both types, because nobody knows which it was."""
        rows: Table = {}
        for kind in (Kind.REFERRING, Kind.REASONING, Kind.NO_TARGET):
            names = {kind.value} if kind is Kind.NO_TARGET else {kind.value, UNKNOWN}
            has = np.array([bool(names.intersection(some)) for some in labels], bool)
            row = _j_and_f(columns, has)
            for key in (f"{k} ({form})" for k in "AR" for form in self.FORMS):
                row[key] = defined_mean(columns[key][has])
            rows[kind.value] = row | {"samples": int(has.sum())}
        pair = [rows[Kind.REFERRING.value], rows[Kind.REASONING.value]]
        overall = {
            key: None if any(row[key] is None for row in pair) else float(np.mean([row[key] for row in pair]))
            for key in pair[0]
            if key != "samples"
        }
        counted = sum(Kind.NO_TARGET.value not in some for some in labels)
        return {"overall": overall | {"samples": counted}, **{k: v for k, v in rows.items() if v["samples"]}}


def frame_pairs(
    sample: Sample, prediction: Prediction | None, frames: Sequence[int]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Predicted and true mask ``(H, W)`` bool of the annotated frames; pixels that do not count are out of both."""
    for index in frames:
        truth = truth_of(sample, index)
        if truth is None:
            continue
        wanted = truth.union
        found = np.zeros(wanted.shape, bool)
        if usable(prediction):
            found = predicted_mask(prediction, sample, index, wanted.shape)
        if truth.ignore is not None:
            found, wanted = found & ~truth.ignore, wanted & ~truth.ignore
        yield found, wanted


def _j_and_f(columns: Columns, has: np.ndarray) -> dict[str, float | None]:
    j, f = mean(columns["j"][has]), mean(columns["f"][has])
    return {"J": j, "F": f, "J&F": None if j is None else (j + f) / 2}
