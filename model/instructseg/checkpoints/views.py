"""Views on the tensors of a checkpoint that look as if it had been saved another way: LoRA merged, a prefix gone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Protocol

import torch

from ..core import BadInput

_LORA = re.compile(r"(?P<layer>.+)\.lora_(?P<half>[AB])(?:\.default)?\.weight")
_BASE = ".base_layer."


class Tensors(Protocol):
    """What a view needs of what it looks at: a mapping that knows its shapes."""

    shapes: dict[str, tuple[int, ...]]

    def __getitem__(self, name: str) -> torch.Tensor: ...


class View(Mapping[str, torch.Tensor]):
    """New names for the tensors of another mapping; a subclass may compute some of them."""

    def __init__(self, inner: Tensors, names: dict[str, str]):
        """names: new name -> name in ``inner``."""
        self.inner = inner
        self.names = names
        self.source = getattr(inner, "source", None)
        self.merged: tuple[str, ...] = getattr(inner, "merged", ())
        self.shapes = {new: inner.shapes[old] for new, old in names.items()}

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.inner[self.names[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def strip_prefix(tensors: Tensors, prefix: str) -> View:
    """The same tensors with ``prefix`` taken from every name that has it."""
    names = {old.removeprefix(prefix): old for old in tensors.shapes}
    if len(names) != len(tensors.shapes):
        raise BadInput(f"names of {getattr(tensors, 'source', 'the checkpoint')} collide without the prefix {prefix!r}")
    return View(tensors, names)


class MergedLora(View):
    """Weights with their low-rank updates added: ``W + alpha / r * B @ A`` in float32, in the weight's own dtype."""

    def __init__(self, inner: Tensors, names: dict[str, str], updates: dict[str, tuple[str, str]], alpha: float):
        super().__init__(inner, names)
        self.updates = updates
        self.alpha = alpha
        self.merged = tuple(updates)

    def __getitem__(self, name: str) -> torch.Tensor:
        weight = super().__getitem__(name)
        if name not in self.updates:
            return weight
        down, up = (self.inner[half].float() for half in self.updates[name])  # (r, in), (out, r)
        return (weight.float() + self.alpha / down.shape[0] * (up @ down)).to(weight.dtype)


def merge_lora(tensors: Tensors, alpha: float) -> MergedLora:
    """LoRA pairs as peft names them (``X.lora_A.default.weight``, ``X.lora_B.default.weight``, also without
    ``default``) merged into ``X.weight`` or ``X.base_layer.weight``; the rank is read from the shapes.

    A checkpoint without LoRA passes unchanged. Raises BadInput where a half, a base or a fitting shape is missing.
    """
    source = getattr(tensors, "source", None) or "the checkpoint"
    halves: dict[str, dict[str, str]] = {}
    names: dict[str, str] = {}
    for old in tensors.shapes:
        if match := _LORA.fullmatch(old):
            table, new = halves.setdefault(match["layer"], {}), match["half"]
        else:
            table, new = names, old.replace(_BASE, ".")
        if new in table:
            raise BadInput(
                f"{source}: LoRA cannot be merged: {old!r} and {table[new]!r} are the same weight under two names"
            )
        table[new] = old
    updates = {}
    for layer, pair in halves.items():
        target = f"{layer}.weight"
        if set(pair) != {"A", "B"} or target not in names:
            raise BadInput(
                f"{source}: LoRA of {layer!r} is incomplete: it needs lora_A, lora_B and {target!r} or its base_layer; "
                "save or fetch the checkpoint again"
            )
        down, up, weight = tensors.shapes[pair["A"]], tensors.shapes[pair["B"]], tensors.shapes[names[target]]
        if (len(down), len(up)) != (2, 2) or not 0 < down[0] == up[1] or weight != (up[0], down[1]):
            raise BadInput(f"{source}: LoRA of {layer!r} does not fit: A {down}, B {up}, weight {weight}")
        updates[target] = (pair["A"], pair["B"])
    return MergedLora(tensors, names, updates, alpha)
