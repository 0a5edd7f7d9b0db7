"""Which depth image and which camera_info belong to a processed frame: by stamp, within a tolerance, or none at all.

One :class:`Pairing` a camera. Messages may come in any order, the depth of a frame before or after its masks. Nothing
is kept for long: old depth images give way to new ones, and a frame waits only for what can still come.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

SECOND = 1_000_000_000


@dataclasses.dataclass(frozen=True, eq=False)
class Pair:
    """A frame with the depth image and the camera_info of its own time."""

    frame: Any
    depth: Any
    info: Any


class Pairing:
    """Frames, depth images and camera_infos of one camera, by stamp in nanoseconds.

    tolerance_ns: most that stamps may differ. keep: how many depth images and camera_infos are kept. waiting: how many
    frames wait at a time. wait_s: how long one waits, in seconds of ``clock``; 0: until it is crowded out. All four may
    be set at any time. A camera_info with stamp 0 says that it never changes and fits every frame. counts: what was
    left unpaired, by cause. Every method may be called from any thread; ``add_*`` return the pairs that are complete
    now, in order of frames.
    """

    def __init__(
        self,
        tolerance_ns: int,
        keep: int = 8,
        waiting: int = 2,
        wait_s: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.tolerance_ns = tolerance_ns
        self.counts: Counter[str] = Counter()
        self.keep, self.waiting, self.wait_s = keep, waiting, wait_s
        self._clock = clock
        self._lock = threading.Lock()
        self._frames: OrderedDict[int, tuple[float, Any]] = OrderedDict()  # stamp -> (when it came, frame)
        self._depths: OrderedDict[int, Any] = OrderedDict()
        self._infos: OrderedDict[int, Any] = OrderedDict()

    def __repr__(self) -> str:
        kept = f"{len(self._depths)} depth images, {len(self._infos)} camera_infos"
        return f"<Pairing: {len(self._frames)} frames waiting, {kept}, unpaired {dict(self.counts)}>"

    def add_depth(self, stamp_ns: int, depth: Any) -> list[Pair]:
        with self._lock:
            _put(self._depths, stamp_ns, depth, self.keep)
            return self._complete()

    def add_info(self, stamp_ns: int, info: Any) -> list[Pair]:
        with self._lock:
            _put(self._infos, stamp_ns, info, self.keep)
            return self._complete()

    def add_frame(self, stamp_ns: int, frame: Any) -> list[Pair]:
        """A frame for which somebody wants the geometry."""
        with self._lock:
            self._frames[stamp_ns] = (self._clock(), frame)
            return self._complete()

    def stop_waiting(self) -> None:
        """Drop the frames that wait: nobody wants them any more."""
        with self._lock:
            self._frames.clear()

    def forget(self) -> None:
        """Drop everything but the counts."""
        with self._lock:
            for kept in (self._frames, self._depths, self._infos):
                kept.clear()

    def _complete(self) -> list[Pair]:
        pairs = []
        crowded = len(self._frames) - self.waiting
        for place, (stamp, (came, frame)) in enumerate(list(self._frames.items())):
            expired = self.wait_s > 0.0 and self._clock() - came > self.wait_s
            if expired:  # what comes now is too late to be shown as current
                self._give_up(stamp)
                continue
            last_chance = place < crowded
            depth, info = self._depth_of(stamp, last_chance), self._info_of(stamp)
            if depth is not None and info is not None:
                del self._frames[stamp]
                pairs.append(Pair(frame, depth, info))
            elif last_chance:
                self._give_up(stamp)
        return pairs

    def _depth_of(self, stamp: int, last_chance: bool) -> Any:
        """The nearest depth image within the tolerance, once no nearer one can come."""
        nearest = self._nearest(self._depths, stamp)
        settled = last_chance or nearest == stamp or (nearest is not None and max(self._depths) >= stamp)
        return self._depths[nearest] if nearest is not None and settled else None

    def _info_of(self, stamp: int) -> Any:
        nearest = self._nearest(self._infos, stamp)
        return self._infos[nearest] if nearest is not None else self._infos.get(0)

    def _nearest(self, kept: OrderedDict[int, Any], stamp: int) -> int | None:
        found = min(kept, key=lambda other: abs(other - stamp), default=None)
        return found if found is not None and abs(found - stamp) <= self.tolerance_ns else None

    def _give_up(self, stamp: int) -> None:
        del self._frames[stamp]
        if not self._depths:
            self.counts["no depth"] += 1
        elif self._nearest(self._depths, stamp) is None:
            self.counts["depth of another time"] += 1
        elif not self._infos:
            self.counts["no camera_info"] += 1
        elif self._info_of(stamp) is None:
            self.counts["camera_info of another time"] += 1
        else:
            self.counts["paired too late"] += 1


def _put(kept: OrderedDict[int, Any], stamp: int, value: Any, most: int) -> None:
    if kept and stamp < max(kept) - SECOND and stamp:
        kept.clear()  # a recording began anew: what is kept is of another run
    kept.pop(stamp, None)
    kept[stamp] = value
    while len(kept) > most:
        kept.popitem(last=False)
