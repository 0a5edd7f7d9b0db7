"""Image messages of ROS to arrays: of a camera's pictures and of label images. No ROS is imported: only the fields of
``sensor_msgs/Image`` and ``sensor_msgs/CompressedImage`` are used, from rclpy's classes or from a bag's.

Everything here refuses rather than guesses: an image whose fields contradict each other raises :class:`BadImage`
with the field, the value it had and what is allowed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from .core import BadInput

MAX_PIXELS = 2**26  # 67 megapixels: far above any robot camera, far below what would exhaust the memory


class BadImage(BadInput):
    """An image message that cannot be used. ``cause`` is the short name it is counted under in the diagnostics."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


@dataclasses.dataclass(frozen=True)
class _Layout:
    """How the bytes of one encoding lie, and how they become RGB.

    to_rgb takes ``(rows, W, channels)`` (or ``(rows, W)`` for one channel) of ``dtype``, native byte order.
    rows: data rows per image row, as (numerator, denominator); planar YUV has more rows than the picture.
    even: width and height have to be divisible by these (chroma subsampling, Bayer tiles).
    """

    to_rgb: Callable[[np.ndarray], np.ndarray]
    channels: int = 1
    dtype: type = np.uint8
    rows: tuple[int, int] = (1, 1)
    even: tuple[int, int] = (1, 1)  # (width, height)


