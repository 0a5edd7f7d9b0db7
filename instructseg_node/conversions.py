"""Messages to arrays and back. No rclpy and no message package: only the fields of the messages are used.

Everything here refuses rather than guesses: an image whose fields contradict each other raises :class:`BadImage`
with the field, the value it had and what is allowed.
"""

from __future__ import annotations

import array
import dataclasses
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from instructseg.core import BadInput

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


def stamp_ns(stamp: Any) -> int:
    """A ``builtin_interfaces/Time`` as whole nanoseconds."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def image_to_rgb(message: Any) -> np.ndarray:
    """A ``sensor_msgs/Image`` as ``(H, W, 3)`` uint8 RGB.

    ``rgb8`` without row padding is a view of the message's data (no copy); everything else is one conversion.
    Raises BadImage when size, step, data or encoding cannot be right.
    """
    height, width, step, encoding = int(message.height), int(message.width), int(message.step), str(message.encoding)
    _check_size(width, height)
    layout = _LAYOUTS.get(encoding)
    if layout is None:
        return _through_cv_bridge(message)

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
    return np.ascontiguousarray(layout.to_rgb(np.ascontiguousarray(pixels).reshape(shape)))


def compressed_to_rgb(message: Any) -> np.ndarray:
    """A ``sensor_msgs/CompressedImage`` (JPEG, PNG and whatever else OpenCV reads) as ``(H, W, 3)`` uint8 RGB.

    The bytes decide, not the ``format`` text, which drivers fill in many ways. 16-bit images keep their high byte.
    Raises BadImage when nothing can be decoded.
    """
    data = _bytes_of(message)
    named = f"image with format '{message.format}' and {data.size} bytes of data"
    if data.size == 0:
        raise BadImage("image_empty", f"compressed {named} is empty; a JPEG or PNG file is expected")
    file = data.tobytes()
    announced = announced_size(file)
    if announced is not None:
        _check_size(*announced)
    if _is_cut_off(file):
        raise BadImage("image_data", f"compressed {named} is cut off: the end mark of the file is missing")
    try:
        image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except cv2.error:
        image = None
    if image is None:
        raise BadImage("image_compressed", f"compressed {named} cannot be decoded; a JPEG or PNG file is expected")
    if image.dtype == np.uint16:
        image = _high_byte(image)
    if image.dtype != np.uint8:
        raise BadImage("image_compressed", f"compressed {named} holds {image.dtype} pixels; allowed: 8 or 16 bits")
    _check_size(image.shape[1], image.shape[0])
    channels = 1 if image.ndim == 2 else image.shape[2]
    codes = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}
    if channels not in codes:
        raise BadImage("image_compressed", f"compressed {named} has {channels} channels; allowed: 1, 3 or 4")
    return cv2.cvtColor(image, codes[channels])


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


def _is_cut_off(data: bytes) -> bool:
    """A JPEG or PNG without its end mark. Some OpenCV versions return the rest of such a picture as grey."""
    if data.startswith(b"\xff\xd8"):
        return data.rfind(b"\xff\xd9") < 0
    return data.startswith(b"\x89PNG") and data.rfind(b"IEND") < 0


def fill_image(message: Any, image: np.ndarray, encoding: str, header: Any) -> Any:
    """Write an array into a ``sensor_msgs/Image``: uint8 ``(H, W)`` / ``(H, W, C)`` or uint16 ``(H, W)``.

    The header is set as it is, the data goes in as ``array.array``: the one kind rclpy takes without checking
    every byte. Returns the message.
    """
    little = np.ascontiguousarray(image, dtype=image.dtype.newbyteorder("<"))
    message.header = header
    message.height, message.width = int(image.shape[0]), int(image.shape[1])
    message.encoding = encoding
    message.is_bigendian = 0
    message.step = int(little.strides[0])
    message.data = _as_array(little)
    return message


def fill_compressed(
    message: Any, image: np.ndarray, encoding: str, header: Any, *, codec: str, quality: int = 90
) -> Any:
    """Write an array into a ``sensor_msgs/CompressedImage``; codec ``png`` (lossless) or ``jpeg`` (for people only).

    image: rgb8 ``(H, W, 3)``, or mono8 / 16UC1 ``(H, W)``. Returns the message.
    """
    if codec not in ("png", "jpeg"):
        raise BadInput(f"codec is '{codec}'; allowed: png, jpeg")
    colour = image.ndim == 3
    stored = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if colour else image
    # PNG level 1: three times faster than the default and hardly larger for images of few values.
    options = [cv2.IMWRITE_PNG_COMPRESSION, 1] if codec == "png" else [cv2.IMWRITE_JPEG_QUALITY, int(quality)]
    done, encoded = cv2.imencode(".png" if codec == "png" else ".jpg", stored, options)
    if not done:
        raise BadInput(f"an image of {image.dtype} {image.shape} cannot be stored as {codec}")
    message.header = header
    message.format = f"{encoding}; {codec} compressed {'bgr8' if colour else encoding}"
    message.data = _as_array(encoded)
    return message


def _as_array(image: np.ndarray) -> array.array:
    data = array.array("B")
    data.frombytes(image.data.cast("B"))
    return data


def _bytes_of(message: Any) -> np.ndarray:
    try:
        return np.frombuffer(message.data, np.uint8) if len(message.data) else np.empty(0, np.uint8)
    except (TypeError, BufferError, ValueError) as error:
        kind = type(message.data).__name__
        raise BadImage("image_data", f"image.data is a {kind}; bytes or an array of uint8 are expected") from error


def _check_size(width: int, height: int) -> None:
    if width <= 0 or height <= 0:
        raise BadImage("image_empty", f"image is {width} x {height} pixels; both sides must be at least 16")
    if width < 16 or height < 16 or width * height > MAX_PIXELS:
        raise BadImage(
            "image_size",
            f"image is {width} x {height} pixels; allowed: sides of at least 16 and at most {MAX_PIXELS} pixels in all",
        )


def _through_cv_bridge(message: Any) -> np.ndarray:
    """Encodings outside the table, where a ROS installation brings cv_bridge."""
    encoding = str(message.encoding)
    try:
        import cv_bridge
    except ImportError:
        raise BadImage(
            "image_encoding",
            f"image.encoding is {encoding[:40]!r}; allowed: {', '.join(ENCODINGS)} "
            "(others need the ROS package cv_bridge, which is not installed)",
        ) from None
    try:
        image = cv_bridge.CvBridge().imgmsg_to_cv2(message, desired_encoding="rgb8")
    except Exception as error:  # cv_bridge raises its own and OpenCV's errors, and more where its extension is missing
        refusal = f"image.encoding is {encoding[:40]!r}; cv_bridge refuses it: {error}"
        raise BadImage("image_encoding", refusal) from error
    return np.ascontiguousarray(image)
