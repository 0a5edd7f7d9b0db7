"""A tracker that only remembers its mask, and short calls for a follower built on it."""

from __future__ import annotations

import dataclasses

import numpy as np
from unit.fakes import ColourSegmenter, colour_frame

from instructseg.core import (
    Clip,
    Frame,
    Instruction,
    TargetMask,
)
from instructseg.tracking.following import FollowedToken, FollowingSegmenter
from instructseg.tracking.memory import TrackedMask

RED = Instruction("a", "red")


@dataclasses.dataclass(frozen=True)
class FakeMemory:
    """Follows a mask: the frames it has seen, and where a given mask came in."""

    mask: np.ndarray
    seen: tuple[int, ...]
    given: tuple[int, ...]


class FakeTracker:
    """Shows the mask it was last given, shifted by ``drift`` columns a step. score: of every step. calls: in order."""

    load_report = None

    def __init__(self, score: float = 0.8, drift: int = 0) -> None:
        self.score, self.drift = score, drift
        self.calls: list[str] = []
        self.encoded = 0

    def encode(self, image: np.ndarray) -> int:
        self.encoded += 1
        return int(image[0, 0, 0])  # the frame's number, see ``frame``

    def start(self, features: int, mask: np.ndarray) -> FakeMemory:
        assert mask.any(), "an empty mask must not be remembered"
        self.calls.append("start")
        return FakeMemory(mask, (features,), (features,))

    def refresh(self, features: int, memory: FakeMemory, mask: np.ndarray, stepped: bool = False) -> FakeMemory:
        assert mask.any() and (memory.seen[-1] == features) is stepped
        self.calls.append("refresh stepped" if stepped else "refresh")
        seen = memory.seen if stepped else (*memory.seen, features)
        return FakeMemory(mask, seen, (*memory.given, features))

    def step(self, features: int, memories: list[FakeMemory]) -> tuple[list[TrackedMask], list[FakeMemory]]:
        self.calls.append("step")
        new = [FakeMemory(np.roll(m.mask, self.drift, 1), (*m.seen, features), m.given) for m in memories]
        return [TrackedMask(m.mask, self.score, m.mask.astype(np.uint8) * 255, self.score) for m in new], new

    def taken(self) -> list[str]:
        calls, self.calls[:] = list(self.calls), []
        return calls


def frame(number: int, *colours: str, shift: int = 0) -> Frame:
    """A frame every 0.1 s whose first pixel tells its number."""
    made = colour_frame(0.1 * number, *colours, shift=shift)
    made.image[0, 0, 0] = number
    return made


def make(
    recipe: ColourSegmenter | None = None, tracker: FakeTracker | None = None, **options
) -> tuple[FollowingSegmenter, ColourSegmenter, FakeTracker]:
    recipe, tracker = recipe or ColourSegmenter(renew_tokens=True), tracker or FakeTracker()
    return FollowingSegmenter(recipe, tracker, **options), recipe, tracker


def begin(segmenter: FollowingSegmenter, *frames: Frame) -> FollowedToken:
    (grounding,) = segmenter.ground(Clip(tuple(segmenter.encode(frames))), [RED])
    return grounding.targets[0].token


def show(segmenter: FollowingSegmenter, token: FollowedToken, picture: Frame) -> TargetMask:
    return segmenter.segment(segmenter.encode([picture])[0], [token])[0]
