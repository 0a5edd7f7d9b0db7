"""ReasonVOS (Bai et al., NeurIPS 2024, with VideoLISA): expressions that need reasoning; for evaluation only.

``meta_expressions.json`` (the expressions are a list), ``JPEGImages/<video>/*.jpg`` and
``Annotations/<source>_<video>_<obj_id>/*.png``: grey, all but 0 is the object; its expressions share them. As
published, the frames with such a file are those that are scored.
"""

from __future__ import annotations

from pathlib import Path

from ...core import BadInput
from ..samples import Benchmark, Dataset, Kind, Sample
from .label_truths import OneObjectTruths
from .sample_list import SampleList
from .video_index import Expression, known_split, read_videos, require, video_samples

SPLITS = ("test",)
TITLE = "ReasonVOS"
INDEX = "meta_expressions.json"

BENCHMARKS = (
    Benchmark(
        name="reasonvos",
        title=TITLE,
        reader=f"{__name__}:open_split",
        splits=SPLITS,
        video=True,
        metric="region_boundary",
        licence="non-commercial research only",
        where="link in BENCHMARK.md of the VideoLISA repository",
        counts={"test": {"videos": 91, "expressions": 458}},
        local=SPLITS,
        marks=("Annotations/*_*_*",),
    ),
)


def open_split(root: Path, split: str) -> Dataset:
    known_split(split, SPLITS, TITLE)
    require(root, TITLE, INDEX, "JPEGImages", "Annotations")

    def make(found: Expression) -> Sample:
        video, source = found.footage.name, found.video.get("source")
        if not isinstance(source, str) or not source.isalnum():
            raise BadInput(f"{root / INDEX}: videos[{video!r}]['source'] must name a data set; got {source!r}")
        number = found.number("obj_id", 0, 2**31)
        key = str(found.number("exp_id", 0, 2**31))
        sentence = found.entry.get("is_sent")
        if not isinstance(sentence, (bool, int)) or sentence not in (0, 1):
            raise BadInput(f"{found.where}['is_sent'] must be true or false; got {sentence!r}")
        folder = root / "Annotations" / f"{source}_{video}_{number}"
        truths = OneObjectTruths(found.footage, folder)
        return Sample(
            f"{video}/{key}", found.footage, found.words("exp_text"), (str(number),), truths, Kind.REASONING,
            bool(sentence), key, {"source": source, "folder": folder.name},
        )  # fmt: skip

    path = root / INDEX
    return SampleList("reasonvos", split, video_samples(path, read_videos(path), root / "JPEGImages", make))
