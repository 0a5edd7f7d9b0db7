"""Truth from label images: one PNG a frame whose values (palette indices or grey) are ids of objects."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from ...core import BadInput
from ..samples import Truth, Truths
from .image_files import ImageFiles, image_size, read_labels

VOID = 255  # in DAVIS: pixels that count neither way


@dataclasses.dataclass(frozen=True, eq=False)
class LabelTruths(Truths):
    """``<folder>/<frame>.png``, with the values ``ids`` for the sample's objects.

    needed: names of the frames that must have such a file; others without one have no annotation. void: the value
    that is ignored, if any.
    """

    footage: ImageFiles
    folder: Path
    ids: tuple[int, ...]
    needed: frozenset[str]
    void: int | None = None

    def __call__(self, index: int) -> Truth | None:
        labels = frame_labels(self.footage, self.folder, index, self.needed)
        if labels is None:
            return None
        masks = labels == np.array(self.ids, labels.dtype)[:, None, None]  # (n, H, W)
        ignore = labels == self.void if self.void is not None else None
        return Truth(masks, ignore)


@dataclasses.dataclass(frozen=True, eq=False)
class OneObjectTruths(Truths):
    """``<folder>/<frame>.png``: everything but 0 is the one object of the sample."""

    footage: ImageFiles
    folder: Path

    def __call__(self, index: int) -> Truth | None:
        labels = frame_labels(self.footage, self.folder, index)
        return None if labels is None else Truth(labels[None] != 0)  # (1, H, W)


def frame_labels(
    footage: ImageFiles, folder: Path, index: int, needed: frozenset[str] = frozenset()
) -> np.ndarray | None:
    """``(H, W)`` integers of one frame in the frame's own size, or None where it has no annotation."""
    frame = footage.frames[index]
    path = folder / f"{frame}.png"
    if frame not in needed and not path.is_file():
        if not folder.is_dir():
            raise BadInput(f"the folder of annotations {folder} is missing")
        return None
    labels = read_labels(path)
    same_size(labels.shape, footage, index, path)
    return labels


def same_size(found: tuple[int, ...], footage: ImageFiles, index: int, where: object) -> None:
    """Raises BadInput where a mask of this shape does not fit its frame."""
    height, width = image_size(footage.paths[index])
    if tuple(found) != (height, width):
        raise BadInput(
            f"{where} is {found[1]} x {found[0]} pixels, its frame {footage.paths[index]} is {width} x {height}: "
            "masks and frames are of different releases or were resized"
        )
