"""A frame as InstructSeg's two encoders saw frames in training: Pillow's resizing in uint8, then normalisation."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from ...core import BadInput

PADDING = 128  # grey level right of and below the image; it is normalised with the image and treated as image
_MEAN = np.array([123.675, 116.28, 103.53], np.float32)
_STD = np.array([58.395, 57.12, 57.375], np.float32)


def mask_image_size(height: int, width: int, size: int) -> tuple[int, int]:
    """(height, width) inside the square of ``size``: the shorter side to ``size``, then the longer one limited to it.

    In two steps of floating-point arithmetic and rounded once, as in training; one step could differ by a pixel.
    """
    scale = size / min(height, width)
    new_h, new_w = (float(size), scale * width) if height < width else (scale * height, float(size))
    limit = size / max(new_h, new_w)
    if limit < 1.0:
        new_h, new_w = new_h * limit, new_w * limit
    return max(1, int(new_h + 0.5)), max(1, int(new_w + 0.5))


def mask_pixels(image: np.ndarray, size: int) -> tuple[torch.Tensor, tuple[int, int]]:
    """For Swin: ``(3, size, size)`` float32 from ``(H, W, 3)`` uint8 RGB, and the (height, width) that is image."""
    _check(image)
    inside = mask_image_size(*image.shape[:2], size)
    square = np.full((size, size, 3), PADDING, np.uint8)
    square[: inside[0], : inside[1]] = Image.fromarray(image).resize(inside[::-1], Image.Resampling.BILINEAR)
    return torch.from_numpy((square.astype(np.float32) - _MEAN) / _STD).permute(2, 0, 1).contiguous(), inside


def frame_pixels(image: np.ndarray, size: int) -> torch.Tensor:
    """For SigLIP: ``(3, size, size)`` float32 in -1..1 from ``(H, W, 3)`` uint8 RGB, squeezed to a square."""
    _check(image)
    resized = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))
    scaled = (resized * (1 / 255)).astype(np.float32)
    return torch.from_numpy((scaled - np.float32(0.5)) / np.float32(0.5)).permute(2, 0, 1).contiguous()


def _check(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or min(image.shape[:2]) < 1:
        raise BadInput(f"an image must be uint8 of shape (H, W, 3) in RGB; got {image.dtype} {image.shape}")
