"""gRefCOCO: phrases for one, several or no things in an image (GRES, Liu 2023).

``<root>/grefcoco/grefs(unc).json`` and ``instances.json``; images as RefCOCO. ``ann_id`` is a list, ``[-1]`` where
nothing is meant.
"""

from __future__ import annotations

from pathlib import Path

from ..samples import Benchmark, Dataset
from .json_files import read_json
from .references import ReferringImages, image_folder, parse_references


def open_grefcoco(root: Path, split: str) -> Dataset:
    """Raises BadInput naming file and key."""
    path = root / "grefcoco" / "grefs(unc).json"
    references = parse_references(read_json(path), split, path, several=True)
    return ReferringImages(root / "grefcoco", references, image_folder(root))


BENCHMARKS = (
    Benchmark(
        name="grefcoco",
        title="gRefCOCO: phrases for one, several or no things",
        reader=f"{__name__}:open_grefcoco",
        splits=("train", "val", "testA", "testB"),
        video=False,
        metric="gres",
        licence="the repository states its terms; COCO's images keep their Flickr licences",
        where="github.com/henghuiding/gRefCOCO; images: cocodataset.org",
        counts={"val": {"images": 1500}, "testA": {"images": 750}, "testB": {"images": 750}},
        local=("train", "val", "testA", "testB"),
        marks=("grefcoco/grefs(unc).json",),
    ),
)
