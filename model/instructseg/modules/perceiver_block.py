"""Latents that read a context: the layers which both perceivers of InstructSeg (secs. 3.2 and 3.3) are made of.

After the resampler of Flamingo (Alayrac et al. 2022): cross-attention whose keys are the context and some of the
latents themselves, then a feed-forward network, both with residuals. No mask, no positions, no dropout.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class PerceiverAttention(nn.Module):
    """Multi-head attention of latents to [context ; the first ``own_keys`` latents], without its residual.

    own_keys: None lets every latent be a key as well. Widths: ``width`` outside, ``heads * head_width`` inside.
    """

    def __init__(self, width: int, heads: int, head_width: int, own_keys: int | None):
        super().__init__()
        inner = heads * head_width
        self.heads, self.own_keys = heads, own_keys
        self.norm_media = nn.LayerNorm(width)
        self.norm_latents = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)

    def forward(self, context: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """``(..., P, width)`` and ``(..., n, width)`` to ``(..., n, width)``."""
        latents = self.norm_latents(latents)
        keyed = latents if self.own_keys is None else latents[..., : self.own_keys, :]
        media = torch.cat([self.norm_media(context), keyed], -2)  # (..., P + own, width)
        keys, values = self.to_kv(media).chunk(2, -1)
        query, keys, values = (self._split(t) for t in (self.to_q(latents), keys, values))
        read = functional.scaled_dot_product_attention(query, keys, values)  # (..., heads, n, head width)
        return self.to_out(read.transpose(-3, -2).flatten(-2))  # (..., n, width)

    def _split(self, states: torch.Tensor) -> torch.Tensor:
        """``(..., n, heads * w)`` to ``(..., heads, n, w)``."""
        return states.unflatten(-1, (self.heads, -1)).transpose(-3, -2)


def feed_forward(width: int, factor: int = 2) -> nn.Sequential:
    """LayerNorm and two linear maps with an exact GELU between; ``(..., width)`` to the same, without its residual."""
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, factor * width, bias=False),
        nn.GELU(),
        nn.Linear(factor * width, width, bias=False),
    )


class Perceiver(nn.Module):
    """``depth`` layers of attention and feed-forward, then a LayerNorm. The context is the same in every layer."""

    def __init__(self, width: int, depth: int, heads: int, head_width: int, own_keys: int | None = None):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleList([PerceiverAttention(width, heads, head_width, own_keys), feed_forward(width)])
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, context: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """``(..., P, width)`` and ``(..., n, width)`` to ``(..., n, width)``."""
        for attention, feed in self.layers:
            latents = attention(context, latents) + latents
            latents = feed(latents) + latents
        return self.norm(latents)
