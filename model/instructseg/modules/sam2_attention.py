"""SAM 2's memory attention (Ravi et al. 2024, sec. 4 and app. D) with the weights of transformers' module, and without
the work that module repeats. Equal to it up to rounding; three things make the difference:

* A frame's own part is the same for every object: the first layer's self-attention and the queries that follow it are
  computed once.
* Rows of attention sum to one, so ``softmax(QK) (M W + b) = (softmax(QK) M) W + b``: what is averaged is the memory
  itself, 64 wide, and not its projection, 256 wide. Value and output projections become one matrix.
* Channels that are rotated together are moved half the width apart, in queries and keys alike, which leaves their
  products as they are and the rotation without shuffling. The scale is in the queries' weights.

Letters: B objects, L = h*w cells of a map, C width, H heads, N tokens of memory of which P belong to object pointers,
M their width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from transformers.models.sam2_video.modeling_sam2_video import (
    Sam2VideoMemoryAttention,
    Sam2VideoMemoryAttentionLayer,
    Sam2VideoRoPEAttention,
)

SCORES = 2**21  # attention scores at a time on a CPU: 8 MB, so that they stay in its cache
ROWS = 1024  # cells at a time in the wide layer of the feed-forward network


class MemoryAttention(nn.Module):
    """``attention`` must hold its weights before this is built, because they are rearranged here once. No weight is
    kept twice that is not changed."""

    def __init__(self, attention: Sam2VideoMemoryAttention):
        super().__init__()
        self.layers = nn.ModuleList(MemoryAttentionLayer(layer) for layer in attention.layers)
        self.layer_norm = attention.layer_norm
        # Each (1, L, d): the cosine and sine of every pair of channels, twice.
        cos, sin = attention.rotary_emb(torch.empty(0, device=attention.position_ids.device), attention.position_ids)
        self.register_buffer("cos", cos[0, :, ::2].float().contiguous(), persistent=False)  # (L, d / 2)
        self.register_buffer("sin", sin[0, :, ::2].float().contiguous(), persistent=False)

    def forward(
        self,
        maps: torch.Tensor,
        memory: torch.Tensor,
        dated: torch.Tensor,
        pointers: int,
        owners: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """``(B, L, C)``. maps: ``(B or 1, L, C)``, with their position codes; with owners, ``(B,)``, of the images that
        these number. memory: ``(B, N, M)``, the last ``pointers`` of them of object pointers; dated: the same with
        codes of position and age."""
        x = maps
        for layer in self.layers:
            x, owners = layer(x, memory, dated, pointers, self.cos, self.sin, owners), None
        return self.layer_norm(x)


class MemoryAttentionLayer(nn.Module):
    def __init__(self, layer: Sam2VideoMemoryAttentionLayer):
        super().__init__()
        own, cross = layer.self_attn, layer.cross_attn_image
        self.heads: int = own.num_attention_heads
        self.layer_norm1, self.layer_norm2, self.layer_norm3 = layer.layer_norm1, layer.layer_norm2, layer.layer_norm3
        self.linear1, self.linear2, self.activation = layer.linear1, layer.linear2, layer.activation
        self.own_output = own.o_proj
        query, key = _rotated_apart(own.q_proj, own), _rotated_apart(own.k_proj, own)
        # The fused kernel scales; so must the weights not.
        self.own_input = _linear(
            torch.cat((query[0], key[0], own.v_proj.weight)), torch.cat((query[1], key[1], own.v_proj.bias))
        )
        weight, bias = _rotated_apart(cross.q_proj, cross)
        self.query = _linear(weight * cross.scaling, bias * cross.scaling)
        self.key = _linear(*_rotated_apart(cross.k_proj, cross))
        self.value, self.output = cross.v_proj, cross.o_proj
        self.from_memory = _value_to_output(cross)

    def forward(
        self,
        x: torch.Tensor,
        memory: torch.Tensor,
        dated: torch.Tensor,
        pointers: int,
        cos: torch.Tensor,
        sin: torch.Tensor,
        owners: torch.Tensor | None,
    ) -> torch.Tensor:
        x = x + self._own(self.layer_norm1(x), cos, sin)
        query = _rotate(self._heads(self.query(self.layer_norm2(x)), self.heads), cos, sin)  # (B or images, H, L, d)
        if owners is not None:
            x, query = x[owners], query[owners]
        x = x + self._cross(query, memory, dated, pointers, cos, sin)  # (B, L, C) from here on
        return x + self._feed_forward(self.layer_norm3(x))

    def _own(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        query, key, value = self._heads(self.own_input(x), 3 * self.heads).chunk(3, dim=1)  # (B, H, L, d) each
        mixed = F.scaled_dot_product_attention(_rotate(query, cos, sin), _rotate(key, cos, sin), value)
        return self.own_output(mixed.transpose(1, 2).flatten(2))

    def _cross(
        self, query: torch.Tensor, memory: torch.Tensor, dated: torch.Tensor, pointers: int, cos: torch.Tensor,
        sin: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        objects, tokens, _ = memory.shape
        query = query.expand(objects, -1, -1, -1)
        key = self._heads(self.key(dated), self.heads)  # (B, H, N, d)
        key = _rotate(key, cos, sin, (tokens - pointers) // len(cos))
        if _by_parts(query):
            mixed = _mix(query, key, memory)  # (B, H, L, M)
            return self.from_memory(mixed.transpose(1, 2).flatten(2))
        # The fused kernels of GPUs want keys and values of one width.
        mixed = F.scaled_dot_product_attention(query, key, self._heads(self.value(memory), self.heads), scale=1.0)
        return self.output(mixed.transpose(1, 2).flatten(2))

    def _feed_forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.flatten(0, 1)  # (B*L, C)
        if not _by_parts(x):
            return self.linear2(self.activation(self.linear1(rows))).view(x.shape)
        return torch.cat([self.linear2(self.activation(self.linear1(part))) for part in rows.split(ROWS)]).view(x.shape)

    @staticmethod
    def _heads(x: torch.Tensor, heads: int) -> torch.Tensor:
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)  # (B, L, H*d) -> (B, H, L, d)


def _by_parts(x: torch.Tensor) -> bool:
    """On a CPU what is between two products should fit into its cache; a GPU has fused kernels instead."""
    return x.device.type == "cpu"


def _mix(query: torch.Tensor, key: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
    """Memories ``(B, H, L, M)`` averaged with the weights of attention. query: ``(B, H, L, d)``, scaled; key:
    ``(B, H, N, d)``; memory: ``(B, N, M)``."""
    _, heads, cells, _ = query.shape
    tokens = memory.shape[1]
    together = max(1, SCORES // (heads * cells * tokens))  # objects
    rows = min(cells, max(64, SCORES // (heads * tokens)))
    mixed = []
    for q, k, m in zip(query.split(together), key.mT.split(together), memory[:, None].split(together), strict=True):
        m = m.expand(-1, heads, -1, -1)
        parts = [torch.matmul(torch.matmul(part, k).softmax(-1).to(m.dtype), m) for part in q.split(rows, dim=2)]
        mixed.append(torch.cat(parts, dim=2))
    return torch.cat(mixed)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, times: int = 1) -> torch.Tensor:
    """The first ``times * L`` of the tokens ``(B, H, n, d)`` rotated by their place (RoFormer; axial, app. D), the
    others as they are. Computed in float32; ``x`` is overwritten where it has that type."""
    cells, half = cos.shape
    rotated = x.float()
    if times:
        spatial = rotated[:, :, : times * cells].unflatten(2, (times, cells))  # (B, H, times, L, d)
        first, second = spatial[..., :half], spatial[..., half:]
        kept = first.clone()
        first.mul_(cos).addcmul_(second, sin, value=-1)
        second.mul_(cos).addcmul_(kept, sin)
    return rotated.to(x.dtype)


def _rotated_apart(linear: nn.Linear, attention: Sam2VideoRoPEAttention) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias with the pairs (0, 1), (2, 3) ... of each head's channels moved to (0, d/2), (1, d/2 + 1) ..."""
    heads = attention.num_attention_heads
    weight, bias = (p.detach().unflatten(0, (heads, -1, 2)) for p in (linear.weight, linear.bias))  # (H, d/2, 2, ..)
    return weight.transpose(1, 2).flatten(0, 2), bias.transpose(1, 2).flatten()


def _value_to_output(attention: Sam2VideoRoPEAttention) -> nn.Linear:
    """Value and output projections as one of ``(.., H*M)``, for memories that attention has averaged per head."""
    value, output = attention.v_proj, attention.o_proj
    heads = attention.num_attention_heads
    values = value.weight.detach().double().unflatten(0, (heads, -1))  # (H, d, M)
    outputs = output.weight.detach().double().unflatten(1, (heads, -1))  # (C, H, d)
    weight = torch.einsum("chd,hdm->chm", outputs, values).flatten(1)  # (C, H*M)
    bias = output.weight.detach().double() @ value.bias.detach().double() + output.bias.detach().double()
    return _linear(weight.to(value.weight.dtype), bias.to(value.weight.dtype))


def _linear(weight: torch.Tensor, bias: torch.Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], device=weight.device, dtype=weight.dtype)
    linear.weight, linear.bias = nn.Parameter(weight, requires_grad=False), nn.Parameter(bias, requires_grad=False)
    return linear
