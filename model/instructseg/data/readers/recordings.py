"""A robot's own bags as data: every ``recording.yaml`` under the root, with the bag that it annotates.

The form of the file is described in :mod:`.recording_file`, writing one in :mod:`.recording_writer`. A sample is one
expression over the frames of a split in which it holds; frames are named by their stamps in nanoseconds, and those
without a mask of the same stamp have no truth.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...core import BadInput
from ..samples import Benchmark, Dataset, Footage, NotOnDisk, Sample, Truth, Truths
from .bag_images import BagImages
from .coco_masks import decode_segmentation
from .json_files import read_json
from .recording_file import NAMES, SPLITS, RecordedExpression, RecordingFile, read_recording
from .recording_writer import write_recording
from .sample_list import SampleList
from .video_index import known_split

__all__ = ["BENCHMARKS", "RecordedExpression", "open_split", "write_recording"]
TITLE = "recordings of one's own (rosbag2)"

BENCHMARKS = (
    Benchmark(
        name="recordings",
        title=TITLE,
        reader=f"{__name__}:open_split",
        splits=SPLITS,
        video=True,
        metric="region_boundary",
        licence="your own",
        where="your robot; `recording.yaml` beside a bag, see docs/data.md",
        local=SPLITS,
        marks=(*NAMES, *(f"*/{name}" for name in NAMES)),
    ),
)


@dataclasses.dataclass(frozen=True, eq=False)
class BagFootage(Footage):
    """Some pictures of a bag's image topic, in order of time."""

    name: str
    frames: tuple[str, ...]
    images: BagImages

    def read(self, index: int) -> np.ndarray:
        image = self.images.rgb(int(self.frames[index]))
        if image.shape[:2] != self.images.size:
            raise BadInput(
                f"{self.images.bag}: {self.images.topic} at {self.frames[index]} is {image.shape[1]} x "
                f"{image.shape[0]} pixels, the first picture {self.images.size[1]} x {self.images.size[0]}"
            )
        return image

    def stamp_ns(self, index: int) -> int:
        return int(self.frames[index])

    def missing(self) -> list[str]:
        return [] if self.images.bag.exists() else [str(self.images.bag)]


class RleByStamp:
    """A JSON file ``{stamp: {id: run lengths}}``, parsed when it is first looked at. Can be pickled."""

    def __init__(self, path: Path, size: tuple[int, int]) -> None:
        self.path, self.size = path, size

    def __contains__(self, stamp: int) -> bool:
        return str(stamp) in self._content

    def masks(self, stamp: int, ids: tuple[int, ...]) -> np.ndarray:
        """``(n, H, W)`` bool, one an id."""
        where = f"{self.path}: [{str(stamp)!r}]"
        found = self._content[str(stamp)]
        if not isinstance(found, dict):
            raise BadInput(f"{where} must be an object with run lengths by id; got {type(found).__name__}")
        masks = np.zeros((len(ids), *self.size), bool)
        for mask, number in zip(masks, ids, strict=True):
            runs = found.get(str(number))
            if runs is not None:
                mask[:] = decode_segmentation(runs, *self.size, f"{where}[{str(number)!r}]")
        return masks

    def stamps(self) -> np.ndarray:
        try:
            return np.array(sorted(int(stamp) for stamp in self._content), np.int64)
        except (ValueError, OverflowError) as error:
            raise BadInput(f"{self.path}: keys must be stamps in nanoseconds: {error}") from error

    @functools.cached_property
    def _content(self) -> dict[str, Any]:
        content = read_json(self.path)
        if not isinstance(content, dict):
            raise BadInput(f"{self.path} must be an object with one entry a stamp; got {type(content).__name__}")
        return content

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "size": self.size}


@dataclasses.dataclass(frozen=True, eq=False)
class RecordedTruths(Truths):
    """The masks of some ids where one was recorded, or drawn, for the very stamp of the frame."""

    footage: BagFootage
    masks: BagImages | RleByStamp
    ids: tuple[int, ...]

    def __call__(self, index: int) -> Truth | None:
        stamp = int(self.footage.frames[index])
        if stamp not in self.masks:
            return None
        if isinstance(self.masks, RleByStamp):
            return Truth(self.masks.masks(stamp, self.ids))
        labels = self.masks.labels(stamp)
        if labels.shape != self.footage.images.size:
            height, width = self.footage.images.size
            raise BadInput(
                f"{self.masks.bag}: {self.masks.topic} at {stamp} is {labels.shape[1]} x {labels.shape[0]} pixels, "
                f"the pictures of {self.footage.images.topic} are {width} x {height}"
            )
        return Truth(labels == np.array(self.ids, np.int64)[:, None, None])  # (n, H, W)


