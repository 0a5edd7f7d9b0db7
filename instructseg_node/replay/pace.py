"""When a recorded message is due: bag time against this computer's, with /clock ticking in between."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pace:
    """Bag time that runs at ``rate`` from ``zero_ns`` on.

    tick: called with bag times to be published on /clock, ``hz`` times a second and before every message; None: there
    is no clock. doze: sleeps for some seconds, or does something useful for so long.
    """

    def __init__(
        self,
        zero_ns: int,
        rate: float = 1.0,
        hz: float = 0.0,
        tick: Callable[[int], None] | None = None,
        doze: Callable[[float], None] = time.sleep,
    ) -> None:
        self._zero_ns, self._rate = zero_ns, rate
        self._period = 1.0 / hz if hz else 0.0
        self._tick, self._doze = tick, doze
        self._started = time.monotonic()

    def start(self, lead_s: float) -> None:
        """Let zero be ``lead_s`` seconds from now: a clock that runs before the first message sets the nodes' own."""
        self._started = time.monotonic() + lead_s

    def now_ns(self) -> int:
        """Bag time now."""
        return self._zero_ns + round((time.monotonic() - self._started) * self._rate * 1e9)

    def run_until(self, bag_ns: int) -> None:
        """Return when a bag time is due, with /clock ticking on the way, and once more at the end: nobody gets a
        message from the future. Where we are late the clock says so: ages that others measure contain our delay."""
        due = self._started + (bag_ns - self._zero_ns) / 1e9 / self._rate
        if self._tick is None:
            self._doze(max(0.0, due - time.monotonic()))
            return
        if due <= time.monotonic():
            self._doze(0.0)  # who is always late must hear the others all the same
        while (left := due - time.monotonic()) > 0.0:
            self._doze(min(left, self._period))
            if left > self._period:
                self._tick(self.now_ns())
        self._tick(max(bag_ns, self.now_ns()))
