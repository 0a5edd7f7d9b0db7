"""The slow half: ask the reasoner about one instruction on buffered frames, then bring its tokens up to the present."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from ..core import Clip, EncodedFrame, Grounding
from ..tracking.token_tracker import TokenTracker
from .checks import checked_grounding, checked_masks
from .state import CameraStream, StreamState
from .types import GroundingResult

_HAND_OVER_ROUNDS = 4  # each round replays the frames that came during the one before; then the rest is close enough


@dataclasses.dataclass(frozen=True, eq=False)
class GroundingJob:
    """What to reason about, and the generation in which the answer still counts."""

    tracker: TokenTracker
    generation: int
    stream: CameraStream
    clip: Clip
    refresh: bool


class GroundStep:
    """Chooses the next instruction that is due, grounds it, hands its tokens over."""

    def __init__(self, state: StreamState) -> None:
        self._state = state

    def next_job(self, camera: str | None = None) -> GroundingJob | None:
        """The most urgent instruction that is due: highest priority, then longest not asked. Call under the guard."""
        due = []
        for entry in self._state.book:
            for tracker in entry.trackers.values():
                stream = self._state.streams.get(tracker.camera)
                if camera not in (None, tracker.camera) or stream is None or stream.stale or not len(stream.buffer):
                    continue
                about = tracker.due_about(stream.buffer.newest_ns)
                if about is not None:
                    due.append((tracker, stream, about == "all"))
        if not due:
            return None
        tracker, stream, refresh = min(due, key=lambda job: (-job[0].instruction.priority, job[0].last_ground_ns))
        tracker.begin_grounding(stream.buffer.newest_ns)
        clip = stream.buffer.clip(self._state.segmenter.sampling)
        return GroundingJob(tracker, tracker.generation, stream, clip, refresh)

    def run(self, job: GroundingJob) -> None:
        """Ground and hand over. An exception becomes ERROR for this instruction's targets that are not live."""
        state, instruction = self._state, job.tracker.instruction
        started = time.perf_counter()
        try:
            grounding = checked_grounding(state.segmenter.ground(job.clip, [instruction]), instruction)
        except Exception as error:
            self._fail(job, "ground", error)
            return
        duration_s = time.perf_counter() - started
        state.recorder.duration("ground_s", duration_s)
        try:
            counted = self._hand_over(job, grounding)
        except Exception as error:
            self._fail(job, "segment", error)
            return
        state.recorder.count("groundings", "done" if counted else "discarded")
        if counted:
            result = GroundingResult(instruction, grounding, duration_s, job.tracker.camera)
            state.outbox.add("on_grounding", state.callbacks.on_grounding, result)

    def _hand_over(self, job: GroundingJob, grounding: Grounding) -> bool:
        """Replay the tokens over the frames that came after the key frame, then install them; False: obsolete."""
        state, last_ns = self._state, job.clip.key.frame.stamp_ns
        with state.guard:
            tokens = {slot: target.token for slot, target in job.tracker.accepted(grounding, job.refresh).items()}
        rounds = 0
        while True:
            with state.guard:
                if not state.book.holds(job.tracker, job.generation):
                    return False
                newer = job.stream.buffer.after(last_ns) if tokens and state.segmenter.carries_tokens else []
                if not newer or rounds == _HAND_OVER_ROUNDS:
                    self._install(job, grounding, tokens)
                    return True
            rounds += 1
            for encoded in newer:
                replayed = self._replay(encoded, tokens)
                unchanged = all(replayed[slot] is tokens[slot] for slot in tokens)
                tokens, last_ns = replayed, encoded.frame.stamp_ns
                if unchanged:  # a recipe whose token is the same on every frame has nothing to catch up with
                    last_ns = newer[-1].frame.stamp_ns
                    break

    def _replay(self, encoded: EncodedFrame, tokens: dict[int, Any]) -> dict[int, Any]:
        prompts = list(tokens.values())
        masks = checked_masks(self._state.segmenter.segment(encoded, prompts), prompts, encoded.frame)
        return {slot: mask.token for slot, mask in zip(tokens, masks, strict=True)}

    def _install(self, job: GroundingJob, grounding: Grounding, tokens: dict[int, Any]) -> None:
        key_ns = job.clip.key.frame.stamp_ns
        stamp_ns = job.stream.buffer.newest_ns or key_ns
        job.tracker.apply_grounding(grounding, tokens, key_ns, stamp_ns, job.refresh)
        self._state.post_events()

    def _fail(self, job: GroundingJob, step: str, error: Exception) -> None:
        state = self._state
        reason = state.fault(step, error)
        state.recorder.count("groundings", "failed")
        with state.guard:
            if not state.book.holds(job.tracker, job.generation):
                return
            stamp_ns = job.stream.buffer.newest_ns or job.clip.key.frame.stamp_ns
            job.tracker.fail(reason, stamp_ns, only_missing=True)
            state.post_events()
