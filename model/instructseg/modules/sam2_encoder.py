"""SAM 2's image encoder (Hiera, Ryali et al. 2023, with windowed position codes) with the weights of transformers'
module, and without the work that module throws away. Equal to it up to rounding; the differences:

* A picture whose map is no multiple of the window is padded with zeros after the norm, and the projection of a zero is
  the bias. So queries, keys and values are projected before the padding, and attention's output after it is cut off: at
  256 pixels two thirds of those projections were of padding.
* No position codes of the feature pyramid, which the tracker computes once, and none of the position table, which is
  interpolated once for each size of picture.
* No attention weights that nobody reads.

Letters: B images, h, w cells of a stage's map, c its width, H heads, d width of a head, s edge of a window.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from transformers.models.sam2.modeling_sam2 import Sam2MultiScaleBlock, Sam2VisionModel


class ImageEncoder(nn.Module):
    """``vision`` holds the weights; this adds the order of computation and the position table for ``cells``, the edge
    of the first map. It must hold its weights before this is built."""

    def __init__(self, vision: Sam2VisionModel, cells: int):
        super().__init__()
        self.vision = vision
        positions = vision.backbone._get_pos_embed((cells, cells)).detach().clone()
        self.register_buffer("positions", positions, persistent=False)  # (1, cells, cells, c)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Maps ``(B, C, 4h, 4w)``, ``(B, C, 2h, 2w)``, ``(B, C, h, w)`` of pixels ``(B, 3, S, S)``, S = 16 h."""
        backbone = self.vision.backbone
        x = backbone.patch_embed(pixels) + self.positions  # (B, h, w, c)
        stages = []
        for index, block in enumerate(backbone.blocks):
            x = _block(block, x)
            if index in backbone.stage_ends:
                stages.append(x.permute(0, 3, 1, 2))  # (B, c, h, w)
        return self._pyramid(stages)

    def _pyramid(self, stages: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The three finest maps of the pyramid; levels of ``fpn_top_down_levels`` add the coarser one above."""
        neck = self.vision.neck
        last = len(stages) - 1
        maps: list[torch.Tensor] = []  # from coarse to fine
        for level in range(last, -1, -1):
            lateral = neck.convs[last - level](stages[level])
            if maps and level in neck.fpn_top_down_levels:
                lateral = lateral + F.interpolate(maps[-1].float(), scale_factor=2.0, mode="nearest").to(lateral.dtype)
            maps.append(lateral)
        top, middle, fine = maps[-3:]
        return fine, middle, top


def _block(block: Sam2MultiScaleBlock, x: torch.Tensor) -> torch.Tensor:
    """One block of the backbone. x: ``(B, h, w, c)``; where a stage begins, half the edge and twice the width come
    out."""
    normed = block.layer_norm1(x)
    residual = x if block.dim == block.dim_out else _pool(block.proj(normed), block.query_stride)
    x = residual + _attention(block, normed)
    return x + block.mlp(block.layer_norm2(x))


def _attention(block: Sam2MultiScaleBlock, x: torch.Tensor) -> torch.Tensor:
    attention, size, stride = block.attn, block.window_size, block.query_stride
    batch, height, width, _ = x.shape
    mixed = attention.qkv(x)  # (B, h, w, 3 * H * d)
    down, across = (-(-height // size), -(-width // size)) if size else (1, 1)  # windows; 0: one over everything
    windows = _windows(_padded(mixed, attention.qkv.bias, down * size, across * size), size) if size else mixed
    query, key, value = windows.chunk(3, dim=-1)  # (windows, rows, columns, H * d)
    query = _pool(query, stride)
    out_rows, out_columns = query.shape[1:3]
    query, key, value = (
        part.flatten(1, 2).unflatten(2, (attention.num_attention_heads, -1)).transpose(1, 2)  # (windows, H, cells, d)
        for part in (query, key, value)
    )
    seen = F.scaled_dot_product_attention(query, key, value, scale=attention.scale)
    seen = seen.transpose(1, 2).flatten(2).view(batch, down, across, out_rows, out_columns, -1)
    seen = seen.transpose(2, 3).reshape(batch, down * out_rows, across * out_columns, -1)
    if stride:
        height, width = height // stride[0], width // stride[1]
    return attention.proj(seen[:, :height, :width])


def _padded(x: torch.Tensor, value: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """``(B, h, w, c)`` continued to the right and below with ``value``, ``(c,)``."""
    batch, rows, columns, channels = x.shape
    if (rows, columns) == (height, width):
        return x
    padded = value.to(x.dtype).expand(batch, height, width, channels).clone()
    padded[:, :rows, :columns] = x
    return padded


def _windows(x: torch.Tensor, size: int) -> torch.Tensor:
    """``(B, h, w, c)`` as windows ``(B * h/s * w/s, s, s, c)``."""
    x = x.unflatten(2, (-1, size)).unflatten(1, (-1, size))  # (B, h/s, s, w/s, s, c)
    return x.transpose(2, 3).flatten(0, 2)


def _pool(x: torch.Tensor, stride: tuple[int, int] | None) -> torch.Tensor:
    """The largest of each ``stride`` of cells, ``(B, h, w, c)``."""
    if stride is None:
        return x
    return F.max_pool2d(x.permute(0, 3, 1, 2), stride, stride).permute(0, 2, 3, 1)
