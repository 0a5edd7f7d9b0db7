"""Footage that lies in memory, and samples about it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from unit.known_answers import BLUE, RED

from instructseg.data.samples import Footage, Kind, Sample, Truth, Truths

COLOURS = {"red": RED, "blue": BLUE}


@dataclasses.dataclass(eq=False)
class DrawnVideo(Footage):
    """images ``(T, H, W, 3)`` uint8; masks ``(T, H, W)`` bool by colour."""

    name: str
    frames: tuple[str, ...]
    images: np.ndarray
    masks: dict[str, np.ndarray]

    def read(self, index: int) -> np.ndarray:
        return self.images[index]


@dataclasses.dataclass(eq=False)
class DrawnTruths(Truths):
    masks: np.ndarray

    def __call__(self, index: int) -> Truth:
        return Truth(self.masks[index][None])


def drawn_video(count: int) -> DrawnVideo:
    """Two squares on grey that move by a pixel a frame, 48 x 64 pixels."""
    images = np.full((count, 48, 64, 3), 127, np.uint8)
    masks = {name: np.zeros(images.shape[:3], bool) for name in COLOURS}
    for t in range(count):
        masks["red"][t, 4:20, 2 + t : 14 + t] = True
        masks["blue"][t, 26:40, 50 - t : 62 - t] = True
    for name, mask in masks.items():
        images[mask] = COLOURS[name]
    return DrawnVideo("drawn", tuple(str(t) for t in range(count)), images, masks)


def sample_about(
    video: DrawnVideo, text: str, kind: Kind = Kind.REFERRING, extra: dict[str, Any] | None = None, truth: str = "red"
) -> Sample:
    return Sample(text, video, text, ("1",), DrawnTruths(video.masks[truth]), kind, expression="0", extra=extra or {})
