"""Depth images as metres (REP 118). No rclpy and no message package: only the fields of the messages are used."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any

import numpy as np

from ..conversions import MAX_PIXELS, BadImage

# encoding: type of a pixel, metres per unit
ENCODINGS: dict[str, tuple[type, float]] = {"32FC1": (np.float32, 1.0), "16UC1": (np.uint16, 0.001)}
FARTHEST = 10_000.0  # m: no depth sensor sees so far; some write the largest float where they see nothing


class Depth(abc.ABC):
    """A depth image whose fields have been checked; the pixels are read when somebody wants them."""

    @property
    @abc.abstractmethod
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""

    @property
    @abc.abstractmethod
    def encoding(self) -> str:
        """Of :meth:`raw`: a key of :data:`ENCODINGS`."""

    @property
    @abc.abstractmethod
    def frame_id(self) -> str:
        """The optical frame that the depth is given in."""

    @abc.abstractmethod
    def raw(self) -> np.ndarray:
        """``(H, W)`` in the unit of the encoding, native byte order: float32 or uint16."""

    def metres(self) -> np.ndarray:
        """``(H, W)`` float32 distances along the optical axis in metres; NaN where invalid (NaN, 0 or less, inf
        or :data:`FARTHEST`)."""
        raw = self.raw()
        metres = raw.astype(np.float32) * np.float32(ENCODINGS[self.encoding][1])
        metres[~((metres > 0.0) & (metres < FARTHEST))] = np.nan  # NaN is neither
        return metres

    def masked(self, keep: np.ndarray) -> np.ndarray:
        """``(H, W)`` in the message's own unit and type, invalid (NaN, or 0 for 16UC1) outside ``keep`` ``(H, W)`` bool
        and wherever it was invalid before."""
        raw = self.raw()
        if raw.dtype == np.uint16:
            return np.where(keep, raw, np.uint16(0))
        with np.errstate(invalid="ignore"):
            good = keep & (raw > 0.0) & (raw < FARTHEST)
        return np.where(good, raw, np.float32(np.nan))


@dataclasses.dataclass(frozen=True, eq=False)
class DepthImage(Depth):
    """Depth as it is.

    message: a ``sensor_msgs/Image`` (or anything with its fields), which must not be changed any more.
    """

    message: Any

    def __post_init__(self) -> None:
        """Raises BadImage when encoding, size, step or data cannot be right; the pixels may be anything."""
        message = self.message
        width, height, encoding = int(message.width), int(message.height), str(message.encoding)
        if encoding not in ENCODINGS:
            raise BadImage(
                "depth_encoding",
                f"depth.encoding is {encoding[:40]!r}; allowed: 32FC1 (metres) and 16UC1 (millimetres), see REP 118",
            )
        if width < 1 or height < 1 or width * height > MAX_PIXELS:
            raise BadImage(
                "depth_size", f"depth is {width} x {height} pixels; allowed: 1 x 1 to {MAX_PIXELS} pixels in all"
            )
        row_bytes = width * np.dtype(ENCODINGS[encoding][0]).itemsize
        if message.step < row_bytes:
            raise BadImage(
                "depth_step",
                f"depth.step is {message.step}; a row of {width} pixels '{encoding}' needs {row_bytes} bytes",
            )
        if len(message.data) != height * message.step:
            raise BadImage(
                "depth_data",
                f"depth.data has {len(message.data)} bytes; height * step of this {width} x {height} image is "
                f"{height * message.step}",
            )

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return int(self.message.height), int(self.message.width)

    @property
    def encoding(self) -> str:
        return str(self.message.encoding)

    @property
    def frame_id(self) -> str:
        return str(self.message.header.frame_id)

    def raw(self) -> np.ndarray:
        """``(H, W)`` in the message's own unit, native byte order: float32 or uint16."""
        height, width = self.size
        dtype = np.dtype(ENCODINGS[self.encoding][0])
        data = np.frombuffer(self.message.data, np.uint8).reshape(height, int(self.message.step))
        pixels = np.ascontiguousarray(data[:, : width * dtype.itemsize])  # (H, W * itemsize)
        sent = dtype.newbyteorder(">" if self.message.is_bigendian else "<")
        return pixels.view(sent).astype(dtype, copy=False)  # (H, W)
