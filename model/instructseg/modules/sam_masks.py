"""SAM's low-resolution logits at the size of the frame they belong to."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def upscale_masks(
    low_res: torch.Tensor, resized_hw: tuple[int, int], original_hw: tuple[int, int], image_size: int
) -> torch.Tensor:
    """Logits ``(n, h, w)`` to ``(n, H, W)`` float32: up to the padded square, the padding cut off, to the frame.

    resized_hw: (height, width) of the part of the square that is image. Always in float32: in half precision the
    border of a mask moves.
    """
    square = F.interpolate(low_res[:, None].float(), (image_size, image_size), mode="bilinear", align_corners=False)
    cut = square[..., : resized_hw[0], : resized_hw[1]]
    return F.interpolate(cut, tuple(original_hw), mode="bilinear", align_corners=False)[:, 0]
