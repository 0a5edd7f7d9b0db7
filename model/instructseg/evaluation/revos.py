"""ReVOS summed up as VISA publishes it: by type of expression, and overall as the mean of the two types."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

from ..core import BadInput

TYPES = {0: "referring", 1: "reasoning", 2: "absent"}  # `type_id` of an expression


@dataclasses.dataclass(frozen=True)
class ExpressionScores:
    """One expression's means over its frames, in [0, 1], with its ``type_id``."""

    type_id: int
    j: float
    f: float

    def __post_init__(self) -> None:
        if self.type_id not in TYPES:
            raise BadInput(f"type_id must be one of {sorted(TYPES)} ({', '.join(TYPES.values())}); got {self.type_id}")
        if not (0 <= self.j <= 1 and 0 <= self.f <= 1):
            raise BadInput(f"J and F must be means in 0..1; got {self.j} and {self.f}")


@dataclasses.dataclass(frozen=True)
class RevosRow:
    """J and F in [0, 1] over ``expressions`` expressions; None where there is none."""

    j: float | None
    f: float | None
    expressions: int

    @property
    def j_and_f(self) -> float | None:
        return None if self.j is None or self.f is None else (self.j + self.f) / 2


def revos_table(expressions: Iterable[ExpressionScores]) -> dict[str, RevosRow]:
    """Rows ``referring``, ``reasoning`` and ``overall``.

    Scores are rounded to hundredths of a percent before averaging, as in the published script. Expressions whose
    object does not exist (type 2) enter no row; overall weighs the two types alike, whatever their numbers.
    """
    expressions = list(expressions)
    if not expressions:
        raise BadInput("revos_table needs at least one expression; got none")
    rows = {name: _row([e for e in expressions if e.type_id == kind]) for kind, name in TYPES.items() if kind < 2}
    counted = sum(row.expressions for row in rows.values())
    if any(row.j is None for row in rows.values()):
        return rows | {"overall": RevosRow(None, None, counted)}
    j, f = (float(np.mean([getattr(row, name) for row in rows.values()])) for name in ("j", "f"))
    return rows | {"overall": RevosRow(j, f, counted)}


def _row(expressions: list[ExpressionScores]) -> RevosRow:
    if not expressions:
        return RevosRow(None, None, 0)
    j, f = (np.mean([round(100 * getattr(e, name), 2) for e in expressions]) / 100 for name in ("j", "f"))
    return RevosRow(float(j), float(f), len(expressions))
