"""The index files of video benchmarks: ``{"videos": {name: {"frames": [...], "expressions": ...}}}``.

Ref-YouTube-VOS began it; MeViS, ReVOS, ReasonVOS and the converted Ref-DAVIS17 keep to it with small differences.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ...core import BadInput
from ..samples import NotOnDisk, Sample
from .image_files import ImageFiles
from .json_files import read_json

FRAME_SUFFIX = ".jpg"


def require(root: Path, title: str, *parts: str) -> None:
    """Raises BadInput naming the first of these paths that is not under the root."""
    if not root.is_dir():
        raise BadInput(f"the root of {title}, {root}, is no folder")
    for part in parts:
        if not (root / part).exists():
            found = ", ".join(sorted(entry.name for entry in root.iterdir())[:8]) or "nothing"
            kind = NotOnDisk if part == parts[0] else BadInput  # without its index a split is not there, not broken
            raise kind(f"{root} is no root of {title}: {part} is missing; there is: {found}")


def known_split(split: str, splits: tuple[str, ...], title: str) -> None:
    if split not in splits:
        raise BadInput(f"{title} has no split {split!r}; allowed: {', '.join(splits)}")


def read_videos(path: Path) -> dict[str, dict[str, Any]]:
    """The entries by name of the video. Raises BadInput naming file and key."""
    content = read_json(path)
    videos = content.get("videos") if isinstance(content, dict) else None
    if not isinstance(videos, dict):
        raise BadInput(f"{path}: an object with the key 'videos' is needed, which holds one entry a video")
    for name, entry in videos.items():
        if not isinstance(entry, dict):
            raise BadInput(f"{path}: videos[{name!r}] must be an object; got {_short(entry)}")
        local_name(name, f"{path}: videos[{name!r}]", depth=8)
    return videos


def footage(folder: Path, name: str, entry: dict[str, Any], path: Path) -> ImageFiles:
    """The video's frames ``<folder>/<name>/<frame>.jpg`` as its entry in the index file ``path`` lists them."""
    where = f"{path}: videos[{name!r}]['frames']"
    frames = entry.get("frames")
    if not isinstance(frames, list) or not all(isinstance(frame, str) for frame in frames):
        raise BadInput(f"{where} must list the names of the frames; got {_short(frames)}")
    if not frames:
        raise BadInput(f"{where} is empty: a video needs at least one frame")
    for frame in frames:
        local_name(frame, where, depth=1)
    if len(set(frames)) != len(frames):
        raise BadInput(f"{where} names a frame twice")
    return ImageFiles(name, tuple(frames), tuple(folder / name / (frame + FRAME_SUFFIX) for frame in frames))


@dataclasses.dataclass(frozen=True)
class Expression:
    """One expression of an index file. video: the whole entry of its video. where: begins the message of an error."""

    key: str
    entry: dict[str, Any]
    footage: ImageFiles
    video: dict[str, Any]
    where: str

    @property
    def id(self) -> str:
        return f"{self.footage.name}/{self.key}"

    def words(self, key: str = "exp") -> str:
        return words(self.entry, key, self.where)

    def ids(self, key: str) -> list[int]:
        """The list of ids under ``key``, which may be empty."""
        found = self.entry.get(key)
        if not isinstance(found, list):
            raise BadInput(f"{self.where}[{key!r}] must be a list of ids; got {_short(found)}")
        return [whole(value, f"{self.where}[{key!r}][{i}]", 0, 2**31) for i, value in enumerate(found)]

    def number(self, key: str, low: int, high: int) -> int:
        return whole(self.entry.get(key), f"{self.where}[{key!r}]", low, high)


def video_samples(
    path: Path, videos: Mapping[str, dict[str, Any]], folder: Path, make: Callable[[Expression], Sample]
) -> Iterator[Sample | BadInput]:
    """The samples of an index file in its order, frames under ``<folder>/<video>``; in place of an expression or a
    video that cannot be used the reason."""
    for name, entry in videos.items():
        try:
            listed = _expressions(name, entry, path)
        except BadInput as error:
            yield BadInput(str(error))
            continue
        try:
            frames = footage(folder, name, entry, path)
        except BadInput as error:  # once an expression: as many samples are lost
            yield from (BadInput(str(error)) for _ in listed)
            continue
        for key, expression in listed:
            where = f"{path}: videos[{name!r}]['expressions'][{key!r}]"
            try:
                local_name(key, where, depth=1)  # results are filed under it
                if not isinstance(expression, dict):
                    raise BadInput(f"{where} must be an object; got {_short(expression)}")
                yield make(Expression(key, expression, frames, entry, where))
            except BadInput as error:
                yield BadInput(str(error))


def _expressions(name: str, entry: dict[str, Any], path: Path) -> list[tuple[str, Any]]:
    """(key, entry) of each expression of a video; a list (ReasonVOS) is keyed by position."""
    found = entry.get("expressions")
    if not isinstance(found, (dict, list)) or not found:
        raise BadInput(
            f"{path}: videos[{name!r}]['expressions'] must hold one entry an expression; got {_short(found)}"
        )
    pairs = found.items() if isinstance(found, dict) else enumerate(found)
    return [(str(key), value) for key, value in pairs]


def words(expression: Mapping[str, Any], key: str, where: str) -> str:
    """The text under ``key``, without blanks around it."""
    text = expression.get(key)
    if not isinstance(text, str) or not text.strip():
        raise BadInput(f"{where}[{key!r}] must be the words of an expression; got {_short(text)}")
    return text.strip()


def whole(value: Any, where: str, low: int, high: int) -> int:
    """A whole number, also written as text, within limits."""
    text = isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 11
    number = int(value) if text else value
    if isinstance(number, bool) or not isinstance(number, int) or not low <= number <= high:
        raise BadInput(f"{where} must be a whole number from {low} to {high}; got {_short(value)}")
    return number


def local_name(name: str, where: str, depth: int) -> None:
    """A name from a file must not lead out of the folder it is looked up in."""
    parts = PurePosixPath(name).parts
    if not 1 <= len(parts) <= depth or parts[0] == "/" or ".." in parts or "\0" in name or "\\" in name:
        raise BadInput(f"{where}: {_short(name)} is no name of a file or folder")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
