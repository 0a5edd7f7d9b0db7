"""Feature fusion of a vision encoder's patches with a language model's image states (MLLMSeg, arXiv 2508.04107).

Two paths join: the detail-enhanced one, where fine patches attend to the coarse states that already carry meaning,
and the semantic-consistent one, where those states are enlarged to the patches' grid.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from .dysample import DySample
from .post_norm_block import PostNormBlock


@dataclasses.dataclass(frozen=True)
class FusionSizes:
    """vision_width D: channels of a patch. language_width C: channels of an image state. grid G: patches a side.
    shrink: patches a side of which one image state was made. groups: channel groups of the upsampling."""

    vision_width: int
    language_width: int
    grid: int
    shrink: int = 2
    heads: int = 8
    groups: int = 4

    def __post_init__(self) -> None:
        if self.grid % self.shrink:
            raise ValueError(f"FusionSizes.grid must be a multiple of shrink {self.shrink}; got {self.grid}")
        if self.vision_width % self.heads or self.vision_width % self.groups:
            raise ValueError(
                f"FusionSizes.vision_width must be divisible by heads {self.heads} and groups {self.groups}; "
                f"got {self.vision_width}"
            )


class FeatureFusion(nn.Module):
    """Patches and image states of the same picture to one fused map, before any instruction is known."""

    def __init__(self, sizes: FusionSizes) -> None:
        super().__init__()
        self.sizes = sizes
        width = sizes.vision_width
        self.language_down = nn.Linear(sizes.language_width, width)
        self.detail = PostNormBlock(width, sizes.heads)
        self.upsample = DySample(width, sizes.shrink, sizes.groups)
        self.join = nn.Linear(3 * width, width)

    def forward(self, patches: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        """``patches``: ``(B, G^2, D)``, row by row. ``states``: ``(B, (G / shrink)^2, C)``. Returns ``(B, G^2, D)``."""
        coarse = self.language_down(states)  # (B, g^2, D)
        detailed = self.detail(patches, coarse)
        return self.join(torch.cat([detailed, patches, self.enlarged(coarse)], -1))

    def enlarged(self, coarse: torch.Tensor) -> torch.Tensor:
        """``(B, g^2, D)`` on the coarse grid to ``(B, G^2, D)``."""
        b, _, width = coarse.shape
        side = self.sizes.grid // self.sizes.shrink
        fine = self.upsample(coarse.transpose(1, 2).reshape(b, width, side, side))  # (B, D, G, G)
        return fine.flatten(2).transpose(1, 2)
