"""The index of a COCO annotation file: one pass over it, then arrays of 73 bytes an annotation; a polygon stays in the
file until it is looked at."""

from __future__ import annotations

import array
import functools
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...core import BadInput
from ..samples import Truth, Truths
from .coco_masks import check_size, decode_segmentation
from .image_files import image_size
from .json_files import elements, read_text, shown


class CocoImage(NamedTuple):
    file_name: str
    height: int
    width: int


class CocoIndex:
    """images and category names by id; annotations by id or by place. Pickled as its path: a worker that was forked has
    it already, another reads the file once."""

    def __init__(self, path: Path) -> None:
        """Raises BadInput naming the file and the key."""
        self.path = path
        self.images: dict[int, CocoImage] = {}
        self.categories: dict[int, str] = {}
        # id, image, category, whether a crowd, first byte and length in the file
        self._columns = tuple(array.array("q") for _ in range(6))
        self._boxes = array.array("d")
        self._read()
        ids, images, categories, crowds, begins, lengths = (np.array(column, np.int64) for column in self._columns)
        order = np.argsort(ids, kind="stable")
        self.ids = ids[order]
        twice = np.flatnonzero(self.ids[1:] == self.ids[:-1])
        if twice.size:
            raise BadInput(f"{path}: annotation id {self.ids[twice[0]]} occurs more than once")
        self.image_of, self.category_of, self.crowd = images[order], categories[order], crowds[order].astype(bool)
        self._begin, self._length = begins[order], lengths[order]
        self.boxes = np.array(self._boxes).reshape(-1, 4)[order]  # (annotations, xywh)
        del self._columns, self._boxes

    def __len__(self) -> int:
        return len(self.ids)

    def __reduce__(self) -> tuple[Any, ...]:
        return open_index, (self.path,)

    def image(self, image_id: int) -> CocoImage:
        if image_id not in self.images:
            raise BadInput(f"{self.path}: 'images' has no id {image_id}")
        return self.images[image_id]

    def place(self, annotation_id: int) -> int:
        """The row of an annotation in ``ids``, ``image_of``, ``category_of``, ``crowd`` and ``boxes``."""
        at = int(np.searchsorted(self.ids, annotation_id))
        if at == len(self.ids) or self.ids[at] != annotation_id:
            raise BadInput(f"{self.path}: 'annotations' has no id {annotation_id}")
        return at

    def mask(self, at: int) -> np.ndarray:
        """``(H, W)`` bool of the annotation in row ``at``, of the size that ``images`` gives."""
        number, image = int(self.ids[at]), self.image(int(self.image_of[at]))
        where = f"{self.path}: annotation {number}"
        try:
            with self.path.open("rb") as file:
                file.seek(int(self._begin[at]))
                annotation = json.loads(file.read(int(self._length[at])))
        except (OSError, ValueError) as error:
            raise BadInput(f"{where} cannot be read again; did the file change? {error}") from error
        if not isinstance(annotation, dict) or annotation.get("id") != number:
            raise BadInput(f"{where} is no longer where it was: the file has changed, start again")
        return decode_segmentation(annotation.get("segmentation"), image.height, image.width, where)

    def _read(self) -> None:
        text = read_text(self.path)
        plain, seen, byte = text.isascii(), 0, 0
        lists = {"images": 0, "annotations": 0, "categories": 0}
        for key, value, begin, end in elements(self.path, text):
            if key not in lists:
                continue
            where = f"{self.path}: {key!r}[{lists[key]}]"
            lists[key] += 1
            if not isinstance(value, dict):
                raise BadInput(f"{where} must be an object with keys; got {str(value)[:60]!r}")
            if key == "images":
                self._add_image(value, where)
            elif key == "categories":
                self.categories[whole(value, "id", where)] = words(value, "name", where)
            else:
                if not plain:
                    byte += len(text[seen:begin].encode())
                    seen = begin
                length = end - begin if plain else len(text[begin:end].encode())
                self._add_annotation(value, begin if plain else byte, length, where)
        lacking = [key for key in ("images", "annotations") if not lists[key]]
        if lacking:
            raise BadInput(f"{self.path} has nothing under {' and '.join(map(repr, lacking))}: no COCO annotations")

    def _add_image(self, value: dict, where: str) -> None:
        number = whole(value, "id", where)
        if number in self.images:
            raise BadInput(f"{where}: image id {number} occurs more than once")
        check_size(value.get("height"), value.get("width"), where)
        name = words(value, "file_name", where)
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise BadInput(f"{where}: 'file_name' must lie within the images' folder; got {name!r}")
        self.images[number] = CocoImage(name, value["height"], value["width"])

    def _add_annotation(self, value: dict, begin: int, length: int, where: str) -> None:
        box = value.get("bbox")
        if not isinstance(box, list) or len(box) != 4 or not all(_number(v) for v in box):
            raise BadInput(f"{where}: 'bbox' must be [x, y, width, height]; got {str(box)[:60]}")
        row = (
            whole(value, "id", where),
            whole(value, "image_id", where),
            whole(value, "category_id", where),
            int(bool(value.get("iscrowd", 0))),
            begin,
            length,
        )
        for column, number in zip(self._columns, row, strict=True):
            column.append(number)
        self._boxes.extend(box)


def open_index(path: Path) -> CocoIndex:
    """The index of a file, read once a process as long as the file stays the same. Raises BadInput."""
    try:
        status = path.stat()
    except FileNotFoundError:
        raise BadInput(f"{path} is missing") from None
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from error
    return _index(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=8)
def _index(path: Path, changed_ns: int, size: int) -> CocoIndex:
    return CocoIndex(path)


class CocoTruth(Truths):
    """Masks of annotations on one image. groups: for each object the rows of the index that make it up."""

    def __init__(self, index: CocoIndex, image_id: int, picture: Path, groups: tuple[tuple[int, ...], ...]) -> None:
        self.index, self.image_id, self.picture, self.groups = index, image_id, picture, groups

    def __call__(self, frame: int) -> Truth:
        """Raises BadInput where the image on disk has another size than the annotations."""
        image = self.index.image(self.image_id)
        height, width = image_size(self.picture)
        if (height, width) != (image.height, image.width):
            raise BadInput(
                f"{self.picture} is {width} x {height}, but {self.index.path} says {image.width} x {image.height} for "
                f"image {self.image_id}: image and annotations are of different editions"
            )
        masks = np.zeros((len(self.groups), height, width), bool)
        for mask, rows in zip(masks, self.groups, strict=True):
            for row in rows:
                mask |= self.index.mask(row)
        return Truth(masks)


def whole(value: dict, key: str, where: str) -> int:
    """A whole number that fits into 64 bits, under a key. Raises BadInput."""
    number = value.get(key)
    if type(number) is not int or not -(1 << 63) <= number < 1 << 63:
        raise BadInput(f"{where}: {key!r} must be a whole number; got {shown(number)!r}")
    return number


def words(value: dict, key: str, where: str) -> str:
    """Text that is not blank, under a key. Raises BadInput."""
    text = value.get(key)
    if not isinstance(text, str) or not text.strip():
        raise BadInput(f"{where}: {key!r} must be text; got {shown(text)!r}")
    return text


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
