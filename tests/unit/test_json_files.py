"""The walk through large JSON files against json.loads, on any content and any damage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instructseg.core import BadInput
from instructseg.data.readers.json_files import elements, read_json, read_text

PATH = Path("some.json")
SCALARS = st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats(allow_nan=False) | st.text(max_size=5)
VALUES = st.recursive(
    SCALARS, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=3), v, max_size=3), max_leaves=8
)
OBJECTS = st.dictionaries(st.text(max_size=4), VALUES, max_size=5)


@settings(max_examples=80, deadline=None)
@given(OBJECTS, st.sampled_from([None, 1, "\t"]), st.booleans())
def test_the_walk_sees_what_json_sees(content: dict, indent, ascii_only: bool) -> None:
    text = json.dumps(content, indent=indent, ensure_ascii=ascii_only)
    expected = [(k, element) for k, value in content.items() for element in (value if type(value) is list else [value])]
    found = list(elements(PATH, text))
    assert [(key, value) for key, value, _, _ in found] == expected
    assert all(json.loads(text[begin:end]) == value for _, value, begin, end in found)


@settings(max_examples=120, deadline=None)
@given(OBJECTS, st.integers(0, 10**6), st.text('{}[]",:0e\\ ', max_size=3))
def test_damage_is_told_by_the_file_and_never_goes_unseen(content: dict, at: int, damage: str) -> None:
    text = json.dumps(content)
    at %= len(text)
    text = text[:at] + damage + text[at + len(damage) :]
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        whole = None
    if isinstance(whole, dict):
        assert {key for key, _, _, _ in elements(PATH, text)} <= set(whole)
    else:
        with pytest.raises(BadInput, match="^some.json is "):
            list(elements(PATH, text))


def test_the_line_of_a_fault_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{\n "a": 1,\n "b": x\n}')
    with pytest.raises(BadInput, match="a.json is no JSON: .* in line 3"):
        read_json(path)
    path.write_text('{\n "a": [1,\n')
    with pytest.raises(BadInput, match="a.json is cut off: it ends after 12 characters"):
        read_json(path)
    path.write_text(" \n")
    with pytest.raises(BadInput, match="a.json is empty"):
        read_json(path)


def test_text_is_read_in_the_first_encoding_that_fits(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("caf\u00e9".encode("cp1252"))
    assert read_text(path, ("utf-8", "cp1252")) == "caf\u00e9"
    with pytest.raises(BadInput, match="a.txt is no utf-8 text: byte 3 is 0xe9"):
        read_text(path)
    path.write_bytes(b"")
    assert read_text(path) == ""
    with pytest.raises(BadInput, match="cannot be read: Is a directory"):
        read_text(tmp_path)
    with pytest.raises(BadInput, match="b.txt is missing"):
        read_text(tmp_path / "b.txt")
