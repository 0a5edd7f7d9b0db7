"""Options of a recipe: ``key=value`` texts from a command line or a parameter, judged against a typed dataclass."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from .core import BadInput

T = TypeVar("T")
_YES, _NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """For a recipe that has none."""


def parse_options(cls: type[T], values: Mapping[str, str] | None, owner: str) -> T:
    """An instance of the frozen dataclass ``cls`` with ``values`` in place of its defaults.

    Fields may be bool, int, float, str or Literal[...]; ``metadata={"low": .., "high": ..}`` bounds numbers. Values of
    the field's own type pass as well. owner: what the options belong to, for messages. Raises BadInput.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}
    types = typing.get_type_hints(cls)
    given = dict(values or {})
    unknown = sorted(set(given) - set(fields))
    if unknown:
        raise BadInput(f"{owner} has no option {unknown[0]!r}; it has {', '.join(sorted(fields)) or 'none'}")
    return cls(**{name: _value(f"{owner} option {name}", types[name], fields[name], v) for name, v in given.items()})


def split_assignments(assignments: typing.Iterable[str], owner: str) -> dict[str, str]:
    """``key=value`` texts as a table; the empty text is skipped (ROS parameters cannot be empty lists)."""
    table: dict[str, str] = {}
    for text in assignments:
        if not text:
            continue
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise BadInput(f"{owner} must be written key=value; got {text!r}")
        if key.strip() in table:
            raise BadInput(f"{owner} sets {key.strip()!r} twice")
        table[key.strip()] = value.strip()
    return table


def describe_options(cls: type) -> list[tuple[str, str, str]]:
    """(name, default and allowed values, help) of every option, for listings."""
    types = typing.get_type_hints(cls)
    return [
        (field.name, f"{field.default!r} ({_allowed(types[field.name], field)})", field.metadata.get("help", ""))
        for field in dataclasses.fields(cls)
    ]


def _value(name: str, kind: Any, field: dataclasses.Field, value: Any) -> Any:
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        for choice in choices:
            if value == choice or (isinstance(value, str) and value.strip() == str(choice)):
                return choice
        raise BadInput(f"{name} must be one of {', '.join(map(str, choices))}; got {value!r}")
    try:
        parsed = _PARSERS[kind](value)
    except (ValueError, TypeError):
        raise BadInput(f"{name} must be {_allowed(kind, field)}; got {value!r}") from None
    low, high = field.metadata.get("low", -math.inf), field.metadata.get("high", math.inf)
    if kind in (int, float) and not low <= parsed <= high:
        raise BadInput(f"{name} must be {_allowed(kind, field)}; got {value!r}")
    return parsed


def _flag(value: Any) -> bool:
    word = str(value).strip().lower()
    if word in _YES + _NO:
        return word in _YES
    raise ValueError(word)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and value != int(value)):
        raise ValueError(value)
    return int(value)


def _number(value: Any) -> float:
    number = float(value)
    if isinstance(value, bool) or not math.isfinite(number):
        raise ValueError(value)
    return number


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


_PARSERS = {bool: _flag, int: _whole, float: _number, str: _text}
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def _allowed(kind: Any, field: dataclasses.Field) -> str:
    if typing.get_origin(kind) is Literal:
        return ", ".join(map(str, typing.get_args(kind)))
    low, high = field.metadata.get("low"), field.metadata.get("high")
    if low is None and high is None:
        return _KINDS[kind]
    if high is None:
        return f"{_KINDS[kind]} of at least {low:.12g}"
    return f"{_KINDS[kind]} in {low:.12g}..{high:.12g}" if low is not None else f"{_KINDS[kind]} up to {high:.12g}"
