"""Files of COCO run lengths by object and frame: ``{"17": [{"size": [H, W], "counts": "..."}, null, ...], ...}``.

MeViS and ReVOS keep all masks of a split in one such file of hundreds of megabytes. It is searched once for where
each object's list begins, and a list is parsed when one of its masks is looked at: no worker of a data loader holds
the whole of it.
"""

from __future__ import annotations

import dataclasses
import json
import mmap
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...core import BadInput
from ..samples import Truth, Truths
from .coco_masks import decode_segmentation
from .image_files import ImageFiles, image_size

# Where a list of run lengths or nulls may begin, and the key before it, bare or with {"masks_rle": [...]} around the
# list. Run lengths as text use the characters 0 to o: no quotes, commas, braces, nor the u of null.
_LIST = re.compile(rb"\[\s*(?:\{|null|\]\s*[,}])")
_KEY = re.compile(rb'"([^"\\]*(?:\\.[^"\\]*)*)"\s*:\s*(\{\s*"masks_rle"\s*:\s*)?\Z')
_LONGEST_KEY = 4096
_WITHIN = (b"size", b"counts")
_KEPT = 16  # parsed lists: frames of one video are looked at one after the other


class RleFile:
    """The lists of one file by key; the file is opened when the first is asked for. Can be pickled."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._spans: dict[str, tuple[int, int]] | None = None
        self._parsed: dict[str, list[Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_spans": self._spans, "_parsed": {}}

    def keys(self) -> set[str]:
        """Raises BadInput where the file is missing, cut off or something else."""
        return set(self._index())

    def masks(self, key: str) -> list[Any]:
        """The list of one key: run lengths or None for each frame. Raises BadInput naming file and key."""
        if key not in self._parsed:
            parsed = self._parse(key)
            while len(self._parsed) >= _KEPT:
                self._parsed.pop(next(iter(self._parsed)), None)
            self._parsed[key] = parsed
        return self._parsed[key]

    def mask(self, key: str, index: int, frames: int, height: int, width: int) -> np.ndarray:
        """``(height, width)`` bool of one frame of ``frames``; all False where the object is not in view."""
        masks = self.masks(key)
        if len(masks) != frames:
            raise BadInput(f"{self.path}: [{key!r}] has {len(masks)} masks, its video has {frames} frames")
        if masks[index] is None:
            return np.zeros((height, width), bool)
        return decode_segmentation(masks[index], height, width, f"{self.path}: [{key!r}][{index}]")

    def _index(self) -> dict[str, tuple[int, int]]:
        if self._spans is None:
            self._spans = _spans(self.path)
        return self._spans

    def _parse(self, key: str) -> list[Any]:
        spans = self._index()
        if key not in spans:
            raise BadInput(f"{self.path} has no masks of {key!r}, which the index of the split names")
        begin, end = spans[key]
        try:
            with self.path.open("rb") as file:
                file.seek(begin)
                data = file.read(end - begin)
        except OSError as error:
            raise BadInput(f"{self.path} cannot be read: {error}") from error
        return _list(data, f"{self.path}: [{key!r}]")[0]


@dataclasses.dataclass(frozen=True, eq=False)
class RleTruths(Truths):
    """One mask an object and frame, from the lists ``keys`` of a file."""

    footage: ImageFiles
    file: RleFile
    keys: tuple[str, ...]

    def __call__(self, index: int) -> Truth:
        height, width = image_size(self.footage.paths[index])
        masks = np.zeros((len(self.keys), height, width), bool)
        for mask, key in zip(masks, self.keys, strict=True):
            mask[:] = self.file.mask(key, index, len(self.footage), height, width)
        return Truth(masks)


def _spans(path: Path) -> dict[str, tuple[int, int]]:
    """Where each key's list begins, and where the next key's does."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            found = _lists(data)
            if not found:
                raise BadInput(f"{path} holds no masks: an object with a list of run lengths a key is needed")
            tail = data[found[-1].begin :]
    except FileNotFoundError:
        raise BadInput(f"{path} is missing") from None
    except ValueError as error:  # an empty file cannot be mapped
        raise error if isinstance(error, BadInput) else BadInput(f"{path} is empty") from error
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error}") from error
    keys = [_key(entry.key, path) for entry in found]
    _, rest = _list(tail, f"{path}: [{keys[-1]!r}]")
    if b"".join(rest.split()) != (b"}}" if found[-1].nested else b"}"):
        raise BadInput(f"{path} is cut off or damaged behind the masks of {keys[-1]!r}")
    begins = [entry.begin for entry in found]
    ends = [*begins[1:], begins[-1] + len(tail)]
    return dict(zip(keys, zip(begins, ends, strict=True), strict=True))


class _Entry(NamedTuple):
    key: bytes
    begin: int  # of the list
    nested: bool


def _lists(data: mmap.mmap) -> list[_Entry]:
    entries = []
    for begin in [match.start() for match in _LIST.finditer(data)]:
        key = _KEY.search(data[max(0, begin - _LONGEST_KEY) : begin])
        if key and key[1] not in _WITHIN:
            entries.append(_Entry(key[1], begin, key[2] is not None))
    return entries


def _key(key: bytes, path: Path) -> str:
    try:
        return json.loads(b'"' + key + b'"')
    except ValueError as error:
        raise BadInput(f"{path}: the key {key[:40]!r} is no UTF-8 text of JSON: {error}") from error


def _list(data: bytes, where: str) -> tuple[list[Any], bytes]:
    """The list that ``data`` begins with, and what follows it."""
    try:
        text = data.decode("utf-8")
        value, end = json.JSONDecoder().raw_decode(text)
    except UnicodeDecodeError as error:
        raise BadInput(f"{where} is no UTF-8 text: byte 0x{data[error.start]:02x}, {error.start} bytes on") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where} is cut off or damaged: {error}") from error
    return value, text[end:].encode("utf-8")
