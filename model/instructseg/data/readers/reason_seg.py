"""ReasonSeg: questions whose answer is a thing in an image (LISA, Lai 2024).

``<root>/ReasonSeg/{train,val,test}/*.jpg`` with a ``.json`` of the same name; ``explanatory/train.json``. One sample
an image: its first text, as evaluation asks it; all of them are in ``extra["texts"]``, of which training draws.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ...core import BadInput
from ..samples import Benchmark, Dataset, Kind, NotOnDisk, Sample, Truth, Truths
from .image_files import image_size, one_image
from .json_files import read_json

ENCODINGS = ("utf-8", "cp1252")  # some of the published files are not UTF-8
_TARGET, _IGNORED = 1, 255


class ReasonSeg(Dataset):
    """The pairs of a split; a JSON is read when its sample is."""

    def __init__(self, root: Path, split: str) -> None:
        """Raises BadInput where the folder of the split, or everything in it, is missing."""
        self.folder = root / "ReasonSeg" / split
        if not self.folder.is_dir():
            raise NotOnDisk(f"{self.folder} is missing: the split {split!r} of ReasonSeg")
        files = (path for path in self.folder.iterdir() if path.suffix in (".jpg", ".json"))
        self.names = sorted({path.stem for path in files})  # one half of a pair counts, so that its lack is noticed
        if not self.names:
            raise BadInput(f"{self.folder} holds neither .jpg nor .json")
        self.explanations = _explanations(root / "ReasonSeg" / "explanatory" / "train.json") if split == "train" else {}

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        """Raises BadInput naming the JSON and the key."""
        name = self.names[index]
        path, picture = self.folder / f"{name}.json", self.folder / f"{name}.jpg"
        texts, is_sentence, shapes = _annotation(path)
        extra: dict[str, Any] = {"texts": texts}
        if picture.name in self.explanations:
            extra["explanation_query"], extra["explanation"] = self.explanations[picture.name]
        named = any(label == _TARGET for label, _ in shapes)
        return Sample(
            id=name,
            footage=one_image(picture),
            instruction=texts[0],
            objects=("target",) if named else (),
            truth=PaintedTruth(picture, path, shapes, named),
            kind=Kind.REASONING if named else Kind.NO_TARGET,
            is_sentence=is_sentence,
            expression="0",
            extra=extra,
        )


class PaintedTruth(Truths):
    """Polygons painted one over another, the larger first, so that a smaller one within another is seen."""

    def __init__(self, picture: Path, path: Path, shapes: list[tuple[int, np.ndarray]], named: bool) -> None:
        self.picture, self.path, self.shapes, self.named = picture, path, shapes, named

    def __call__(self, frame: int) -> Truth:
        """Raises BadInput where a polygon leads far outside the image."""
        height, width = image_size(self.picture)
        for index, (_, points) in enumerate(self.shapes):
            low, high = points.min(0), points.max(0)
            if (low < (-width, -height)).any() or (high > (2 * width, 2 * height)).any():
                raise BadInput(
                    f"{self.path}: the {index + 1}. polygon leads from {low.tolist()} to {high.tolist()}, far outside "
                    f"{self.picture.name} of {width} x {height}"
                )
        painted = [_fill(np.zeros((height, width), np.uint8), points, 1) for _, points in self.shapes]
        largest_first = np.argsort([-int(part.sum()) for part in painted], kind="stable")
        labels = np.zeros((height, width), np.uint8)
        for index in largest_first:
            labels[painted[index] > 0] = self.shapes[index][0]
        ignored = labels == _IGNORED
        masks = (labels == _TARGET)[None] if self.named else np.zeros((0, height, width), bool)
        return Truth(masks, ignored if ignored.any() else None)


def _fill(canvas: np.ndarray, points: np.ndarray, value: int) -> np.ndarray:
    """Its outline belongs to a polygon."""
    cv2.fillPoly(canvas, [points], value)
    return canvas


def _annotation(path: Path) -> tuple[list[str], bool, list[tuple[int, np.ndarray]]]:
    """Texts, whether they are sentences, and shapes as value and points ``(n, xy)`` int32."""
    content = read_json(path, ENCODINGS)
    if not isinstance(content, dict):
        raise BadInput(f"{path} must hold an object with 'shapes' and 'text'; got {type(content).__name__}")
    texts = content.get("text")
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) and t.strip() for t in texts):
        raise BadInput(f"{path}: 'text' must be a list of at least one text; got {str(texts)[:60]}")
    is_sentence = content.get("is_sentence")
    if not isinstance(is_sentence, bool):
        raise BadInput(f"{path}: 'is_sentence' must be true or false; got {str(is_sentence)[:60]}")
    if not isinstance(content.get("shapes"), list):
        raise BadInput(f"{path}: 'shapes' must be a list; got {str(content.get('shapes'))[:60]}")
    shapes = [_shape(shape, f"{path}: 'shapes'[{index}]") for index, shape in enumerate(content["shapes"])]
    return [text.strip() for text in texts], is_sentence, [shape for shape in shapes if shape is not None]


def _shape(shape: Any, where: str) -> tuple[int, np.ndarray] | None:
    """None for what the benchmark left over from drawing (``flag``)."""
    label = shape.get("label") if isinstance(shape, dict) else None
    if not isinstance(label, str):
        raise BadInput(f"{where}: 'label' must be text; got {str(label)[:60]}")
    if label.lower() == "flag":
        return None
    points = shape.get("points")
    try:
        array = np.array(points, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise BadInput(f"{where}: 'points' must hold numbers only; got {str(points)[:60]}") from None
    if array.ndim != 2 or array.shape[1] != 2 or not np.isfinite(array).all() or (np.abs(array) > 1e6).any():
        raise BadInput(f"{where}: 'points' must be a list of [x, y] in pixels; got {str(points)[:60]}")
    return _IGNORED if "ignore" in label.lower() else _TARGET, array.astype(np.int32)  # decimals are cut off


def _explanations(path: Path) -> dict[str, tuple[str, str]]:
    """Question and answer in words by name of the image; none where the file is not there."""
    if not path.exists():
        return {}
    rows = read_json(path, ENCODINGS)
    if not isinstance(rows, list):
        raise BadInput(f"{path} must hold a list; got {type(rows).__name__}")
    found = {}
    for index, row in enumerate(rows):
        values = [row.get(key) for key in ("image", "query", "outputs")] if isinstance(row, dict) else [None]
        if not all(isinstance(value, str) for value in values):
            raise BadInput(f"{path}: [{index}] must have 'image', 'query' and 'outputs' as texts; got {str(row)[:60]}")
        found[Path(values[0]).name] = (values[1], values[2])
    return found


BENCHMARKS = (
    Benchmark(
        name="reasonseg",
        title="ReasonSeg: questions that need thought, about one image",
        reader=f"{__name__}:ReasonSeg",
        splits=("train", "val", "test"),
        video=False,
        metric="giou",
        licence="the repository is Apache-2.0; it states no terms of its own for the images",
        where="github.com/dvlab-research/LISA",
        counts={"train": {"images": 239}, "val": {"images": 200}, "test": {"images": 779}},
        local=("train", "val", "test"),
        marks=("ReasonSeg/train", "ReasonSeg/val", "ReasonSeg/test"),
    ),
)
