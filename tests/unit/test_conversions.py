"""Messages to arrays and back, on hand-made messages: no ROS is needed here."""

from __future__ import annotations

import array
import sys
import types

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instructseg.core import BadInput
from instructseg_node import conversions

H, W = 18, 24
HEADER = types.SimpleNamespace(stamp=types.SimpleNamespace(sec=3, nanosec=5), frame_id="camera_optical")


def picture() -> np.ndarray:
    """A smooth RGB picture: chroma subsampling and Bayer tiles lose little of it."""
    rows, columns = np.mgrid[0:H, 0:W]
    return np.stack([columns * 10, rows * 14, 255 - columns * 5 - rows * 3], axis=-1).astype(np.uint8)


def message(data: np.ndarray, encoding: str, *, width: int = W, height: int = H, pad: int = 0, big: bool = False):
    """An image message whose rows carry ``pad`` bytes of rubbish behind the pixels."""
    rows = np.ascontiguousarray(data).reshape(data.shape[0], -1).view(np.uint8)
    rows = np.concatenate([rows, np.full((rows.shape[0], pad), 0xAB, np.uint8)], axis=1)
    return types.SimpleNamespace(
        header=HEADER, height=height, width=width, encoding=encoding, is_bigendian=int(big),
        step=rows.shape[1], data=array.array("B", rows.tobytes()),
    )  # fmt: skip


def grey() -> np.ndarray:
    return cv2.cvtColor(picture(), cv2.COLOR_RGB2GRAY)


def with_alpha(rgb: np.ndarray) -> np.ndarray:
    return np.concatenate([rgb, np.full((H, W, 1), 7, np.uint8)], axis=-1)


EXACT = {
    "rgb8": (picture(), picture()),
    "bgr8": (picture()[..., ::-1], picture()),
    "8UC3": (picture()[..., ::-1], picture()),
    "rgba8": (with_alpha(picture()), picture()),
    "bgra8": (with_alpha(picture()[..., ::-1]), picture()),
    "8UC4": (with_alpha(picture()[..., ::-1]), picture()),
    "mono8": (grey(), np.repeat(grey()[..., None], 3, axis=-1)),
    "8UC1": (grey(), np.repeat(grey()[..., None], 3, axis=-1)),
}


@pytest.mark.parametrize("pad", [0, 13])
@pytest.mark.parametrize("encoding", EXACT)
def test_eight_bit_encodings_are_exact_and_padding_is_dropped(encoding: str, pad: int) -> None:
    sent, expected = EXACT[encoding]
    got = conversions.image_to_rgb(message(sent, encoding, pad=pad))
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("encoding", ["mono16", "16UC1"])
def test_sixteen_bits_honour_byte_order_and_keep_the_high_byte(encoding: str, big: bool) -> None:
    values = grey().astype(np.uint16) * 256 + 17
    got = conversions.image_to_rgb(message(values.astype(">u2" if big else "<u2"), encoding, pad=3, big=big))
    np.testing.assert_array_equal(got, np.repeat(grey()[..., None], 3, axis=-1))


def mosaic(pattern: str, rgb: np.ndarray) -> np.ndarray:
    """What a sensor with this colour pattern would deliver; the name lists the first two rows of the tile."""
    out = np.empty((H, W), np.uint8)
    for index, colour in enumerate(pattern):
        row, column = divmod(index, 2)
        out[row::2, column::2] = rgb[row::2, column::2, "rgb".index(colour)]
    return out


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns_give_the_right_colours(pattern: str, bits: int) -> None:
    rgb = np.empty((H, W, 3), np.uint8)
    rgb[:] = (200, 120, 40)  # a flat colour: demosaicing must return it exactly, in the right order
    tile = mosaic(pattern, rgb)
    if bits == 16:
        tile = tile.astype("<u2") * 256
    got = conversions.image_to_rgb(message(tile, f"bayer_{pattern}{bits}"))
    np.testing.assert_array_equal(got[2:-2, 2:-2], rgb[2:-2, 2:-2])


def packed_yuv(order: str) -> np.ndarray:
    yuv = cv2.cvtColor(picture(), cv2.COLOR_RGB2YUV)
    luma, u, v = yuv[..., 0], yuv[:, 0::2, 1], yuv[:, 0::2, 2]
    out = np.empty((H, W, 2), np.uint8)
    chroma, bright = (0, 1) if order == "uyvy" else (1, 0)
    out[..., bright] = luma
    out[:, 0::2, chroma], out[:, 1::2, chroma] = u, v
    return out


