"""Random weights for miniature checkpoints of the systems that prompt SAM."""

from __future__ import annotations

import math

import torch


def random_tensors(shapes: dict[str, tuple[int, ...]], generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Weights that keep signals at their size, so that masks have an inside and an outside."""
    tensors = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        if len(shape) == 1 and name.endswith("weight"):  # of a norm
            tensors[name] = 1 + 0.1 * noise
        elif len(shape) > 1 and "embed" not in name:
            tensors[name] = 1.5 * noise / math.prod(shape[1:]) ** 0.5
        else:
            tensors[name] = 0.5 * noise
    return tensors
