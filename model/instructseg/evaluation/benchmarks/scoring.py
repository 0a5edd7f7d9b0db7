"""Predictions against the truth: figures of a benchmark, what is missing or failed by name, the worst samples."""

from __future__ import annotations

import dataclasses
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

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
    jobs: int = 1,
) -> Scores:
    """Every sample of the groups (by footage) counts, whether or not there is a prediction. jobs: processes."""
    tasks = [(group, {index: predictions[index] for index in group if index in predictions}) for group in groups]
    judged: list[Judged] = []
    missing: list[str] = []
    failed: dict[str, str] = {}
    total = sum(map(len, groups))
    with tqdm(total=total, desc="scoring", unit=" samples", disable=None if progress else True) as bar:
        for group, part in zip(groups, _parts(metric, dataset, tasks, jobs), strict=True):
            judged += part.judged
            missing += part.missing
            failed |= part.failed
            bar.update(len(group))
    if not judged:
        raise BadInput(f"{dataset.name}, split {dataset.split}: there is no sample to score")
    judged.sort(key=lambda one: one.index)
    labels = [one.labels for one in judged]
    columns = columns_of(judged)
    ranges = intervals(metric, columns, labels)
    return Scores(metric.headline, metric.table(columns, labels), ranges, total, missing, failed, judged)


def columns_of(judged: Sequence[Judged]) -> dict[str, np.ndarray]:
    """Each figure of all samples ``(n,)``, and the number of their footage."""
    columns = {name: np.array([one.values[name] for one in judged]) for name in judged[0].values}
    _, numbers = np.unique([one.group for one in judged], return_inverse=True)
    return columns | {"group": numbers}


Task = tuple[Sequence[int], Mapping[int, Prediction]]


@dataclasses.dataclass
class _Part:
    """What was found of one footage."""

    judged: list[Judged] = dataclasses.field(default_factory=list)
    missing: list[str] = dataclasses.field(default_factory=list)
    failed: dict[str, str] = dataclasses.field(default_factory=dict)


def _parts(metric: Metric, dataset: Dataset, tasks: Sequence[Task], jobs: int) -> Iterator[_Part]:
    """In order, computed here or by processes of their own."""
    if jobs == 1:
        yield from (_Scorer(metric, dataset, task[1]).group(task[0]) for task in tasks)
        return
    # Spawned: a fork would copy the threads of torch and OpenCV in whatever state they are.
    ways = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, ways, initializer=_begin_worker, initargs=(metric, dataset)) as pool:
        yield from pool.map(_work, tasks)


_worker: dict[str, Any] = {}  # of a spawned process: what all of its tasks share


def _begin_worker(metric: Metric, dataset: Dataset) -> None:
    _worker.update(metric=metric, dataset=dataset)


def _work(task: Task) -> _Part:
    return _Scorer(_worker["metric"], _worker["dataset"], task[1]).group(task[0])


class _Scorer:
    """Of one footage."""

    def __init__(self, metric: Metric, dataset: Dataset, predictions: Mapping[int, Prediction]) -> None:
        self.metric, self.dataset, self.predictions, self.part = metric, dataset, predictions, _Part()

    def group(self, indices: Sequence[int]) -> _Part:
        """What cannot be read counts as zero under its number."""
        samples: list[Sample] = []
        at: list[int] = []
        for index in indices:
            try:
                samples.append(self.dataset[index])
                at.append(index)
            except BadInput as error:
                name = f"sample {index}"
                self.part.failed[name] = str(error)
                self.part.judged.append(self.metric.nothing(index, name))
        given = [self._prediction(index, sample) for index, sample in zip(at, samples, strict=True)]
        if self.metric.whole and at:
            self._judge(samples, given, at)
        elif not self.metric.whole:
            for sample, prediction, index in zip(samples, given, at, strict=True):
                self._judge([sample], [prediction], [index])
        return self.part

    def _prediction(self, index: int, sample: Sample) -> Prediction | None:
        prediction = self.predictions.get(index)
        if prediction is None:
            self.part.missing.append(sample.id)
        elif prediction.error:
            self.part.failed[sample.id] = prediction.error
        elif prediction.id != sample.id:
            self.part.failed[sample.id] = f"its prediction is of {prediction.id!r}: the data set has changed since"
            return None
        return prediction

    def _judge(self, samples: list[Sample], given: list[Prediction | None], at: list[int]) -> None:
        try:
            self.part.judged += self.metric.judge(samples, given, at)
        except BadInput as error:
            unfit = {i: reason for i in range(len(at)) if (reason := _misfit(samples[i], given[i]))}
            for i, reason in unfit.items():
                self.part.failed[samples[i].id] = reason
                given[i] = None
            if unfit:
                self._judge(samples, given, at)
                return
            self.part.failed |= {sample.id: str(error) for sample in samples}
            self.part.judged += [
                self.metric.nothing(index, sample.id) for index, sample in zip(at, samples, strict=True)
            ]


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
