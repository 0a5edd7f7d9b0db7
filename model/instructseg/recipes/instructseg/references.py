"""Which frames are the references of a key frame: the published rule for recorded videos, and what streams allow."""

from __future__ import annotations

from ...core import BadInput
from .configuration import REFERENCES

_BEFORE = REFERENCES // 2


def neighbours(index: int, count: int) -> tuple[int, ...]:
    """The references of frame ``index`` in a video of ``count`` frames: two before and two after, in their order; at
    the ends of the video the four that are nearest. A video of fewer than five frames gives all others."""
    if not 0 <= index < count:
        raise BadInput(f"a video of {count} frames has no frame {index}")
    first = min(max(index - _BEFORE, 0), max(count - REFERENCES - 1, 0))
    return tuple(i for i in range(first, min(first + REFERENCES + 1, count)) if i != index)


def key_and_references(count: int, published: bool) -> tuple[int, tuple[int, ...]]:
    """Of ``count`` frames of a stream, oldest first: the frame to answer about, and its references.

    Causal: the newest frame, with those before it. Published: as near to the middle as a stream allows, two frames
    before the newest.
    """
    if not published:
        return count - 1, tuple(range(max(0, count - 1 - REFERENCES), count - 1))
    key = max(0, count - 1 - _BEFORE)
    return key, neighbours(key, count)
