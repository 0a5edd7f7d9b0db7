"""Pictures of the worst samples, worst first: what was asked, what is right, what was given."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ...core import BadInput
from ...data.samples import Dataset, Sample
from .masks import decode_mask
from .metrics import Judged
from .predictions import Prediction

HEIGHT, LINE, FRAMES, LEAST_WIDTH, GAP = 240, 18, 4, 480, 4
RIGHT_ENOUGH = 1e-3  # the metrics themselves put a perfect mask a hair below 1
RIGHT, GIVEN, BOTH = (60, 230, 60), (255, 60, 60), (255, 200, 40)


def save_worst(
    folder: Path, dataset: Dataset, judged: Sequence[Judged], predictions: Mapping[int, Prediction], count: int = 20
) -> list[Path]:
    """One PNG each, numbered from the worst; samples that are right, or cannot be read, have none."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("worst_[0-9][0-9][0-9].png"):  # of an earlier call, whose worst were others
        old.unlink()
    paths: list[Path] = []
    for one in sorted((j for j in judged if j.error > RIGHT_ENOUGH), key=lambda j: -j.error):
        if len(paths) == count:
            break
        try:
            picture = draw_answer(dataset[one.index], predictions.get(one.index), one.error)
        except BadInput:
            continue
        paths.append(folder / f"worst_{len(paths) + 1:03d}.png")
        Image.fromarray(picture).save(paths[-1])
    return paths


def draw_answer(sample: Sample, prediction: Prediction | None, error: float) -> np.ndarray:
    """``(h, w, 3)`` uint8 RGB: up to four frames evenly over the footage; the truth as a green line, the answer in red,
    right pixels of it in yellow. Raises BadInput naming the file."""
    indices = np.unique(np.linspace(0, len(sample.footage) - 1, FRAMES).round().astype(int))
    tiles = [np.pad(_tile(sample, prediction, int(index)), ((0, 0), (0, GAP), (0, 0))) for index in indices]
    row = np.hstack(tiles)[:, :-GAP]
    row = np.pad(row, ((0, 0), (0, max(0, LEAST_WIDTH - row.shape[1])), (0, 0)))
    return np.vstack([row, _words(sample, prediction, error, row.shape[1])])


def _tile(sample: Sample, prediction: Prediction | None, index: int) -> np.ndarray:
    image = sample.footage.read(index)
    truth = sample.truth(index) if sample.truth is not None else None
    wanted = np.zeros(image.shape[:2], bool) if truth is None else truth.union
    given = np.zeros(image.shape[:2], bool)
    if prediction is not None and len(prediction.masks) == len(sample.footage):
        given = decode_mask(prediction.masks[index], given.shape, f"prediction of {sample.id}")
    shown = image.copy()
    for mask, colour in ((given & ~wanted, GIVEN), (given & wanted, BOTH)):
        shown[mask] = (image[mask] * 0.45 + np.array(colour) * 0.55).astype(np.uint8)
    width = max(1, round(image.shape[1] * HEIGHT / image.shape[0]))
    smaller = cv2.INTER_NEAREST if image.shape[0] < HEIGHT else cv2.INTER_AREA
    tile = cv2.resize(shown, (width, HEIGHT), interpolation=smaller)
    outline = cv2.resize(wanted.astype(np.uint8), (width, HEIGHT), interpolation=cv2.INTER_NEAREST)
    lines, _ = cv2.findContours(outline, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(tile, lines, -1, RIGHT, 1)
    return tile


def _words(sample: Sample, prediction: Prediction | None, error: float, width: int) -> np.ndarray:
    if prediction is None:
        answer = "no prediction"
    elif prediction.error:
        answer = f"failed: {prediction.error[:80]}"
    else:
        answer = "refused" if prediction.refused else f"score {prediction.score:.2f}"
    there = "there" if sample.objects else "not there"
    last = f"{sample.id}: {there}; {answer}; lacks {error:.2f} of a right answer"
    lines = [
        *textwrap.wrap(_plain(sample.instruction), max(20, width // 7))[:4],
        *textwrap.wrap(_plain(last), width // 7),
    ]
    canvas = Image.new("RGB", (width, LINE * len(lines) + 6))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    for row, line in enumerate(lines):
        draw.text((4, 2 + LINE * row), line, (255, 255, 255), font)
    return np.asarray(canvas)


def _plain(text: str) -> str:
    """The font at hand has no accents, nor other scripts."""
    letters = unicodedata.normalize("NFKD", text)
    return "".join(c for c in letters if not unicodedata.combining(c)).encode("ascii", "replace").decode()
