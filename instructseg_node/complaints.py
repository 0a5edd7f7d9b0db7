"""Warnings about input that cannot be used: each cause is counted, and its log line appears once in a while."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable


class Complaints:
    """Counts by cause, for the whole life of the node, and a log line a cause at most every ``period`` seconds.

    A camera that sends 30 bad images a second must not hide everything else in the log; nothing is lost, the line says
    how many there were since the last one. May be called from any thread.
    """

    def __init__(
        self, warn: Callable[[str], object], period: float = 5.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._warn, self._period, self._clock = warn, period, clock
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._said: dict[str, tuple[float, int]] = {}  # cause -> (when, count then)

    def add(self, cause: str, message: str) -> None:
        with self._lock:
            self._counts[cause] += 1
            count, now = self._counts[cause], self._clock()
            when, before = self._said.get(cause, (None, 0))
            if when is not None and now - when < self._period:
                return
            self._said[cause] = (now, count)
        more = f" ({count - before} times since the last such warning)" if count - before > 1 else ""
        self._warn(f"{cause}: {message}{more}")

    def counts(self) -> dict[str, int]:
        with self._lock:
            return dict(self._counts)
