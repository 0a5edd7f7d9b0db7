"""Why a training ends before it is finished: it was asked to, or it cannot usefully go on."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable

from ..core import InstructSegError


class TrainingStopped(InstructSegError):
    """Training cannot usefully go on; the message says why, and from where it can be resumed."""


class TrainingPaused(InstructSegError):
    """Training was asked to stop; what is done is saved, and the same command goes on from there."""


class Listening:
    """While inside, SIGTERM sets the event instead of ending the process; a scheduler that takes the machine away
    leaves time for a state that way."""

    def __init__(self, event: threading.Event) -> None:
        self.event = event

    def __enter__(self) -> None:
        self.main = threading.current_thread() is threading.main_thread()
        if self.main:
            self.before = signal.signal(signal.SIGTERM, lambda number, frame: self.event.set())

    def __exit__(self, *error: object) -> None:
        if self.main:
            signal.signal(signal.SIGTERM, self.before)


class StopRequest:
    """Whether this call should end: ``minutes`` after it was made (None: never), or once :attr:`signalled` is set."""

    def __init__(self, minutes: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.minutes, self.signalled = minutes, threading.Event()
        self._clock, self._begun = clock, clock()

    def listening(self) -> Listening:
        """While inside, SIGTERM is such a request."""
        return Listening(self.signalled)

    def due(self) -> bool:
        late = self.minutes is not None and self._clock() - self._begun >= self.minutes * 60
        return late or self.signalled.is_set()

    def check(self, doing: str) -> None:
        """Raises TrainingPaused, where it is time, between two pieces of work that need no saving."""
        if self.due():
            raise TrainingPaused(f"stopped while {doing}")
