"""Where a thing is in the picture and how it moves: whether what is seen now can be what was seen before, and whether
it moves in another way than it did."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

_SIZES = 1.5  # of its own length that a thing may be away from where it is expected ...
_NEAR = 0.12  # ... or this share of the picture's diagonal, whichever is more ...
_DRIFT = 0.1  # ... and this share more with the first second out of sight
_EDGE = 0.02  # of the picture's side: a box as close to an edge as this is leaving over it, or coming in
_ENTRY = 0.35  # of the picture's sides: what left over an edge has come in over it when it is no further away than this
_SPAN_NS = 400_000_000  # speeds are taken over this time: outlines tremble from frame to frame
_MOST = 32  # places kept of it


@dataclasses.dataclass(frozen=True)
class Place:
    """The box of a mask. centre: x, y and extent: width, height, in pixels of a picture of ``size`` (height, width)."""

    centre: tuple[float, float]
    extent: tuple[float, float]
    size: tuple[int, int]

    @staticmethod
    def of(mask: np.ndarray) -> Place | None:
        """Of a mask ``(H, W)`` bool; None where it is empty."""
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        if not len(rows):
            return None
        top, bottom, left, right = (int(edge) for edge in (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1))
        return Place(((left + right) / 2, (top + bottom) / 2), (right - left, bottom - top), mask.shape)

    @property
    def diagonal(self) -> float:
        return math.hypot(*self.size)

    @property
    def edges(self) -> frozenset[str]:
        """The picture's edges that the box is at."""
        (x, y), (width, height), (high, wide) = self.centre, self.extent, self.size
        at = {
            "left": x - width / 2 <= _EDGE * wide,
            "right": x + width / 2 >= (1 - _EDGE) * wide,
            "top": y - height / 2 <= _EDGE * high,
            "bottom": y + height / 2 >= (1 - _EDGE) * high,
        }
        return frozenset(name for name, there in at.items() if there)


@dataclasses.dataclass(frozen=True)
class Whereabouts:
    """A thing's places over the last moments, ``(stamp_ns, Place)``, oldest first, at least one."""

    path: tuple[tuple[int, Place], ...]

    @staticmethod
    def at(place: Place, stamp_ns: int) -> Whereabouts:
        return Whereabouts(((stamp_ns, place),))

    def moved_to(self, place: Place, stamp_ns: int) -> Whereabouts:
        """After one more sight of it. A picture of another size begins anew."""
        if place.size != self.last.size or stamp_ns <= self.seen_ns:
            return Whereabouts.at(place, stamp_ns)
        path = [step for step in self.path if stamp_ns - step[0] <= _SPAN_NS]
        if len(path) >= _MOST:  # of a fast camera, every second place: a speed needs the time, not the steps
            path = path[::2]
        return Whereabouts((*path, (stamp_ns, place)))

    @property
    def last(self) -> Place:
        return self.path[-1][1]

    @property
    def seen_ns(self) -> int:
        return self.path[-1][0]

    @property
    def settled(self) -> bool:
        """Whether it has been seen long enough for a speed."""
        return self.seen_ns - self.path[0][0] >= _SPAN_NS / 2

    @property
    def velocity(self) -> tuple[float, float]:
        """x, y in pixels per second; zero after a single sight."""
        (begin, first), (end, last) = self.path[0], self.path[-1]
        if end <= begin:
            return 0.0, 0.0
        seconds = (end - begin) / 1e9
        return (last.centre[0] - first.centre[0]) / seconds, (last.centre[1] - first.centre[1]) / seconds

    def continues(self, place: Place, stamp_ns: int, within_ns: int) -> bool:
        """Whether a thing seen at ``place`` may be this one: no more than ``within_ns`` later, and near where it was
        last seen, or near where its motion led, or come in over the edge it left by."""
        away_ns = stamp_ns - self.seen_ns
        if not 0 <= away_ns <= within_ns or place.size != self.last.size:
            return False
        seconds, (x, y), (vx, vy) = away_ns / 1e9, self.last.centre, self.velocity
        longest = max(*self.last.extent, *place.extent)
        reach = max(_SIZES * longest, _NEAR * place.diagonal) + _DRIFT * place.diagonal * min(seconds, 1.0)
        expected = ((x, y), (x + vx * seconds, y + vy * seconds))
        return any(math.dist(place.centre, point) <= reach for point in expected) or self._came_back_over_edge(place)

    def _came_back_over_edge(self, place: Place) -> bool:
        """From an edge, a thing comes in anywhere near where it went."""
        (x, y), (was_x, was_y), (high, wide) = place.centre, self.last.centre, place.size
        inward = {"left": x, "right": wide - x, "top": y, "bottom": high - y}
        for edge in self.last.edges:
            sideways = edge in ("left", "right")
            depth = inward[edge] / (wide if sideways else high)
            along = abs(y - was_y) / high if sideways else abs(x - was_x) / wide
            if depth <= _ENTRY and along <= _ENTRY:
                return True
        return False
