"""Depth that came compressed: the same metres as raw depth, and a refusal with the reason for what is none."""

from __future__ import annotations

import math
import struct
import types

import cv2
import numpy as np
import pytest
from unit.spatial_messages import HEADER, depth_message

from instructseg.core import BadInput
from instructseg_node.spatial.compressed_depth import TRANSPORTS, CompressedDepth, read_depth

DEPTH = np.arange(300, 300 + 48 * 64, dtype=np.uint16).reshape(48, 64)  # (H, W) millimetres
DEPTH[0, :3] = (0, 1, 65535)
PLAIN, PACKED, INVERSE = "16UC1; png compressed ", "16UC1; compressedDepth png", "32FC1; compressedDepth png"
A, B = 100.0 * 101.0, 1.0 - 100.0 * 101.0 / 10.0  # the plugin's own: quantisation 100, at most 10 m


def file(values: np.ndarray, kind: str = ".png") -> bytes:
    return cv2.imencode(kind, values)[1].tobytes()


def message(format: str, data: bytes) -> types.SimpleNamespace:
    return types.SimpleNamespace(header=HEADER, format=format, data=data)


def packed(png: bytes, a: float = 0.0, b: float = 0.0) -> bytes:
    return struct.pack("<i2f", 0, a, b) + png


def inverse(metres: np.ndarray) -> bytes:
    """As the plugin stores 32FC1."""
    with np.errstate(invalid="ignore", divide="ignore"):
        stored = np.where(np.isfinite(metres) & (metres > 0.0) & (metres < 10.0), A / metres + B, 0.0)
    return packed(file(stored.astype(np.uint16)), A, B)


@pytest.mark.parametrize(
    ("transport", "format", "data"),
    [
        ("compressed", PLAIN, file(DEPTH)),
        ("compressed", "16UC1; png compressed 16UC1", file(DEPTH)),
        ("compressed", "png", file(DEPTH)),
        ("compressed", "", file(DEPTH)),
        ("compressedDepth", PACKED, packed(file(DEPTH))),
        ("compressedDepth", PACKED, packed(file(DEPTH), math.nan, math.inf)),  # means nothing here
        ("compressedDepth", "16UC1; compressedDepth", packed(file(DEPTH))),  # as older releases write it
    ],
)
def test_millimetres_are_those_of_the_raw_image(transport: str, format: str, data: bytes) -> None:
    found, raw = read_depth(message(format, data), transport), read_depth(depth_message(DEPTH), "raw")
    assert (found.size, found.encoding, found.frame_id) == (raw.size, raw.encoding, raw.frame_id)
    np.testing.assert_array_equal(found.raw(), raw.raw())
    np.testing.assert_array_equal(found.metres(), raw.metres())
    keep = DEPTH % 2 == 0
    np.testing.assert_array_equal(found.masked(keep), raw.masked(keep))


def test_inverse_depth_becomes_metres() -> None:
    metres = np.linspace(0.16, 9.9, 48 * 64, dtype=np.float32).reshape(48, 64)
    metres[0, :5] = (np.nan, 0.0, -1.0, np.inf, 11.0)
    found = read_depth(message(INVERSE, inverse(metres)), "compressedDepth")
    assert found.encoding == "32FC1"
    got = found.metres()
    assert got.dtype == np.float32
    assert np.isnan(got[0, :5]).all()
    rest = got.ravel()[5:], metres.ravel()[5:]
    step = rest[1] ** 2 / A  # what one unit of the stored value is worth at that distance
    assert (np.abs(rest[0] - rest[1]) <= 1.01 * step).all()
    assert np.isnan(found.masked(np.zeros((48, 64), bool))).all()


def test_parameters_that_give_no_distance_give_invalid_depth() -> None:
    stored = np.array([[0, 1, 2, 3]] * 4, np.uint16)
    found = read_depth(message(INVERSE, packed(file(stored), 2.0, 2.0)), "compressedDepth")
    np.testing.assert_array_equal(found.metres()[0], [np.nan, np.nan, np.nan, 2.0])  # -2 m, infinite, 2 m


