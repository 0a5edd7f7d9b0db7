"""Depth images in ``sensor_msgs/CompressedImage``, as image_transport's plugins ``compressed`` and ``compressedDepth``
send them. No rclpy and no message package: only the fields of the messages are used.

``compressed``: a PNG file of 16 bits, millimetres. ``compressedDepth``: 12 bytes (int32 kind, float32 A, float32 B,
little endian), then a PNG file of 16 bits; with 16UC1 its values are millimetres, with 32FC1 v stands for A / (v - B)
metres and 0 for invalid. What is stored with RVL, or as JPEG, is refused.
"""

from __future__ import annotations

import functools
import math
import struct
from typing import Any

import cv2
import numpy as np

from instructseg.image_messages import has_all_chunks

from ..conversions import MAX_PIXELS, BadImage
from .depth import ENCODINGS, Depth, DepthImage

RAW, COMPRESSED, COMPRESSED_DEPTH = "raw", "compressed", "compressedDepth"
TRANSPORTS = (RAW, COMPRESSED, COMPRESSED_DEPTH)
_QUANTISATION = struct.Struct("<i2f")  # kind (always inverse depth, and not always set), A, B
_PNG = struct.Struct(">8s4x4s2I2B")  # signature, length of the first chunk, its name, width, height, bits, colour type
_GREY = 0  # PNG's colour type of one channel


def read_depth(message: Any, transport: str) -> Depth:
    """The depth image of a message that came by this transport. Raises BadImage where it cannot be one."""
    return DepthImage(message) if transport == RAW else CompressedDepth(message, transport)


class CompressedDepth(Depth):
    """Depth that is unpacked when somebody wants its pixels: one that is never paired costs next to nothing.

    message: a ``sensor_msgs/CompressedImage`` (or anything with its fields), which must not be changed any more.
    transport: COMPRESSED or COMPRESSED_DEPTH.
    """

    def __init__(self, message: Any, transport: str) -> None:
        """Raises BadImage where format, size or the kind of file cannot be right; damage inside of it shows later."""
        self._message = message
        self._encoding = _encoding(str(message.format), transport)
        data = np.frombuffer(message.data, np.uint8) if len(message.data) else np.empty(0, np.uint8)
        self._a = self._b = math.nan
        if transport == COMPRESSED_DEPTH:
            self._a, self._b = _quantisation(data, self._encoding)
            data = data[_QUANTISATION.size :]
        self._file = data
        self._size = _png_size(data, str(message.format))

    @property
    def size(self) -> tuple[int, int]:
        return self._size

    @property
    def encoding(self) -> str:
        return self._encoding

    @property
    def frame_id(self) -> str:
        return str(self._message.header.frame_id)

    def raw(self) -> np.ndarray:
        """``(H, W)`` uint16 millimetres or float32 metres. Raises BadImage where the file is damaged."""
        return self._pixels

    @functools.cached_property
    def _pixels(self) -> np.ndarray:
        try:
            stored = cv2.imdecode(self._file, cv2.IMREAD_UNCHANGED)
        except cv2.error:
            stored = None
        if stored is None or stored.dtype != np.uint16 or stored.shape != self._size:
            raise BadImage(
                "depth_compressed", f"depth.data ({_named(self._message)}) cannot be unpacked: the PNG file is damaged"
            )
        if self._encoding == "16UC1":
            return stored
        with np.errstate(divide="ignore"):
            metres = np.float32(self._a) / (stored.astype(np.float32) - np.float32(self._b))  # (H, W)
        metres[stored == 0] = np.nan
        return metres


def _encoding(text: str, transport: str) -> str:
    """What the pixels are, from the message's format: ``16UC1; png compressed`` or ``32FC1; compressedDepth png``."""
    encoding, _, packing = (part.strip() for part in text.partition(";"))
    words = packing.lower().split()
    if transport == COMPRESSED:
        if "compresseddepth" in words:
            raise _bad_format(text, "for that set the parameter depth_transport to 'compressedDepth'")
        if text.strip().lower() in ("", "png"):  # as those write it who fill the message themselves
            return "16UC1"
        if encoding == "16UC1" and "png" in words:
            return encoding
        raise _bad_format(text, "allowed: '16UC1; png compressed' (millimetres) or 'png'; JPEG changes depths")
    if "rvl" in words:
        raise _bad_format(text, "RVL is not read; set the parameter compressedDepth.format of the sender to 'png'")
    if encoding in ENCODINGS and words in (["compresseddepth"], ["compresseddepth", "png"]):
        return encoding
    raise _bad_format(
        text, "allowed with this depth_transport: '16UC1; compressedDepth png' and '32FC1; compressedDepth png'"
    )


def _bad_format(text: str, why: str) -> BadImage:
    return BadImage("depth_format", f"depth.format is {text[:60]!r}; {why}")


def _quantisation(data: np.ndarray, encoding: str) -> tuple[float, float]:
    """A and B of the header; only 32FC1 needs them, and senders of 16UC1 leave them as they happen to be."""
    if len(data) < _QUANTISATION.size:
        raise BadImage(
            "depth_data",
            f"depth.data has {len(data)} bytes; compressedDepth begins with {_QUANTISATION.size} of its own",
        )
    _, a, b = _QUANTISATION.unpack_from(data)
    if encoding == "32FC1" and not (math.isfinite(a) and math.isfinite(b) and a > 0.0):
        raise BadImage(
            "depth_quantisation",
            f"depth.data begins with the quantisation parameters {a:g} and {b:g}; finite ones, the first above 0, are "
            "expected",
        )
    return a, b


def _png_size(file: np.ndarray, text: str) -> tuple[int, int]:
    """(height, width) of a PNG file of one channel with 16 bits, from its first bytes."""
    named = f"depth.data (format {text[:60]!r}, {len(file)} bytes of file)"
    head = file[: _PNG.size].tobytes()
    if head.startswith(b"\xff\xd8"):
        raise BadImage("depth_compressed", f"{named} is a JPEG file, which changes depths; send PNG")
    if len(head) < _PNG.size or not head.startswith(b"\x89PNG\r\n\x1a\n") or head[12:16] != b"IHDR":
        raise BadImage("depth_compressed", f"{named} does not begin as a PNG file does; a whole one is expected")
    _, _, width, height, bits, colour = _PNG.unpack(head)
    if (bits, colour) != (16, _GREY):
        kind = "grey" if colour == _GREY else "coloured"
        raise BadImage("depth_compressed", f"{named} is a {kind} PNG file of {bits} bits; allowed: grey, 16 bits")
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        raise BadImage(
            "depth_size", f"depth is {width} x {height} pixels; allowed: 1 x 1 to {MAX_PIXELS} pixels in all"
        )
    if not has_all_chunks(file.tobytes()):
        raise BadImage("depth_data", f"{named} is cut off: the end mark of the PNG file is missing")
    return height, width


def _named(message: Any) -> str:
    return f"format {str(message.format)[:60]!r}, {len(message.data)} bytes"
