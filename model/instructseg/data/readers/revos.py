"""ReVOS (Yan et al., ECCV 2024, with VISA): referring and reasoning expressions, and such that name what is not there.

``JPEGImages/<video>/*.jpg``, ``meta_expressions_{train,valid}_.json``, ``mask_dict.json`` (run lengths of each
annotation and frame) and ``mask_dict_foreground.json``: for each video and frame all annotated objects together, by
which the robustness R divides. Scores are sorted by ``type_id``, masks come from ``anno_id``, as in the published
script; where the two disagree on whether there is a target, ``instructseg data check`` says so.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from ..samples import Benchmark, Dataset, Kind, Sample
from .image_files import image_size
from .rle_files import RleFile, RleTruths
from .sample_list import SampleList
from .video_index import Expression, known_split, read_videos, require, video_samples

SPLITS = ("train", "valid")
TITLE = "ReVOS"
KINDS = (Kind.REFERRING, Kind.REASONING, Kind.NO_TARGET)  # by type_id
MASKS, FOREGROUND = "mask_dict.json", "mask_dict_foreground.json"

BENCHMARKS = (
    Benchmark(
        name="revos",
        title=TITLE,
        reader=f"{__name__}:open_split",
        splits=SPLITS,
        video=True,
        metric="revos",
        licence="CC BY-NC-SA 4.0, non-commercial",
        where="the repository ReVOS-api of its authors",
        local=SPLITS,
        marks=(FOREGROUND, "meta_expressions_valid_.json"),
        shared_marks=("meta_expressions_train_.json",),
    ),
)


@dataclasses.dataclass(frozen=True, eq=False)
class RevosTruths(RleTruths):
    """The masks of a sample, and what is annotated in its frames besides."""

    all_masks: RleFile

    def foreground(self, index: int) -> np.ndarray:
        """``(H, W)`` bool: all annotated objects of the video on frame ``index``, whether the sample names them or
        not. Raises BadInput naming the file."""
        height, width = image_size(self.footage.paths[index])
        return self.all_masks.mask(self.footage.name, index, len(self.footage), height, width)


def open_split(root: Path, split: str) -> Dataset:
    known_split(split, SPLITS, TITLE)
    index = f"meta_expressions_{split}_.json"
    require(root, TITLE, index, "JPEGImages", MASKS, FOREGROUND)
    masks, foreground = RleFile(root / MASKS), RleFile(root / FOREGROUND)

    def make(found: Expression) -> Sample:
        kind = KINDS[found.number("type_id", 0, len(KINDS) - 1)]
        keys = tuple(str(number) for number in found.ids("anno_id"))
        truths = RevosTruths(found.footage, masks, keys, foreground)
        extra = {"type_id": KINDS.index(kind)}
        return Sample(found.id, found.footage, found.words(), keys, truths, kind, expression=found.key, extra=extra)

    path = root / index
    return SampleList("revos", split, video_samples(path, read_videos(path), root / "JPEGImages", make))
