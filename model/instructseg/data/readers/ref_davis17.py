"""Ref-DAVIS17 (Khoreva et al., ACCV 2018) in the form of Ref-YouTube-VOS, as ReferFormer's script converts it.

``meta_expressions/{train,valid}/meta_expressions.json`` and ``{train,valid}/{JPEGImages,Annotations}/<video>``: the
480p frames and the unsupervised annotations of DAVIS 2017, ids from 1, 255 void. Four sets of expressions, scored
apart and averaged: expression ``4 o + a`` is annotator a's about one object (0 and 2 saw the first frame, 1 and 3 the
whole video).
"""

from __future__ import annotations

from pathlib import Path

from ...core import BadInput
from ..samples import Benchmark, Dataset, Sample
from .label_truths import VOID, LabelTruths
from .sample_list import SampleList
from .video_index import Expression, known_split, read_videos, require, video_samples

SPLITS = ("train", "valid")
TITLE = "Ref-DAVIS17"
ANNOTATORS = 4

BENCHMARKS = (
    Benchmark(
        name="ref-davis17",
        title=TITLE,
        reader=f"{__name__}:open_split",
        splits=SPLITS,
        video=True,
        metric="davis_objects",
        licence="terms on the pages of DAVIS and of the expressions",
        where="https://davischallenge.org/davis2017/code.html (Unsupervised-trainval-480p); expressions: "
        "https://www.mpi-inf.mpg.de, Video Object Segmentation with Language Referring Expressions",
        counts={"train": {"videos": 60}, "valid": {"videos": 30}},  # DAVIS 2017, arXiv 1704.00675
        local=SPLITS,
        marks=("valid/Annotations/blackswan", "train/Annotations/bear"),
        shared_marks=("meta_expressions/train/meta_expressions.json", "meta_expressions/valid/meta_expressions.json"),
    ),
)


def open_split(root: Path, split: str) -> Dataset:
    known_split(split, SPLITS, TITLE)
    index = f"meta_expressions/{split}/meta_expressions.json"
    require(root, TITLE, index, f"{split}/JPEGImages", f"{split}/Annotations")
    annotations = root / split / "Annotations"

    def make(found: Expression) -> Sample:
        number = found.number("obj_id", 1, VOID - 1)
        if not found.key.isdecimal():
            raise BadInput(f"{found.where}: the keys of expressions are whole numbers; their annotator is key % 4")
        footage = found.footage
        truths = LabelTruths(footage, annotations / footage.name, (number,), frozenset(footage.frames), VOID)
        extra = {"annotator": int(found.key) % ANNOTATORS}
        return Sample(found.id, footage, found.words(), (str(number),), truths, expression=found.key, extra=extra)

    path = root / index
    return SampleList("ref-davis17", split, video_samples(path, read_videos(path), root / split / "JPEGImages", make))
