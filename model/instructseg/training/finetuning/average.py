"""An exponential average of the trained weights, which is what a run exports where one is kept."""

from __future__ import annotations

from collections.abc import Mapping

import torch


class WeightAverage:
    """``tensors`` by name, shared out among processes as the weights are. Numbers that are not floating-point are
    copied. The decay grows to its value with the steps, so that the start is forgotten."""

    def __init__(self, weights: Mapping[str, torch.Tensor], decay: float) -> None:
        self.decay = decay
        self.tensors = {name: tensor.detach().clone() for name, tensor in weights.items()}

    def rate(self, step: int) -> float:
        """What remains of the average at the update after step ``step``, from 0."""
        return min(self.decay, (1.0 + step) / (10.0 + step))

    @torch.no_grad()
    def update(self, weights: Mapping[str, torch.Tensor], step: int) -> None:
        share = 1.0 - self.rate(step)
        for name, mean in self.tensors.items():
            if mean.is_floating_point():
                mean.lerp_(weights[name].detach(), share)
            else:
                mean.copy_(weights[name])
