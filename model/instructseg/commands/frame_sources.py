"""Frames from a video file, an image, or a sequence of images, with stamps; every fault names the file."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import cv2
import numpy as np

from ..core import BadInput, Frame

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


@dataclasses.dataclass(frozen=True)
class SourceFrame:
    """One frame, its index in the source (skipped frames count) and the file it came from."""

    index: int
    frame: Frame
    path: Path


@dataclasses.dataclass(frozen=True)
class ImageSource:
    """One or several images. rate: frames per second of a sequence; every: take each N-th."""

    paths: tuple[Path, ...]
    rate: float = 15.0
    every: int = 1

    @property
    def still(self) -> bool:
        return len(self.paths) == 1

    @property
    def count(self) -> int | None:
        """Number of frames that come; None where the file does not tell."""
        return len(range(0, len(self.paths), self.every))

    def frames(self) -> Iterator[SourceFrame]:
        first: Frame | None = None
        for index in range(0, len(self.paths), self.every):
            path = self.paths[index]
            frame = _frame(read_image(path), round(index / self.rate * 1e9), path)
            first = first or frame
            if frame.size != first.size:
                (h, w), (h0, w0) = frame.size, first.size
                raise BadInput(f"{path} is {w} x {h}, the first image {w0} x {h0}: give images of one size at a time")
            yield SourceFrame(index, frame, path)


@dataclasses.dataclass(frozen=True)
class VideoSource:
    """A video file; stamps are the stream's own presentation times."""

    path: Path
    every: int = 1
    still: bool = False

    @property
    def count(self) -> int | None:
        with _open_video(self.path) as container:
            frames = container.streams.video[0].frames
        return len(range(0, frames, self.every)) if frames else None

    def frames(self) -> Iterator[SourceFrame]:
        with _open_video(self.path) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            rate = float(stream.average_rate or 25)
            index = -1
            try:
                for index, picture in enumerate(container.decode(stream)):
                    if index % self.every == 0:
                        seconds = index / rate if picture.time is None else picture.time
                        yield SourceFrame(index, _frame(_upright(picture), round(seconds * 1e9), self.path), self.path)
            except av.error.FFmpegError as error:
                if index < 0:
                    raise BadInput(f"{self.path} cannot be decoded as a video: {error.strerror}") from error
                raise BadInput(f"{self.path} is damaged after frame {index}: {error.strerror}") from error
            if index < 0:
                raise BadInput(f"{self.path} holds no frame: give a video with at least one")


FrameSource = ImageSource | VideoSource


def open_source(paths: Sequence[Path], rate: float = 15.0, every: int = 1) -> FrameSource:
    """The source that the paths name: a folder or files of images (in natural order of their names), or one video.

    Raises BadInput for a path that does not exist, a folder without images, a mixture, a file that is no video.
    """
    for path in paths:
        if not path.exists():
            raise BadInput(f"{path} does not exist; give a video, images or a folder of images")
    if len(paths) == 1 and paths[0].is_dir():
        images = [p for p in paths[0].iterdir() if _is_image(p)]
        if not images:
            raise BadInput(f"the folder {paths[0]} holds no images; known are {' '.join(IMAGE_SUFFIXES)}")
        return _images(images, rate, every)
    if all(_is_image(path) for path in paths):
        return _images(paths, rate, every)
    odd = next(path for path in paths if not _is_image(path))
    if len(paths) > 1:
        what = "a folder" if odd.is_dir() else "no image"
        raise BadInput(f"{odd} is {what}; several inputs must all be images ({' '.join(IMAGE_SUFFIXES)})")
    with _open_video(odd):
        return VideoSource(odd, every)


def natural_order(paths: Sequence[Path]) -> tuple[Path, ...]:
    """Sorted so that frame2 comes before frame10."""
    return tuple(sorted(paths, key=lambda p: [(len(s), s) if s.isdigit() else (0, s) for s in _parts(p)]))


def read_image(path: Path) -> np.ndarray:
    """``(H, W, 3)`` uint8 RGB. Raises BadInput naming the file."""
    try:
        image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error) as error:
        raise BadInput(f"{path} cannot be read as an image: {error}") from error
    if image is None:
        raise BadInput(f"{path} is not an image that can be decoded, or is cut off")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _images(paths: Sequence[Path], rate: float, every: int) -> ImageSource:
    """The sequence; its first image is looked at now, before a model is loaded for it."""
    source = ImageSource(natural_order(paths), rate, every)
    next(source.frames())
    return source


def _parts(path: Path) -> list[str]:
    return [part.lstrip("0") or "0" if part.isdigit() else part for part in re.split(r"([0-9]+)", str(path))]


def _is_image(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def _frame(image: np.ndarray, stamp_ns: int, path: Path) -> Frame:
    try:
        return Frame(image, stamp_ns)
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None


def _open_video(path: Path) -> av.container.InputContainer:
    if path.is_dir():
        raise BadInput(f"{path} is a folder, a video or images are needed")
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadInput(f"{path} cannot be opened as a video or an image: {reason}") from error
    if not container.streams.video:
        container.close()
        raise BadInput(f"{path} holds no video stream; give a video, images or a folder of images")
    return container


def _upright(picture: av.VideoFrame) -> np.ndarray:
    """The picture as people see it: phones store how they were held beside the pixels."""
    turns = round(picture.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(picture.to_ndarray(format="rgb24"), turns))
