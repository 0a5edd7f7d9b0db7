"""Pixels for CLIP and SAM against transformers' own Pillow processors, at sizes with every rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import CLIPImageProcessorPil, SamImageProcessorPil

from instructseg.core import BadInput
from instructseg.preprocessing import clip_pixels, sam_pixels, sam_size

SIZES = [(37, 53), (120, 90), (64, 64), (33, 100), (101, 34), (480, 640), (16, 200)]


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_clip_pixels_equal_the_processor_bit_for_bit(height: int, width: int) -> None:
    processor = CLIPImageProcessorPil(size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48})
    image = picture(height, width)
    expected = processor(image, return_tensors="pt")["pixel_values"][0]
    assert torch.equal(clip_pixels(image, 48), expected)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_sam_pixels_agree_with_the_processor(height: int, width: int) -> None:
    processor = SamImageProcessorPil(size={"longest_edge": 96}, pad_size={"height": 96, "width": 96})
    image = picture(height, width)
    expected = processor(image, return_tensors="pt")
    pixels, resized = sam_pixels(image, 96)
    assert tuple(expected["reshaped_input_sizes"][0]) == resized == sam_size(height, width, 96)
    # The processor divides by 255 before it subtracts the mean; the published code does not.
    torch.testing.assert_close(pixels, expected["pixel_values"][0], atol=2e-6, rtol=0)
    assert (pixels[:, resized[0] :] == 0).all()
    assert (pixels[:, :, resized[1] :] == 0).all()


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)],
)
def test_what_is_no_rgb_image_is_refused(image: np.ndarray) -> None:
    for function in (clip_pixels, sam_pixels):
        with pytest.raises(BadInput, match=r"must be uint8 of shape \(H, W, 3\) in RGB"):
            function(image, 32)


def test_an_image_that_vanishes_when_it_is_resized_is_refused() -> None:
    assert sam_pixels(np.zeros((8, 1023, 3), np.uint8), 64)[1] == (1, 64)
    with pytest.raises(BadInput, match=r"1100 x 8 pixels is too narrow.* becomes 64"):
        sam_pixels(np.zeros((8, 1100, 3), np.uint8), 64)
