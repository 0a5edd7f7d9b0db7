"""Simulated time for things that compute at once and take their time afterwards.

Whoever processes something runs as a *process* of the clock: a thread that computes at once, then sleeps until the
simulated time has passed that its computation takes. Only one process runs at a time and the clock moves only while
all of them sleep, so the same durations give the same order of events, whatever the machine does meanwhile.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
from collections.abc import Callable

from ..core import BadInput, InstructSegError


class _Closed(BaseException):
    """Unwinds a process of a clock that was closed; no handler of Exception may swallow it."""


class SimulatedClock:
    """Nanoseconds of simulated time, the events to come, and the processes that wait for them.

    Calling it gives the time, so it serves wherever a ``clock_ns`` is asked for. Use it from one thread; its processes
    come in between by themselves. Events of the same time happen in the order in which they were announced.
    """

    def __init__(self, start_ns: int = 0) -> None:
        self.now_ns = start_ns
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._processes: list[_Process] = []
        self._closed = False

    def __call__(self) -> int:
        return self.now_ns

    def at(self, when_ns: int, action: Callable[[], None]) -> None:
        """Call ``action`` at that time; at once, if it has passed, as soon as the clock runs."""
        heapq.heappush(self._events, (max(when_ns, self.now_ns), next(self._order), action))

    def process(self, body: Callable[[], None], name: str) -> None:
        """Begin a process now, as soon as the clock runs. An exception of its body is raised by :meth:`run`."""
        process = _Process(body, name)
        self._processes.append(process)
        self.at(self.now_ns, process.resume)

    def spend(self, seconds: float) -> None:
        """Let that much simulated time pass for the caller: a process sleeps, anybody else moves the clock."""
        if not (math.isfinite(seconds) and seconds >= 0.0):
            raise BadInput(f"SimulatedClock.spend needs 0 or more seconds; got {seconds}")
        duration_ns = round(seconds * 1e9)
        process = self._current()
        if process is None:
            self.now_ns += duration_ns
            return
        self.at(self.now_ns + duration_ns, process.resume)
        process.pause()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """For a process: sleep until the condition holds. It is asked after every event, in any thread."""
        process = self._current()
        if process is None:
            raise InstructSegError("wait_until is for processes of this clock; anybody else moves it with run()")
        if not condition():
            process.condition = condition
            process.pause()

    def run(self, until_ns: int) -> None:
        """Let everything happen that is announced up to and including ``until_ns``, and stop the clock there."""
        if self._closed:
            raise InstructSegError("this SimulatedClock was closed; make a new one")
        self._wake()
        while self._events and self._events[0][0] <= until_ns:
            when_ns, _, action = heapq.heappop(self._events)
            self.now_ns = max(self.now_ns, when_ns)
            action()
            self._wake()
        self.now_ns = max(self.now_ns, until_ns)

    def close(self) -> None:
        """End all processes where they sleep, and forget the events. Idempotent; not for processes themselves."""
        if self._current() is not None:
            raise InstructSegError("a process cannot close its own clock; do it where the clock is run")
        self._closed = True
        self._events.clear()
        for process in self._processes:
            process.close()

    def _wake(self) -> None:
        """Let those run whose condition holds now, until none is left: what one does may wake another."""
        woken = True
        while woken:
            woken = False
            for process in self._processes:
                if process.condition is not None and process.condition():
                    process.condition, woken = None, True
                    process.resume()

    def _current(self) -> _Process | None:
        thread = threading.current_thread()
        return next((process for process in self._processes if process.thread is thread), None)


class _Process:
    """A thread that runs only between ``resume`` and its own ``pause``, while the one who resumed it waits."""

    def __init__(self, body: Callable[[], None], name: str) -> None:
        self.condition: Callable[[], bool] | None = None
        self._body = body
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._error: BaseException | None = None
        self._closed = self._ended = False
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def resume(self) -> None:
        if self._ended:
            return
        self._go.release()
        self._done.acquire()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def pause(self) -> None:
        if not self._closed:
            self._done.release()
            self._go.acquire()
        if self._closed:
            raise _Closed

    def close(self) -> None:
        self._closed = True
        self.resume()
        self.thread.join()

    def _run(self) -> None:
        self._go.acquire()
        try:
            if not self._closed:
                self._body()
        except _Closed:
            pass
        except BaseException as error:  # belongs to the one who let it run
            self._error = error
        self._ended = True
        self._done.release()
