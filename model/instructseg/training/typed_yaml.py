"""YAML files as dataclasses: every key typed, bounded and explained, every error naming key, value and what is allowed.

A field made by :func:`key` says what a person needs to know of it; the same words make error messages and the tables of
the documentation. No torch here: command lines are parsed without it.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from ..core import BadInput


def key(help_text: str, default: Any = dataclasses.MISSING, **bounds: Any) -> Any:
    """A field of a configuration.

    bounds: ``low`` and ``high`` (allowed), ``above`` (not itself allowed); ``names``, the keys that a table may have;
    ``of``, what an entry of a list is; ``none``, how a default of None is written in the documentation.
    """
    metadata = {"help": help_text, **bounds}
    if isinstance(default, dict | list):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


class _EachKeyOnce(yaml.SafeLoader):
    """YAML's safe loader takes the last of two equal keys without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for name, _ in node.value:
            if name.value in seen and isinstance(name, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, f"the key {name.value!r} twice", name.start_mark)
            seen |= {name.value} if isinstance(name, yaml.ScalarNode) else set()
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """What a file holds. Raises BadInput naming the file."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_EachKeyOnce)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from error


def fill(cls: type, table: Mapping[str, Any], where: str = "") -> Any:
    """An instance of ``cls`` from parsed YAML; where: what its keys begin with in messages. Raises BadInput."""
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = sorted(str(name) for name in table if name not in fields)
    if unknown:
        raise BadInput(f"unknown key {where}{unknown[0]}; known are {', '.join(fields)}")
    needed = [name for name, field in fields.items() if _needed(field) and name not in table]
    if needed:
        raise BadInput(f"key {where}{needed[0]} is missing: {fields[needed[0]].metadata['help']}")
    kinds = typing.get_type_hints(cls)
    return cls(**{name: _value(where + name, kinds[name], fields[name], table[name]) for name in table})


def table_of(value: Any, name: str) -> dict[str, Any]:
    """The value, if it is a table. Raises BadInput."""
    if not isinstance(value, dict):
        raise BadInput(f"{name} must hold lines of the form 'key: value'; got {type(value).__name__}")
    return value


def plain(value: Any) -> Any:
    """A configuration as plain values, for JSON."""
    if dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {name: plain(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def keys_of(cls: type) -> list[tuple[str, str, str, str]]:
    """(key, allowed, default, help) of every key, for the documentation."""
    kinds = typing.get_type_hints(cls)
    rows = []
    for field in dataclasses.fields(cls):
        default = field.default_factory() if callable(field.default_factory) else field.default
        shown = "needed" if default is dataclasses.MISSING else "" if _structured(default) else written(default)
        if default is None:
            shown = field.metadata["none"]
        rows.append((field.name, _allowed(kinds[field.name], field), shown, field.metadata["help"]))
    return rows


def written(value: Any) -> str:
    """A value as YAML writes it."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {number}" for name, number in value.items())
    return str(value).lower() if isinstance(value, bool) else str(value)


def _needed(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _structured(default: Any) -> bool:
    return dataclasses.is_dataclass(default) or isinstance(default, tuple) or default == {}


def _value(name: str, kind: Any, field: dataclasses.Field, value: Any) -> Any:
    base = _base(kind)
    if value is None and _optional(kind):
        return None
    if dataclasses.is_dataclass(base):
        return fill(base, table_of(value, name), f"{name}.")
    if typing.get_origin(base) is tuple:
        return _entries(name, typing.get_args(base)[0], field, value)
    if typing.get_origin(base) is dict:
        return _pairs(name, typing.get_args(base)[1], field, table_of(value, name))
    choices = _choices(kind)
    if base is float and isinstance(value, str):  # YAML reads 4e-5, without a point, as a text
        value = _number(value)
    right = value in choices if choices else _fits(base, value) and _inside(field, value)
    if not right:
        raise BadInput(f"{name} must be {_allowed(kind, field)}; got {value!r}")
    return _MAKE[base](value) if not choices else value


def _entries(name: str, cls: type, field: dataclasses.Field, value: Any) -> tuple:
    """A list of tables; one whose field has no default holds at least one."""
    if not isinstance(value, list) or (not value and _needed(field)):
        least = "at least one " if _needed(field) else ""
        raise BadInput(f"{name} must be a list of {least}{field.metadata['of']}; got {value!r}")
    return tuple(fill(cls, table_of(v, f"{name}[{i}]"), f"{name}[{i}].") for i, v in enumerate(value))


def _pairs(name: str, kind: type, field: dataclasses.Field, table: Mapping[str, Any]) -> dict[str, Any]:
    """A table whose values are all of one kind."""
    if kind is str:
        return {str(k): written(v) for k, v in table.items()}
    allowed = field.metadata["names"]
    unknown = sorted(str(k) for k in table if k not in allowed)
    if unknown:
        raise BadInput(f"unknown key {name}.{unknown[0]}; known are {', '.join(allowed)}")
    return {k: _value(f"{name}.{k}", kind, field, v) for k, v in table.items()}


def _optional(kind: Any) -> bool:
    return type(None) in typing.get_args(kind)


def _base(kind: Any) -> Any:
    """``int`` of ``int | None``; other kinds as they are."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return next(k for k in typing.get_args(kind) if k is not type(None))
    return kind


def _choices(kind: Any) -> tuple:
    base = _base(kind)
    return typing.get_args(base) if typing.get_origin(base) is Literal else ()


def _fits(kind: type, value: Any) -> bool:
    if kind in (int, float):
        allowed = (int,) if kind is int else (int, float)
        return isinstance(value, allowed) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, bool if kind is bool else str)


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _inside(field: dataclasses.Field, value: Any) -> bool:
    bounds = field.metadata
    if isinstance(value, bool | str):
        return True
    return (
        bounds.get("low", -math.inf) <= value <= bounds.get("high", math.inf) and bounds.get("above", -math.inf) < value
    )


_MAKE: dict[type, Callable[[Any], Any]] = {bool: bool, int: int, float: float, str: str, Path: Path}
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", Path: "a text"}


def _allowed(kind: Any, field: dataclasses.Field) -> str:
    choices = _choices(kind)
    if choices:
        return " or ".join(choices) if len(choices) == 2 else ", ".join(choices)
    base, bounds = _base(kind), field.metadata
    if "names" in bounds and typing.get_origin(base) is dict:
        return f"a table of {', '.join(bounds['names'])}"
    said = _KINDS.get(base) or ("a list" if typing.get_origin(base) is tuple else "a table")
    if "above" in bounds:
        said += f" above {bounds['above']:g}"
    elif "low" in bounds:
        said += f" of at least {bounds['low']:g}"
    return said + (f" and at most {bounds['high']:.12g}" if "high" in bounds else "")
