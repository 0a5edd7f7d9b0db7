"""Files of run lengths by object and frame: every list is found without parsing the whole, and faults are named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit import miniature_videos as mini
from unit.travelling import arrived

from instructseg.core import BadInput
from instructseg.data.readers.rle_files import RleFile

SIZE = (24, 32)
# Run lengths as text use these characters: brackets and the backslash among them, never quotes or braces.
COUNTS = st.text(st.characters(min_codepoint=48, max_codepoint=111), max_size=12)
RUNS = st.fixed_dictionaries({"size": st.just([24, 32]), "counts": COUNTS})
LISTS = st.lists(st.none() | RUNS, min_size=1, max_size=3)
KEYS = st.text(max_size=6).filter(lambda key: key not in ("size", "counts", "masks_rle"))
FILES = st.dictionaries(KEYS, LISTS, min_size=1, max_size=5)


@settings(max_examples=50, deadline=None)
@given(content=FILES, nested=st.booleans(), indent=st.none() | st.integers(0, 2), plain=st.booleans())
def test_every_list_is_what_json_says(content, nested, indent, plain, tmp_path_factory) -> None:
    path = tmp_path_factory.mktemp("rle") / "masks.json"
    written = {key: {"masks_rle": value} for key, value in content.items()} if nested else content
    path.write_text(json.dumps(written, indent=indent, ensure_ascii=plain), "utf-8")
    file = arrived(RleFile(path))
    assert file.keys() == set(content)
    for key, value in content.items():
        assert file.masks(key) == value


def test_more_lists_than_are_kept_parsed(tmp_path: Path) -> None:
    masks = np.zeros((40, *SIZE), bool)
    for number in range(40):
        masks[number, number // 8 : number // 8 + 9, 2:12] = True
    path = tmp_path / "masks.json"
    mini.write_json(path, {str(i): [mini.rle(mask), None] for i, mask in enumerate(masks)})
    file = RleFile(path)
    for _ in range(2):
        for number in range(40):
            np.testing.assert_array_equal(file.mask(str(number), 0, 2, *SIZE), masks[number])
            assert not file.mask(str(number), 1, 2, *SIZE).any()


def two_objects(tmp_path: Path) -> Path:
    video = mini.draw_video("a")
    mini.write_json(tmp_path / "masks.json", {str(i): mini.rle_track(mask) for i, mask in video.masks.items()})
    return tmp_path / "masks.json"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda data: data[:-1], "cut off"),
        (lambda data: data[: len(data) // 2], r"\['1'\] is cut off or damaged"),
        (lambda data: data + b"}", "behind the masks of '2'"),
        (lambda data: b"", "is empty"),
        (lambda data: b"{}", "holds no masks"),
        (lambda data: b"[1, 2]", "holds no masks"),
        (lambda data: data.replace(b'"2": ', b'"\xff": '), "no UTF-8"),
        (lambda data: data.replace(b'"2": ', b'"3": '), "has no masks of '2'"),
    ],
)
def test_a_damaged_file_is_named(spoil: Callable[[bytes], bytes], words: str, tmp_path: Path) -> None:
    path = two_objects(tmp_path)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(BadInput, match=words) as caught:
        RleFile(path).mask("2", 1, 4, *SIZE)
    assert str(path) in str(caught.value)


def test_damage_in_one_list_leaves_the_others(tmp_path: Path) -> None:
    path = two_objects(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"counts", b"co\xe9nts", 1))
    file = RleFile(path)
    assert file.mask("2", 1, 4, *SIZE).any()
    with pytest.raises(BadInput, match=r"\['1'\] is no UTF-8 text: byte 0xe9"):
        file.mask("1", 0, 4, *SIZE)


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        ({"size": [24, 32], "counts": "0"}, "add up to 0 pixels"),
        ({"size": [24, 32], "counts": "PPPPPPPPPPP"}, r"\['1'\]\[1\]"),
        ({"size": [24, 32], "counts": 7}, "'counts' must be run lengths"),
        ({"size": [32, 24], "counts": "0"}, "'size'"),
        ({"counts": "0"}, "'size'"),
        ("text", "run lengths"),
    ],
)
def test_bad_run_lengths_are_named(runs: object, words: str, tmp_path: Path) -> None:
    path = tmp_path / "masks.json"
    mini.write_json(path, {"1": [None, runs], "2": [None, None]})
    with pytest.raises(BadInput, match=words):
        RleFile(path).mask("1", 1, 2, *SIZE)


def test_another_number_of_masks_than_frames(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"\['1'\] has 4 masks, its video has 5 frames"):
        RleFile(two_objects(tmp_path)).mask("1", 0, 5, *SIZE)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"masks\.json is missing"):
        RleFile(tmp_path / "masks.json").keys()
