"""DySample: upsampling by sampling the input at learned points (Liu et al., ICCV 2023), "linear + point" variant."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

OFFSET_RANGE = 0.25  # learned offsets move a sampling point by a quarter of what the 1x1 convolution says


class DySample(nn.Module):
    """Enlarges a map ``scale`` times: every output pixel reads its input at a point of its own, channel groups apart.

    The points start where nearest-pixel centres of the finer grid lie (``start``, stored with the weights) and a 1x1
    convolution of the input moves them.
    """

    def __init__(self, channels: int, scale: int = 2, groups: int = 4) -> None:
        super().__init__()
        if channels % groups:
            raise ValueError(f"DySample needs channels divisible by groups; got {channels} channels, {groups} groups")
        self.scale, self.groups = scale, groups
        self.offset = nn.Conv2d(channels, 2 * groups * scale * scale, 1)
        nn.init.zeros_(self.offset.bias)
        self.register_buffer("start", _start(scale, groups))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, C, h, w)`` to ``(B, C, scale * h, scale * w)``, in the input's dtype."""
        b, c, h, w = x.shape
        s, g = self.scale, self.groups
        # Coordinates in full precision: half floats cannot tell neighbouring sampling points of a wide map apart.
        moved = self.offset(x).float() * OFFSET_RANGE + self.start.float()
        moved = moved.view(b, 2, g, s, s, h, w)  # axis (x, y), group, sub-row, sub-column, row, column
        columns = torch.arange(w, device=x.device, dtype=torch.float32) + 0.5
        rows = torch.arange(h, device=x.device, dtype=torch.float32)[:, None] + 0.5
        points = torch.stack(
            [2 * (moved[:, 0] + columns) / w - 1, 2 * (moved[:, 1] + rows) / h - 1], -1
        )  # (B, g, s, s, h, w, 2)
        points = points.permute(0, 1, 4, 2, 5, 3, 6).reshape(b * g, h * s, w * s, 2)
        with torch.autocast(x.device.type, enabled=False):
            sampled = functional.grid_sample(
                x.float().reshape(b * g, c // g, h, w),
                points,
                mode="bilinear",
                padding_mode="border",
                align_corners=False,
            )  # (B * g, C / g, s * h, s * w)
        return sampled.view(b, c, h * s, w * s).to(x.dtype)


def _start(scale: int, groups: int) -> torch.Tensor:
    """``(1, 2 * groups * scale^2, 1, 1)``: where the output pixels of one input pixel lie in it, centre 0."""
    places = (torch.arange(scale) - (scale - 1) / 2) / scale
    rows, columns = torch.meshgrid(places, places, indexing="ij")
    start = torch.stack([columns, rows])[:, None].expand(2, groups, scale, scale)
    return start.reshape(1, -1, 1, 1).contiguous()
