"""Segmenters for measuring: one that takes the time of another's steps, and one that costs nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from instructseg.core import (
    Clip,
    EncodedFrame,
    Frame,
    Grounding,
    Instruction,
    Sampling,
    Segmenter,
    Target,
    TargetMask,
)

T = TypeVar("T")


class MeteredSegmenter(Segmenter):
    """Hands every step to ``inner`` and adds up what it took, on whichever thread it ran.

    wall_s: seconds by step ("encode", "segment", "ground"). cpu_s: CPU seconds of the calling threads alone, so it is
    the model's whole CPU time only where torch computes with one thread. encode_began: perf_counter of the last encode.
    """

    def __init__(self, inner: Segmenter) -> None:
        self.inner = inner
        self.name, self.max_targets, self.device = inner.name, inner.max_targets, inner.device
        self.wall_s = {"encode": 0.0, "segment": 0.0, "ground": 0.0}
        self.cpu_s = dict(self.wall_s)
        self.encode_began = 0.0
        self._lock = threading.Lock()

    @property
    def sampling(self) -> Sampling:
        return self.inner.sampling

    @sampling.setter
    def sampling(self, value: Sampling) -> None:
        self.inner.sampling = value

    def encode(self, frames: Sequence[Frame]) -> list[EncodedFrame]:
        self.encode_began = time.perf_counter()
        return self._measured("encode", lambda: self.inner.encode(frames))

    def ground(self, clip: Clip, instructions: Sequence[Instruction]) -> list[Grounding]:
        return self._measured("ground", lambda: self.inner.ground(clip, instructions))

    def segment(self, encoded: EncodedFrame, tokens: Sequence[Any]) -> list[TargetMask]:
        return self._measured("segment", lambda: self.inner.segment(encoded, tokens))

    def likeness(self, old: Any, new: Any) -> float | None:
        return self.inner.likeness(old, new)

    def warm_up(self, height: int = 480, width: int = 640) -> None:
        self.inner.warm_up(height, width)

    def _measured(self, step: str, call: Callable[[], T]) -> T:
        wall, cpu = time.perf_counter(), time.thread_time()
        try:
            return call()
        finally:
            wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
            with self._lock:
                self.wall_s[step] += wall
                self.cpu_s[step] += cpu


class FreeSegmenter(Segmenter):
    """No computation: every instruction has ``targets`` targets, and they are always at the same place.

    What a run with it costs is the cost of everything around the model.
    """

    name = "free"

    def __init__(self, targets: int = 1) -> None:
        self.max_targets = targets
        self._masks: dict[tuple[int, int], np.ndarray] = {}

    def encode(self, frames: Sequence[Frame]) -> list[EncodedFrame]:
        return [EncodedFrame(frame, None) for frame in frames]

    def ground(self, clip: Clip, instructions: Sequence[Instruction]) -> list[Grounding]:
        stamps = tuple(encoded.frame.stamp_ns for encoded in clip.frames)
        targets = tuple(Target(slot, 0.9, 0.1, False) for slot in range(self.max_targets))
        return [Grounding(instruction.id, stamps[-1], stamps, targets) for instruction in instructions]

    def segment(self, encoded: EncodedFrame, tokens: Sequence[int]) -> list[TargetMask]:
        height, width = encoded.frame.size
        mask = self._masks.get((height, width))
        if mask is None:
            mask = np.zeros((height, width), bool)
            mask[height // 4 : height // 2, width // 4 : width // 2] = True
            self._masks[height, width] = mask
        return [TargetMask(mask, 0.9, token) for token in tokens]
