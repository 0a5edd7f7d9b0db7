"""Cross entropy where not everything has a label."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def labelled_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean over the labels ``(N,)`` that are not -1, of logits ``(N, C)``; 0 where all are, which the mean of nothing
    is not."""
    return F.cross_entropy(logits, labels, ignore_index=-1, reduction="sum") / (labels >= 0).sum().clamp(min=1)