def test_pixels_are_unpacked_once_and_only_when_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda *given: calls.append(1) or real(*given))
    found = CompressedDepth(message(PLAIN, file(DEPTH)), "compressed")
    assert not calls
    found.metres(), found.masked(DEPTH > 0)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("transport", "format", "cause", "words"),
    [
        ("compressed", "16UC1; jpeg compressed ", "depth_format", "JPEG changes depths"),
        ("compressed", "jpeg", "depth_format", "'jpeg'; allowed"),
        ("compressed", "rgb8; png compressed bgr8", "depth_format", "allowed: '16UC1; png"),
        ("compressed", "32FC1; png compressed ", "depth_format", "allowed: '16UC1; png"),
        ("compressed", PACKED, "depth_format", "depth_transport to 'compressedDepth'"),
        ("compressed", "x" * 999, "depth_format", "x{60}'; allowed"),
        ("compressedDepth", PLAIN, "depth_format", "allowed with this depth_transport: '16UC1; compressedDepth png'"),
        ("compressedDepth", "16UC1; compressedDepth rvl", "depth_format", "RVL is not read; .*compressedDepth.format"),
        ("compressedDepth", "8UC1; compressedDepth png", "depth_format", "allowed"),
        ("compressedDepth", "compressedDepth png", "depth_format", "allowed"),
        ("compressedDepth", "", "depth_format", "allowed"),
    ],
)
def test_formats_that_are_not_read_are_named(transport: str, format: str, cause: str, words: str) -> None:
    with pytest.raises(BadInput, match=words) as refusal:
        read_depth(message(format, packed(file(DEPTH))), transport)
    assert refusal.value.cause == cause


def announcing(width: int, height: int) -> bytes:
    """A PNG file that says it is so large."""
    png = file(DEPTH)
    return png[:16] + struct.pack(">2I", width, height) + png[24:]


@pytest.mark.parametrize(
    ("png", "cause", "words"),
    [
        (b"", "depth_compressed", "0 bytes of file.* does not begin as a PNG"),
        (file(DEPTH)[:20], "depth_compressed", "does not begin as a PNG"),
        (b"\0" * 500, "depth_compressed", "does not begin as a PNG"),
        (file(DEPTH)[:-40], "depth_data", "cut off"),
        (file(DEPTH)[:600] + file(DEPTH)[-12:], "depth_data", "cut off"),
        (file((DEPTH // 256).astype(np.uint8), ".jpg"), "depth_compressed", "is a JPEG file"),
        (file((DEPTH // 256).astype(np.uint8)), "depth_compressed", "grey PNG file of 8 bits; allowed: grey, 16 bits"),
        (file(np.dstack([DEPTH] * 3)), "depth_compressed", "coloured PNG file of 16 bits"),
        (announcing(0, 48), "depth_size", "0 x 48"),
        (announcing(2**20, 2**20), "depth_size", "1048576 x 1048576"),
    ],
)
@pytest.mark.parametrize("transport", TRANSPORTS[1:])
def test_files_that_hold_no_depth_are_refused(transport: str, png: bytes, cause: str, words: str) -> None:
    with pytest.raises(BadInput, match=words) as refusal:
        read_depth(message(PLAIN, png) if transport == "compressed" else message(PACKED, packed(png)), transport)
    assert refusal.value.cause == cause


@pytest.mark.parametrize("png", [announcing(64, 47), announcing(32, 96)])
def test_damage_inside_of_a_file_is_found_when_it_is_unpacked(png: bytes) -> None:
    found = read_depth(message(PLAIN, png), "compressed")
    for read in (found.raw, found.metres):
        with pytest.raises(BadInput, match="cannot be unpacked: the PNG file is damaged") as refusal:
            read()
        assert refusal.value.cause == "depth_compressed"


def test_a_flipped_bit_never_passes_for_depth() -> None:
    png = file(DEPTH)
    for place in np.linspace(33, len(png) - 13, 50, dtype=int):
        broken = bytearray(png)
        broken[place] ^= 0x10
        with pytest.raises(BadInput, match="damaged|cut off"):
            read_depth(message(PLAIN, bytes(broken)), "compressed").raw()


@pytest.mark.parametrize("numbers", [(0.0, 1.0), (-1.0, 0.0), (math.nan, 0.0), (1.0, math.inf)])
def test_quantisation_parameters_that_cannot_be(numbers: tuple[float, float]) -> None:
    with pytest.raises(BadInput, match="quantisation parameters .* above 0") as refusal:
        read_depth(message(INVERSE, packed(file(DEPTH), *numbers)), "compressedDepth")
    assert refusal.value.cause == "depth_quantisation"


def test_a_message_shorter_than_its_own_header() -> None:
    with pytest.raises(BadInput, match="has 11 bytes; compressedDepth begins with 12") as refusal:
        read_depth(message(PACKED, b"\0" * 11), "compressedDepth")
    assert refusal.value.cause == "depth_data"
