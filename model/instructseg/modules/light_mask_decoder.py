"""The light mask decoder of MLLMSeg (arXiv 2508.04107): fused features and one text token to a full-size mask.

No second vision encoder: it reads the patches of the language model's own one. Everything but the token is the same
for all instructions on a picture, so the work divides into :meth:`LightMaskDecoder.prepare`, once a picture, and
:meth:`LightMaskDecoder.decode`, once a token; together they equal :meth:`LightMaskDecoder.forward` without dropout.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from .feature_fusion import FeatureFusion, FusionSizes
from .post_norm_block import PostNormBlock


class LightMaskDecoder(nn.Module):
    """``patch``: pixels a side of one patch, so masks have ``grid * patch`` pixels a side."""

    def __init__(self, sizes: FusionSizes, patch: int) -> None:
        super().__init__()
        width = sizes.vision_width
        self.sizes, self.patch = sizes, patch
        self.token_down = nn.Linear(sizes.language_width, width)
        self.fusion = FeatureFusion(sizes)
        self.prompted = PostNormBlock(width, sizes.heads)
        self.to_pixels = nn.Sequential(
            nn.Conv2d(width, patch * patch, 3, padding=1), nn.BatchNorm2d(patch * patch), nn.ReLU()
        )
        self.smooth = nn.Conv2d(1, 1, 5, padding=2)

    def forward(self, patches: torch.Tensor, states: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """The plain path, one row a target: ``patches`` ``(n, G^2, D)``, ``states`` ``(n, g^2, C)``, ``tokens``
        ``(n, C)`` to mask logits ``(n, G * patch, G * patch)``. n = 0 gives an empty result."""
        if len(tokens) == 0:
            return self._nothing(tokens)
        fused = self.fusion(patches, states)
        return self._to_logits(self.prompted(fused, self.token_down(tokens)[:, None]))

    def prepare(self, patches: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        """What all targets of a picture share, ``(B, G^2, D)``: the fused features after their self-attention."""
        return self.prompted.look_around(self.fusion(patches, states))

    def decode(self, prepared: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """``prepared``: ``(1, G^2, D)`` for tokens of one picture, or ``(n, G^2, D)``. ``tokens``: ``(n, C)``. Returns
        mask logits ``(n, G * patch, G * patch)``."""
        if len(tokens) == 0:
            return self._nothing(tokens)
        answers = self.prompted.answer_of(self.token_down(tokens))[:, None]  # (n, 1, D), the same at every position
        return self._to_logits(self.prompted.finish(prepared, answers))

    def _to_logits(self, x: torch.Tensor) -> torch.Tensor:
        """``(n, G^2, D)`` to ``(n, G * patch, G * patch)``."""
        grid = self.sizes.grid
        maps = x.transpose(1, 2).reshape(len(x), -1, grid, grid)  # (n, D, G, G)
        pixels = functional.pixel_shuffle(self.to_pixels(maps), self.patch)  # (n, 1, G * patch, G * patch)
        return self.smooth(pixels)[:, 0]

    def _nothing(self, tokens: torch.Tensor) -> torch.Tensor:
        side = self.sizes.grid * self.patch
        return tokens.new_zeros(0, side, side)


def xavier_initialise(decoder: LightMaskDecoder) -> None:
    """The published start of training: Xavier-uniform for everything with more than one dimension, attention and
    feed-forward biases zero."""
    for name, parameter in decoder.named_parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
        elif "attention" in name or "linear1" in name or "linear2" in name:
            nn.init.zeros_(parameter)
