"""Which frame of a clip to look at closely, given the words of an instruction.

VISA (arXiv 2407.11325, sec. 4.2) asks a second, video-watching language model where in the clip the target is to be
found ("text-guided frame sampler"). Here that is one of several samplers behind one interface.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch.nn import functional as F

from .core import BadInput, EncodedFrame, Frame

ANSWERS = 10  # published: how often the question is asked
PERCENTAGES = range(0, 101, 10)


class FrameSampler(Protocol):
    """Chooses the target frame of a clip for an expression."""

    def choose(self, frames: Sequence[EncodedFrame], expression: str) -> int:
        """The index of the chosen frame. frames: oldest first, at least one; expression: cleaned text."""


class VideoAnswerer(Protocol):
    """A model that answers a question about a video: another language model, run by the user."""

    def __call__(
        self, frames: Sequence[Frame], question: str, *, temperature: float, top_p: float, max_new_tokens: int
    ) -> str:
        """One answer drawn at random with these settings."""


class NewestFrame:
    """The newest frame: what a robot needs, whose masks must be of now."""

    def choose(self, frames: Sequence[EncodedFrame], expression: str) -> int:
        return len(frames) - 1


class UniformFrame:
    """The middle of the clip, whatever the words: what the published sampler falls back to without an answer."""

    def choose(self, frames: Sequence[EncodedFrame], expression: str) -> int:
        return frame_at(0.5, len(frames))


class AskedFrame:
    """The published sampler: ask a video model for a percentage mark, several times, and take the mean."""

    def __init__(self, answer: VideoAnswerer, answers: int = ANSWERS) -> None:
        self._answer = answer
        self._answers = answers

    def choose(self, frames: Sequence[EncodedFrame], expression: str) -> int:
        video, text = [encoded.frame for encoded in frames], question(expression)
        drawn = [
            self._answer(video, text, temperature=0.6, top_p=0.9, max_new_tokens=1024) for _ in range(self._answers)
        ]
        return frame_at(mean_position(drawn), len(frames))


def question(expression: str) -> str:
    """What the video model is asked, letter by letter as published (line break and blanks included)."""
    *most, last = (f"{p}%" for p in PERCENTAGES)
    wanted = expression.removesuffix("?")
    return (
        f"If I want to find '{wanted}', which percentage mark of the video should I check?\n"
        f"             Please choose one answer from {', '.join(most)}, and {last}."
    )


def position(answer: str) -> float | None:
    """The place in the video, 0 to 1, that an answer names; None where it names none.

    A plain search for the published marks in their published order: "last 10%" before "10%", and the first mark that
    occurs anywhere wins, so that "40% and 20%" is 0.2 and "110%" is 0.1.
    """
    for percent in PERCENTAGES:
        if f"last {percent}%" in answer:
            return 1 - percent / 100
    for percent in [*PERCENTAGES[1:], 0]:
        if f"{percent}%" in answer:
            return percent / 100
    return None


def mean_position(answers: Sequence[str]) -> float:
    """The mean of all places that the answers name; the middle of the video where none does."""
    places = [place for place in map(position, answers) if place is not None]
    return sum(places) / len(places) if places else 0.5


def frame_at(place: float, count: int) -> int:
    """The frame at ``place`` (0 to 1) of a video of ``count`` frames."""
    if count < 1:
        raise BadInput(f"a frame can be chosen from at least one; got {count}")
    return min(int(count * place), count - 1)


def most_similar(frames: torch.Tensor, text: torch.Tensor) -> int:
    """The index of the row of ``frames`` ``(T, C)`` nearest in direction to ``text`` ``(C,)``; the newest of equals."""
    likeness = F.cosine_similarity(frames.float(), text.float()[None], dim=-1)  # (T,)
    return len(likeness) - 1 - int(likeness.flip(0).argmax())