@pytest.mark.parametrize(
    ("encoding", "order"), [("uyvy", "uyvy"), ("yuv422", "uyvy"), ("yuyv", "yuyv"), ("yuv422_yuy2", "yuyv")]
)
def test_packed_yuv(encoding: str, order: str) -> None:
    got = conversions.image_to_rgb(message(packed_yuv(order), encoding, pad=4))
    # The standards differ in range (16..235 or 0..255): the colours agree, not the last bit.
    assert np.abs(got.astype(int) - picture()).mean() < 22
    assert np.corrcoef(got.ravel(), picture().ravel())[0, 1] > 0.97


def test_planar_nv21() -> None:
    i420 = cv2.cvtColor(picture(), cv2.COLOR_RGB2YUV_I420)
    u, v = np.split(i420[H:].reshape(-1), 2)
    data = np.concatenate([i420[:H], np.stack([v, u], axis=-1).reshape(H // 2, W)])
    got = conversions.image_to_rgb(message(data, "nv21"))
    assert np.abs(got.astype(int) - picture()).mean() < 8


def test_rgb8_is_not_copied() -> None:
    sent = message(picture(), "rgb8")
    assert np.shares_memory(conversions.image_to_rgb(sent), np.frombuffer(sent.data, np.uint8))


def spoilt(**fields: object):
    sent = message(picture(), "rgb8")
    for name, value in fields.items():
        setattr(sent, name, value)
    return sent


@pytest.mark.parametrize(
    ("sent", "cause", "words"),
    [
        (spoilt(height=0, data=array.array("B")), "image_empty", "24 x 0"),
        (spoilt(width=0, step=0, data=array.array("B")), "image_empty", "0 x 18"),
        (spoilt(height=8), "image_size", "24 x 8"),
        (spoilt(height=2**20, width=2**20), "image_size", "at most"),
        (spoilt(step=W), "image_step", "image.step is 24"),
        (spoilt(step=0), "image_step", "at least 72"),
        (spoilt(step=W * 3 + 1), "image_data", "1314"),
        (spoilt(data=array.array("B", bytes(100))), "image_data", "100 bytes"),
        (spoilt(data=array.array("B")), "image_data", "0 bytes"),
        (spoilt(data=array.array("B", bytes(H * W * 3 + 1))), "image_data", "1297 bytes"),
        (spoilt(data=[1, 2, 3]), "image_data", "list"),
        (spoilt(encoding="hsv9"), "image_encoding", "'hsv9'"),
        (spoilt(encoding=""), "image_encoding", "rgb8, bgr8"),
        (spoilt(encoding="x" * 5000), "image_encoding", "allowed"),
        (spoilt(encoding="mono16"), "image_data", "bytes"),
    ],
)
def test_bad_images_are_named_and_refused(sent: object, cause: str, words: str, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "cv_bridge", None)  # as where it is not installed
    if sent.encoding == "mono16":
        sent.step = W * 2
    with pytest.raises(conversions.BadImage) as caught:
        conversions.image_to_rgb(sent)
    assert caught.value.cause == cause
    assert words in str(caught.value)
    assert len(str(caught.value)) < 700
    assert isinstance(caught.value, BadInput)


@pytest.mark.parametrize("encoding", ["uyvy", "nv21", "bayer_rggb8"])
def test_odd_widths_are_refused_where_the_encoding_cannot_have_them(encoding: str) -> None:
    with pytest.raises(conversions.BadImage, match="multiple"):
        conversions.image_to_rgb(spoilt(encoding=encoding, width=W - 1))


@settings(max_examples=150, deadline=None)
@given(
    height=st.integers(-2, 40), width=st.integers(-2, 40), step=st.integers(-2, 200), size=st.integers(0, 4000),
    encoding=st.sampled_from(conversions.ENCODINGS + ("", "32FC1")), big=st.integers(0, 255),
)  # fmt: skip
def test_any_header_gives_a_picture_or_a_named_refusal(height, width, step, size, encoding, big) -> None:
    sent = spoilt(
        height=height, width=width, step=step, encoding=encoding, is_bigendian=big, data=array.array("B", bytes(size))
    )
    try:
        got = conversions.image_to_rgb(sent)
    except conversions.BadImage as error:
        cause, got = error.cause, None
    if got is None:
        assert cause.startswith("image_")
    else:
        assert got.shape == (height, width, 3)
        assert got.dtype == np.uint8


def test_other_encodings_go_through_cv_bridge_where_it_is_installed(monkeypatch) -> None:
    class Bridge:
        def imgmsg_to_cv2(self, sent, desired_encoding):
            if sent.encoding == "broken":
                raise RuntimeError("no conversion")
            assert desired_encoding == "rgb8"
            return picture()

    monkeypatch.setitem(sys.modules, "cv_bridge", types.SimpleNamespace(CvBridge=Bridge))
    np.testing.assert_array_equal(conversions.image_to_rgb(spoilt(encoding="nv24")), picture())
    with pytest.raises(conversions.BadImage, match="no conversion"):
        conversions.image_to_rgb(spoilt(encoding="broken"))


def compressed(data: bytes, name: str = "jpeg"):
    return types.SimpleNamespace(header=HEADER, format=name, data=array.array("B", data))


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_compressed_colour(suffix: str) -> None:
    data = cv2.imencode(suffix, picture()[..., ::-1])[1].tobytes()
    assert conversions.announced_size(data) == (W, H)
    got = conversions.compressed_to_rgb(compressed(data))
    assert np.abs(got.astype(int) - picture()).mean() < (6 if suffix == ".jpg" else 0.01)


@pytest.mark.parametrize("image", [grey(), grey().astype(np.uint16) * 256 + 3])
def test_compressed_grey_and_sixteen_bits(image: np.ndarray) -> None:
    got = conversions.compressed_to_rgb(compressed(cv2.imencode(".png", image)[1].tobytes(), "png"))
    np.testing.assert_array_equal(got, np.repeat(grey()[..., None], 3, axis=-1))


def bomb() -> bytes:
    data = bytearray(cv2.imencode(".png", grey())[1].tobytes())
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "image_empty"),
        (b"not a picture at all", "image_compressed"),
        (cv2.imencode(".jpg", picture())[1].tobytes()[:-200], "image_data"),
        (cv2.imencode(".png", picture())[1].tobytes()[:-40], "image_data"),
        (b"\xff\xd8\xff", "image_data"),
        (b"\xff\xd8\xff\xd9", "image_compressed"),
        (cv2.imencode(".png", np.zeros((4, 4), np.uint8))[1].tobytes(), "image_size"),
        (bomb(), "image_size"),
    ],
)
def test_bad_compressed_images(data: bytes, cause: str) -> None:
    with pytest.raises(conversions.BadImage) as caught:
        conversions.compressed_to_rgb(compressed(data))
    assert caught.value.cause == cause


