"""The two small networks between a language model and its neighbours: visual projector, mask-token projection."""

from __future__ import annotations

import torch
from torch import nn

from ..core import BadInput


def text_hidden_fcs(hidden: int, out: int) -> nn.ModuleList:
    """A language model's state to a mask prompt: ``(..., hidden)`` to ``(..., out)``; in a list of one, for the
    published keys (``text_hidden_fcs.0.{0,2}``; LISA, sec. 3.2)."""
    return nn.ModuleList([nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, out), nn.Dropout(0.0))])


def projector(kind: str, features: int, hidden: int) -> nn.Module:
    """Patch features ``(..., features)`` to the language model's width ``(..., hidden)``; ``linear`` (LLaVA-1) or
    ``mlp2x_gelu`` (LLaVA-1.5)."""
    if kind == "linear":
        return nn.Linear(features, hidden)
    if kind == "mlp2x_gelu":
        return nn.Sequential(nn.Linear(features, hidden), nn.GELU(), nn.Linear(hidden, hidden))
    raise BadInput(f"mm_projector_type must be linear or mlp2x_gelu; got {kind!r}")


def project(fcs: nn.ModuleList, states: torch.Tensor) -> torch.Tensor:
    """Apply the only entry of :func:`text_hidden_fcs`."""
    return fcs[0](states)
