"""What MLLMSeg's vision encoder is shown: the whole picture squashed to a square, and ImageNet's normalisation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import GotOcr2ImageProcessorPil

from instructseg.recipes.mllmseg.processing import image_pixels

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LEVEL = 1 / 255 / 0.229  # one grey level after normalisation, where it is smallest


def levels(pixels: torch.Tensor) -> np.ndarray:
    """``(3, S, S)`` back to grey levels ``(S, S, 3)``, not rounded."""
    return (pixels.permute(1, 2, 0).double().numpy() * STD + MEAN) * 255


def checks(height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (-(-height // 5), -(-width // 5), 3), np.uint8)
    return np.kron(coarse, np.ones((5, 5, 1), np.uint8))[:height, :width]


@pytest.mark.parametrize("size", [(480, 640), (37, 53), (640, 120), (1, 1), (448, 448)])
def test_pixels_are_those_of_the_family_s_own_processor(size: tuple[int, int]) -> None:
    """Its one tile, without a thumbnail; an independent implementation of the same recipe."""
    image = checks(*size)
    processor = GotOcr2ImageProcessorPil(
        size={"height": 448, "width": 448}, crop_to_patches=False, image_mean=MEAN, image_std=STD
    )
    theirs = processor(Image.fromarray(image), return_tensors="pt")["pixel_values"][0]
    ours = image_pixels(image, 448)
    assert ours.dtype == torch.float32 and ours.is_contiguous() and ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= 1e-6


def test_one_colour_becomes_its_distance_from_the_mean() -> None:
    image = np.empty((30, 50, 3), np.uint8)
    image[:] = (255, 0, 128)
    pixels = image_pixels(image, 56)
    for channel, value in enumerate((255, 0, 128)):
        expected = (value / 255 - MEAN[channel]) / STD[channel]
        assert pixels[channel].min() == pixels[channel].max() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("size", [(60, 200), (200, 60)])
def test_the_whole_picture_is_squashed(size: tuple[int, int]) -> None:
    """No padding and no crop: each quarter of the picture fills its quarter of the square, in red, green and blue."""
    height, width = size
    image = np.zeros((*size, 3), np.uint8)
    image[: height // 2, : width // 2, 0] = 255
    image[: height // 2, width // 2 :, 1] = 255
    image[height // 2 :, : width // 2, 2] = 255
    shown = levels(image_pixels(image, 56)).round()
    for rows, columns, colour in (
        (slice(0, 24), slice(0, 24), (255, 0, 0)),
        (slice(0, 24), slice(32, 56), (0, 255, 0)),
        (slice(32, 56), slice(0, 24), (0, 0, 255)),
        (slice(32, 56), slice(32, 56), (0, 0, 0)),
    ):
        assert (shown[rows, columns] == colour).all()


def test_levels_are_whole_numbers_without_overshoot() -> None:
    """Resized in eight bits as in training: the bicubic filter's overshoot at an edge is cut, its results rounded."""
    image = np.zeros((100, 100, 3), np.uint8)
    image[:, 50:] = 255
    shown = levels(image_pixels(image, 56))
    assert np.abs(shown - shown.round()).max() < 255 * 0.229 * LEVEL / 100
    assert shown.round().min() == 0 and shown.round().max() == 255
    assert len(np.unique(shown.round()[0, :, 0])) > 2, "an edge between two pixels is smoothed"


def test_large_pictures_are_averaged_and_not_sampled() -> None:
    """The filter widens with the shrinking: stripes finer than a pixel become grey."""
    image = np.zeros((560, 560, 3), np.uint8)
    image[:, ::2] = 255
    inner = levels(image_pixels(image, 56))[:, 2:-2]
    assert np.abs(inner - 127.5).max() < 3
