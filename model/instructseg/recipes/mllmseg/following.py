"""MLLMSeg's masks now and then, a memory tracker between: for machines that cannot read every frame.

The language model looks at a target once per ``mask_period_s``; in between SAM 2's memory carries the mask. Where it
does not see the target, what the tracker goes on following is not reported until the next look.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from ...core import EncodedFrame, Frame, TargetMask
from ...recent_images import RecentImages
from ...tracking.memory import MemoryTracker
from .checkpoint import Loaded
from .configuration import MllmSegOptions
from .processing import Features, MllmSegSegmenter, Seen, SlotToken, target_mask

VISIBLE = 0.5  # score from which a mask of the recipe's own is worth remembering


@dataclasses.dataclass(frozen=True, eq=False)
class FollowedToken:
    """A slot, what the tracker remembers of it (None: nothing worth following yet), when it was last read and with what
    score."""

    slot: SlotToken
    memory: Any
    read_ns: int
    read_score: float


class FollowingSegmenter(MllmSegSegmenter):
    def __init__(self, loaded: Loaded, device: torch.device, options: MllmSegOptions, tracker: MemoryTracker) -> None:
        super().__init__(loaded, device, options)
        self.tracker = tracker
        self.views = RecentImages(options.images_kept)
        self.period_ns = round(options.mask_period_s * 1e9)

    def segment(self, encoded: EncodedFrame, tokens: Sequence[FollowedToken]) -> list[TargetMask]:
        now = encoded.frame.stamp_ns
        due = [t for t in tokens if t.memory is None or not 0 <= now - t.read_ns < self.period_ns]
        read = dict(zip(map(id, due), self.look(encoded, [t.slot for t in due]), strict=True))
        stepped = [t for t in tokens if t.memory is not None and not _visible(read.get(id(t)))]
        followed = dict(zip(map(id, stepped), self._step(encoded, stepped), strict=True))
        return [self._result(encoded, t, read.get(id(t)), followed.get(id(t))) for t in tokens]

    def _step(self, encoded: EncodedFrame, tokens: Sequence[FollowedToken]) -> list[tuple[Any, Any]]:
        """(mask, new memory) of each target on its next frame."""
        if not tokens:
            return []
        masks, memories = self.tracker.step(encoded.features.tracked(), [t.memory for t in tokens])
        return list(zip(masks, memories, strict=True))

    def _result(
        self, encoded: EncodedFrame, token: FollowedToken, view: Seen | None, step: tuple[Any, Any] | None
    ) -> TargetMask:
        now = encoded.frame.stamp_ns
        if step is None:  # read on this frame: seen, or nothing to follow it by
            own = target_mask(view, encoded.frame.size, None)
            memory = self._remembered(encoded, token.memory, own)
            return dataclasses.replace(own, token=FollowedToken(token.slot, memory, now, own.score))
        mask, memory = step
        read_ns, read_score = (token.read_ns, token.read_score) if view is None else (now, view.score)
        score = mask.score if read_score >= VISIBLE else min(mask.score, read_score)
        return TargetMask(mask.mask, score, FollowedToken(token.slot, memory, read_ns, read_score), mask.confidence)

    def _remembered(self, encoded: EncodedFrame, memory: Any, own: TargetMask) -> Any:
        """The tracker's memory after a mask of the recipe's own; a weak or empty one is not remembered."""
        if own.score < VISIBLE or not own.mask.any():
            return memory
        features = encoded.features.tracked()
        if memory is None:
            return self.tracker.start(features, own.mask)
        return self.tracker.refresh(features, memory, own.mask)

    def _token(self, key: EncodedFrame, token: SlotToken, view: Seen) -> FollowedToken:
        memory = self._remembered(key, None, target_mask(view, key.frame.size, token))
        return FollowedToken(token, memory, key.frame.stamp_ns, view.score)

    def _features(self, frame: Frame) -> Features:
        return Features(super()._features(frame).image, self.views.value(lambda: self.tracker.encode(frame.image)))


def _visible(view: Seen | None) -> bool:
    return view is not None and view.score >= VISIBLE
