"""YAML files whose errors name the line: mappings that know where each key stands, and typed access to their values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from instructseg.core import BadInput


class Mapping(dict):
    """A mapping of the file. place: file and line of its first key, for errors."""

    file: Path
    line: int
    lines: dict[Any, int]

    def refuse(self, key: str | None, words: str) -> BadInput:
        """An error about one key (None: about the whole mapping), to be raised."""
        line = self.lines.get(key, self.line)
        return BadInput(f"{self.file}, line {line}: {'' if key is None else f'{key}: '}{words}")

    def allow(self, keys: Sequence[str]) -> None:
        """Refuse every other key."""
        for key in self:
            if key not in keys:
                raise self.refuse(None, f"unknown key {key!r}; allowed: {', '.join(keys)}")

    def number(self, key: str, low: float, high: float) -> float:
        value = self[key]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            upper = "" if math.isinf(high) else f" to {high:g}"
            raise self.refuse(key, f"a number from {low:g}{upper} is needed; got {value!r}")
        return float(value)

    def integer(self, key: str, low: int, high: int) -> int:
        value = self[key]
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.refuse(key, f"a whole number from {low} to {high} is needed; got {value!r}")
        return value

    def text(self, key: str) -> str:
        value = self[key]
        if not isinstance(value, str) or not value.strip():
            raise self.refuse(key, f"a text is needed; got {value!r}")
        return value

    def flag(self, key: str) -> bool:
        value = self[key]
        if not isinstance(value, bool):
            raise self.refuse(key, f"true or false is needed; got {value!r}")
        return value


class _Loader(yaml.SafeLoader):
    """Plain YAML types; a key that stands twice is an error."""

    file: Path

    def lined_mapping(self, node: yaml.MappingNode) -> Mapping:
        self.flatten_mapping(node)
        found = Mapping()
        found.file, found.line, found.lines = self.file, node.start_mark.line + 1, {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise BadInput(f"{self.file}, line {line}: a key must be a word; got {key!r}")
            if key in found:
                raise BadInput(f"{self.file}, line {line}: {key} stands twice (first in line {found.lines[key]})")
            found[key] = self.construct_object(value_node, deep=True)
            found.lines[key] = line
        return found


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _Loader.lined_mapping)


def load(path: Path) -> Any:
    """The content of a YAML file; BadInput where it cannot be read or is no YAML."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read {path}: {error}") from error
    loader = _Loader(text)
    loader.file = path
    try:
        return loader.get_single_data()
    except yaml.YAMLError as error:
        raise BadInput(f"{path} is no YAML: {error}") from error
    finally:
        loader.dispose()


def entries(path: Path, key: str, others: Sequence[str] = ()) -> tuple[list[Mapping], Mapping]:
    """The list of mappings a file holds, alone or under ``key``, and the mapping around it (empty for a list alone)."""
    content = load(path)
    top = content if isinstance(content, Mapping) else Mapping()
    if not isinstance(content, Mapping):
        top.file, top.line, top.lines = path, 1, {}
        top[key] = content
    top.allow((key, *others))
    found = top.get(key)
    if not isinstance(found, list) or not found:
        raise top.refuse(None, f"a list {key!r} with at least one entry is needed")
    for number, entry in enumerate(found, 1):
        if not isinstance(entry, Mapping):
            raise top.refuse(key, f"entry {number} must be a mapping of keys to values; got {entry!r}")
    return found, top
