"""Segmenters that ask another one and add to it: calls that take simulated time, encodings that are remembered."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ..core import BadInput, Clip, EncodedFrame, Frame, Grounding, Instruction, Segmenter, TargetMask
from .stream_clock import SimulatedClock

_T = TypeVar("_T")


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
    """A segmenter that asks another one, whose attributes are its own; base of those that add something to it."""

    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter

    def encode(self, frames: Sequence[Frame]) -> list[EncodedFrame]:
        return self._segmenter.encode(frames)

    def ground(self, clip: Clip, instructions: Sequence[Instruction]) -> list[Grounding]:
        return self._segmenter.ground(clip, instructions)

    def segment(self, encoded: EncodedFrame, tokens: Sequence[Any]) -> list[TargetMask]:
        return self._segmenter.segment(encoded, tokens)

    def segment_together(self, frames: Sequence[tuple[EncodedFrame, Sequence[Any]]]) -> list[list[TargetMask]]:
        return [self.segment(encoded, tokens) for encoded, tokens in frames]  # which is what time is charged for

    def likeness(self, old: Any, new: Any) -> float | None:
        return self._segmenter.likeness(old, new)


def _attribute_of_the_other(name: str) -> property:
    return property(
        lambda self: getattr(self._segmenter, name), lambda self, value: setattr(self._segmenter, name, value)
    )


for _name, _default in vars(Segmenter).items():  # what the engine may read and set of a recipe besides its steps
    if not _name.startswith("_") and not callable(_default):
        setattr(Delegate, _name, _attribute_of_the_other(_name))


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
