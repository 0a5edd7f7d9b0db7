"""A bank of generated episodes on disk: written once by workers, read by every training stage as memory maps."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ..core import BadInput
from ..data.flat_scenes import sample_flat_episode
from ..data.instructions import SceneFacts
from ..data.scene import Episode, SceneObject
from ..data.tabletop2.drawing import draw_episode
from ..data.tabletop2.facts import WorldFacts
from ..data.tabletop2.world import draw_world
from .plan import SOURCES

CLIP_TIMES = (-1.5, -1.0, -0.5, 0.0, 0.4, 1.2)  # seconds; the fourth is the key frame, the last two are the future
KEY = 3
WORLDS_PER_SHARD = 1000  # scenes of version 2 have numbers; a shard takes those from its seed times this


def generate_shard(path: Path, source: str, split: str, seed: int, episodes: int, width: int, height: int) -> None:
    """Write ``episodes`` episodes of a source (:func:`episode_sampler`) as a shard; a finished one is left alone."""
    if (path / "episodes.json").exists():
        return
    path.mkdir(parents=True, exist_ok=True)
    shape = (episodes, len(CLIP_TIMES), height, width)
    images = np.lib.format.open_memmap(path / "images.npy", "w+", np.uint8, (*shape, 3))
    instances = np.lib.format.open_memmap(path / "instances.npy", "w+", np.uint8, shape)
    rng = np.random.default_rng([seed, len(split), len(source)])
    sample = episode_sampler(source, width, height)
    meta = []
    for index in range(episodes):
        world = seed * WORLDS_PER_SHARD + index
        episode = sample(rng, split, world)
        images[index], instances[index] = episode.images, episode.instances
        objects = [dataclasses.asdict(o) for o in episode.objects]
        meta.append({"objects": objects, "motions": episode.motions.tolist(), "world": world})
    images.flush(), instances.flush()
    partial = path / "episodes.json.partial"
    partial.write_text(json.dumps({"source": source, "split": split, "seed": seed, "episodes": meta}))
    os.replace(partial, path / "episodes.json")


def episode_sampler(
    source: str, width: int, height: int, times: Sequence[float] = CLIP_TIMES, key: int = KEY
) -> Callable[[np.random.Generator, str, int], Episode]:
    """A function of (generator, split, number) that draws one episode; source: one of :data:`SOURCES`.

    ``flat`` and ``tabletop`` draw from the generator, ``tabletop2`` and ``drawn2`` are known by their number alone.
    times: ascending seconds of its frames, key: index of the key frame; the bank's by default.
    """
    if source == "flat":
        return lambda rng, split, _: sample_flat_episode(rng, split, times, key, width, height)
    if source == "tabletop":
        from ..data.tabletop import Tabletop

        tabletop = Tabletop(width, height)
        return lambda rng, split, _: tabletop.sample(rng, split, times, key)
    if source == "tabletop2":
        from ..data.tabletop2.rendering import WorldRenderer

        renderer = WorldRenderer(width, height)
        return lambda _, split, number: renderer.episode(draw_world(split, number), times, key)
    if source == "drawn2":
        return lambda _, split, number: draw_episode(draw_world(split, number), width, height, times, key)
    raise BadInput(f"source must be one of {', '.join(SOURCES)}; got {source!r}")


class EpisodeBank:
    """All finished shards below some folders, as one sequence of episodes; images stay on disk.

    paths: folder of each shard.
    """

    def __init__(self, folders: list[Path]):
        self.shards: list[tuple[np.ndarray, np.ndarray, dict]] = []
        self.index: list[tuple[int, int]] = []
        self.paths = shards_below(folders)
        for path in self.paths:
            images, instances, meta = _read_shard(path)
            self.index += [(len(self.shards), i) for i in range(len(meta["episodes"]))]
            self.shards.append((images, instances, meta))
        of = np.array([self.shards[shard][2]["source"] for shard, _ in self.index])
        self._by_source = {str(source): np.nonzero(of == source)[0] for source in np.unique(of)}

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: int) -> Episode:
        shard, row = self.index[index]
        images, instances, meta = self.shards[shard]
        episode = meta["episodes"][row]
        objects = tuple(SceneObject(**o) for o in episode["objects"])
        return Episode(images[row], instances[row], np.array(CLIP_TIMES), np.array(episode["motions"]), objects, KEY)

    def by_source(self) -> dict[str, np.ndarray]:
        """Which episodes came from which source."""
        return self._by_source

    def place(self, index: int) -> str:
        """Where an episode lies, for people."""
        shard, row = self.index[index]
        return f"{self.paths[shard].name} episode {row}"

    def facts(self, index: int) -> SceneFacts | WorldFacts:
        """What can be said of an episode: the kind of facts that its source's questions are asked of."""
        shard, row = self.index[index]
        meta = self.shards[shard][2]
        if meta["source"] in ("tabletop2", "drawn2"):
            return WorldFacts(draw_world(meta["split"], meta["episodes"][row]["world"]))
        return SceneFacts(self[index])

    def __iter__(self) -> Iterator[Episode]:
        return (self[i] for i in range(len(self)))


def shards_below(folders: Sequence[Path]) -> list[Path]:
    """Folders of the finished shards; a folder that is one stands for itself."""
    found = []
    for folder in map(Path, folders):
        files = (*folder.glob("episodes.json"), *folder.glob("*/episodes.json"))
        found += sorted(path.parent for path in files)
    return found


def _read_shard(path: Path) -> tuple[np.ndarray, np.ndarray, dict]:
    """Images, instances and description of a finished shard; BadInput naming the file that is damaged or missing."""
    name = "episodes.json"
    try:
        meta = json.loads((path / name).read_text(encoding="utf-8"))
        episodes = len(meta["episodes"])
        arrays = []
        for name, axes in (("images.npy", 5), ("instances.npy", 4)):
            array = np.load(path / name, mmap_mode="r")
            if array.ndim != axes or array.shape[:2] != (episodes, len(CLIP_TIMES)):
                raise ValueError(f"shape {array.shape} does not fit {episodes} episodes of {len(CLIP_TIMES)} frames")
            arrays.append(array)
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"the scenes in {path} are damaged: {name}: {error}; delete this folder, and it is generated anew"
        ) from error
    return arrays[0], arrays[1], meta
