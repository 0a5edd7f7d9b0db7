"""Everything the engine remembers between two frames, and the one lock that guards it."""

from __future__ import annotations

import dataclasses
import logging
import operator
import threading
import time
from collections.abc import Callable

from ..core import Frame, InstructSegError, Segmenter, State
from ..tracking.ids import InstanceIds
from .admission import Admission
from .book import InstructionBook
from .buffer import FrameBuffer
from .config import EngineConfig
from .degradation import STEPS, Degradation
from .outbox import Outbox
from .statistics import Recorder
from .types import FrameResult, GroundingResult, InstructionStatus, RejectionEvent
from .view import ViewWatch

Log = Callable[[int, str], None]  # (level of the logging module, message)

_QUIET_S = 5.0  # the same kind of message is not repeated sooner


@dataclasses.dataclass(frozen=True)
class Callbacks:
    """Where results and events go. Called outside every lock, from the engine's threads or the caller's."""

    on_result: Callable[[FrameResult], None] | None = None
    on_rejection: Callable[[RejectionEvent], None] | None = None
    on_grounding: Callable[[GroundingResult], None] | None = None
    on_instructions: Callable[[tuple[InstructionStatus, ...]], None] | None = None


@dataclasses.dataclass(eq=False)
class CameraStream:
    """One camera: its buffer, and by the owner's clock when a frame last arrived and when one was last looked at."""

    name: str
    buffer: FrameBuffer
    arrived_ns: int
    alive_ns: int
    newest_ns: int | None = None  # stamp of the newest frame looked at, encoded or not
    gap_ns: int = 0  # between the stamps of the last two frames looked at
    stale: bool = False
    view: ViewWatch = dataclasses.field(default_factory=ViewWatch)


