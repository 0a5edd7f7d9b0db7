"""JSON of data sets: errors name the file, the place in it, and what is wrong there."""

from __future__ import annotations

import json
import mmap
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...core import BadInput

_SPACE = " \t\n\r"
_MOST_BYTES = 8 << 30  # a file beyond this is none of the published ones


def shown(value: Any) -> str:
    """The beginning of a value for an error message. What is nested is not gone through to its end: a file can repeat
    a part of itself so often that its text would fill the memory."""
    try:
        return (value if isinstance(value, str) else reprlib.repr(value))[:60]
    except ValueError:  # a number of thousands of digits
        return type(value).__name__


def read_text(path: Path, encodings: tuple[str, ...] = ("utf-8",)) -> str:
    """The text of a file in the first encoding that fits. Raises BadInput naming the file and the offending byte."""
    try:
        size = path.stat().st_size
        if size > _MOST_BYTES:
            raise BadInput(f"{path} has {size} bytes; no annotation file of a benchmark is as large")
        if size == 0:
            return ""
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _decoded(path, data, encodings)
    except FileNotFoundError:
        raise BadInput(f"{path} is missing") from None
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from error


def _decoded(path: Path, data: mmap.mmap, encodings: tuple[str, ...]) -> str:
    """Mapped, not read: a file of COCO's size is in memory once, as text."""
    for encoding in encodings:
        try:
            return str(data, encoding)
        except UnicodeDecodeError as error:
            fault = error.start
    raise BadInput(f"{path} is no {' or '.join(encodings)} text: byte {fault} is 0x{data[fault]:02x}")


def read_json(path: Path, encodings: tuple[str, ...] = ("utf-8",)) -> Any:
    """The value in a JSON file. Raises BadInput naming the file and the line."""
    text = read_text(path, encodings)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise _fault(path, text, error.msg, error.pos) from None
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, endless nesting
        raise BadInput(f"{path} is no usable JSON: {error}") from None


def elements(path: Path, text: str) -> Iterator[tuple[str, Any, int, int]]:
    """Walk the top level of ``{"key": [element, ...], ...}`` without holding more than one element.

    Yields key, element, and where it begins and ends in ``text``; a value that is no list comes as one element.
    Raises BadInput naming the file and the line.
    """
    decoder, at = json.JSONDecoder(), _skip(text, 0)
    try:
        if text[at : at + 1] != "{":
            raise json.JSONDecodeError("an object {...} was expected", text, at)
        at = _skip(text, at + 1)
        more = text[at : at + 1] != "}"
        while more:
            key, at = decoder.raw_decode(text, at)
            at = _skip(text, _expect(text, at, ":"))
            if not isinstance(key, str):
                raise json.JSONDecodeError("a key in quotes was expected", text, at)
            if text[at : at + 1] == "[":
                at = _skip(text, at + 1)
                another = text[at : at + 1] != "]"
                while another:
                    begin = at
                    value, at = decoder.raw_decode(text, begin)
                    yield key, value, begin, at
                    at = _skip(text, at)
                    another = text[at : at + 1] == ","
                    if another:
                        at = _skip(text, at + 1)
                at = _expect(text, at, "]")
            else:
                begin = at
                value, at = decoder.raw_decode(text, begin)
                yield key, value, begin, at
            at = _skip(text, at)
            more = text[at : at + 1] == ","
            if more:
                at = _skip(text, at + 1)
        end = _skip(text, _expect(text, at, "}"))
        if end < len(text):
            raise json.JSONDecodeError("more text after the end", text, end)
    except json.JSONDecodeError as error:
        raise _fault(path, text, error.msg, error.pos) from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is no usable JSON: {error}") from None


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at


def _expect(text: str, at: int, character: str) -> int:
    at = _skip(text, at)
    if text[at : at + 1] != character:
        raise json.JSONDecodeError(f"{character!r} was expected", text, at)
    return at + 1


def _fault(path: Path, text: str, message: str, at: int) -> BadInput:
    if not text.strip():
        return BadInput(f"{path} is empty; JSON was expected")
    if at >= len(text.rstrip()) or "Unterminated" in message:
        return BadInput(f"{path} is cut off: it ends after {len(text)} characters within a value ({message})")
    line = text.count("\n", 0, at) + 1
    return BadInput(f"{path} is no JSON: {message} in line {line}, at character {at}")
