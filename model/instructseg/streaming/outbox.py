"""Calls to the owner, collected under the engine's lock and made outside it, in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any


class Outbox:
    """Ordered delivery of events by whichever thread comes first.

    One thread delivers at a time; another one that comes meanwhile, or a callback that causes new events, leaves them
    to it. So callbacks run outside every lock and never overtake each other. A callback that raises is reported to
    ``on_error(where, error)`` and the next event goes out.
    """

    def __init__(self, on_error: Callable[[str, Exception], None]) -> None:
        self._on_error = on_error
        self._events: deque[tuple[str, Callable[[Any], None], Any]] = deque()
        self._lock = threading.Lock()
        self._delivering = False

    def add(self, name: str, callback: Callable[[Any], None] | None, event: Any) -> None:
        """Put an event in; nothing happens without a callback."""
        if callback is not None:
            self._events.append((name, callback, event))

    def deliver(self) -> None:
        """Call the callbacks of everything collected. Never raises."""
        while True:
            with self._lock:
                if self._delivering or not self._events:
                    return
                self._delivering = True
                name, callback, event = self._events.popleft()
            try:
                callback(event)
            except Exception as error:  # the owner's fault must not end a thread of ours
                self._on_error(name, error)
            finally:
                with self._lock:
                    self._delivering = False
