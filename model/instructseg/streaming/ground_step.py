"""The slow half: ask the reasoner about the instructions that are due, then bring its tokens up to the present."""

from __future__ import annotations

import dataclasses
import time

from ..core import Clip, Grounding
from ..tracking.token_tracker import TokenTracker
from .checks import checked_count, checked_grounding
from .hand_over import Answer, HandOver
from .state import CameraStream, StreamState
from .types import GroundingResult

_MOST_TOGETHER = 8  # instructions in one call of the reasoner; more would keep the first one waiting
_PATIENCE = 8  # groundings an instruction waits through before it comes first, whatever its priority


@dataclasses.dataclass(frozen=True, eq=False)
class Ask:
    """One instruction to reason about, and the generation in which the answer still counts."""

    tracker: TokenTracker
    generation: int
    refresh: bool


@dataclasses.dataclass(frozen=True, eq=False)
class GroundingJob:
    """Instructions of one camera to reason about on one clip."""

    stream: CameraStream
    clip: Clip
    asks: tuple[Ask, ...]


class GroundStep:
    """Chooses the instructions that are due, grounds them in one call, hands their tokens over."""

    def __init__(self, state: StreamState) -> None:
        self._state = state
        self._hand_over = HandOver(state)
        self._turn = 0

    def next_job(self, camera: str | None = None) -> GroundingJob | None:
        """The most urgent instruction that is due, with those of its camera and priority: highest priority first, then
        longest not asked; one that was passed over too often comes before all. Call under the guard."""
        due = []
        for entry in self._state.book:
            for tracker in entry.trackers.values():
                stream = self._state.streams.get(tracker.camera)
                if camera not in (None, tracker.camera) or stream is None or stream.stale or not len(stream.buffer):
                    continue
                about = tracker.due_about(stream.buffer.newest_ns)
                if about is not None:
                    due.append((tracker, stream, about))
        if not due:
            return None
        due.sort(key=lambda job: _urgency(job[0]))
        first, stream, _ = due[0]
        together = [
            (tracker, about)
            for tracker, its_stream, about in due
            if its_stream is stream and tracker.instruction.priority == first.instruction.priority
        ][:_MOST_TOGETHER]
        for tracker, _, _ in due:
            tracker.timetable.passed_over += 1
        asks = []
        for tracker, about in together:
            self._turn += 1
            refresh = about == "all"
            self._state.recorder.count("asked", tracker.why_due(about))
            look_back_ns = round(self._state.segmenter.sampling.horizon_s * 1e9)
            tracker.begin_grounding(stream.buffer.newest_ns, refresh, self._turn, look_back_ns)
            asks.append(Ask(tracker, tracker.generation, refresh))
        return GroundingJob(stream, stream.buffer.clip(self._state.segmenter.sampling), tuple(asks))

    def run(self, job: GroundingJob) -> None:
        """Ground and hand over. An exception becomes ERROR for the targets that are not live of the instruction it
        comes from; what is no longer wanted is left out."""
        state, asks = self._state, self._wanted(job.asks)
        if not asks:
            return
        instructions = [ask.tracker.instruction for ask in asks]
        started = time.perf_counter()
        try:
            groundings = checked_count(state.segmenter.ground(job.clip, instructions), instructions)
        except Exception as error:
            if len(asks) == 1:
                self._fail(job, asks[0], "ground", error)
            else:
                self._one_by_one(job, asks)
            return
        duration_s = time.perf_counter() - started
        state.recorder.duration("ground_s", duration_s)
        answers = []
        for ask, grounding in zip(asks, groundings, strict=True):
            try:
                checked_grounding([grounding], ask.tracker.instruction)
                answers.append(Answer(ask.tracker, ask.generation, ask.refresh, grounding))
            except Exception as error:
                self._fail(job, ask, "ground", error)
        if answers:
            self._install(job, answers, duration_s)

    def _one_by_one(self, job: GroundingJob, asks: list[Ask]) -> None:
        """Instructions that break the reasoner must not take the others with them."""
        for ask in asks:
            self.run(dataclasses.replace(job, asks=(ask,)))

    def _wanted(self, asks: tuple[Ask, ...]) -> list[Ask]:
        with self._state.guard:
            wanted = [ask for ask in asks if self._state.book.holds(ask.tracker, ask.generation)]
        self._discard(len(asks) - len(wanted))
        return wanted

    def _install(self, job: GroundingJob, answers: list[Answer], duration_s: float) -> None:
        """Hand over together; where that fails, each by itself."""
        state = self._state
        try:
            counted = self._hand_over.run(job.stream, job.clip, answers)
        except Exception as error:
            if len(answers) == 1:
                answer = answers[0]
                self._fail(job, Ask(answer.tracker, answer.generation, answer.refresh), "segment", error)
                return
            for answer in answers:
                self._install(job, [dataclasses.replace(answer, sightings=None)], duration_s)
            return
        self._discard(len(answers) - len(counted))
        for answer in counted:
            state.recorder.count("groundings", "done")
            result = _result(answer.tracker, answer.grounding, duration_s)
            state.outbox.add("on_grounding", state.callbacks.on_grounding, result)

    def _discard(self, count: int) -> None:
        for _ in range(count):
            self._state.recorder.count("groundings", "discarded")

    def _fail(self, job: GroundingJob, ask: Ask, step: str, error: Exception) -> None:
        state = self._state
        reason = state.fault(step, error)
        state.recorder.count("groundings", "failed")
        with state.guard:
            if not state.book.holds(ask.tracker, ask.generation):
                return
            stamp_ns = job.stream.buffer.newest_ns or job.clip.key.frame.stamp_ns
            ask.tracker.fail(reason, stamp_ns, only_missing=True)
            state.post_events()


def _urgency(tracker: TokenTracker) -> tuple[bool, int, int]:
    table = tracker.timetable
    return table.passed_over < _PATIENCE, -tracker.instruction.priority, table.turn


def _result(tracker: TokenTracker, grounding: Grounding, duration_s: float) -> GroundingResult:
    return GroundingResult(tracker.instruction, grounding, duration_s, tracker.camera)
