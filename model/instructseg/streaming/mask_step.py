"""The fast half: one frame in, the masks of every live target on that frame out."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from ..core import EncodedFrame, Frame, TargetMask
from ..tracking.token_tracker import Prompt, TokenTracker
from ..tracking.types import TargetState
from .checks import checked_encoding, checked_masks
from .state import CameraStream, StreamState
from .types import FrameRefused, FrameResult

_T = TypeVar("_T")


class MaskStep:
    """Encode, remember, segment with the current tokens, update the trackers.

    before_segmenting: called between encoding and segmenting with the camera's name; the synchronous engine grounds
    there, so that a new instruction gets its first mask on the very frame it was reasoned on.
    """

    def __init__(self, state: StreamState, before_segmenting: Callable[[str], None] | None = None) -> None:
        self._state = state
        self._before_segmenting = before_segmenting

    def run(self, frame: Frame) -> FrameResult:
        """The result on ``frame``. An exception of the segmenter becomes targets in ERROR. Raises FrameRefused
        ("reset"), and counts it, when the camera was reset meanwhile."""
        state, timings = self._state, {}
        with state.guard:
            stream = state.stream(frame)
            epoch = stream.buffer.epoch
        try:
            encoded = _timed(timings, "encode_s", lambda: checked_encoding(state.segmenter.encode([frame]), frame))
        except Exception as error:
            return self._failed(frame, stream, epoch, state.fault("encode", error), None, timings)
        with state.guard:
            self._remember(stream, epoch, encoded)
            state.post_events()
            state.guard.notify_all()
        if self._before_segmenting is not None:
            _timed(timings, "ground_s", lambda: self._before_segmenting(frame.camera))
        with state.guard:
            prompts = {tracker: tracker.prompts() for tracker in state.book.trackers(frame.camera)}
        try:
            masks = _timed(timings, "segment_s", lambda: self._segment(encoded, prompts))
        except Exception as error:
            hit = [tracker for tracker in prompts if prompts[tracker]]
            return self._failed(frame, stream, epoch, state.fault("segment", error), hit, timings)
        with state.guard:
            self._check_epoch(stream, epoch)
            targets = [
                target
                for tracker in state.book.trackers(frame.camera)
                for target in tracker.update(frame.stamp_ns, prompts.get(tracker, ()), masks.get(tracker, ()))
            ]
            return self._finish(frame, stream, targets, timings)

    def _segment(
        self, encoded: EncodedFrame, prompts: dict[TokenTracker, list[Prompt]]
    ) -> dict[TokenTracker, list[TargetMask]]:
        """Masks for all prompts in one call of the segmenter, handed back to their trackers."""
        tokens = [prompt.token for batch in prompts.values() for prompt in batch]
        if not tokens:
            return {}
        masks = iter(checked_masks(self._state.segmenter.segment(encoded, tokens), tokens, encoded.frame))
        return {tracker: [next(masks) for _ in batch] for tracker, batch in prompts.items()}

    def _remember(self, stream: CameraStream, epoch: int, encoded: EncodedFrame) -> None:
        self._check_epoch(stream, epoch)
        stream.buffer.push(encoded)
        stream.alive_ns, stream.stale = self._state.clock_ns(), False
        for tracker in self._state.book.trackers(stream.name):
            tracker.resumed(stream.gap_ns, encoded.frame.stamp_ns)

    def _failed(
        self,
        frame: Frame,
        stream: CameraStream,
        epoch: int,
        reason: str,
        hit: list[TokenTracker] | None,
        timings: dict[str, float],
    ) -> FrameResult:
        """No masks on this frame: the trackers that were ``hit`` (None: all of the camera) go to ERROR."""
        state = self._state
        with state.guard:
            self._check_epoch(stream, epoch)
            trackers = state.book.trackers(frame.camera)
            for tracker in trackers:
                if hit is None or tracker in hit:
                    tracker.fail(reason, frame.stamp_ns)
            targets = [target for tracker in trackers for target in tracker.update(frame.stamp_ns)]
            return self._finish(frame, stream, targets, timings)

    def _finish(
        self, frame: Frame, stream: CameraStream, targets: list[TargetState], timings: dict[str, float]
    ) -> FrameResult:
        state = self._state
        now_ns = state.clock_ns()
        stream.alive_ns, stream.stale = now_ns, False
        state.book.settle(frame.camera, frame.stamp_ns)
        state.post_events()
        state.guard.notify_all()  # a target that has just been lost may be asked about at once
        age_s = (now_ns - frame.stamp_ns) / 1e9
        state.recorder.frame_out(time.monotonic_ns(), age_s, timings)
        return FrameResult(frame, tuple(targets), age_s, timings)

    def _check_epoch(self, stream: CameraStream, epoch: int) -> None:
        if stream.buffer.epoch != epoch:
            self._state.recorder.count("drops", "reset")
            raise FrameRefused("reset", f"camera {stream.name!r} was reset while this frame was being processed")


def _timed(timings: dict[str, float], step: str, call: Callable[[], _T]) -> _T:
    started = time.perf_counter()
    try:
        return call()
    finally:
        timings[step] = time.perf_counter() - started
