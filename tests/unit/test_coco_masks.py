"""Masks of COCO annotations against pycocotools, and what must never reach its C code."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco
from unit.miniature_data import plain_runs

from instructseg.core import BadInput
from instructseg.data.readers.coco_masks import decode_segmentation

SQUARE = [2.0, 2.0, 8.0, 2.0, 8.0, 8.0, 2.0, 8.0]


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_run_lengths_come_back(mask: np.ndarray) -> None:
    compressed = coco.encode(np.asfortranarray(mask.view(np.uint8)))
    text = {"size": list(mask.shape), "counts": compressed["counts"].decode()}
    for runs in (plain_runs(mask), text, {**text, "counts": compressed["counts"]}):
        np.testing.assert_array_equal(decode_segmentation(runs, *mask.shape, "here"), mask)


def test_parts_of_a_polygon_are_one_thing_and_holes_are_filled_by_overlap() -> None:
    mask = decode_segmentation([SQUARE, [12.0, 2.0, 18.0, 2.0, 18.0, 8.0, 12.0, 8.0], SQUARE], 20, 24, "here")
    expected = np.zeros((20, 24), bool)
    expected[2:8, 2:8] = expected[2:8, 12:18] = True
    np.testing.assert_array_equal(mask, expected)
    assert mask.dtype == bool


def test_parts_may_be_run_lengths_too() -> None:
    left, right = np.zeros((2, 20, 24), bool)
    left[:, :5], right[3:9, 15:] = True, True
    both = decode_segmentation([plain_runs(left), plain_runs(right)], 20, 24, "here")
    np.testing.assert_array_equal(both, left | right)
    with pytest.raises(BadInput, match=r"here: 'segmentation'\[1\]: 'size'"):
        decode_segmentation([plain_runs(left), {"size": [1, 1], "counts": [1]}], 20, 24, "here")
    with pytest.raises(BadInput, match=r"'segmentation'\[1\] must list x, y"):
        decode_segmentation([SQUARE, plain_runs(left)], 20, 24, "here")


def test_a_polygon_may_reach_a_little_outside() -> None:
    mask = decode_segmentation([[-3.0, -3.0, 30.0, -3.0, 30.0, 30.0, -3.0, 30.0]], 20, 24, "here")
    assert mask.all()


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (None, "must be a list of polygons or run lengths; got None"),
        ([], "must be a list of polygons"),
        ("polygon", "must be a list of polygons"),
        ([[]], r"'segmentation'\[0\] must list x, y of at least three points"),
        ([[1.0, 2.0, 3.0, 4.0]], "at least three points"),  # which pycocotools would take for a box
        ([SQUARE, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]], r"'segmentation'\[1\] must list x, y"),
        ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], "at least three points; got 1.0"),
        ([[1.0, "a", 3.0, 4.0, 5.0, 6.0]], "must hold numbers only"),
        ([[1.0, [2.0], 3.0, 4.0, 5.0, 6.0]], "must hold numbers only"),
        ([[1.0, math.nan, 3.0, 4.0, 5.0, 6.0]], "no finite number"),
        ([[1.0, math.inf, 3.0, 4.0, 5.0, 6.0]], "no finite number"),
        ([[10**400, 1, 3.0, 4.0, 5.0, 6.0]], "must hold numbers only"),
        ([[1.0, 1e9, 3.0, 4.0, 5.0, 6.0]], "far outside the image of 24 x 20"),
        ({"size": [20, 24]}, "'counts' must be run lengths"),
        ({"size": [24, 20], "counts": [480]}, r"'size' of the run lengths is \[24, 20\], the image's"),
        ({"size": [10**6, 10**6], "counts": [10**12]}, "'size' of the run lengths"),
        ({"counts": [480]}, "'size' of the run lengths is None"),
        ({"size": [20, 24], "counts": [500, -20]}, "negative run length: -20"),
        ({"size": [20, 24], "counts": [100, 100]}, "add up to 200 pixels; 24 x 20 has 480"),
        ({"size": [20, 24], "counts": [10**12]}, "add up to 1000000000000"),
        ({"size": [20, 24], "counts": []}, "add up to 0"),
        ({"size": [20, 24], "counts": [240.0, 240.0]}, "'counts' must be run lengths"),
        ({"size": [20, 24], "counts": ""}, "add up to 0"),
        ({"size": [20, 24], "counts": "oooooooooooooo0"}, "more than 40 bits"),
        ({"size": [20, 24], "counts": "caf\u00e9"}, "byte 0xe9"),
        ({"size": [20, 24], "counts": "o"}, "cut off within a number"),
        ({"size": [20, 24], "counts": b"\x00"}, "byte 0x00"),
    ],
)  # fmt: skip
def test_what_is_no_mask_is_named(segmentation, message: str) -> None:
    with pytest.raises(BadInput, match=f"instances.json: annotation 7.*{message}"):
        decode_segmentation(segmentation, 20, 24, "instances.json: annotation 7")


@pytest.mark.parametrize(
    ("height", "width"), [(0, 5), (5, -1), (None, 5), ("5", 5), (5.0, 5), (True, 5), (10**6, 10**6)]
)
def test_a_size_that_is_none_is_named(height, width) -> None:
    with pytest.raises(BadInput, match="here: "):
        decode_segmentation([SQUARE], height, width, "here")


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(min_codepoint=48, max_codepoint=111), max_size=20))
def test_text_of_run_lengths_never_writes_beyond_the_mask(counts: str) -> None:
    try:
        mask = decode_segmentation({"size": [6, 7], "counts": counts}, 6, 7, "here")
    except BadInput as error:
        assert str(error).startswith("here: 'counts'")
    else:
        assert mask.shape == (6, 7)
