"""Simulated time in which the steps of a model take as long as they took, or as long as somebody said.

Whoever processes something runs as a *process* of the clock: a thread that computes at once, then sleeps until the
simulated time has passed that its computation takes. Only one process runs at a time and the clock moves only while
all of them sleep, so the same durations give the same order of events, whatever the machine does meanwhile.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ..core import BadInput, Clip, EncodedFrame, Frame, Grounding, Instruction, InstructSegError, Segmenter, TargetMask

_T = TypeVar("_T")


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


@dataclasses.dataclass(frozen=True)
class Charges:
    """Seconds of simulated time for a call of encode or segment, and for one of ground; None: what it really took."""

    step_s: float | None = None
    ground_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("step_s", "ground_s"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0.0):
                raise BadInput(f"Charges.{name} must be 0 or more seconds, or None for the measured time; got {value}")


class Delegate(Segmenter):
    """A segmenter that asks another one; base of those that add something to it."""

    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter
        for name, default in vars(Segmenter).items():  # what the engine may ask of a recipe besides its three steps
            if not name.startswith("_") and not callable(default):
                setattr(self, name, getattr(segmenter, name))

    def encode(self, frames: Sequence[Frame]) -> list[EncodedFrame]:
        return self._segmenter.encode(frames)

    def ground(self, clip: Clip, instructions: Sequence[Instruction]) -> list[Grounding]:
        return self._segmenter.ground(clip, instructions)

    def segment(self, encoded: EncodedFrame, tokens: Sequence[Any]) -> list[TargetMask]:
        return self._segmenter.segment(encoded, tokens)


class RecordedEncodings(Delegate):
    """Remembers the encoding of every frame. With ``recall`` it gives them again, for a second run over the same
    frames in which time does not count; without, every frame is encoded as often as it is asked for."""

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__(segmenter)
        self.recall = False
        self._known: dict[int, EncodedFrame] = {}  # by identity of the frame, which the encoding keeps alive

    def encode(self, frames: Sequence[Frame]) -> list[EncodedFrame]:
        missing = [frame for frame in frames if not (self.recall and id(frame) in self._known)]
        if missing:
            fresh = self._segmenter.encode(missing)
            self._known.update((id(frame), encoded) for frame, encoded in zip(missing, fresh, strict=True))
        return [self._known[id(frame)] for frame in frames]


class TimedSegmenter(Delegate):
    """A segmenter whose calls take simulated time: the answer is computed at once and handed out when it is due."""

    def __init__(self, segmenter: Segmenter, clock: SimulatedClock, charges: Charges | None = None) -> None:
        super().__init__(segmenter)
        self._clock, self._charges = clock, charges or Charges()

    def encode(self, frames: Sequence[Frame]) -> list[EncodedFrame]:
        return self._charged(self._charges.step_s, lambda: super(TimedSegmenter, self).encode(frames))

    def ground(self, clip: Clip, instructions: Sequence[Instruction]) -> list[Grounding]:
        return self._charged(self._charges.ground_s, lambda: super(TimedSegmenter, self).ground(clip, instructions))

    def segment(self, encoded: EncodedFrame, tokens: Sequence[Any]) -> list[TargetMask]:
        return self._charged(self._charges.step_s, lambda: super(TimedSegmenter, self).segment(encoded, tokens))

    def _charged(self, fixed_s: float | None, call: Callable[[], _T]) -> _T:
        started = time.perf_counter()
        try:
            answer = call()
            _finish(self.device)
            return answer
        finally:  # a call that raises has taken its time too
            self._clock.spend(time.perf_counter() - started if fixed_s is None else fixed_s)


def _finish(device: str) -> None:
    """Wait for what a GPU still computes, so that each step is charged its own time."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)
