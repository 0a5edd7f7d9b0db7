"""A perception that begins with another checkpoint's weights, also where the two know different colours and shapes.

What is of the same shape is copied. Of the layers whose rows stand for colours, shapes and sizes, the rows of those
names that both configurations have are copied; the others stay as they are, random in a new model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import nn

from ..checkpoints import open_tensors, read_json, resolve_checkpoint
from ..core import BadInput
from ..recipes.unified.checkpoint import SHIPPED as SHIPPED_WEIGHTS
from ..recipes.unified.configuration import UnifiedConfig
from .plan import SHIPPED

PREFIX = "perception."
# Layers with a row for every name, and of what: in this order.
NAMED_ROWS = {
    "appearance.color.2": ("colors",),
    "appearance.form.2": ("shapes", "sizes"),
    "encoder.attributes": ("colors", "shapes", "sizes"),
}


@dataclasses.dataclass(frozen=True)
class WarmStart:
    """Names of tensors: copied whole, copied in the rows that both know, and left as they were."""

    copied: tuple[str, ...]
    by_name: tuple[str, ...]
    left: tuple[str, ...]

    def __str__(self) -> str:
        return f"{len(self.copied)} tensors copied, {len(self.by_name)} by their rows' names, {len(self.left)} left"


def start_from(perception: nn.Module, config: UnifiedConfig, checkpoint: str) -> WarmStart:
    """Put the fitting weights of a checkpoint's perception into ``perception``, which ``config`` describes.

    checkpoint: a folder of the recipe, a hub id, or ``shipped``. Raises BadInput where it is none of the recipe's, or
    nothing of it fits.
    """
    folder = SHIPPED_WEIGHTS if checkpoint == SHIPPED else resolve_checkpoint(checkpoint)
    values = read_json(folder / "config.json")
    if not isinstance(values, dict) or values.get("recipe") != "unified":
        raise BadInput(f"start_from: {folder / 'config.json'} is not a configuration of the recipe 'unified'")
    tensors = open_tensors(folder)
    theirs = {name.removeprefix(PREFIX): tensors[name] for name in tensors if name.startswith(PREFIX)}
    report = copy_fitting(perception, config, theirs, UnifiedConfig.from_dict(values))
    if not report.copied:
        raise BadInput(f"start_from: no weight of {folder} fits this perception; its layers have other sizes")
    return report


@torch.no_grad()
def copy_fitting(
    perception: nn.Module, config: UnifiedConfig, theirs: Mapping[str, torch.Tensor], their_config: UnifiedConfig
) -> WarmStart:
    """Copy what fits of another perception's state dict; nothing that is not finite."""
    copied, by_name, left = [], [], []
    for name, own in perception.state_dict().items():  # the tensors share memory with the module
        other = theirs.get(name)
        if other is None:
            left.append(name)
            continue
        if not bool(torch.isfinite(other).all()):
            raise BadInput(f"start_from: {PREFIX}{name} holds values that are not finite")
        names = NAMED_ROWS.get(name.rpartition(".")[0])
        same_names = names is None or all(getattr(config, n) == getattr(their_config, n) for n in names)
        if own.shape == other.shape and same_names:
            own.copy_(other)
            copied.append(name)
        elif names is not None and own.shape[1:] == other.shape[1:]:
            mine, rows = _shared_rows(config, their_config, names)
            own[mine] = other[rows].to(own)
            by_name.append(name)
        else:
            left.append(name)
    return WarmStart(tuple(copied), tuple(by_name), tuple(left))


def _shared_rows(
    config: UnifiedConfig, their_config: UnifiedConfig, names: tuple[str, ...]
) -> tuple[list[int], list[int]]:
    """Rows of the names that both know: here and there."""
    own, theirs = ([(kind, name) for kind in names for name in getattr(c, kind)] for c in (config, their_config))
    shared = [pair for pair in own if pair in theirs]
    return [own.index(pair) for pair in shared], [theirs.index(pair) for pair in shared]
