"""One transformer decoder block with the norms after the sums, and a last norm behind it; no position encoding."""

from __future__ import annotations

import torch
from torch import nn


class PostNormBlock(nn.Module):
    """Self-attention, attention to a memory, feed-forward; each added to its input and normalised, then normalised
    once more. Positions must already be in the inputs: the block adds none and masks nothing.

    The three steps can be called apart, because the first depends on the queries alone: a caller that asks many
    memories about the same queries runs :meth:`look_around` once.
    """

    def __init__(self, width: int, heads: int = 8, feed_forward: int | None = None, dropout: float = 0.1) -> None:
        super().__init__()
        hidden = feed_forward or width
        self.self_attention = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.memory_attention = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.linear1 = nn.Linear(width, hidden)
        self.linear2 = nn.Linear(hidden, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)
        self.last_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        """``x``: ``(B, P, D)`` queries. ``memory``: ``(B, M, D)``. Returns ``(B, P, D)``."""
        x = self.look_around(x)
        answer, _ = self.memory_attention(x, memory, memory, need_weights=False)
        return self.finish(x, answer)

    def look_around(self, x: torch.Tensor) -> torch.Tensor:
        """Self-attention and its norm, ``(B, P, D)`` to ``(B, P, D)``: what depends on the queries alone."""
        answer, _ = self.self_attention(x, x, x, need_weights=False)
        return self.norm1(x + self.dropout(answer))

    def answer_of(self, token: torch.Tensor) -> torch.Tensor:
        """What attention to a memory of one token gives, for every query the same: ``(n, D)`` to ``(n, D)``.

        The weight of a single token is 1 whatever the query, so only its value and the output projection are left.
        Exact without dropout, hence for inference.
        """
        attention = self.memory_attention
        width = attention.embed_dim
        value = nn.functional.linear(token, attention.in_proj_weight[2 * width :], attention.in_proj_bias[2 * width :])
        return attention.out_proj(value)

    def finish(self, x: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
        """The rest after the memory's ``answer``, which broadcasts to ``x``'s shape ``(B, P, D)``."""
        x = self.norm2(x + self.dropout(answer))
        wide = self.dropout(torch.relu(self.linear1(x)))
        x = self.norm3(x + self.dropout(self.linear2(wide)))
        return self.last_norm(x)
