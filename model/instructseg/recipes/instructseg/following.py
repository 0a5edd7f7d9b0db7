"""InstructSeg on groundings, a memory tracker on every frame: for cameras faster than a pass of the language model.

Not published. How often the masks are renewed is the engine's ``refresh_period``. With references from the future the
answer is about an earlier frame; the tracker then carries it over the frames since.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from ...core import Clip, EncodedFrame, Frame, TargetMask
from ...tracking.memory import MemoryTracker, TrackedMask
from ...tracking.memory_bank import TrackMemory
from ..token_prompted import Once
from .checkpoint import LoadedInstructSeg
from .configuration import InstructSegOptions
from .history import Answer, History
from .processing import InstructSegSegmenter
from .reader import Features


@dataclasses.dataclass(frozen=True, eq=False)
class FollowedToken:
    """A target's memory after ``frame``, and its mask there."""

    memory: TrackMemory
    frame: Frame
    mask: TargetMask


class FollowingSegmenter(InstructSegSegmenter):
    carries_tokens = True

    def __init__(
        self,
        loaded: LoadedInstructSeg,
        device: torch.device,
        dtype: torch.dtype,
        options: InstructSegOptions,
        tracker: MemoryTracker,
    ) -> None:
        super().__init__(loaded, device, dtype, options)
        self.tracker = tracker
        self.load_report = loaded.report if tracker.load_report is None else loaded.report + tracker.load_report

    def encode(self, frames: Sequence[Frame]) -> list[EncodedFrame]:
        return [EncodedFrame(frame, self._features(frame)) for frame in frames]

    def segment(self, encoded: EncodedFrame, tokens: Sequence[FollowedToken]) -> list[TargetMask]:
        later = [t for t in tokens if t.frame is not encoded.frame]
        stepped = dict(zip(map(id, later), self._step(encoded, later), strict=True))
        shown = [stepped.get(id(token), token) for token in tokens]
        return [dataclasses.replace(t.mask, token=t) for t in shown]

    def warm_up(self, height: int = 480, width: int = 640) -> None:
        super().warm_up(height, width)
        frame = Frame(np.zeros((height, width, 3), np.uint8), 0)
        encoded = self.encode([frame])[0]
        whole = Answer(np.ones(frame.size, bool), np.full(frame.size, 255, np.uint8), 1.0, 1.0, 1.0)
        self._step(self.encode([Frame(frame.image, 1)])[0], [self._begin(encoded, whole)])

    def _tokens(self, clip: Clip, key: int, history: History, answers: list[Answer]) -> list[FollowedToken]:
        tokens = [self._begin(clip.frames[key], answer) for answer in answers]
        for encoded in clip.frames[key + 1 :]:  # references from the future: on to the newest frame
            tokens = self._step(encoded, tokens)
        return tokens

    def _begin(self, encoded: EncodedFrame, answer: Answer) -> FollowedToken:
        memory = self.tracker.start(encoded.features.tracked(), answer.mask)
        return FollowedToken(memory, encoded.frame, TargetMask(answer.mask, answer.presence, None, answer.confidence))

    def _step(self, encoded: EncodedFrame, tokens: Sequence[FollowedToken]) -> list[FollowedToken]:
        if not tokens:
            return []
        masks, memories = self.tracker.step(encoded.features.tracked(), [t.memory for t in tokens])
        return [
            FollowedToken(memory, encoded.frame, _target_mask(mask))
            for mask, memory in zip(masks, memories, strict=True)
        ]

    def _features(self, frame: Frame) -> Features:
        return Features(self.reader.features(frame).tokens, Once(lambda: self.tracker.encode(frame.image)))


def _target_mask(mask: TrackedMask) -> TargetMask:
    return TargetMask(mask.mask, min(1.0, max(0.0, mask.score)), None, mask.confidence)
