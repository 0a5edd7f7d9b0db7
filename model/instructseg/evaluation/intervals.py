"""Confidence intervals of figures over scenes: the scenes are drawn again with replacement, not the questions.

Questions about one scene share its looks and its difficulties, so that they are no independent trials (Efron 1979 for
the bootstrap; percentile intervals). Every figure here is a sum over rows divided by another sum over rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ..core import BadInput

SAMPLES = 2000
LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class Estimate:
    """value with the bounds of its interval and how many rows stand behind it; None where it is not defined."""

    value: float | None
    low: float | None = None
    high: float | None = None
    rows: int = 0

    def __str__(self) -> str:
        if self.value is None:
            return "-"
        return f"{self.value:.3f}" if self.low is None else f"{self.value:.3f} [{self.low:.2f}, {self.high:.2f}]"


def ratio_of_sums(
    numerators: Sequence[float],
    denominators: Sequence[float],
    scenes: Sequence[int],
    samples: int = SAMPLES,
    seed: int = 0,
) -> Estimate:
    """``sum(numerators) / sum(denominators)`` with its interval at :data:`LEVEL`.

    scenes: which scene each row is about. With one scene only there is a value and no interval. Raises BadInput where
    the three differ in length or a number is not finite.
    """
    above, below = np.asarray(numerators, float), np.asarray(denominators, float)
    if not len(above) == len(below) == len(scenes):
        raise BadInput(f"ratio_of_sums needs rows of one length; got {len(above)}, {len(below)} and {len(scenes)}")
    if not (np.isfinite(above).all() and np.isfinite(below).all()):
        raise BadInput("ratio_of_sums needs finite numbers: leave rows out whose figure is not defined")
    if not len(above) or below.sum() == 0:
        return Estimate(None)
    numbers, place = np.unique(np.asarray(scenes), return_inverse=True)
    tops, bottoms = (np.bincount(place, weights=part) for part in (above, below))  # (S,)
    value = round(float(tops.sum() / bottoms.sum()), 4)
    if len(numbers) < 2:
        return Estimate(value, rows=len(above))
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(numbers), np.full(len(numbers), 1 / len(numbers)), size=samples)  # (B, S)
    drawn_tops, drawn_bottoms = weights @ tops, weights @ bottoms
    drawn = drawn_tops[drawn_bottoms > 0] / drawn_bottoms[drawn_bottoms > 0]
    low, high = np.quantile(drawn, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Estimate(value, round(float(low), 4), round(float(high), 4), len(above))


def mean(values: Sequence[float | None], scenes: Sequence[int]) -> Estimate:
    """Mean of the values that are defined."""
    kept = [(value, scene) for value, scene in zip(values, scenes, strict=True) if value is not None]
    return ratio_of_sums([value for value, _ in kept], [1.0] * len(kept), [scene for _, scene in kept])
