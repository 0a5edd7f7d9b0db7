"""The camera of the benchmarks: a rendered flat scene at 640 x 480, with words that name things in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import cv2
import numpy as np

from instructseg.core import Frame, Instruction
from instructseg.data.flat_scenes import sample_flat_episode
from instructseg.data.scene import CLUTTER

WIDTH, HEIGHT = 640, 480
SECONDS = 3.0


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """images ``(T, 480, 640, 3)`` uint8 RGB at ``rate`` frames a second; texts: one instruction for each thing."""

    images: np.ndarray
    rate: float
    texts: tuple[str, ...]

    def image(self, index: int) -> np.ndarray:
        """The image of frame ``index``, without end: forwards and backwards in turn, so that nothing ever jumps."""
        last = len(self.images) - 1
        phase = index % (2 * last)
        return self.images[phase if phase <= last else 2 * last - phase]

    def frames(self, count: int, start: int = 0) -> Iterator[Frame]:
        """``count`` frames with stamps that go on at the scene's rate."""
        for index in range(start, start + count):
            yield Frame(self.image(index), round((index + 1) * 1e9 / self.rate))

    def instructions(self, count: int) -> list[Instruction]:
        """``count`` instructions; texts repeat where the scene has fewer things."""
        return [Instruction(f"bench-{i}", self.texts[i % len(self.texts)], i + 1) for i in range(count)]


def make_scene(rate: float = 15.0, seed: int = 7) -> Scene:
    """Three seconds of one scene, the same for the same seed."""
    times = np.arange(round(SECONDS * rate) + 1) / rate
    episode = sample_flat_episode(np.random.default_rng(seed), "val", list(times), len(times) // 2)
    images = [cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) for image in episode.images]
    named = [thing for thing in episode.objects if thing.shape != CLUTTER]
    texts = tuple(dict.fromkeys(f"the {thing.color} {thing.shape}" for thing in named))
    return Scene(np.stack(images), rate, texts)