class StreamState:
    """Streams, instructions and figures. Take ``guard`` to read or change streams and book; never call the segmenter or
    a callback while holding it. ``guard`` is notified when there may be something to ground."""

    def __init__(
        self,
        segmenter: Segmenter,
        config: EngineConfig,
        clock_ns: Callable[[], int],
        callbacks: Callbacks,
        log: Log | None,
        ids: InstanceIds | None = None,
    ) -> None:
        self.segmenter = segmenter
        self.config = config
        self.clock_ns = clock_ns
        self.callbacks = callbacks
        self.guard = threading.Condition()
        self.admission = Admission(config.cameras, config.max_rate)
        self.book = InstructionBook(config, ids)
        self.streams: dict[str, CameraStream] = {}
        self.recorder = Recorder()
        self.outbox = Outbox(self._callback_failed)
        self.degradation = self._degradation()
        self.paused = ""  # why nothing is looked at, or ""
        self._log = log or logging.getLogger("instructseg.streaming").log
        self._last_said: dict[str, float] = {}
        self._reported: tuple[InstructionStatus, ...] = ()

    # Under the guard

    def reconfigure(self, config: EngineConfig) -> None:
        """Go by this configuration from the next step on."""
        before, self.config = self.config, config
        if config.max_age != before.max_age:
            self.degradation = self._degradation()
            self._adapt()
        self.admission.limit(config.max_rate)
        self.book.reconfigure(config)
        self.post_events()
        self.guard.notify_all()

    def stream(self, frame: Frame) -> CameraStream:
        """The stream a frame belongs to, ready for it: flushed when time or size has jumped."""
        now_ns = self.clock_ns()
        stream = self.streams.get(frame.camera)
        if stream is None:
            buffer = FrameBuffer(self.config.buffer_s, self.config.buffer_frames)
            stream = self.streams[frame.camera] = CameraStream(frame.camera, buffer, now_ns, now_ns)
        buffer = stream.buffer
        if stream.newest_ns is not None and frame.stamp_ns <= stream.newest_ns:
            self.flush(stream, "time_jump", "time jumped back")
        elif len(buffer) and frame.size != buffer.size:
            was, now = ("x".join(map(str, size[::-1])) for size in (buffer.size, frame.size))
            self.flush(stream, "resolution_change", f"image size changed from {was} to {now}")
        stream.gap_ns = 0 if stream.newest_ns is None else frame.stamp_ns - stream.newest_ns
        stream.newest_ns = frame.stamp_ns
        self.book.first_frame(stream.name, frame.stamp_ns)
        return stream

    def flush(self, stream: CameraStream, cause: str, reason: str) -> None:
        """Forget the frames, targets and tokens of one camera."""
        self.recorder.count("resets", cause)
        level = logging.INFO if cause in ("reset", "started") else logging.WARNING  # asked for, or suffered
        self.say(level, f"reset:{cause}", f"camera {stream.name!r}: {reason}; targets are grounded anew")
        stream.buffer.flush()
        stream.view.forget()
        stream.newest_ns = None
        self.book.restart(stream.name, f"{reason}, waiting for the reasoner")

    def abandon(self) -> None:
        """Give up the buffered frames; what is still being computed on them no longer counts."""
        for stream in self.streams.values():
            stream.buffer.flush()
        for entry in self.book:
            for tracker in entry.trackers.values():
                tracker.abandon()

    def newest_stamps(self) -> dict[str, int]:
        """Stamp of the newest frame of every camera that has one buffered."""
        return {name: stream.buffer.newest_ns for name, stream in self.streams.items() if len(stream.buffer)}

    def mark_stale(self, stale_after_ns: int, started_ns: int, why: str | None = None) -> None:
        """Targets of every camera that was not looked at for longer than ``stale_after_ns`` (by the owner's clock;
        before its first frame since ``started_ns``) become STALE. why: a reason for all of them, silent or not."""
        now_ns = self.clock_ns()
        for stream in self.streams.values():
            stream.alive_ns = min(stream.alive_ns, now_ns)  # a clock that was set back must not hide a dead camera
            stream.stale = stream.stale or now_ns - stream.alive_ns > stale_after_ns
        for entry in self.book:
            for camera, tracker in entry.trackers.items():
                stream = self.streams.get(camera)
                seen_ns = max(entry.started_ns, started_ns) if stream is None else stream.alive_ns
                silent_ns = now_ns - seen_ns
                if why is None and silent_ns <= stale_after_ns:
                    continue
                if stream is None or stream.newest_ns is None:
                    tracker.stale(why or f"no frame yet from camera {camera!r}", now_ns)
                    continue
                arriving = stream.arrived_ns > stream.alive_ns
                what = "frames arrive but none was processed" if arriving else f"no frame from camera {camera!r}"
                tracker.stale(why or f"{what} for {silent_ns / 1e9:.1f} s", stream.newest_ns + max(0, silent_ns))

    def observe_age(self, age_s: float) -> None:
        """A result of that age is being published: do less where results come too late, more where there is room."""
        if not self.degradation.observe(self.clock_ns(), age_s):
            return
        self._adapt()
        doing = "without " + ", ".join(self.degradation.steps) if self.degradation.level else "with everything again"
        limit = f"max_age {self.config.max_age:g} s"
        self.say(logging.WARNING, f"degradation:{self.degradation.level}", f"ages of results ({limit}): now {doing}")

    def as_of_now(self, result: FrameResult) -> FrameResult:
        """The result without masks of what has been cancelled, replaced, reset or found STALE since it was computed."""
        if self.paused:
            return _without_masks(result, self.paused)
        ended = {id(instruction) for instruction in result.ended}
        trackers = {id(tracker.instruction): tracker for tracker in self.book.trackers(result.frame.camera)}
        targets = []
        for target in result.targets:
            tracker = trackers.get(id(target.instruction))
            if target.mask is None or id(target.instruction) in ended:
                targets.append(target)
            elif tracker is not None:
                targets += filter(None, [tracker.as_of_now(target)])
        same = len(targets) == len(result.targets) and all(map(operator.is_, targets, result.targets))
        return result if same else dataclasses.replace(result, targets=tuple(targets))

    def restore(self) -> None:
        """Begin anew with everything."""
        self.degradation.reset()
        self._adapt()

    def post_events(self) -> None:
        """Put what trackers and book have to tell into the outbox."""
        for event in self.book.take_events():
            self.outbox.add("on_rejection", self.callbacks.on_rejection, event)
        ended = self.book.take_ended()
        statuses = self.book.statuses() + ended
        # Every ending is told, also one that looks like the one before.
        if ended or _signature(statuses) != _signature(self._reported):
            self._reported = statuses
            self.outbox.add("on_instructions", self.callbacks.on_instructions, statuses)

    # From anywhere

    def fault(self, step: str, error: Exception) -> str:
        """Count and log an exception; its description in one line."""
        kind = "" if isinstance(error, InstructSegError) else f"{type(error).__name__}: "
        message = " ".join(f"{step} failed: {kind}{error}".split())[:500]
        self.recorder.fault(step, message)
        self.say(logging.ERROR, f"fault:{step}", message)
        return message

    def say(self, level: int, kind: str, message: str) -> None:
        """Log a message; of one kind at most one every five seconds."""
        now = time.monotonic()
        if now - self._last_said.get(kind, -_QUIET_S) >= _QUIET_S:
            self._last_said[kind] = now
            try:
                self._log(level, message)
            except Exception as error:  # the owner's fault must not end a thread of ours
                failed = f"log failed: {type(error).__name__}: {error}; it was told: {message}"
                self.recorder.fault("callback log", " ".join(failed.split())[:500])

    def _degradation(self) -> Degradation:
        max_age_s = self.config.max_age if self.config.frame_policy == "latest" else 0.0  # "every" drops nothing
        return Degradation(max_age_s, len(STEPS) if self.segmenter.resolution_scale is not None else len(STEPS) - 1)

    def _adapt(self) -> None:
        level = self.degradation.level
        self.book.set_pace(2.0 if level >= 1 else 1.0)
        if self.segmenter.resolution_scale is not None:
            self.segmenter.resolution_scale = self.segmenter.reduced_scale if level >= 3 else 1.0

    def _callback_failed(self, name: str, error: Exception) -> None:
        self.fault(f"callback {name}", error)


def _without_masks(result: FrameResult, why: str) -> FrameResult:
    """A result, and the answers it gives, after which everything was made STALE."""
    stale = {"state": State.STALE, "reason": why}
    targets = [
        target if target.mask is None else dataclasses.replace(target, mask=None, confidence=None, **stale)
        for target in result.targets
    ]
    answered = tuple(dataclasses.replace(status, live=0, **stale) for status in result.answered)
    return dataclasses.replace(result, targets=tuple(targets), answered=answered)


def _signature(statuses: tuple[InstructionStatus, ...]) -> list[tuple]:
    """What makes a report worth sending: not the reason, whose figures change with every frame."""
    return [(status.instruction, status.state, status.active, status.live) for status in statuses]
