"""Videos of moving rectangles as footage and samples: what is in view, annotated or broken is said by the test."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from unit.miniature_videos import draw_video

from instructseg.data.samples import Footage, Sample, Truth, Truths

Size = tuple[int, int]


class Film(Footage):
    """A miniature video. sizes: of frames that have another size than the others."""

    def __init__(self, name: str, count: int = 9, sizes: Mapping[int, Size] | None = None) -> None:
        self.video, self.sizes = draw_video(name, count), sizes or {}
        self.video.images[..., 2] = 8 * np.arange(count)[:, None, None]  # no two frames are alike
        self.name, self.frames = name, self.video.frames

    def read(self, index: int) -> np.ndarray:
        image = self.video.images[index]
        return np.resize(image, (*self.sizes[index], 3)) if index in self.sizes else image


@dataclasses.dataclass(frozen=True, eq=False)
class FilmTruth(Truths):
    """visible: frames on which the objects are in view, annotated: those with an annotation; None: all. size: of the
    masks, where it is not that of the frames."""

    film: Film
    objects: tuple[int, ...]
    visible: tuple[int, ...] | None = None
    annotated: tuple[int, ...] | None = None
    size: Size | None = None

    def __call__(self, index: int) -> Truth | None:
        if self.annotated is not None and index not in self.annotated:
            return None
        shape = self.size or self.film.sizes.get(index) or self.film.video.images.shape[1:3]
        masks = [np.resize(self.film.video.masks[number][index], shape) for number in self.objects]
        shown = self.visible is None or index in self.visible
        return Truth(np.stack(masks) & shown if masks else np.zeros((0, *shape), bool))


def about(
    words: str = "the Red thing",
    film: Film | None = None,
    objects: tuple[int, ...] = (1,),
    truth: Mapping[str, Any] | None = None,
    **more: Any,
) -> Sample:
    """A sample about a film. truth: how it differs from all objects in view and annotated on all frames."""
    film = film or Film("film")
    names = tuple(map(str, objects))
    return Sample(f"{film.name}/{words}", film, words, names, FilmTruth(film, objects, **truth or {}), **more)
