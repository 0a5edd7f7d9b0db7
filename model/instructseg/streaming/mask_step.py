"""The fast half: one frame in, the masks of every live target on that frame out."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ..core import EncodedFrame, Frame, TargetMask
from ..tracking.token_tracker import Prompt, TokenTracker
from ..tracking.types import TargetState
from .camera_encoder import CameraEncoder
from .checks import checked_frames, checked_masks
from .state import CameraStream, StreamState
from .types import Ending, FrameRefused, FrameResult

_T = TypeVar("_T")
Prompts = dict[TokenTracker, list[Prompt]]
Masks = dict[TokenTracker, list[TargetMask]]


@dataclasses.dataclass(eq=False)
class Look:
    """One frame on its way: encoded, or why not. ahead: prompts and masks, where those of several cameras were computed
    together."""

    frame: Frame
    stream: CameraStream
    epoch: int
    timings: dict[str, float]
    encoded: EncodedFrame | None = None
    fault: str = ""
    ahead: tuple[Prompts, Masks] | None = None


class MaskStep:
    """Encode, remember, segment with the current tokens, update the trackers.

    before_segmenting: called between encoding and segmenting with the camera's name; the synchronous engine grounds
    there, so that a new instruction gets its first mask on the very frame it was reasoned on.
    """

    def __init__(self, state: StreamState, before_segmenting: Callable[[str], None] | None = None) -> None:
        self._state = state
        self._encoder = CameraEncoder(state)
        self._before_segmenting = before_segmenting

    def run(self, frame: Frame) -> FrameResult:
        """The result on ``frame``. An exception of the segmenter becomes targets in ERROR. Raises FrameRefused
        ("reset", "paused"), and counts it, when the camera was reset meanwhile or nothing is looked at."""
        looks = self.look([frame])
        if not looks:
            raise self._lost(frame.camera)
        return self.masks(looks[0])

    def look(self, frames: Sequence[Frame]) -> list[Look]:
        """Encode frames of different cameras together and remember them; those whose camera was reset meanwhile are
        counted and left out."""
        state = self._state
        with state.guard:
            looks = [Look(frame, stream := state.stream(frame), stream.buffer.epoch, {}) for frame in frames]
        started = time.perf_counter()
        encodings = self._encoder.encode(frames)
        share_s = (time.perf_counter() - started) / len(frames)
        moved = {look.frame.camera for look in looks if self._moved(look)}
        kept = []
        with state.guard:
            for look, encoding in zip(looks, encodings, strict=True):
                look.timings["encode_s"] = share_s
                if isinstance(encoding, str):
                    look.fault = encoding
                elif self._is_obsolete(look):
                    continue
                else:
                    look.encoded = encoding
                    self._remember(look.stream, encoding, look.frame.camera in moved)
                kept.append(look)
            state.post_events()
            state.guard.notify_all()
        return kept

    def join(self, looks: Sequence[Look]) -> None:
        """Compute the masks of several cameras in one call where the recipe gains by it. Where that raises, each frame
        is segmented by itself, so that one camera's trouble stays its own."""
        state = self._state
        with state.guard:
            found = [(look, self._prompts(look)) for look in looks if look.encoded is not None]
        asked = [(look, prompts) for look, prompts in found if any(prompts.values())]
        if not state.segmenter.joins_cameras or len(asked) < 2 or self._before_segmenting is not None:
            return
        started = time.perf_counter()
        tokens = [_tokens(prompts) for _, prompts in asked]
        try:
            frames = [(look.encoded, given) for (look, _), given in zip(asked, tokens, strict=True)]
            joined = checked_frames(state.segmenter.segment_together(frames), len(frames))
            masks = [checked_masks(m, t, f.frame) for m, t, (f, _) in zip(joined, tokens, frames, strict=True)]
        except Exception as error:
            message = f"masks of several cameras could not be computed together ({error}): one by one"
            state.say(logging.WARNING, "joined", " ".join(message.split())[:500])
            return
        share_s = (time.perf_counter() - started) / len(asked)
        for (look, prompts), found_masks in zip(asked, masks, strict=True):
            look.timings["segment_s"] = share_s
            look.ahead = prompts, _by_tracker(prompts, found_masks)

    def masks(self, look: Look) -> FrameResult:
        """The masks on a frame that was looked at. Raises FrameRefused as :meth:`run` does."""
        state, frame = self._state, look.frame
        if look.encoded is None:
            return self._failed(look, look.fault, None)
        if self._before_segmenting is not None:
            _timed(look.timings, "ground_s", lambda: self._before_segmenting(frame.camera))
        if look.ahead is not None:
            prompts, masks = look.ahead
        else:
            with state.guard:
                prompts = self._prompts(look)
            try:
                masks = _timed(look.timings, "segment_s", lambda: self._segment(look.encoded, prompts))
            except Exception as error:
                hit = [tracker for tracker in prompts if prompts[tracker]]
                return self._failed(look, state.fault("segment", error), hit)
        with state.guard:
            self._check_epoch(look)
            targets = [
                target
                for tracker in state.book.trackers(frame.camera)
                for target in tracker.update(frame.stamp_ns, prompts.get(tracker, ()), masks.get(tracker, ()))
            ]
            return self._finish(look, targets)

    def _prompts(self, look: Look) -> Prompts:
        return {tracker: tracker.prompts() for tracker in self._state.book.trackers(look.frame.camera)}

    def _segment(self, encoded: EncodedFrame, prompts: Prompts) -> Masks:
        """Masks for all prompts in one call of the segmenter, handed back to their trackers."""
        tokens = _tokens(prompts)
        if not tokens:
            return {}
        masks = checked_masks(self._state.segmenter.segment(encoded, tokens), tokens, encoded.frame)
        return _by_tracker(prompts, masks)

    def _moved(self, look: Look) -> bool:
        """Whether the camera looks elsewhere than when that was last noticed."""
        config, frame = self._state.config, look.frame
        return config.ground_on_motion and look.stream.view.changed(frame.image, frame.stamp_ns, config.view_change)

    def _remember(self, stream: CameraStream, encoded: EncodedFrame, moved: bool) -> None:
        stream.buffer.push(encoded)
        stream.alive_ns, stream.stale = self._state.clock_ns(), False
        for tracker in self._state.book.trackers(stream.name):
            tracker.resumed(stream.gap_ns, encoded.frame.stamp_ns)
            if moved:
                tracker.view_moved()

    def _failed(self, look: Look, reason: str, hit: list[TokenTracker] | None) -> FrameResult:
        """No masks on this frame: the trackers that were ``hit`` (None: all of the camera) go to ERROR."""
        state, frame = self._state, look.frame
        with state.guard:
            self._check_epoch(look)
            trackers = state.book.trackers(frame.camera)
            for tracker in trackers:
                if hit is None or tracker in hit:
                    tracker.fail(reason, frame.stamp_ns)
            targets = [target for tracker in trackers for target in tracker.update(frame.stamp_ns)]
            return self._finish(look, targets)

    def _finish(self, look: Look, targets: list[TargetState]) -> FrameResult:
        state, frame = self._state, look.frame
        now_ns = state.clock_ns()
        look.stream.alive_ns, look.stream.stale = now_ns, False
        ended = state.book.settle(frame.camera, frame.stamp_ns)
        answered = tuple(status for status in ended if status.ending is Ending.ANSWERED)
        last = tuple(status.instruction for status in ended)
        state.post_events()
        age_s = (now_ns - frame.stamp_ns) / 1e9
        state.recorder.frame_out(time.monotonic_ns(), age_s, look.timings)
        return FrameResult(frame, tuple(targets), age_s, look.timings, answered, last)

    def _is_obsolete(self, look: Look) -> bool:
        if look.stream.buffer.epoch == look.epoch and not self._state.paused:
            return False
        self._state.recorder.count("drops", "paused" if self._state.paused else "reset")
        return True

    def _check_epoch(self, look: Look) -> None:
        if self._is_obsolete(look):
            raise self._lost(look.stream.name)

    def _lost(self, camera: str) -> FrameRefused:
        if self._state.paused:
            return FrameRefused("paused", f"nothing is looked at: {self._state.paused}")
        return FrameRefused("reset", f"camera {camera!r} was reset while this frame was being processed")


def _tokens(prompts: Prompts) -> list[Any]:
    return [prompt.token for batch in prompts.values() for prompt in batch]


def _by_tracker(prompts: Prompts, masks: Sequence[TargetMask]) -> Masks:
    each = iter(masks)
    return {tracker: [next(each) for _ in batch] for tracker, batch in prompts.items()}


def _timed(timings: dict[str, float], step: str, call: Callable[[], _T]) -> _T:
    started = time.perf_counter()
    try:
        return call()
    finally:
        timings[step] = time.perf_counter() - started
