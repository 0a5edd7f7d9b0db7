"""What an instruction has become for the network, and what it has seen so far. Immutable: a new frame, a new value."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from .configuration import REFERENCES

_EARLY = 0.75  # of an interval after which a frame may become a reference: cameras are not punctual


@dataclasses.dataclass(frozen=True, eq=False)
class Question:
    """An instruction as ids ``(W,)`` on the device, that of ``[SEG]`` last."""

    text: str
    ids: torch.Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """A frame as the object-aware perceiver keeps it for one instruction: ``(n, hidden)``."""

    stamp_ns: int
    tokens: torch.Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class History:
    """An instruction with the frames it refers to, oldest first, at most four."""

    question: Question
    references: tuple[Reference, ...] = ()

    def takes(self, stamp_ns: int, interval_ns: float) -> bool:
        """Whether a frame of this time comes late enough after the newest reference to become one."""
        return not self.references or stamp_ns - self.references[-1].stamp_ns >= _EARLY * interval_ns

    def with_reference(self, reference: Reference) -> History:
        return History(self.question, (*self.references, reference)[-REFERENCES:])


@dataclasses.dataclass(frozen=True, eq=False)
class Answer:
    """One mask of one frame. mask ``(H, W)`` bool, confidence ``(H, W)`` uint8 (the soft mask); class_score and quality
    in 0..1, whose product is the published score; presence: that score on the scale of :func:`presence`."""

    mask: np.ndarray
    confidence: np.ndarray
    class_score: float
    quality: float
    presence: float

    @property
    def score(self) -> float:
        return self.class_score * self.quality

    def __str__(self) -> str:
        return f"score {self.score:.2f} = class {self.class_score:.2f} x mask quality {self.quality:.2f}"


def presence(score: float, threshold: float) -> float:
    """A published score in 0..1 on a scale where ``threshold`` is 0.5, linear on both sides. Ours: it lets every recipe
    be judged by the same limit."""
    if score < threshold:
        return 0.5 * score / threshold
    return 0.5 + 0.5 * (score - threshold) / (1.0 - threshold)
