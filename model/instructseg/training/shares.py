"""Drawing from several sources of scenes by share."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..core import BadInput


def draw_rows(
    by_source: Mapping[str, np.ndarray], rng: np.random.Generator, count: int, shares: Mapping[str, float] | None = None
) -> list[int]:
    """``count`` of the rows that each source has, with replacement.

    shares: weight of each source, relative to the others'; those without rows are passed over. None or empty: every row
    is as likely as any other. Raises BadInput where no source with rows has a share.
    """
    weights = {name: (shares or {}).get(name, 0.0) if shares else float(len(rows)) for name, rows in by_source.items()}
    total = sum(weights.values())
    if total <= 0:
        raise BadInput(f"the shares {dict(shares or {})} name none of the sources of the scenes: {sorted(by_source)}")
    names = sorted(weights)
    drawn = rng.choice(len(names), size=count, p=[weights[name] / total for name in names])
    return [int(by_source[names[i]][rng.integers(len(by_source[names[i]]))]) for i in drawn]
