"""Depth images: both encodings give the same metres, what is invalid is NaN, and what contradicts itself is refused."""

from __future__ import annotations

import numpy as np
import pytest
from unit.spatial_messages import depth_message

from instructseg.core import BadInput
from instructseg_node.spatial.depth import DepthImage

MILLIMETRES = np.array([[0, 1, 700], [1234, 9999, 65535]], np.uint16)
METRES = np.array([[np.nan, 0.001, 0.7], [1.234, 9.999, 65.535]], np.float32)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("pad", [0, 5])
def test_millimetres_and_metres_are_the_same(pad: int, big: bool) -> None:
    for values in (MILLIMETRES, METRES):
        got = DepthImage(depth_message(values, pad=pad, big=big)).metres()
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, METRES, rtol=1e-6)


def test_invalid_values_are_nan_whatever_they_are() -> None:
    values = np.array([[np.nan, np.inf, -np.inf, 0.0, -1.0, 3.4e38, 2.0]], np.float32)
    depth = DepthImage(depth_message(values))
    np.testing.assert_array_equal(depth.metres(), [[np.nan] * 6 + [2.0]])
    np.testing.assert_array_equal(depth.masked(np.ones((1, 7), bool)), [[np.nan] * 6 + [2.0]])


def test_masked_depth_keeps_encoding_and_values_and_is_invalid_elsewhere() -> None:
    keep = np.array([[True, False, True], [False, True, True]])
    raw = DepthImage(depth_message(MILLIMETRES, big=True)).masked(keep)
    assert raw.dtype == np.uint16
    np.testing.assert_array_equal(raw, np.where(keep, MILLIMETRES, 0))
    values = np.array([[1.5, 2.0, np.inf], [-1.0, 0.0, 3.0]], np.float32)
    masked = DepthImage(depth_message(values)).masked(keep)
    assert masked.dtype == np.float32
    np.testing.assert_array_equal(masked, [[1.5, np.nan, np.nan], [np.nan, np.nan, 3.0]])


@pytest.mark.parametrize(
    ("fields", "cause", "words"),
    [
        ({"encoding": "mono8"}, "depth_encoding", "'mono8'.*32FC1.*16UC1"),
        ({"encoding": "64FC1"}, "depth_encoding", "REP 118"),
        ({"encoding": "x" * 99}, "depth_encoding", "allowed"),
        ({"width": 0}, "depth_size", "0 x 2"),
        ({"height": 0}, "depth_size", "3 x 0"),
        ({"width": 2**20, "height": 2**20}, "depth_size", "1048576"),
        ({"step": 5}, "depth_step", "needs 6 bytes"),
        ({"data": b""}, "depth_data", "0 bytes"),
        ({"data": b"123456789"}, "depth_data", "9 bytes"),
    ],
)
def test_what_cannot_be_a_depth_image_is_refused_with_the_reason(fields: dict, cause: str, words: str) -> None:
    with pytest.raises(BadInput, match=words) as refusal:
        DepthImage(depth_message(MILLIMETRES, **fields))
    assert refusal.value.cause == cause
