"""Ref-YouTube-VOS (Seo et al., ECCV 2020): expressions about objects of YouTube-VOS.

``meta_expressions/{train,valid,test}/meta_expressions.json``, ``{train,valid,test}/JPEGImages/<video>/*.jpg``,
``train/Annotations/<video>/*.png`` (palette; the value is the object's id) and ``train/meta.json``. The valid file
also lists the test videos; they are taken out. Truth of valid and test is on the server.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...core import BadInput
from ..samples import Benchmark, Dataset, Sample
from .label_truths import LabelTruths
from .sample_list import SampleList
from .video_index import Expression, known_split, read_videos, require, video_samples

SPLITS = ("train", "valid", "test")
TITLE = "Ref-YouTube-VOS"
LARGEST_ID = 254
INDEX = "meta_expressions/{}/meta_expressions.json"

BENCHMARKS = (
    Benchmark(
        name="ref-youtube-vos",
        title=TITLE,
        reader=f"{__name__}:open_split",
        splits=SPLITS,
        video=True,
        metric="region_boundary",
        licence="terms on its page",
        where="https://youtube-vos.org/dataset/rvos/",
        counts={"valid": {"videos": 202}, "test": {"videos": 305}},
        local=("train",),
        marks=("meta_expressions/test/meta_expressions.json",),
        shared_marks=("meta_expressions/train/meta_expressions.json", "meta_expressions/valid/meta_expressions.json"),
    ),
)


def open_split(root: Path, split: str) -> Dataset:
    known_split(split, SPLITS, TITLE)
    path = root / INDEX.format(split)
    needed = {"train": ("train/meta.json", "train/Annotations"), "valid": (INDEX.format("test"),), "test": ()}
    require(root, TITLE, INDEX.format(split), f"{split}/JPEGImages", *needed[split])
    videos = read_videos(path)
    if split == "valid":
        tested = read_videos(root / INDEX.format("test"))
        videos = {name: entry for name, entry in videos.items() if name not in tested}
    make = _answers(root) if split == "train" else _question
    return SampleList("ref-youtube-vos", split, video_samples(path, videos, root / split / "JPEGImages", make))


def _question(found: Expression) -> Sample:
    """The truth is on the server: nobody here knows which object is meant."""
    return Sample(found.id, found.footage, found.words(), (), None, expression=found.key)


def _answers(root: Path) -> Callable[[Expression], Sample]:
    meta = root / "train/meta.json"
    videos = read_videos(meta)

    def make(found: Expression) -> Sample:
        video = found.footage.name
        number = found.number("obj_id", 1, LARGEST_ID)
        objects = videos.get(video, {}).get("objects")
        if not isinstance(objects, dict) or str(number) not in objects:
            known = ", ".join(objects) if isinstance(objects, dict) else "none"
            raise BadInput(f"{found.where}['obj_id'] is {number}; objects of that video in {meta}: {known}")
        in_view = seen_in(objects[str(number)], f"{meta}: videos[{video!r}]['objects'][{str(number)!r}]")
        truths = LabelTruths(found.footage, root / "train/Annotations" / video, (number,), in_view)
        return Sample(found.id, found.footage, found.words(), (str(number),), truths, expression=found.key)

    return make


def seen_in(entry: Any, where: str) -> frozenset[str]:
    """The frames in which an object of YouTube-VOS's meta.json is in view."""
    frames = entry.get("frames") if isinstance(entry, dict) else None
    if not isinstance(frames, list) or not frames or not all(isinstance(frame, str) for frame in frames):
        raise BadInput(f"{where}['frames'] must list the frames in which the object is in view")
    return frozenset(frames)
