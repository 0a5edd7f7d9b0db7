"""COCO as a semantic set: one sample for each class in each image, its mask the union of the class's annotations.

``<root>/annotations/instances_<split><year>.json`` and ``<root>/<split><year>/*.jpg``; COCO-Stuff's classes lie beside
them in ``stuff_<split>2017.json``. The instruction is the class's name; templates around it belong to the recipes. What
is crowded together (``iscrowd``) belongs to its class.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...core import BadInput
from ..samples import Benchmark, Dataset, Kind, NotOnDisk, Sample
from .coco_index import CocoTruth, open_index
from .image_files import one_image

NOT_A_CLASS = "other"  # COCO-Stuff's name for all that is a thing


class CocoSemantic(Dataset):
    """Pairs of an image and a class in it, ordered by image and class."""

    def __init__(self, annotations: Path, images: Path) -> None:
        """Raises BadInput naming file and key."""
        self.index, self.images = open_index(annotations), images
        if not images.is_dir():
            raise BadInput(f"{images} is missing: the images of {annotations.name}")
        if not self.index.categories:
            raise BadInput(f"{annotations} has nothing under 'categories': classes without names")
        index = self.index
        unknown = np.setdiff1d(index.category_of, list(index.categories))
        if unknown.size:
            raise BadInput(f"{annotations}: 'categories' has no id {unknown[0]}, which an annotation uses")
        left_out = [number for number, name in index.categories.items() if name == NOT_A_CLASS]
        rows = np.flatnonzero(~np.isin(index.category_of, left_out))
        self._rows = rows[np.lexsort((rows, index.category_of[rows], index.image_of[rows]))]  # (annotations,)
        image, category = index.image_of[self._rows], index.category_of[self._rows]
        new = np.ones(len(self._rows), bool)
        new[1:] = (image[1:] != image[:-1]) | (category[1:] != category[:-1])
        self._first = np.append(np.flatnonzero(new), len(self._rows))  # of each sample, among the rows

    def __len__(self) -> int:
        return len(self._first) - 1

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        rows = tuple(self._rows[self._first[index] : self._first[index + 1]].tolist())
        image_id, category = int(self.index.image_of[rows[0]]), int(self.index.category_of[rows[0]])
        picture = self.images / self.index.image(image_id).file_name
        name = self.index.categories[category]
        return Sample(
            id=f"{image_id}/{category}",
            footage=one_image(picture),
            instruction=name,
            objects=(name,),
            truth=CocoTruth(self.index, image_id, picture, (rows,)),
            kind=Kind.SEMANTIC,
            expression=str(category),
            extra={"image_id": image_id, "category_id": category, "annotations": self.index.ids[list(rows)].tolist()},
        )


def open_coco(root: Path, split: str) -> Dataset:
    return _open(root, "instances", split)


def open_stuff(root: Path, split: str) -> Dataset:
    return _open(root, "stuff", split)


def _open(root: Path, what: str, split: str) -> Dataset:
    name = split if split[-1].isdigit() else f"{split}2017"
    annotations = root / "annotations" / f"{what}_{name}.json"
    if not annotations.exists():
        raise NotOnDisk(f"{annotations} is missing")
    return CocoSemantic(annotations, root / name)


_LICENCE = "annotations CC BY 4.0; images keep their Flickr licences"

BENCHMARKS = (
    Benchmark(
        name="coco-semantic",
        title="COCO: the 80 classes of things as semantic masks",
        reader=f"{__name__}:open_coco",
        splits=("train", "val", "train2014", "val2014"),
        video=False,
        metric="giou",
        licence=_LICENCE,
        where="cocodataset.org",
        local=("train", "val", "train2014", "val2014"),
        marks=tuple(f"annotations/instances_{name}.json" for name in ("train2017", "val2017", "train2014", "val2014")),
    ),
    Benchmark(
        name="coco-stuff",
        title="COCO-Stuff: classes of surfaces and backgrounds as semantic masks",
        reader=f"{__name__}:open_stuff",
        splits=("train", "val"),
        video=False,
        metric="giou",
        licence=_LICENCE,
        where="cocodataset.org (stuff annotations of 2017); github.com/nightrome/cocostuff",
        local=("train", "val"),
        marks=("annotations/stuff_train2017.json", "annotations/stuff_val2017.json"),
    ),
)
