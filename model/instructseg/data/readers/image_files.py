"""Images on disk as footage: one file, or the files of a video in order. Nothing is read before it is looked at."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image

from ...core import BadInput
from ..samples import Footage


@dataclasses.dataclass(frozen=True, eq=False)
class ImageFiles(Footage):
    """``paths[i]`` holds the frame called ``frames[i]``. All frames have one size in the benchmarks; not checked."""

    name: str
    frames: tuple[str, ...]
    paths: tuple[Path, ...]

    def __post_init__(self) -> None:
        if len(self.frames) != len(self.paths) or not self.paths:
            raise BadInput(
                f"footage {self.name!r} has {len(self.frames)} frame names and {len(self.paths)} files; both must be "
                "equally many, and at least one"
            )

    def read(self, index: int) -> np.ndarray:
        return read_rgb(self.paths[index])

    def missing(self) -> list[str]:
        return [str(path) for path in self.paths if not path.is_file()]


def one_image(path: Path) -> ImageFiles:
    """The footage of a single image, named by its file without the suffix."""
    return ImageFiles(path.stem, (path.stem,), (path,))


def read_rgb(path: Path) -> np.ndarray:
    """``(H, W, 3)`` uint8 RGB, the pixels as stored: the orientation that EXIF may give is not applied, because
    annotations count pixels of the file. Raises BadInput for a missing, cut off or foreign file."""
    with _opened(path) as image:
        if image.mode.startswith(("I", "F")):
            raise BadInput(f"{path} has pixels of kind {image.mode} (more than 8 bits); an 8-bit image is needed")
        return np.asarray(_decoded(path, image, "RGB"))


def read_labels(path: Path) -> np.ndarray:
    """``(H, W)`` integers of a label image: indices of a palette image, or grey values, never colours.

    Raises BadInput for a missing, cut off or foreign file and for one with several channels.
    """
    with _opened(path) as image:
        if len(image.getbands()) > 1:
            raise BadInput(f"{path} is a {image.mode} image; a label image has one channel (palette or grey)")
        return np.asarray(_decoded(path, image, "L" if image.mode == "1" else image.mode))


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) from the header alone. Raises BadInput naming the file."""
    with _opened(path) as image:
        return image.height, image.width


def _opened(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except FileNotFoundError:
        raise BadInput(f"{path} is missing") from None
    except Exception as error:  # decoders raise whatever a broken header leads them to
        raise BadInput(f"{path} cannot be opened as an image: {_reason(error)}") from error


def _decoded(path: Path, image: Image.Image, mode: str) -> Image.Image:
    try:
        image.load()
        return image if image.mode == mode else image.convert(mode)
    except Exception as error:  # as above
        raise BadInput(f"{path} cannot be decoded; it is damaged or cut off: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return f"{type(error).__name__} ({text})" if text else type(error).__name__
