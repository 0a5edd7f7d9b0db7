"""Which samples a step is made of: a pure function of the seed and the step's number.

A run that resumes, or that has another number of processes, draws the same samples in the same order, and nothing of it
has to be saved. Data sets are drawn by their weights; each goes through all its images or videos in a new order before
one comes again.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

import numpy as np

from ...core import BadInput
from ...data.samples import Dataset, Sample

BLOCK = 4096  # choices of data sets that are drawn at once


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """One data set of the mixture. scenes: of each (an image, a video) the indices of the samples that are drawn from.
    faults: what is wrong with entries that cannot be used at all."""

    dataset: Dataset
    weight: float
    scenes: tuple[tuple[int, ...], ...]
    faults: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Draw:
    """position: number of the example in the whole run. source: index of the data set. scene: of its image or video."""

    position: int
    source: int
    scene: int


def source_of(
    dataset: Dataset,
    weight: float,
    scene_of: Callable[[Sample], Hashable | None] = lambda sample: None,
    takes: Callable[[Sample], bool] = lambda sample: True,
) -> Source:
    """Sort a data set's samples by scene; with None one is a scene of its own. takes: samples it refuses are never
    drawn. Raises BadInput where none is left."""
    scenes: dict[Hashable, list[int]] = {}
    faults = []
    for index in range(len(dataset)):
        try:
            sample = dataset[index]
        except BadInput as error:
            faults.append(f"{dataset.name} {dataset.split}: {error}")
            continue
        if takes(sample):
            scene = scene_of(sample)
            scenes.setdefault(("alone", index) if scene is None else ("shared", scene), []).append(index)
    if not scenes:
        raise BadInput(
            f"{dataset.name} {dataset.split} has no sample that this recipe can be trained on ({len(dataset)} in all, "
            f"{len(faults)} of them broken): it needs words and a truth that is public"
        )
    return Source(dataset, weight, tuple(tuple(indices) for indices in scenes.values()), tuple(faults))


def usable_samples(datasets: Iterable[Dataset]) -> Iterator[Sample]:
    """All samples but broken ones, which :func:`source_of` names."""
    for dataset in datasets:
        for index in range(len(dataset)):
            try:
                yield dataset[index]
            except BadInput:
                continue


class Mixture:
    """The endless sequence of draws. weights: of the data sets; lengths: their scenes."""

    def __init__(self, weights: Sequence[float], lengths: Sequence[int], seed: int) -> None:
        if not weights or len(weights) != len(lengths) or min(lengths) < 1 or min(weights) <= 0:
            raise BadInput(f"a mixture needs data sets with samples and weights above 0; got {weights}, {lengths}")
        self.lengths, self.seed = tuple(lengths), seed
        self.shares = np.asarray(weights, float) / sum(weights)
        self._order = functools.lru_cache(maxsize=len(weights) + 1)(self._order_of)

    def __repr__(self) -> str:
        shares = ", ".join(f"{share:.3g} of {n}" for share, n in zip(self.shares, self.lengths, strict=True))
        return f"Mixture({shares}; seed {self.seed})"

    def draws(self, begin: int) -> Iterator[Draw]:
        """All draws from number ``begin`` on."""
        block, place = divmod(begin, BLOCK)
        seen = np.zeros(len(self.lengths), np.int64)  # earlier draws of each data set
        for earlier in range(block):
            seen += np.bincount(self._block(earlier), minlength=len(seen))
        seen += np.bincount(self._block(block)[:place], minlength=len(seen))
        while True:
            for source in self._block(block)[place:].tolist():
                epoch, turn = divmod(int(seen[source]), self.lengths[source])
                yield Draw(begin, source, int(self._order(source, epoch)[turn]))
                seen[source] += 1
                begin += 1
            block, place = block + 1, 0

    def _block(self, block: int) -> np.ndarray:
        """``(BLOCK,)`` data sets of the draws ``block * BLOCK`` and on."""
        chance = np.random.default_rng([self.seed, 0, block])
        return chance.choice(len(self.shares), BLOCK, p=self.shares)

    def _order_of(self, source: int, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, 1, source, epoch]).permutation(self.lengths[source])


@dataclasses.dataclass(frozen=True)
class Shares:
    """How a step's draws are shared out. batch: examples of a step; each process computes its share in ``parts``."""

    batch: int
    parts: int
    processes: int
    process: int

    def __post_init__(self) -> None:
        if self.batch % (self.parts * self.processes):
            raise BadInput(
                f"batch must be a multiple of accumulation x processes ({self.parts} x {self.processes}); "
                f"got {self.batch}"
            )

    @property
    def part(self) -> int:
        """Examples that a process computes at once."""
        return self.batch // (self.parts * self.processes)

    def parts_from(self, mixture: Mixture, step: int) -> Iterator[list[Draw]]:
        """This process's parts of step ``step`` (from 0) and of all that follow."""
        draws = mixture.draws(step * self.batch)
        share = self.batch // self.processes
        while True:
            of_step = [next(draws) for _ in range(self.batch)]
            own = of_step[self.process * share : (self.process + 1) * share]
            for begin in range(0, share, self.part):
                yield own[begin : begin + self.part]


def seed_of(*parts: object) -> int:
    """A seed from its parts, the same on every machine."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "big")
