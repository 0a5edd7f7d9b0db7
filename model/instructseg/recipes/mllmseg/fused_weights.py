"""A published MLLMSeg checkpoint seen as if its attention projections had been saved apart.

InternViT keeps query, key and value in one matrix, thirds one after another. InternLM2 packs them by key-value head:
the query heads that share it, then its key, then its value (so a plain cut into q | k | v would mix heads).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from ...checkpoints.views import Tensors, View
from ...core import BadInput
from .configuration import MllmSegConfig

VISION_QKV = ".attn.qkv."
INTERNLM2_QKV = ".attention.wqkv."


@dataclasses.dataclass(frozen=True)
class Packing:
    """How rows of a fused projection are packed: ``groups`` times (``queries`` + 1 key + 1 value) of ``rows`` rows."""

    groups: int
    queries: int
    rows: int

    @property
    def total(self) -> int:
        return self.groups * (self.queries + 2) * self.rows

    def size(self, part: str) -> int:
        """Rows of ``q``, ``k`` or ``v`` alone."""
        return self.groups * self.rows * (self.queries if part == "q" else 1)

    def take(self, fused: torch.Tensor, part: str) -> torch.Tensor:
        """``(total, ...)`` to the rows of ``q``, ``k`` or ``v``, in the order of their heads."""
        grouped = fused.view(self.groups, self.queries + 2, self.rows, *fused.shape[1:])
        chosen = {"q": grouped[:, : self.queries], "k": grouped[:, -2], "v": grouped[:, -1]}[part]
        return chosen.reshape(self.size(part), *fused.shape[1:]).contiguous()

    def pack(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """The fused rows that :meth:`take` takes apart."""
        parts = [q.view(self.groups, self.queries, self.rows, *q.shape[1:])]
        parts += [part.view(self.groups, 1, self.rows, *part.shape[1:]) for part in (k, v)]
        return torch.cat(parts, 1).reshape(self.total, *q.shape[1:])


def vision_packing(vision: dict[str, Any]) -> Packing:
    return Packing(1, 1, vision["hidden_size"])


def language_packing(language: dict[str, Any]) -> Packing:
    heads, pairs = language["num_attention_heads"], language["num_key_value_heads"]
    return Packing(pairs, heads // pairs, language["hidden_size"] // heads)


class SplitProjections(View):
    """``X.attn.qkv.*`` as ``X.attention.{q,k,v}_proj.*``, ``X.attention.wqkv.*`` as ``X.self_attn.{q,k,v}_proj.*``.

    A fused tensor is read once for its three parts, which a loader asks for one after another.
    """

    def __init__(self, inner: Tensors, config: MllmSegConfig) -> None:
        vision, language = vision_packing(config.vision), language_packing(config.language)
        names: dict[str, str] = {}
        self.parts: dict[str, tuple[Packing, str]] = {}
        for old in inner.shapes:
            packing, new = vision, old.replace(VISION_QKV, ".attention.{}_proj.")
            if INTERNLM2_QKV in old:
                packing, new = language, old.replace(INTERNLM2_QKV, ".self_attn.{}_proj.")
            if new == old:
                names[old] = old
                continue
            if inner.shapes[old][0] != packing.total:
                raise BadInput(
                    f"{getattr(inner, 'source', 'the checkpoint')}: {old} has {inner.shapes[old][0]} rows; the sizes "
                    f"in config.json ask for {packing.total}: weights and config.json are of different checkpoints"
                )
            for part in "qkv":
                names[new.format(part)] = old
                self.parts[new.format(part)] = packing, part
        super().__init__(inner, names)
        for name, (packing, part) in self.parts.items():
            self.shapes[name] = (packing.size(part), *self.shapes[name][1:])
        self._last: tuple[str, torch.Tensor] | None = None

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self.parts:
            return super().__getitem__(name)
        old = self.names[name]
        if self._last is None or self._last[0] != old:
            self._last = old, self.inner[old]
        packing, part = self.parts[name]
        return packing.take(self._last[1], part)


def fuse_projections(tensors: Mapping[str, torch.Tensor], config: MllmSegConfig) -> dict[str, torch.Tensor]:
    """What :class:`SplitProjections` shows, fused again under the published names."""
    places = [(VISION_QKV, ".attention.{}_proj.", "vision_model.", vision_packing(config.vision))]
    if config.family == "internlm2":
        places.append((INTERNLM2_QKV, ".self_attn.{}_proj.", "language_model.", language_packing(config.language)))
    fused = dict(tensors)
    for published, split, prefix, packing in places:
        for name in [name for name in tensors if name.startswith(prefix) and split.format("q") in name]:
            parts = [fused.pop(name.replace(split.format("q"), split.format(part))) for part in "qkv"]
            fused[name.replace(split.format("q"), published)] = packing.pack(*parts)
    return fused
