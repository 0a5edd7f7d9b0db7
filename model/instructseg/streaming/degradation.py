"""When results come too late: do less, step by step, and go back step by step when there is room again."""

from __future__ import annotations

from collections import deque

from .statistics import percentile

STEPS = ("half the groundings", "half the frames", "lower resolution")

_LATE_S = 2.0  # results too old for so long: one step further
_EARLY_S = 5.0  # results young enough for so long: one step back ...
_LONGEST_S = 80.0  # ... and twice as long after every step back that did not last
_RELAPSE_S = 10.0  # a step back that lasted no longer than this did not last
_ROOM = 0.7  # of max_age; results must be as young as this before a step back
_LOOK_S = 0.25  # between two judgements


class Degradation:
    """Judges the ages of published results. ``level``: how many of ``STEPS`` are in force.

    max_age_s: the 95th percentile that is still good; 0: never degrade. levels: how many steps the owner can take.
    Times are the owner's clock; one that is set back starts the observation anew.
    """

    def __init__(self, max_age_s: float, levels: int = len(STEPS)) -> None:
        self.level = 0
        self._max_age_s = max_age_s
        self._levels = levels
        self._ages: deque[tuple[int, float]] = deque(maxlen=4096)  # (when, age), none older than the last change
        self._judged_ns = 0
        self._eased_ns: int | None = None
        self._early_s = _EARLY_S
        self._skipped: set[str] = set()

    @property
    def steps(self) -> tuple[str, ...]:
        """What is being done without, in words."""
        return STEPS[: self.level]

    def observe(self, now_ns: int, age_s: float) -> bool:
        """Take the age of a result that is being published now; whether the level has changed."""
        if self._max_age_s <= 0.0:
            return False
        if self._ages and now_ns < self._ages[-1][0]:
            self._begin(now_ns)
        self._ages.append((now_ns, age_s))
        while len(self._ages) > 1 and self._ages[1][0] <= now_ns - self._early_s * 1e9:
            self._ages.popleft()
        if now_ns - self._judged_ns < _LOOK_S * 1e9:
            return False
        self._judged_ns = now_ns
        if self.level < self._levels and self._p95(now_ns, _LATE_S) > self._max_age_s:
            relapsed = self._eased_ns is not None and now_ns - self._eased_ns < _RELAPSE_S * 1e9
            self._early_s = min(2 * self._early_s, _LONGEST_S) if relapsed else _EARLY_S
            self.level += 1
        elif self.level > 0 and 0.0 <= self._p95(now_ns, self._early_s) < _ROOM * self._max_age_s:
            self._eased_ns = now_ns
            self.level -= 1
        else:
            return False
        self._begin(now_ns)
        return True

    def skips(self, camera: str) -> bool:
        """Whether this frame of the camera is one of those done without: every second one from the second step on."""
        if self.level < 2 or camera in self._skipped:
            self._skipped.discard(camera)
            return False
        self._skipped.add(camera)
        return True

    def reset(self) -> None:
        """A new run: nothing is known of the ages to come."""
        self.level, self._eased_ns, self._early_s = 0, None, _EARLY_S
        self._skipped.clear()
        self._begin(0)

    def _begin(self, now_ns: int) -> None:
        self._ages.clear()
        self._judged_ns = now_ns

    def _p95(self, now_ns: int, seconds: float) -> float:
        """Of the ages in the last ``seconds``; -1 while they have not been observed for so long."""
        since_ns = now_ns - seconds * 1e9
        if not self._ages or self._ages[0][0] > since_ns:
            return -1.0
        return percentile([age for when, age in self._ages if when >= since_ns], 0.95)
