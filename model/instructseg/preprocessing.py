"""Pixels as the published vision encoders saw them in training: Pillow's resizing, in uint8, before normalisation.

Other libraries' bilinear and bicubic filters differ by a grey level, which is enough to move a mask's border.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from .core import BadInput

CLIP_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
CLIP_STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
SAM_MEAN = np.array([123.675, 116.28, 103.53], np.float32)
SAM_STD = np.array([58.395, 57.12, 57.375], np.float32)
# (3, 256): the normalised value of every grey level by channel; looking up is a third quicker than computing.
_SAM_VALUES = ((np.arange(256, dtype=np.float32)[:, None] - SAM_MEAN) / SAM_STD).T.copy()


def clip_pixels(image: np.ndarray, size: int) -> torch.Tensor:
    """``(3, size, size)`` float32 from ``(H, W, 3)`` uint8 RGB, as CLIP's own processor does it.

    The shorter side becomes ``size`` (bicubic, the longer one truncated), then the centre is cut out: the sides of a
    wide image are not seen.
    """
    _check(image)
    h, w = image.shape[:2]
    short, long = min(h, w), max(h, w)
    longer = int(size * long / short)
    height, width = (size, longer) if h <= w else (longer, size)
    resized = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
    top, left = (height - size) // 2, (width - size) // 2
    cut = resized[top : top + size, left : left + size]
    scaled = (cut * (1 / 255)).astype(np.float32)  # in float64 first, as the processor: float32 is 5e-7 off
    return torch.from_numpy((scaled - CLIP_MEAN) / CLIP_STD).permute(2, 0, 1).contiguous()


def sam_size(height: int, width: int, size: int) -> tuple[int, int]:
    """(height, width) of an image whose longer side is brought to ``size``."""
    scale = size / max(height, width)
    return int(height * scale + 0.5), int(width * scale + 0.5)


def sam_pixels(image: np.ndarray, size: int) -> tuple[torch.Tensor, tuple[int, int]]:
    """``(3, size, size)`` float32 from ``(H, W, 3)`` uint8 RGB as Segment Anything expects it, and the (height, width)
    of the part that is image: the longer side becomes ``size`` (bilinear), the rest is zero right and below. Raises
    BadInput."""
    _check(image)
    resized_hw = sam_size(*image.shape[:2], size)
    if min(resized_hw) < 1:
        raise BadInput(
            f"an image of {image.shape[1]} x {image.shape[0]} pixels is too narrow: nothing is left of it where its "
            f"longer side becomes {size}; cut it"
        )
    resized = np.asarray(Image.fromarray(image).resize(resized_hw[::-1], Image.Resampling.BILINEAR))
    pixels = np.zeros((3, size, size), np.float32)
    for channel, values in enumerate(_SAM_VALUES):
        pixels[channel, : resized_hw[0], : resized_hw[1]] = values[resized[..., channel]]
    return torch.from_numpy(pixels), resized_hw


def _check(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or min(image.shape[:2]) < 1:
        raise BadInput(f"an image must be uint8 of shape (H, W, 3) in RGB; got {image.dtype} {image.shape}")