def open_split(root: Path, split: str) -> Dataset:
    """Raises BadInput where there is no recording, or one cannot be used, naming file and key."""
    known_split(split, SPLITS, TITLE)
    paths = annotation_files(root)
    samples = [sample for path in paths for sample in _samples(path, root, split)]
    if not samples:
        raise NotOnDisk(f"the {len(paths)} recording(s) under {root} have nothing in the split {split!r}")
    return SampleList("recordings", split, samples)


def annotation_files(root: Path) -> list[Path]:
    """The ``recording.yaml`` (``.yml``, ``.json``) in the root and in all folders below, by name; or the root itself,
    where it is such a file."""
    if root.is_file():
        return [root]
    paths = sorted(path for name in NAMES for path in root.rglob(name))
    if not paths:
        raise BadInput(f"{root} holds no recording: a file {' or '.join(NAMES)} beside a bag is needed")
    return paths


def _samples(path: Path, root: Path, split: str) -> Iterator[Sample]:
    about = read_recording(path)
    intervals = about.splits.get(split, ())
    if not intervals:
        return
    images = BagImages(about.bag, about.image_topic)
    masks = _masks(about, images)
    seconds = (images.stamps - images.stamps[0]) / 1e9
    footages: dict[str, BagFootage] = {}
    name = path.parent.relative_to(root).as_posix() if path.parent != root and not root.is_file() else path.parent.name
    for number, expression in enumerate(about.expressions):
        if expression.start > seconds[-1]:
            raise BadInput(
                f"{path}: expressions[{number}]['from'] is {expression.start:g} s, the pictures of {about.image_topic} "
                f"end after {seconds[-1]:.3f} s"
            )
        for part, (start, end) in enumerate(intervals):
            low, high = max(start, expression.start), min(end, expression.end)
            stamps = images.stamps[(seconds >= low) & (seconds < high)]
            if not len(stamps):
                continue
            key = f"{number}" if len(intervals) == 1 else f"{number}-{part}"
            footage = _footage(name, stamps, images, footages)
            ids = tuple(str(i) for i in expression.objects)
            truths = RecordedTruths(footage, masks, expression.objects)
            extra = {"names": [about.objects[i] for i in expression.objects], "from": low}
            yield Sample(
                f"{name}/{key}", footage, expression.text, ids, truths, expression.kind, expression.is_sentence, key,
                extra | ({"to": high} if high < math.inf else {}),
            )  # fmt: skip


def _footage(name: str, stamps: np.ndarray, images: BagImages, known: dict[str, BagFootage]) -> BagFootage:
    """The pictures with these stamps, shared by the expressions about the same ones. Parts of a recording are named by
    their first and last second."""
    if len(stamps) < len(images):
        first, last = (float(stamp - images.stamps[0]) / 1e9 for stamp in (stamps[0], stamps[-1]))
        name = f"{name}@{first:.3f}-{last:.3f}"
    return known.setdefault(name, BagFootage(name, tuple(str(stamp) for stamp in stamps), images))


def _masks(about: RecordingFile, images: BagImages) -> BagImages | RleByStamp:
    """Raises BadInput where no mask belongs to any picture."""
    if about.mask_file is not None:
        masks: BagImages | RleByStamp = RleByStamp(about.mask_file, images.size)
        stamps, place = masks.stamps(), str(about.mask_file)
    else:
        masks = BagImages(about.mask_bag, about.mask_topic)
        stamps, place = masks.stamps, f"{about.mask_bag}: {about.mask_topic}"
    if not np.isin(stamps, images.stamps).any():
        away = f" (nearest: {nearest_ns(stamps, images.stamps) / 1e9:.6f} s away)" if len(stamps) else ""
        raise BadInput(
            f"{place}: none of {len(stamps)} masks has the stamp of a picture on {about.image_topic}{away}. Masks must "
            "carry the header stamp of the picture that they were made on"
        )
    return masks


def nearest_ns(some: np.ndarray, others: np.ndarray) -> int:
    """The smallest distance between an element of each of two ascending arrays of stamps."""
    after = np.searchsorted(others, some).clip(0, len(others) - 1)
    before = (after - 1).clip(0)
    return int(np.minimum(np.abs(others[after] - some), np.abs(others[before] - some)).min())
