"""Masks of COCO annotations: polygons of several parts, and run lengths, plain and compressed (pycocotools).

The library's C code trusts what it is given, so everything is looked at before: a mask of a file from elsewhere must
not write beyond its array.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco

from ...core import BadInput

MOST_PIXELS = 1 << 28


def decode_segmentation(segmentation: Any, height: int, width: int, where: str) -> np.ndarray:
    """``(height, width)`` bool of a COCO ``segmentation``; ``where`` begins the message of BadInput.

    A list of polygons ``[x, y, x, y, ...]`` in pixels counts as one thing of several parts (COCO 2014, RefCOCO); a
    dictionary ``{"size": [height, width], "counts": ...}`` holds run lengths, columns first, as list or as text; a list
    of such dictionaries is one thing again (RefCLEF).
    """
    check_size(height, width, where)
    if isinstance(segmentation, dict):
        return _from_runs(segmentation, height, width, where)
    if isinstance(segmentation, list) and segmentation and all(isinstance(part, dict) for part in segmentation):
        parts = [
            _from_runs(part, height, width, f"{where}: 'segmentation'[{i}]") for i, part in enumerate(segmentation)
        ]
        return np.any(parts, axis=0)
    if isinstance(segmentation, list) and segmentation:
        return _from_polygons(segmentation, height, width, where)
    raise BadInput(f"{where}: 'segmentation' must be a list of polygons or run lengths; got {_short(segmentation)}")


def check_size(height: Any, width: Any, where: str) -> None:
    """Raises BadInput unless both are whole numbers above 0 of an image that fits into memory."""
    for name, value in (("height", height), ("width", width)):
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
            raise BadInput(f"{where}: {name!r} must be a whole number above 0; got {_short(value)}")
    if height * width > MOST_PIXELS:
        raise BadInput(f"{where}: {width} x {height} pixels are more than {MOST_PIXELS}")


def _from_polygons(polygons: list, height: int, width: int, where: str) -> np.ndarray:
    for index, polygon in enumerate(polygons):
        _check_polygon(polygon, height, width, f"{where}: 'segmentation'[{index}]")
    parts = coco.frPyObjects(polygons, height, width)
    return coco.decode(coco.merge(parts)).view(bool)


def _check_polygon(polygon: Any, height: int, width: int, where: str) -> None:
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        raise BadInput(f"{where} must list x, y of at least three points; got {_short(polygon)}")
    try:
        points = np.array(polygon, np.float64).reshape(-1, 2)  # (points, xy)
    except (TypeError, ValueError, OverflowError):
        raise BadInput(f"{where} must hold numbers only; got {_short(polygon)}") from None
    low, high = points.min(0), points.max(0)
    if not np.isfinite(points).all():
        raise BadInput(f"{where} holds a coordinate that is no finite number; got {_short(polygon)}")
    # An outline is walked pixel by pixel: one that leads far outside would take gigabytes.
    if (low < (-width, -height)).any() or (high > (2 * width, 2 * height)).any():
        raise BadInput(
            f"{where} leads from ({low[0]:g}, {low[1]:g}) to ({high[0]:g}, {high[1]:g}), far outside the image of "
            f"{width} x {height}"
        )


def _from_runs(runs: dict, height: int, width: int, where: str) -> np.ndarray:
    size, counts = runs.get("size"), runs.get("counts")
    if size != [height, width]:
        raise BadInput(f"{where}: 'size' of the run lengths is {_short(size)}, the image's [height, width] is "
                       f"[{height}, {width}]")  # fmt: skip
    if isinstance(counts, (str, bytes)):
        lengths = _uncompressed(counts, where)
        checked: Any = {"size": size, "counts": counts}
    elif isinstance(counts, list) and all(type(count) is int for count in counts):
        lengths = counts
        checked = None
    else:
        raise BadInput(f"{where}: 'counts' must be run lengths as a list or as text; got {_short(counts)}")
    if min(lengths, default=0) < 0:
        raise BadInput(f"{where}: 'counts' holds a negative run length: {min(lengths)}")
    if sum(lengths) != height * width:
        raise BadInput(f"{where}: 'counts' add up to {sum(lengths)} pixels; {width} x {height} has {height * width}")
    checked = checked or coco.frPyObjects({"size": size, "counts": lengths}, height, width)
    return coco.decode(checked).view(bool)


def _uncompressed(counts: str | bytes, where: str) -> list[int]:
    """Run lengths of COCO's text: groups of 5 bits, lowest first, bit 5 says that another follows; from the fourth
    number on they are differences to the one before last."""
    data = counts.encode("latin-1", "replace") if isinstance(counts, str) else counts
    lengths: list[int] = []
    value = shift = 0
    for byte in data:
        bits = byte - 48
        if not 0 <= bits < 64:
            raise BadInput(f"{where}: 'counts' holds the byte 0x{byte:02x}, which run lengths as text never have")
        value |= (bits & 31) << shift
        shift += 5
        if shift > 40:
            raise BadInput(f"{where}: 'counts' holds a number of more than 40 bits")
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            if len(lengths) > 2:
                value += lengths[-2]
            lengths.append(value)
            value = shift = 0
    if shift:
        raise BadInput(f"{where}: 'counts' is cut off within a number")
    return lengths


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
