"""MeViS (Ding et al., ICCV 2023; with expressions without target: TPAMI 2025): motion expressions.

``{train,valid_u,valid}/{JPEGImages/<video>/*.jpg, meta_expressions.json}`` and ``{train,valid_u}/mask_dict.json``,
run lengths of each annotation and frame. An expression names any number of annotations. Truth of ``valid`` is on the
server; ``valid_u`` is scored locally, but VideoLISA trained on a part of it.
"""

from __future__ import annotations

from pathlib import Path

from ...core import BadInput
from ..samples import Benchmark, Dataset, Kind, Sample
from .rle_files import RleFile, RleTruths
from .sample_list import SampleList
from .video_index import Expression, known_split, read_videos, require, video_samples

SPLITS = ("train", "valid_u", "valid")
LOCAL = ("train", "valid_u")
TITLE = "MeViS"
INDEX, INDEX_2024 = "meta_expressions.json", "meta_expressions_v2.json"

BENCHMARKS = (
    Benchmark(
        name="mevis",
        title=TITLE,
        reader=f"{__name__}:open_split",
        splits=SPLITS,
        video=True,
        metric="region_boundary",
        licence="CC BY-NC-SA 4.0, non-commercial research only",
        where="https://henghuiding.github.io/MeViS/",
        counts={"train": {"videos": 1662}, "valid_u": {"videos": 50}, "valid": {"videos": 140}},
        local=LOCAL,
        marks=("valid_u/mask_dict.json", "train/mask_dict.json"),
        shared_marks=("train/meta_expressions.json", "valid_u/meta_expressions.json", "valid/meta_expressions.json"),
    ),
)


def open_split(root: Path, split: str) -> Dataset:
    known_split(split, SPLITS, TITLE)
    # The release of 2024 calls its file so.
    index = INDEX_2024 if (root / split / INDEX_2024).is_file() and not (root / split / INDEX).is_file() else INDEX
    needed = [f"{split}/{index}", f"{split}/JPEGImages", *([f"{split}/mask_dict.json"] if split in LOCAL else [])]
    require(root, TITLE, *needed)
    masks = RleFile(root / split / "mask_dict.json") if split in LOCAL else None

    def make(found: Expression) -> Sample:
        if masks is None:
            return Sample(found.id, found.footage, found.words(), (), None, expression=found.key)
        annotations, objects = found.ids("anno_id"), found.ids("obj_id")
        if len(objects) != len(annotations):
            raise BadInput(f"{found.where}: 'obj_id' has {len(objects)} entries, 'anno_id' {len(annotations)}")
        keys = tuple(str(number) for number in annotations)
        kind = Kind.REFERRING if keys else Kind.NO_TARGET
        truths = RleTruths(found.footage, masks, keys)
        extra = {"obj_id": objects}
        return Sample(found.id, found.footage, found.words(), keys, truths, kind, expression=found.key, extra=extra)

    path = root / split / index
    return SampleList("mevis", split, video_samples(path, read_videos(path), root / split / "JPEGImages", make))
