"""Pictures of samples of a data set, to see with one's own eyes that images, masks and words belong together."""

from __future__ import annotations

import textwrap
import unicodedata

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..data.samples import Sample, Truth
from .overlay import colour_of

FRAMES, HEIGHT, LEAST_WIDTH, LINE = 4, 240, 480, 18
_WEIGHT = 0.5
_UNCOUNTED = 160  # grey of pixels that count neither way


def draw_sample(sample: Sample) -> np.ndarray:
    """``(h, w, 3)`` uint8 RGB: up to four frames evenly over the footage, a colour an object, stripes where pixels
    count neither way; the instruction below. Raises BadInput naming the file."""
    indices = np.unique(np.linspace(0, len(sample.footage) - 1, FRAMES).round().astype(int))
    row = np.hstack([_tile(sample, int(index)) for index in indices])
    row = np.pad(row, ((0, 0), (0, max(0, LEAST_WIDTH - row.shape[1])), (0, 0)))
    return np.vstack([row, _words(sample, row.shape[1])])


def _tile(sample: Sample, index: int) -> np.ndarray:
    image = sample.footage.read(index)
    truth = sample.truth(index) if sample.truth is not None else None
    if truth is not None:
        image = _coloured(image, truth)
    width = max(1, round(image.shape[1] * HEIGHT / image.shape[0]))
    larger = image.shape[0] < HEIGHT
    tile = cv2.resize(image, (width, HEIGHT), interpolation=cv2.INTER_NEAREST if larger else cv2.INTER_AREA)
    if truth is None and sample.truth is not None:
        cv2.rectangle(tile, (0, 0), (width - 1, HEIGHT - 1), (128, 128, 128), 4)  # no annotation on this frame
    return tile


def _coloured(image: np.ndarray, truth: Truth) -> np.ndarray:
    result = image.copy()
    for number, mask in enumerate(truth.masks, 1):
        colour = np.array(colour_of(number))
        result[mask] = (image[mask] * (1 - _WEIGHT) + colour * _WEIGHT).astype(np.uint8)
        lines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(result, lines, -1, colour.tolist(), max(1, image.shape[0] // 240))
    if truth.ignore is not None:
        rows, columns = np.indices(truth.ignore.shape)
        result[truth.ignore & ((rows + columns) % 6 < 3)] = _UNCOUNTED
    return result


def _words(sample: Sample, width: int) -> np.ndarray:
    """The caption: the instruction, then what it names."""
    about = f"{sample.kind.value}; {len(sample.objects)} object{'' if len(sample.objects) == 1 else 's'}"
    about += "" if sample.truth is not None else "; the truth is not public"
    lines = [*textwrap.wrap(_plain(sample.instruction), max(20, width // 7))[:4], f"{_plain(sample.id)}: {about}"]
    canvas = Image.new("RGB", (width, LINE * len(lines) + 6))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    for row, line in enumerate(lines):
        draw.text((4, 2 + LINE * row), line, (255, 255, 255) if row < len(lines) - 1 else (150, 150, 150), font)
    return np.asarray(canvas)


def _plain(text: str) -> str:
    """The font at hand has no accents, nor other scripts."""
    letters = unicodedata.normalize("NFKD", text)
    return "".join(c for c in letters if not unicodedata.combining(c)).encode("ascii", "replace").decode()
