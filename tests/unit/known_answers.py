"""A recipe whose answers about the miniature benchmarks are known: it segments what its table says of a text."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from unit.miniature_data import MiniScene
from unit.miniature_videos import MiniVideo

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
    """meanings: other than the usual ones, by text. broken: texts at which ground raises. slow_s: seconds that a call
    of ground takes after the first ``slow_after``. asked, clips: texts and stamps, by call of ground."""

    name = "known"
    sampling = Sampling(3, 1, 0.2)
    max_targets = 3

    def __init__(
        self,
        meanings: Mapping[str, tuple] | None = None,
        broken: Sequence[str] = (),
        slow_s: float = 0.0,
        slow_after: int = 0,
    ) -> None:
        self.meanings, self.broken, self.slow_s, self.slow_after = dict(meanings or {}), set(broken), slow_s, slow_after
        self.asked: list[list[str]] = []
        self.clips: list[list[int]] = []

    def encode(self, frames: Sequence[Frame]) -> list[EncodedFrame]:
        return [EncodedFrame(frame, frame.image.astype(int)) for frame in frames]

    def ground(self, clip: Clip, instructions: Sequence[Instruction]) -> list[Grounding]:
        self.asked.append([i.text for i in instructions])
        self.clips.append([e.frame.stamp_ns for e in clip.frames])
        time.sleep(self.slow_s if len(self.asked) > self.slow_after else 0.0)
        if self.broken.intersection(self.asked[-1]):
            raise RuntimeError("this text breaks it")
        stamps = tuple(e.frame.stamp_ns for e in clip.frames)
        return [Grounding(i.id, stamps[-1], stamps, self._targets(i.text)) for i in instructions]

    def segment(self, encoded: EncodedFrame, tokens: Sequence[Meaning]) -> list[TargetMask]:
        return [self._mask(encoded, token) for token in tokens]

    def _targets(self, text: str) -> tuple[Target, ...]:
        phrases = [part for part in text.split(";") if part.strip()] if ";" in text else [text]
        known = self.meanings
        found = [known[p.strip()] if p.strip() in known else meaning_of(p) for p in phrases]
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
    slow = float(options.get("slow_s", 0.0)), int(options.get("slow_after", 0))
    return KnownSegmenter(slow_s=slow[0], slow_after=slow[1])


def main(words: Sequence[str]) -> int:
    """``instructseg`` with this recipe among the others, for tests in processes of their own. Several of them meet over
    gloo at a file, so that nothing but the loopback interface is listened on."""
    if "WORLD_SIZE" in os.environ:
        import torch.distributed as dist

        rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        dist.init_process_group("gloo", f"file://{os.environ['MEETING']}", rank=rank, world_size=count)
    with_known_recipe()
    return cli.main(words)


def with_known_recipe() -> None:
    registry.RECIPES["known"] = registry.Recipe("known", "for tests", "unit.known_answers", shipped=True)


def made_exact(root: Path, images: Mapping[str, np.ndarray]) -> Path:
    """The pictures under a miniature's root without JPEG's losses: PNG under the same names, which readers go by.
    images: by the end of the path without its suffix."""
    for path in root.rglob("*.jpg"):
        key = path.stem if path.stem in images else f"{path.parent.name}/{path.stem}"
        encoded = cv2.imencode(".png", cv2.cvtColor(images[key], cv2.COLOR_RGB2BGR))[1]
        path.write_bytes(encoded.tobytes())
    return root


def exact_images(root: Path, scenes: Mapping[str, MiniScene]) -> Path:
    return made_exact(root, {scene.name: scene.image for scene in scenes.values()})


def exact_videos(root: Path, videos: Mapping[str, MiniVideo]) -> Path:
    named = {f"{v.name}/{name}": image for v in videos.values() for name, image in zip(v.frames, v.images, strict=True)}
    return made_exact(root, named)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
