"""Figures of the running engine: counters and short windows, cheap enough to be kept on every frame."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections import Counter, deque
from collections.abc import Iterable

from .types import InstructionStatus

_WINDOW_S = 5.0  # rates look back this far
_WINDOW_EVENTS = 1024  # and every window is bounded, whatever the rate


@dataclasses.dataclass(frozen=True)
class EngineStatistics:
    """A snapshot. Rates in frames per second over the last seconds; ages and durations in seconds (0.0: none yet).

    drops: frames that were not processed, and bad input counted by the owner, by cause. resets: how often buffer and
    targets of a camera were forgotten, by cause. groundings: by outcome (done, failed, discarded). faults: exceptions
    by step (encode, segment, ground, callback). queue_depths: frames waiting and buffered. memory: bytes, "resident" of
    the process and "buffered_images". degradation: what the engine does without because results came too late. asked:
    questions to the reasoner by reason: new, missing, age, score, disagreement, contradiction, motion, view, settings.
    """

    frames_in: int
    frames_out: int
    rate_in: float
    rate_out: float
    age_p50: float
    age_p95: float
    age_p99: float
    drops: dict[str, int]
    resets: dict[str, int]
    groundings: dict[str, int]
    faults: dict[str, int]
    durations: dict[str, float]
    queue_depths: dict[str, int]
    instructions: tuple[InstructionStatus, ...]
    memory: dict[str, int]
    last_error: str
    degradation: tuple[str, ...] = ()
    asked: dict[str, int] = dataclasses.field(default_factory=dict)


class Recorder:
    """Collects the figures; safe to call from every thread. Times are monotonic nanoseconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, Counter[str]] = {
            name: Counter() for name in ("drops", "resets", "groundings", "faults", "asked")
        }
        self._frames = Counter({"in": 0, "out": 0})
        self._arrivals: dict[str, deque[int]] = {name: deque(maxlen=_WINDOW_EVENTS) for name in ("in", "out")}
        self._ages: deque[float] = deque(maxlen=_WINDOW_EVENTS)
        self._durations: dict[str, deque[float]] = {}
        self._last_error = ""

    def count(self, kind: str, cause: str) -> None:
        """kind: drops, resets, groundings, faults or asked."""
        with self._lock:
            self._counts[kind][cause] += 1

    def frame_in(self, now_ns: int) -> None:
        with self._lock:
            self._frames["in"] += 1
            self._arrivals["in"].append(now_ns)

    def frame_out(self, now_ns: int, age_s: float, timings: dict[str, float]) -> None:
        with self._lock:
            self._frames["out"] += 1
            self._arrivals["out"].append(now_ns)
            self._ages.append(age_s)
            for step, seconds in timings.items():
                self._window(step).append(seconds)

    def duration(self, step: str, seconds: float) -> None:
        with self._lock:
            self._window(step).append(seconds)

    def fault(self, step: str, message: str) -> None:
        with self._lock:
            self._counts["faults"][step] += 1
            self._last_error = message

    def snapshot(
        self,
        now_ns: int,
        queue_depths: dict[str, int],
        instructions: tuple[InstructionStatus, ...],
        image_bytes: int,
        degradation: tuple[str, ...] = (),
    ) -> EngineStatistics:
        """Everything as it is now; the percentiles are computed here and not per frame."""
        with self._lock:
            p50, p95, p99 = (percentile(self._ages, q) for q in (0.50, 0.95, 0.99))
            return EngineStatistics(
                frames_in=self._frames["in"],
                frames_out=self._frames["out"],
                rate_in=_rate(self._arrivals["in"], now_ns),
                rate_out=_rate(self._arrivals["out"], now_ns),
                age_p50=p50,
                age_p95=p95,
                age_p99=p99,
                drops=dict(self._counts["drops"]),
                resets=dict(self._counts["resets"]),
                groundings=dict(self._counts["groundings"]),
                faults=dict(self._counts["faults"]),
                durations={step: percentile(window, 0.5) for step, window in self._durations.items()},
                queue_depths=queue_depths,
                instructions=instructions,
                memory={"resident": resident_bytes(), "buffered_images": image_bytes},
                last_error=self._last_error,
                degradation=degradation,
                asked=dict(self._counts["asked"]),
            )

    def _window(self, step: str) -> deque[float]:
        return self._durations.setdefault(step, deque(maxlen=_WINDOW_EVENTS))


def percentile(values: Iterable[float], fraction: float) -> float:
    """The nearest-rank percentile; 0.0 of nothing. fraction: in [0, 1]."""
    ordered = sorted(values)
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]


def resident_bytes() -> int:
    """Resident memory of this process; 0 where the system does not tell (no /proc)."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def _rate(arrivals: deque[int], now_ns: int) -> float:
    recent = [t for t in arrivals if now_ns - t <= _WINDOW_S * 1e9]
    if len(recent) < 2 or now_ns <= recent[0]:
        return 0.0
    return len(recent) * 1e9 / (now_ns - recent[0])
