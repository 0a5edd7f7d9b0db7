"""How InstructSeg's results are compared with recordings, and the table of what is compared.

Limits are about ten times what two independent implementations differ by on a CPU in float32.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from instructseg.recipes.instructseg.query_masks import QueryMasks

from .instructseg_cases import Case, Recorded

FEATURES, SCORES, PIXELS, LOSSES = 1e-4, 1e-5, 1e-6, 1e-4
Check = Callable[[Recorded, Case], None]
CHECKS: dict[str, tuple[tuple[str, ...], Check]] = {}


def check(*tensors: str) -> Callable[[Check], Check]:
    """A comparison of files that hold these tensors (regular expressions)."""

    def register(function: Check) -> Check:
        CHECKS[function.__name__] = (tensors, function)
        return function

    return register


def near(found: torch.Tensor, expected: torch.Tensor, limit: float = FEATURES) -> None:
    assert found.shape == expected.shape
    difference = (found.float() - expected.float()).abs().max().item()
    assert difference <= limit, f"largest difference {difference:.2e}, limit {limit:g}"


def same(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.shape == expected.shape and bool((found.long() == expected.long()).all())


def compare_instances(found: QueryMasks, masks: torch.Tensor, scores: torch.Tensor, soft: bool) -> None:
    """All queries, ranked by score, because the recording's order is that of an unsorted top-k."""
    mine, theirs = found.scores.argsort(descending=True), scores.argsort(descending=True)
    near(found.scores[mine], scores[theirs], SCORES)
    if soft:
        near(found.soft[mine], masks[theirs])
    else:
        certain = found.logits[mine].abs() > FEATURES
        same(found.hard[mine] & certain, (masks[theirs] > 0.5) & certain)


def is_soft(case: Case) -> bool:
    return bool(case["in.flags_use_soft_video_on"][0])
