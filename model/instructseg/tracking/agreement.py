"""Two witnesses of one target on one frame, the recipe's own token and the tracker's memory: whose mask is shown."""

from __future__ import annotations

import dataclasses
import enum

import numpy as np

from ..core import BadInput

VISIBLE = 0.5  # score from which a witness counts as seeing the target


@dataclasses.dataclass(frozen=True)
class HybridRule:
    """agreement: intersection over union from which two masks show the same thing. margin: how much surer the token
    must be to overrule a memory that sees something else; the two scores are not on one scale, and near ones decide
    nothing. alone_s: seconds that the memory is believed while the token does not see the target (half covered, turned
    away)."""

    agreement: float = 0.5
    margin: float = 0.1
    alone_s: float = 2.0

    def __post_init__(self) -> None:
        for name, low, high in (("agreement", 0.0, 1.0), ("margin", 0.0, 1.0), ("alone_s", 0.0, 3600.0)):
            if not low <= getattr(self, name) <= high:
                raise BadInput(f"HybridRule.{name} must be in {low:g}..{high:g}; got {getattr(self, name)}")


class Choice(enum.Enum):
    """AGREED: one thing, seen by both. TOKEN: its mask is shown, and the memory anchored anew with it. MEMORY: its mask
    is shown. NEITHER: nothing to be shown."""

    AGREED = 0
    TOKEN = 1
    MEMORY = 2
    NEITHER = 3


def choose(token: float, memory: float, overlap: float, alone_s: float, rule: HybridRule) -> Choice:
    """token, memory: scores in [0, 1], 0 for an empty mask. overlap: intersection over union of the two masks.
    alone_s: seconds since the token last saw the target, 0 when it does now; below 0: unknown."""
    token_sees, memory_sees = token >= VISIBLE, memory >= VISIBLE
    if token_sees and memory_sees:
        if overlap >= rule.agreement:
            return Choice.AGREED
        return Choice.TOKEN if token > memory + rule.margin else Choice.MEMORY
    if token_sees:
        return Choice.TOKEN
    return Choice.MEMORY if memory_sees and 0.0 <= alone_s <= rule.alone_s else Choice.NEITHER


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two bool masks; 0 where both are empty."""
    union = int(np.count_nonzero(one | other))
    return int(np.count_nonzero(one & other)) / union if union else 0.0
