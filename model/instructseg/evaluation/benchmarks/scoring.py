"""Predictions against the truth: figures of a benchmark, what is missing or failed by name, the worst samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from tqdm import tqdm

from ...core import BadInput
from ...data.samples import Benchmark, Dataset, Sample
from .bootstrap import intervals
from .davis_metric import DavisObjects
from .image_metrics import ImageIou, Refusal
from .metrics import Judged, Metric, Table, predicted_mask, usable
from .predictions import Prediction
from .video_metrics import RegionBoundary, Revos, SemiSupervised


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
    """table: figures in [0, 1] by row. ranges: 95 % of the headline figures over draws of other videos. failed: what
    went wrong by name of the sample; missing: samples without a prediction. judged: one entry a sample."""

    headline: str
    table: Table
    ranges: dict[str, tuple[float, float]]
    samples: int
    missing: list[str]
    failed: dict[str, str]
    judged: list[Judged]


def find_metric(row: Benchmark, fusion: str = "first") -> Metric:
    """The benchmark's own; ``fusion`` for those that make one map of several objects."""
    if row.metric in ("ciou", "giou"):
        return ImageIou("cIoU" if row.metric == "ciou" else "gIoU")
    if row.metric == "gres":
        return Refusal()
    if row.metric == "revos":
        return Revos()
    if row.metric == "davis_objects":
        return DavisObjects(fusion)
    if row.metric == "davis_semi":
        return SemiSupervised()
    if row.metric == "region_boundary":
        return RegionBoundary(skips=row.name == "reasonvos")
    raise ValueError(f"benchmark {row.name} names the metric {row.metric!r}, which does not exist")


def score(
    metric: Metric,
    dataset: Dataset,
    groups: Sequence[Sequence[int]],
    predictions: Mapping[int, Prediction],
    progress: bool = True,
) -> Scores:
    """Every sample of the groups (by footage) counts, whether or not there is a prediction."""
    scorer = _Scorer(metric, dataset, predictions)
    judged: list[Judged] = []
    with tqdm(total=sum(map(len, groups)), desc="scoring", unit=" samples", disable=None if progress else True) as bar:
        for group in groups:
            judged += scorer.group(group)
            bar.update(len(group))
    if not judged:
        raise BadInput(f"{dataset.name}, split {dataset.split}: there is no sample to score")
    judged.sort(key=lambda one: one.index)
    columns = columns_of(judged)
    table = metric.table(columns, [one.labels for one in judged])
    ranges = intervals(metric, columns, [one.labels for one in judged])
    return Scores(metric.headline, table, ranges, sum(map(len, groups)), scorer.missing, scorer.failed, judged)


def columns_of(judged: Sequence[Judged]) -> dict[str, np.ndarray]:
    """Each figure of all samples ``(n,)``, and the number of their footage."""
    columns = {name: np.array([one.values[name] for one in judged]) for name in judged[0].values}
    _, numbers = np.unique([one.group for one in judged], return_inverse=True)
    return columns | {"group": numbers}


class _Scorer:
    def __init__(self, metric: Metric, dataset: Dataset, predictions: Mapping[int, Prediction]) -> None:
        self.metric, self.dataset, self.predictions = metric, dataset, predictions
        self.missing: list[str] = []
        self.failed: dict[str, str] = {}

    def group(self, indices: Sequence[int]) -> list[Judged]:
        """Samples of one footage; what cannot be read counts as zero under its number."""
        judged, samples, at = [], [], []
        for index in indices:
            try:
                samples.append(self.dataset[index])
                at.append(index)
            except BadInput as error:
                name = f"sample {index}"
                self.failed[name] = str(error)
                judged.append(self.metric.nothing(index, name))
        given = [self._prediction(index, sample) for index, sample in zip(at, samples, strict=True)]
        if self.metric.whole:
            return judged + (self._judge(samples, given, at) if at else [])
        for sample, prediction, index in zip(samples, given, at, strict=True):
            judged += self._judge([sample], [prediction], [index])
        return judged

    def _prediction(self, index: int, sample: Sample) -> Prediction | None:
        prediction = self.predictions.get(index)
        if prediction is None:
            self.missing.append(sample.id)
        elif prediction.error:
            self.failed[sample.id] = prediction.error
        elif prediction.id != sample.id:
            self.failed[sample.id] = f"its prediction is of {prediction.id!r}: the data set has changed since"
            return None
        return prediction

    def _judge(self, samples: list[Sample], given: list[Prediction | None], at: list[int]) -> list[Judged]:
        try:
            return self.metric.judge(samples, given, at)
        except BadInput as error:
            unfit = {i: reason for i in range(len(at)) if (reason := _misfit(samples[i], given[i]))}
            for i, reason in unfit.items():
                self.failed[samples[i].id] = reason
                given[i] = None
            if unfit:
                return self._judge(samples, given, at)
            for sample in samples:
                self.failed[sample.id] = str(error)
            return [self.metric.nothing(index, sample.id) for index, sample in zip(at, samples, strict=True)]


def _misfit(sample: Sample, prediction: Prediction | None) -> str:
    """Why a prediction cannot be compared with the truth; "" where it can, or where that is not its fault."""
    if not usable(prediction):
        return ""
    for frame in range(len(sample.footage)):
        try:
            truth = sample.truth(frame) if sample.truth is not None else None
        except BadInput:
            continue
        try:
            if truth is not None:
                predicted_mask(prediction, sample, frame, truth.union.shape)
        except BadInput as error:
            return str(error)
    return ""
