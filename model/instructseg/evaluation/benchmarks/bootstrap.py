"""How far a figure would move with other videos of the same kind: bootstrap over videos (or images), not over samples,
because expressions about one video go wrong together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .metrics import Columns, Metric

DRAWS, LEAST_GROUPS = 300, 5


def intervals(
    metric: Metric, columns: Columns, labels: Sequence[tuple[str, ...]], draws: int = DRAWS, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """2.5 % and 97.5 % quantiles of the row "overall"; nothing where fewer than five videos say anything at all."""
    order = np.argsort(columns["group"], kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(columns["group"][order])) + 1)
    if len(members) < LEAST_GROUPS:
        return {}
    random = np.random.default_rng(seed)
    found: dict[str, list[float]] = {}
    for _ in range(draws):
        drawn = random.integers(len(members), size=len(members))
        rows = np.concatenate([members[i] for i in drawn])
        # The same video drawn twice counts as two.
        groups = np.repeat(np.arange(len(drawn)), [len(members[i]) for i in drawn])
        some = {name: column[rows] for name, column in columns.items()} | {"group": groups}
        for name, value in metric.table(some, [labels[i] for i in rows])["overall"].items():
            if value is not None and name != "samples":
                found.setdefault(name, []).append(value)
    # A figure that some draws leave undefined has no range.
    whole = {name: values for name, values in found.items() if len(values) == draws}
    return {name: tuple(np.quantile(values, (0.025, 0.975)).round(6).tolist()) for name, values in whole.items()}
