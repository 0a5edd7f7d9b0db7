"""What both training stages keep: an average of the weights, and a checkpoint that a killed run resumes from."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from ..core import BadInput

PARTS = {"model": dict, "average": dict, "optimizer": dict, "seconds": (int, float), "step": int}


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
    path: Path, model: nn.Module, average: AveragedModel, optimizer: torch.optim.Optimizer, seconds: float, step: int,
    smoothed: Mapping[str, float] | None = None,
) -> float:  # fmt: skip
    """Write the checkpoint in one move, so that a kill never leaves half a file; returns the time of saving.

    smoothed: the losses as they are shown, which abort rules judge.
    """
    partial = path.with_suffix(".partial")
    state = {"model": model.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict()}
    with partial.open("wb") as file:
        torch.save({**state, "seconds": seconds, "step": step, "smoothed": dict(smoothed or {})}, file)
        file.flush()
        os.fsync(file.fileno())  # the new name never stands for half of it, not even after a power cut
    partial.replace(path)
    return time.monotonic()


def read_state(path: Path) -> dict[str, Any]:
    """What :func:`save_state` wrote, on the CPU. Raises BadInput where the file is damaged or something else."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise BadInput(f"the state {path} cannot be read: {_first_line(error)}; {_REMEDY}") from error
    for name, kind in PARTS.items():
        if not isinstance(state, dict) or not isinstance(state.get(name), kind):
            raise BadInput(f"the state {path} lacks {name!r}: it is none of a training stage; {_REMEDY}")
    return state


def put_state(
    state: Mapping[str, Any], path: Path, model: nn.Module, average: AveragedModel, optimizer: torch.optim.Optimizer
) -> None:
    """Put back what :func:`read_state` gave, on whatever device the model lies. Raises BadInput where it belongs to
    another model."""
    try:
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise BadInput(f"the state {path} belongs to another model: {_first_line(error)}; {_REMEDY}") from error


def averaged_weights(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The model's own state dict out of an ``AveragedModel``'s."""
    return {k.removeprefix("module."): v for k, v in state.items() if k.startswith("module.")}


_REMEDY = "remove it to train this stage anew, or give another --out"


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) or type(error).__name__
