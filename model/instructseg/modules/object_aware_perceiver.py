"""Object-aware Video Perceiver: each reference frame, condensed into a few tokens that know the instruction.

InstructSeg (arXiv 2412.14006), sec. 3.2. Learned latents read a frame's visual tokens together with the words of the
instruction, so that what they keep of the frame is what the instruction is about. Frames do not see each other here;
the language model tells them apart by their order.
"""

from __future__ import annotations

import torch
from torch import nn

from .perceiver_block import Perceiver


class ObjectAwarePerceiver(nn.Module):
    """``tokens`` latents for every reference frame. What it says of one frame depends on that frame and on the
    instruction alone, and may be kept for as long as both are of interest."""

    def __init__(self, width: int, tokens: int = 128, depth: int = 3, heads: int = 8, head_width: int = 128):
        super().__init__()
        self.latents = nn.Parameter(torch.randn(tokens, width))
        self.perceiver = Perceiver(width, depth, heads, head_width)

    def forward(self, frames: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """frames ``(B, T, P, width)``: visual tokens of T reference frames; words ``(B, W, width)``: the instruction's
        embeddings. Gives ``(B, T, tokens, width)``."""
        b, t = frames.shape[:2]
        spoken = words[:, None].expand(-1, t, -1, -1)  # (B, T, W, width)
        latents = self.latents.expand(b, t, -1, -1)  # (B, T, tokens, width)
        return self.perceiver(torch.cat([frames, spoken], 2), latents)
