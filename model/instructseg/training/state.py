"""What both training stages keep: an average of the weights, and a checkpoint that a killed run resumes from."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


def weight_average(model: nn.Module, decay: float) -> AveragedModel:
    """Exponential average of weights and buffers that forgets the random start quickly: the decay grows with the
    steps."""

    @torch.no_grad()
    def average(mean: torch.Tensor, value: torch.Tensor, count: torch.Tensor | int) -> torch.Tensor:
        if not mean.is_floating_point():
            return value
        rate = min(decay, (1.0 + int(count)) / (10.0 + int(count)))
        return torch.lerp(value, mean, rate)

    return AveragedModel(model, avg_fn=average, use_buffers=True)


def save_state(
    path: Path, model: nn.Module, average: AveragedModel, optimizer: torch.optim.Optimizer, seconds: float, step: int
) -> float:
    """Write the checkpoint in one move, so that a kill never leaves half a file; returns the time of saving."""
    partial = path.with_suffix(".partial")
    state = {"model": model.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save({**state, "seconds": seconds, "step": step}, partial)
    partial.replace(path)
    return time.monotonic()


def averaged_weights(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The model's own state dict out of an ``AveragedModel``'s."""
    return {k.removeprefix("module."): v for k, v in state.items() if k.startswith("module.")}