def _cv(code: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda image: cv2.cvtColor(image, code)


def _high_byte(image: np.ndarray) -> np.ndarray:
    """16 bits to 8 over the full range, as cv_bridge does: no stretching, so brightness does not flicker."""
    return (image >> 8).astype(np.uint8)


def _cv16(code: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda image: cv2.cvtColor(_high_byte(image), code)


_BAYER = {
    "rggb": cv2.COLOR_BayerRGGB2RGB,
    "bggr": cv2.COLOR_BayerBGGR2RGB,
    "gbrg": cv2.COLOR_BayerGBRG2RGB,
    "grbg": cv2.COLOR_BayerGRBG2RGB,
}

# 8UC3 and 8UC4 name no channel order; OpenCV's own order (BGR) is what nearly every driver that uses them means.
_LAYOUTS: dict[str, _Layout] = {
    "rgb8": _Layout(lambda image: image, 3),
    "bgr8": _Layout(_cv(cv2.COLOR_BGR2RGB), 3),
    "8UC3": _Layout(_cv(cv2.COLOR_BGR2RGB), 3),
    "rgba8": _Layout(_cv(cv2.COLOR_RGBA2RGB), 4),
    "bgra8": _Layout(_cv(cv2.COLOR_BGRA2RGB), 4),
    "8UC4": _Layout(_cv(cv2.COLOR_BGRA2RGB), 4),
    "mono8": _Layout(_cv(cv2.COLOR_GRAY2RGB)),
    "8UC1": _Layout(_cv(cv2.COLOR_GRAY2RGB)),
    "mono16": _Layout(_cv16(cv2.COLOR_GRAY2RGB), dtype=np.uint16),
    "16UC1": _Layout(_cv16(cv2.COLOR_GRAY2RGB), dtype=np.uint16),
    "uyvy": _Layout(_cv(cv2.COLOR_YUV2RGB_UYVY), 2, even=(2, 1)),
    "yuv422": _Layout(_cv(cv2.COLOR_YUV2RGB_UYVY), 2, even=(2, 1)),  # the older name of uyvy
    "yuyv": _Layout(_cv(cv2.COLOR_YUV2RGB_YUY2), 2, even=(2, 1)),
    "yuv422_yuy2": _Layout(_cv(cv2.COLOR_YUV2RGB_YUY2), 2, even=(2, 1)),  # the older name of yuyv
    "nv21": _Layout(_cv(cv2.COLOR_YUV2RGB_NV21), rows=(3, 2), even=(2, 2)),
    **{f"bayer_{name}8": _Layout(_cv(code), even=(2, 2)) for name, code in _BAYER.items()},
    **{f"bayer_{name}16": _Layout(_cv16(code), dtype=np.uint16, even=(2, 2)) for name, code in _BAYER.items()},
}

ENCODINGS: tuple[str, ...] = tuple(_LAYOUTS)
LABEL_ENCODINGS = {"mono8": np.uint8, "8UC1": np.uint8, "mono16": np.uint16, "16UC1": np.uint16, "32SC1": np.int32}


def stamp_ns(stamp: Any) -> int:
    """A ``builtin_interfaces/Time`` as whole nanoseconds."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def image_to_rgb(message: Any) -> np.ndarray:
    """A ``sensor_msgs/Image`` as ``(H, W, 3)`` uint8 RGB.

    ``rgb8`` without row padding is a view of the message's data (no copy); everything else is one conversion.
    Raises BadImage when size, step, data or encoding cannot be right.
    """
    height, width, step, encoding = int(message.height), int(message.width), int(message.step), str(message.encoding)
    check_size(width, height)
    layout = _LAYOUTS.get(encoding)
    if layout is None:
        raise BadImage("image_encoding", f"image.encoding is {encoding[:40]!r}; allowed: {', '.join(ENCODINGS)}")
    return np.ascontiguousarray(layout.to_rgb(_pixels(message, width, height, step, encoding, layout)))


def image_to_labels(message: Any) -> np.ndarray:
    """A label image in ``sensor_msgs/Image`` as ``(H, W)`` of its own integer type, one id a pixel, 0 the background.

    Raises BadImage where the fields contradict each other and for encodings that are no label images.
    """
    height, width, step, encoding = int(message.height), int(message.width), int(message.step), str(message.encoding)
    check_size(width, height)
    if encoding not in LABEL_ENCODINGS:
        allowed = ", ".join(LABEL_ENCODINGS)
        raise BadImage("image_encoding", f"a label image's encoding is {encoding[:40]!r}; allowed: {allowed}")
    layout = _Layout(lambda image: image, dtype=LABEL_ENCODINGS[encoding])
    return np.ascontiguousarray(_pixels(message, width, height, step, encoding, layout))


def compressed_to_rgb(message: Any) -> np.ndarray:
    """A ``sensor_msgs/CompressedImage`` (JPEG, PNG and whatever else OpenCV reads) as ``(H, W, 3)`` uint8 RGB.

    The bytes decide, not the ``format`` text, which drivers fill in many ways. 16-bit images keep their high byte.
    Raises BadImage when nothing can be decoded.
    """
    image = _unpacked(message)
    if image.dtype == np.uint16:
        image = _high_byte(image)
    if image.dtype != np.uint8:
        raise BadImage(
            "image_compressed",
            f"compressed image with format '{message.format}' holds {image.dtype} pixels; allowed: 8 or 16 bits",
        )
    channels = 1 if image.ndim == 2 else image.shape[2]
    codes = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}
    if channels not in codes:
        raise BadImage(
            "image_compressed",
            f"compressed image with format '{message.format}' has {channels} channels; allowed: 1, 3 or 4",
        )
    return cv2.cvtColor(image, codes[channels])


def compressed_to_labels(message: Any) -> np.ndarray:
    """A label image in ``sensor_msgs/CompressedImage`` as ``(H, W)`` uint8 or uint16. Raises BadImage where nothing can
    be decoded, for colours, and for JPEG: it invents ids along every outline."""
    if _bytes_of(message)[:2].tobytes() == b"\xff\xd8":
        raise BadImage("image_compressed", "a label image comes as JPEG, which changes ids along outlines; record PNG")
    image = _unpacked(message)
    if image.ndim != 2 or image.dtype not in (np.uint8, np.uint16):
        raise BadImage(
            "image_compressed",
            f"a label image has {image.dtype} pixels of shape {image.shape}; one channel of 8 or 16 bits is expected",
        )
    return image


def announced_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) that a PNG or JPEG file announces, or None: known before a large picture is unpacked."""
    if data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) >= 24:
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if not data.startswith(b"\xff\xd8"):
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a start-of-frame segment
            return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _pixels(message: Any, width: int, height: int, step: int, encoding: str, layout: _Layout) -> np.ndarray:
    """``(rows, W, channels)``, or ``(rows, W)`` for one channel, as the message holds them, without row padding."""
    if width % layout.even[0] or height % layout.even[1]:
        raise BadImage(
            "image_size",
            f"image of encoding '{encoding}' is {width} x {height} pixels; its width must be a multiple of "
            f"{layout.even[0]} and its height of {layout.even[1]}",
        )
    dtype = np.dtype(layout.dtype)
    row_bytes = width * layout.channels * dtype.itemsize
    if step < row_bytes:
        raise BadImage(
            "image_step",
            f"image.step is {step}; a row of {width} pixels '{encoding}' needs at least {row_bytes} bytes",
        )
    rows = height * layout.rows[0] // layout.rows[1]
    data = _bytes_of(message)
    if data.size != rows * step:
        what = "height * step" if rows == height else f"{rows} rows * step"
        raise BadImage(
            "image_data",
            f"image.data has {data.size} bytes; {what} of this {width} x {height} '{encoding}' image is {rows * step}",
        )

    pixels = data.reshape(rows, step)[:, :row_bytes]  # (rows, W * channels * itemsize)
    if dtype.itemsize > 1:
        sent = dtype.newbyteorder(">" if message.is_bigendian else "<")
        pixels = np.ascontiguousarray(pixels).view(sent).astype(dtype, copy=False)
    shape = (rows, width) if layout.channels == 1 else (rows, width, layout.channels)
    return np.ascontiguousarray(pixels).reshape(shape)


def _unpacked(message: Any) -> np.ndarray:
    """The picture in a compressed message as OpenCV gives it."""
    data = _bytes_of(message)
    named = f"image with format '{message.format}' and {data.size} bytes of data"
    if data.size == 0:
        raise BadImage("image_empty", f"compressed {named} is empty; a JPEG or PNG file is expected")
    file = data.tobytes()
    announced = announced_size(file)
    if announced is not None:
        check_size(*announced)
    if _is_cut_off(file):
        raise BadImage("image_data", f"compressed {named} is cut off: the end mark of the file is missing")
    try:
        image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except cv2.error:
        image = None
    if image is None:
        raise BadImage("image_compressed", f"compressed {named} cannot be decoded; a JPEG or PNG file is expected")
    check_size(image.shape[1], image.shape[0])
    return image


def _is_cut_off(data: bytes) -> bool:
    """A JPEG or PNG without its end mark. Some OpenCV versions return the rest of such a picture as grey."""
    if data.startswith(b"\xff\xd8"):
        return data.rfind(b"\xff\xd9") < 0
    return data.startswith(b"\x89PNG") and not has_all_chunks(data)


def has_all_chunks(png: bytes) -> bool:
    """Whether the chunks of a PNG file lead from IHDR over IDAT to IEND. Others keep OpenCV busy for seconds."""
    kinds, at = [], 8
    while at + 12 <= len(png) and kinds[-1:] != [b"IEND"]:
        kinds.append(png[at + 4 : at + 8])
        at += 12 + int.from_bytes(png[at : at + 4], "big")
    return kinds[:1] == [b"IHDR"] and b"IDAT" in kinds and kinds[-1] == b"IEND" and at <= len(png)


def _bytes_of(message: Any) -> np.ndarray:
    try:
        return np.frombuffer(message.data, np.uint8) if len(message.data) else np.empty(0, np.uint8)
    except (TypeError, BufferError, ValueError) as error:
        kind = type(message.data).__name__
        raise BadImage("image_data", f"image.data is a {kind}; bytes or an array of uint8 are expected") from error


def check_size(width: int, height: int) -> None:
    """Raises BadImage for a picture too small to show anything, or larger than any camera's."""
    if width <= 0 or height <= 0:
        raise BadImage("image_empty", f"image is {width} x {height} pixels; both sides must be at least 16")
    if width < 16 or height < 16 or width * height > MAX_PIXELS:
        raise BadImage(
            "image_size",
            f"image is {width} x {height} pixels; allowed: sides of at least 16 and at most {MAX_PIXELS} pixels in all",
        )
