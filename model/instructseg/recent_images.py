"""What was computed on a frame, kept for the newest few only.

The streaming engine buffers frames for seconds, and with each goes what was computed on it; an image's part of a large
language model's cache takes tens of megabytes. Frames that are asked about again later are computed again.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any


class RecentImages:
    """The ``limit`` values asked for last stay; older ones are forgotten. Any thread may ask."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._asked: deque[weakref.ref[Value]] = deque()  # the one asked for last stands last

    def value(self, compute: Callable[[], Any]) -> Value:
        """Something to be computed on the first call, and at most once while it is kept."""
        return Value(compute, self)

    def asked_for(self, value: Value) -> None:
        with self._lock:
            others = [ref for ref in self._asked if ref() not in (None, value)]
            self._asked = deque([*others, weakref.ref(value)])
            surplus = [self._asked.popleft()() for _ in range(len(self._asked) - self.limit)]
        for old in surplus:
            if old is not None:
                old.forget()


class Value:
    """Call it for the value; see :class:`RecentImages`."""

    def __init__(self, compute: Callable[[], Any], recent: RecentImages) -> None:
        self._compute, self._recent = compute, recent
        self._value: Any = None
        self._lock = threading.Lock()

    def __call__(self) -> Any:
        with self._lock:  # a second thread waits for the first one's result
            value = self._value
            if value is None:
                value = self._value = self._compute()
        self._recent.asked_for(self)  # outside the lock: forgetting another value must not wait for this one
        return value

    @property
    def known(self) -> bool:
        return self._value is not None

    def forget(self) -> None:
        """Whoever holds the value keeps it; the next call computes it again."""
        self._value = None
