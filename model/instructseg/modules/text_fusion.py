"""Vision-guided Multi-granularity Text Fusion: one embedding of what is asked for, from the whole and from its words.

InstructSeg (arXiv 2412.14006), sec. 3.3. The mean of the instruction's states (coarse) and the states of its words
(fine) read the image's last feature map; what the mean has become is joined with the mean as it was. Masks are scored
by their agreement with the result.

In the published layers words read the image and the mean, but nothing reads words, and only what the mean has become
is kept: the words count through their mean alone. So :meth:`TextFusion.forward` leaves their latents out, which
changes nothing; :meth:`TextFusion.latents` gives them, for whoever wants to look at the layers as published.
"""

from __future__ import annotations

import torch
from torch import nn

from .perceiver_block import Perceiver


class TextFusion(nn.Module):
    """hidden: width of the language model; pixels: channels of the feature map; out: width of the mask decoder."""

    def __init__(
        self,
        hidden: int,
        pixels: int,
        out: int,
        width: int = 1024,
        depth: int = 3,
        heads: int = 8,
        head_width: int = 128,
    ):
        super().__init__()
        self.words = nn.Linear(hidden, width)
        self.whole = nn.Linear(hidden, width)
        self.pixels = nn.Conv2d(pixels, width, 1)
        # Only the first latent, the mean, is a key besides the pixels.
        self.perceiver = Perceiver(width, depth, heads, head_width, own_keys=1)
        self.out = nn.Linear(2 * width, out)

    def forward(self, states: torch.Tensor, feature_map: torch.Tensor) -> torch.Tensor:
        """states ``(W, hidden)`` of one instruction's words, feature_map ``(pixels, h, w)`` of one image: ``(1, out)``.

        One instruction at a time, because each has its own number of words.
        """
        mean = states.mean(0, keepdim=True)
        fused = self.perceiver(self.context(feature_map), self.words(mean)[None])  # (1, 1, width)
        return self.join(mean, fused[0])

    def latents(self, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The words' mean ``(1, hidden)``, and all published latents, [mean ; words]: ``(1, 1 + W, width)``."""
        mean = states.mean(0, keepdim=True)
        return mean, self.words(torch.cat([mean, states]))[None]

    def context(self, feature_map: torch.Tensor) -> torch.Tensor:
        """``(pixels, h, w)`` to ``(1, h * w, width)``, row by row."""
        return self.pixels(feature_map[None]).flatten(2).transpose(1, 2)

    def join(self, mean: torch.Tensor, fused: torch.Tensor) -> torch.Tensor:
        """The mean as it was ``(1, hidden)`` and as it has become ``(1, width)``: ``(1, out)``."""
        return self.out(torch.cat([self.whole(mean), fused], -1))
