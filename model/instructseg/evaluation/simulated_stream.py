"""The streaming engine on simulated time: what a camera, a slow reasoner and the engine's two halves do to each other.

The engine, its policies and its hand-over are the real ones; only its two threads are processes of a
:class:`~instructseg.evaluation.stream_clock.SimulatedClock`. They compute side by side, as on a machine where
reasoning does not slow the masks down.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ..core import BadInput, Frame, Segmenter
from ..streaming.config import EngineConfig
from ..streaming.engine import StreamingEngine
from ..streaming.ground_step import GroundingJob
from ..streaming.threads import Workers
from .stream_clock import SimulatedClock
from .timed_segmenter import Charges, TimedSegmenter

SUPERVISION_S = 0.1  # how often the owner of an engine looks for silent cameras


class SimulatedWorkers(Workers):
    """The engine's two loops as processes of a clock."""

    def __init__(self, clock: SimulatedClock, *parts: Any) -> None:
        super().__init__(*parts)
        self._clock = clock

    def start(self) -> None:
        self._box.open()
        self._clock.process(self._mask_frames, "masks")
        self._clock.process(self._ground_when_due, "grounding")

    def stop(self, timeout_s: float) -> bool:
        self._stop.set()
        for _ in range(self._box.close()):
            self._state.recorder.count("drops", "stopped")
        self._clock.close()
        return True

    def _next_frame(self) -> Frame | None:
        self._clock.wait_until(lambda: len(self._box) > 0)
        return self._box.take()

    def _next_job(self) -> GroundingJob | None:
        found: list[GroundingJob] = []

        def due() -> bool:
            with self._state.guard:
                job = self._grounding.next_job()
            found.extend([job] if job is not None else [])
            return bool(found)

        self._clock.wait_until(due)
        return found[0]


class SimulatedStream:
    """An engine that runs on a clock of its own, looked after ten times a second as the node does.

    start_ns: of the clock, in the time base of the frames. Frames and actions are announced (:meth:`show`,
    :meth:`at`), then :meth:`run` lets them happen. callbacks: ``on_result`` and the others of the engine, called at the
    simulated time of the event. Raises BadInput for the frame policy "every", whose camera waits for the engine.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        config: EngineConfig | None = None,
        charges: Charges | None = None,
        start_ns: int = 0,
        **callbacks: Callable,
    ) -> None:
        config = config or EngineConfig()
        if config.frame_policy != "latest":
            raise BadInput(f"a simulated camera needs frame_policy 'latest'; got {config.frame_policy!r}")
        self.clock = SimulatedClock(start_ns)
        self.engine = StreamingEngine(
            TimedSegmenter(segmenter, self.clock, charges),
            config,
            clock_ns=self.clock,
            workers=functools.partial(SimulatedWorkers, self.clock),
            **callbacks,
        )
        self.engine.start()
        self.clock.at(start_ns, self._supervise)

    def __enter__(self) -> SimulatedStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.stop()

    def show(self, frame: Frame) -> None:
        """The camera hands this frame over at its stamp."""
        self.clock.at(frame.stamp_ns, lambda: self.engine.submit_frame(frame))

    def at(self, when_ns: int, action: Callable[[], Any]) -> None:
        """Somebody does something at that time: gives an instruction, cancels one."""
        self.clock.at(when_ns, action)

    def run(self, until_ns: int) -> None:
        """Let everything happen up to and including that time."""
        self.clock.run(until_ns)

    def _supervise(self) -> None:
        self.engine.check_stale()
        self.clock.at(self.clock.now_ns + round(SUPERVISION_S * 1e9), self._supervise)
