"""RefCOCO, RefCOCO+ and RefCOCOg: phrases for single things in COCO images (Kazemzadeh 2014, Yu 2016, Mao 2016), and
RefCLEF on SAIAPR images, which several systems train on; as the ``refer`` repository lays them out.

``<root>/<name>/refs(<by>).p`` and ``instances.json``; images in ``<root>/images/mscoco/images/train2014``. The split
of RefCOCOg is UMD's, which keeps images of training out of the others; Google's comes as ``google-train`` and
``google-val``.
"""

from __future__ import annotations

from pathlib import Path

from ..samples import Benchmark, Dataset, NotOnDisk
from .plain_pickles import read_plain_pickle
from .references import COCO_2014, ReferringImages, image_folder, parse_references


def open_refcoco(root: Path, split: str) -> Dataset:
    return _open(root, "refcoco", "unc", split)


def open_refcoco_plus(root: Path, split: str) -> Dataset:
    return _open(root, "refcoco+", "unc", split)


def open_refcocog(root: Path, split: str) -> Dataset:
    by, _, rest = split.rpartition("-")
    return _open(root, "refcocog", by or "umd", rest)


def open_refclef(root: Path, split: str) -> Dataset:
    return _open(root, "refclef", "unc", split, ("images/saiapr_tc-12", "saiapr_tc-12"))


def _open(root: Path, name: str, by: str, split: str, images: tuple[str, ...] = COCO_2014) -> Dataset:
    """Raises BadInput naming file and key."""
    path = root / name / f"refs({by}).p"
    if not path.exists():
        raise NotOnDisk(f"{path} is missing")
    references = parse_references(read_plain_pickle(path), split, path, several=False)
    return ReferringImages(root / name, references, image_folder(root, images))


def _counts(**splits: tuple[int, ...]) -> dict[str, dict[str, int]]:
    """References and images as the catalogue of TensorFlow Datasets lists them (tensorflow.org/datasets/catalog/
    ref_coco); expressions of RefCOCO as FlagEval does (flageval.baai.ac.cn, visual grounding)."""
    names = ("references", "images", "expressions")
    return {split: dict(zip(names, numbers, strict=False)) for split, numbers in splits.items()}


_UNC = ("train", "val", "testA", "testB")
_SHARED = {"video": False, "metric": "ciou", "where": "github.com/lichengunc/refer; images: cocodataset.org"}
_LICENCE = "the repository is Apache-2.0; COCO's images keep their Flickr licences"
_READER = f"{__name__}:"

BENCHMARKS = (
    Benchmark(
        name="refcoco",
        title="RefCOCO: short phrases for one thing in an image",
        reader=_READER + "open_refcoco",
        splits=_UNC,
        licence=_LICENCE,
        counts=_counts(
            train=(42404, 16994, 120624), val=(3811, 1500, 10834), testA=(1975, 750, 5657), testB=(1810, 750, 5095)
        ),
        local=_UNC,
        marks=("refcoco/refs(unc).p",),
        **_SHARED,
    ),
    Benchmark(
        name="refcoco+",
        title="RefCOCO+: phrases without words of place",
        reader=_READER + "open_refcoco_plus",
        splits=_UNC,
        licence=_LICENCE,
        counts=_counts(train=(42278, 16992), val=(3805, 1500), testA=(1975, 750), testB=(1798, 750)),
        local=_UNC,
        marks=("refcoco+/refs(unc).p",),
        **_SHARED,
    ),
    Benchmark(
        name="refcocog",
        title="RefCOCOg: longer descriptions",
        reader=_READER + "open_refcocog",
        splits=("train", "val", "test", "google-train", "google-val"),
        licence=_LICENCE,
        counts={
            **_counts(train=(42226, 21899), val=(2573, 1300), test=(5023, 2600)),
            **_counts(**{"google-train": (44822, 24698), "google-val": (5000, 4650)}),
        },
        local=("train", "val", "test", "google-train", "google-val"),
        marks=("refcocog/refs(umd).p", "refcocog/refs(google).p"),
        **_SHARED,
    ),
    Benchmark(
        name="refclef",
        title="RefCLEF: phrases for regions of SAIAPR images, for training",
        reader=_READER + "open_refclef",
        splits=("train", "val"),
        licence="the repository is Apache-2.0; the images have terms of their own",
        local=("train", "val"),
        marks=("refclef/refs(unc).p",),
        **_SHARED | {"where": "github.com/lichengunc/refer; images: ImageCLEF, SAIAPR TC-12"},
    ),
)
