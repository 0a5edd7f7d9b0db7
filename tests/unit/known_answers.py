"""A recipe whose answers about the miniature benchmarks are known: it segments what its table says of a text."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence

import numpy as np

from instructseg import cli, registry
from instructseg.core import Clip, EncodedFrame, Frame, Grounding, Instruction, Sampling, Segmenter, Target, TargetMask

RED, BLUE, GREEN = (200, 40, 40), (40, 90, 200), (60, 170, 60)  # of both kinds of miniatures
# The first row whose words are in a text says what it means; the first two are refused.
MEANINGS: tuple[tuple[str, tuple[tuple[int, int, int], ...]], ...] = (
    ("cat", ()),
    ("zebra", ()),
    ("red", (RED,)),
    ("blue", (BLUE,)),
    ("all but green", (RED, BLUE)),
    ("box top", (GREEN,)),
    ("box", (RED,)),
    ("ball", (BLUE,)),
    ("ruler", (GREEN,)),
    ("long thing", (GREEN,)),
    ("longest", (GREEN,)),
    ("1. row", (RED,)),
    ("2. row", (BLUE,)),
    ("thing 1 by", (RED,)),
    ("thing 2 by", (BLUE,)),
    ("moving right", (RED, BLUE)),
    ("comes later", (BLUE,)),
    ("could be moved", (RED, BLUE)),
    ("can be moved", (RED, BLUE)),
    ("thing that moves", (RED,)),
    ("would you push", (RED,)),
    ("person", (RED,)),
    ("dog", (BLUE,)),
)
NEAR = 45  # JPEG moves the colours of wide things by less


@dataclasses.dataclass(frozen=True)
class Meaning:
    colours: tuple[tuple[int, int, int], ...]


class KnownSegmenter(Segmenter):
    """meanings: other than the usual ones, by text. broken: texts at which ground raises. asked: texts, by call."""

    name = "known"
    sampling = Sampling(3, 1, 0.2)
    max_targets = 3

    def __init__(self, broken: Sequence[str] = (), slow_s: float = 0.0, **meanings) -> None:
        self.broken, self.slow_s, self.meanings = set(broken), slow_s, meanings
        self.asked: list[list[str]] = []
        self.clips: list[list[int]] = []

    def encode(self, frames: Sequence[Frame]) -> list[EncodedFrame]:
        return [EncodedFrame(frame, frame.image.astype(int)) for frame in frames]

    def ground(self, clip: Clip, instructions: Sequence[Instruction]) -> list[Grounding]:
        self.asked.append([i.text for i in instructions])
        self.clips.append([e.frame.stamp_ns for e in clip.frames])
        time.sleep(self.slow_s)
        if self.broken.intersection(self.asked[-1]):
            raise RuntimeError("this text breaks it")
        stamps = tuple(e.frame.stamp_ns for e in clip.frames)
        return [Grounding(i.id, stamps[-1], stamps, self._targets(i.text)) for i in instructions]

    def segment(self, encoded: EncodedFrame, tokens: Sequence[Meaning]) -> list[TargetMask]:
        return [self._mask(encoded, token) for token in tokens]

    def _targets(self, text: str) -> tuple[Target, ...]:
        phrases = [part for part in text.split(";") if part.strip()] if ";" in text else [text]
        found = [self.meanings.get(phrase.strip()) or meaning_of(phrase) for phrase in phrases]
        return tuple(
            Target(Meaning(colours), 0.9, 0.1, False) if colours else Target(None, 0.1, 0.9, True) for colours in found
        )

    def _mask(self, encoded: EncodedFrame, token: Meaning) -> TargetMask:
        mask = np.zeros(encoded.frame.size, bool)
        for colour in token.colours:
            mask |= (np.abs(encoded.features - np.array(colour)) < NEAR).all(axis=-1)
        return TargetMask(mask, 0.9 if mask.any() else 0.6, token, mask.astype(np.uint8) * 255)


def meaning_of(text: str) -> tuple[tuple[int, int, int], ...]:
    for words, colours in MEANINGS:
        if words in text.lower():
            return colours
    raise ValueError(f"nobody knows what {text!r} means")


def build(checkpoint, device, dtype, options) -> KnownSegmenter:
    return KnownSegmenter(slow_s=float(options.get("slow_s", 0.0)))


def main(words: Sequence[str]) -> int:
    """``instructseg`` with this recipe among the others, for tests in processes of their own."""
    registry.RECIPES["known"] = registry.Recipe("known", "for tests", __name__, shipped=True)
    return cli.main(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
