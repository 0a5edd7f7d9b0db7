"""What kind of right or wrong an answer of the tabletop benchmarks is, for people who look for what to mend."""

from __future__ import annotations

import numpy as np

from .tabletop import SlotRecord

WRONG_THING, MISSED, FALSE_ACCEPTANCE, POOR_MASK, RIGHT = (
    "wrong thing", "missed", "false acceptance", "poor mask", "right",
)  # fmt: skip
VERDICTS = {  # failures first; what each means
    WRONG_THING: "the mask covers something else at least as much as what is asked for",
    MISSED: "refused, or nothing shown, although it is there",
    FALSE_ACCEPTANCE: "a mask for something that is not there",
    POOR_MASK: "mostly on what is asked for, IoU 0.5 or less",
    RIGHT: "IoU over 0.5, or refused because it is not there",
}


def verdict(record: SlotRecord, instances: np.ndarray, mask: np.ndarray) -> str:
    """One of :data:`VERDICTS`. instances ``(H, W)`` ids of things, 0 = none, and the mask ``(H, W)`` bool that was
    given (empty: refused), both of the key frame."""
    if not record.present:
        return FALSE_ACCEPTANCE if record.kept else RIGHT
    if not record.kept or not mask.any():
        return MISSED
    if record.iou > 0.5:
        return RIGHT
    truth = np.isin(instances, record.targets)
    on_target, on_others = np.count_nonzero(mask & truth), np.count_nonzero(mask & (instances > 0) & ~truth)
    return WRONG_THING if on_target <= on_others else POOR_MASK
