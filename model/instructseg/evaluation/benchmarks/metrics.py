"""What a metric of a benchmark is: figures of each sample as plain numbers, and a table of them.

A table is made of columns of numbers alone, so that it can be made again of other draws of the same videos (confidence
intervals). A missing prediction and a sample that cannot be read count as zero everywhere but in figures that say so in
their name.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from ...core import BadInput
from ...data.samples import Sample, Truth
from .masks import decode_mask
from .predictions import Prediction

Columns = Mapping[str, np.ndarray]
Table = dict[str, dict[str, float | None]]
UNKNOWN = "unknown"  # label of a sample that could not be read


@dataclasses.dataclass(frozen=True)
class Judged:
    """One sample (or one object of a video) with its figures. error: 1 - headline, what the worst are sorted by.
    labels: rows of the table it belongs to beside the whole."""

    index: int
    id: str
    group: str
    values: dict[str, float]
    error: float
    labels: tuple[str, ...] = ()


class Metric(abc.ABC):
    """headline: the figure of the row "overall" that the benchmark is known by. whole: the samples of one footage are
    judged together, not one by one."""

    headline: str
    whole = False

    @abc.abstractmethod
    def judge(
        self, samples: Sequence[Sample], predictions: Sequence[Prediction | None], at: Sequence[int]
    ) -> list[Judged]:
        """Samples of one footage with their predictions (None: missing) and their indices. Raises BadInput where the
        truth cannot be read or a prediction does not fit its frames."""

    @abc.abstractmethod
    def nothing(self, index: int, name: str) -> Judged:
        """A sample that cannot be read or judged."""

    @abc.abstractmethod
    def table(self, columns: Columns, labels: Sequence[tuple[str, ...]]) -> Table:
        """Figures in [0, 1] by row. ``columns["group"]``: number of the video or image."""


def sample_labels(sample: Sample) -> tuple[str, ...]:
    return sample.kind.value, "sentences" if sample.is_sentence else "phrases"


def rows_of(labels: Sequence[tuple[str, ...]]) -> dict[str, np.ndarray]:
    """Bool ``(n,)`` by row: overall, and each label where not all samples share it. What could not be read is in every
    row, because nobody knows where it belongs."""
    rows = {"overall": np.ones(len(labels), bool)}
    for name in dict.fromkeys(label for some in labels for label in some):
        if name != UNKNOWN and any(name not in some and UNKNOWN not in some for some in labels):
            rows[name] = np.array([name in some or UNKNOWN in some for some in labels])
    return rows


def truth_of(sample: Sample, frame: int) -> Truth | None:
    if sample.truth is None:
        raise BadInput(f"{sample.id}: its truth is not public")
    return sample.truth(frame)


def predicted_mask(prediction: Prediction, sample: Sample, frame: int, size: tuple[int, int]) -> np.ndarray:
    """``(H, W)`` bool. Raises BadInput for a prediction of another footage's length or size."""
    if len(prediction.masks) != len(sample.footage):
        raise BadInput(
            f"prediction of {prediction.id}: {len(prediction.masks)} masks for {len(sample.footage)} frames; "
            "it belongs to another version of the data"
        )
    where = f"prediction of {prediction.id}, frame {sample.footage.frames[frame]}"
    return decode_mask(prediction.masks[frame], size, where)


def usable(prediction: Prediction | None) -> bool:
    return prediction is not None and not prediction.error


def mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if values.size else None


def defined_mean(values: np.ndarray) -> float | None:
    """Over those that are not NaN."""
    return mean(values[~np.isnan(values)])


def with_lost(total: float, known: np.ndarray) -> float:
    """A sum over samples as if each that could not be read (``known`` is 0) had the mean of the others: a cumulative
    union without it would leave the sample out."""
    return float(total) * (len(known) / float(known.sum())) if known.any() else float(total)


def share(numerator: float, denominator: float) -> float | None:
    return float(numerator) / float(denominator) if denominator else None
