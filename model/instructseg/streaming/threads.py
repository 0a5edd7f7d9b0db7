"""The engine's threads: masks on every frame that is taken, and beside it groundings whenever one is due."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from ..core import Frame
from .box import FrameBox
from .ground_step import GroundingJob, GroundStep
from .mask_step import MaskStep
from .state import StreamState
from .types import FrameRefused, FrameResult

MOST_TOGETHER = 8  # cameras whose frames are encoded in one batch; more would keep the first one waiting

_T = TypeVar("_T")


class Workers:
    """One run of the threads, from start to stop; made anew for every start. grounding: None where the mask thread
    itself grounds, frame by frame."""

    def __init__(
        self,
        state: StreamState,
        box: FrameBox,
        masking: MaskStep,
        grounding: GroundStep | None,
        publish: Callable[[FrameResult], None],
    ) -> None:
        self._state = state
        self._box = box
        self._masking = masking
        self._grounding = grounding
        self._publish = publish
        self._stop = threading.Event()
        # Daemons: a segmenter that never returns must not keep the process from ending.
        self._threads = [threading.Thread(target=self._mask_frames, name="instructseg-masks", daemon=True)]
        if grounding is not None:
            loop = self._ground_when_due
            self._threads.append(threading.Thread(target=loop, name="instructseg-grounding", daemon=True))

    def are_current(self) -> bool:
        """Whether the caller is one of these threads."""
        return threading.current_thread() in self._threads

    def start(self) -> None:
        self._box.open()
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Ask the threads to end and wait for them, together at most ``timeout_s``; whether all have ended.

        A thread inside the segmenter ends when the segmenter returns; what it computed is discarded.
        """
        self._stop.set()
        for _ in range(self._box.close()):
            self._state.recorder.count("drops", "stopped")
        with self._state.guard:
            self._state.guard.notify_all()
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        late = [t.name for t in self._threads if t.is_alive() and t is not threading.current_thread()]
        if late:
            names = " and ".join(late)
            self._state.say(
                logging.WARNING,
                "late",
                f"{names} did not end within {timeout_s:g} s: still inside the segmenter; its result will be discarded",
            )
        return not late

    def _mask_frames(self) -> None:
        while (frame := self._next_frame()) is not None:
            together = [frame, *self._box.take_more(MOST_TOGETHER - 1)]
            looks = self._guarded(lambda frames=together: self._masking.look(frames), len(together)) or []
            self._guarded(lambda looks=looks: self._masking.join(looks), 0)
            for look in looks:
                result = self._guarded(lambda look=look: self._masking.masks(look), 1)
                self._state.outbox.deliver()
                if result is not None and not self._stop.is_set():
                    self._publish(result)
                    with self._state.guard:
                        self._state.observe_age(result.age_s)

    def _guarded(self, step: Callable[[], _T], frames: int) -> _T | None:
        """What the step gives; None where the frames were refused, or lost by a fault of the engine itself, which must
        not end the thread."""
        try:
            return step()
        except FrameRefused:
            return None
        except Exception as error:
            self._state.fault("processing", error)
            for _ in range(frames):
                self._state.recorder.count("drops", "fault")
            return None

    def _ground_when_due(self) -> None:
        state = self._state
        while (job := self._next_job()) is not None:
            with state.guard:  # a reasoner slower than the buffer is long must still reach the present frame by frame
                job.stream.buffer.hold(job.clip.key.frame.stamp_ns)
            try:
                self._grounding.run(job)
            except Exception as error:  # as above
                state.fault("grounding", error)
            with state.guard:
                job.stream.buffer.let_go()
            state.outbox.deliver()

    def _next_frame(self) -> Frame | None:
        """Wait for a frame; None when it is time to stop."""
        return None if self._stop.is_set() else self._box.take()

    def _next_job(self) -> GroundingJob | None:
        """Wait until an instruction is due; None when it is time to stop."""
        with self._state.guard:
            while not self._stop.is_set():
                try:
                    job = self._grounding.next_job()
                except Exception as error:  # as above
                    self._state.fault("grounding", error)
                    job = None
                if job is not None:
                    return job
                self._state.guard.wait()
        return None


WorkersFactory = Callable[[StreamState, FrameBox, MaskStep, GroundStep | None, Callable[[FrameResult], None]], Workers]