def test_float_pixels_in_a_file_are_refused() -> None:
    data = cv2.imencode(".tiff", picture().astype(np.float32))[1].tobytes()
    with pytest.raises(conversions.BadImage, match="float32"):
        conversions.compressed_to_rgb(compressed(data, "tiff"))


def test_fill_image_round_trip_and_array_type() -> None:
    ids = np.arange(H * W, dtype=np.uint16).reshape(H, W) * 100
    sent = conversions.fill_image(types.SimpleNamespace(), ids[:, ::-1], "16UC1", HEADER)
    assert sent.header is HEADER
    assert isinstance(sent.data, array.array)
    assert sent.data.typecode == "B"
    assert (sent.height, sent.width, sent.step, sent.is_bigendian, sent.encoding) == (H, W, W * 2, 0, "16UC1")
    np.testing.assert_array_equal(np.frombuffer(sent.data, "<u2").reshape(H, W), ids[:, ::-1])
    colour = conversions.fill_image(types.SimpleNamespace(), picture(), "rgb8", HEADER)
    np.testing.assert_array_equal(conversions.image_to_rgb(colour), picture())


def test_fill_compressed_is_lossless_as_png() -> None:
    ids = np.arange(H * W, dtype=np.uint16).reshape(H, W) * 100
    sent = conversions.fill_compressed(types.SimpleNamespace(), ids, "16UC1", HEADER, codec="png")
    assert sent.format == "16UC1; png compressed 16UC1"
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(sent.data, np.uint8), cv2.IMREAD_UNCHANGED), ids)
    colour = conversions.fill_compressed(types.SimpleNamespace(), picture(), "rgb8", HEADER, codec="jpeg")
    assert colour.format == "rgb8; jpeg compressed bgr8"
    assert np.abs(conversions.compressed_to_rgb(colour).astype(int) - picture()).mean() < 8
    with pytest.raises(BadInput, match="webp"):
        conversions.fill_compressed(types.SimpleNamespace(), ids, "16UC1", HEADER, codec="webp")


def test_stamps_keep_every_nanosecond() -> None:
    stamp = types.SimpleNamespace(sec=2_000_000_000, nanosec=999_999_999)
    assert conversions.stamp_ns(stamp) == 2_000_000_000_999_999_999


@pytest.mark.parametrize("ending", [b"", b"\x00\x00\x00\x00IEND\xaeB`\x82"])
def test_a_png_without_its_pixels_is_refused_before_it_is_read(ending: bytes) -> None:
    """OpenCV reads on in such a file for seconds, in which the node would hear nothing."""
    size = (8000).to_bytes(4, "big")
    header = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + size + size + b"\x08\x03\x00\x00\x00" + b"crc."
    for rest in (b"rubbish IEND", b"\x7f\xff\xff\xffIDAT IEND"):
        message = types.SimpleNamespace(format="png", data=header + rest + ending)
        with pytest.raises(conversions.BadImage, match="cut off"):
            conversions.compressed_to_rgb(message)
