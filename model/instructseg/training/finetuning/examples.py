"""From draws to examples, in worker processes; a sample that cannot be used is named, counted and replaced."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Sequence
from typing import Any

from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from ...core import BadInput
from ...data.samples import Sample
from ..learner import Learner
from .mixture import Draw, Mixture, Shares, Source, seed_of

ATTEMPTS = 10  # scenes that are tried for one example


@dataclasses.dataclass(frozen=True, eq=False)
class Made:
    """One example. samples: the ids it was made of. failures: what went wrong with the scenes it stands for."""

    example: Any
    samples: tuple[str, ...]
    failures: tuple[str, ...]


class Examples(TorchDataset):
    """``examples[draw]``: what the learner makes of that draw's scene, or of another one where it cannot be used."""

    def __init__(self, sources: Sequence[Source], learner: Learner, seed: int) -> None:
        self.sources, self.learner, self.seed = tuple(sources), learner, seed

    def __getitem__(self, draw: Draw) -> Made:
        chance = random.Random(seed_of(self.seed, "example", draw.position))
        source = self.sources[draw.source]
        scene, failures = draw.scene, []
        for _ in range(ATTEMPTS):
            try:
                samples = self._samples(source, scene, chance)
                example = self._example(source, samples, chance)
            except (BadInput, OSError) as error:
                failures.append(f"{source.dataset.name} {source.dataset.split}: {error}")
                scene = chance.randrange(len(source.scenes))
                continue
            return Made(example, tuple(sample.id for sample in samples), tuple(failures))
        return Made(None, (), tuple(failures))

    def _example(self, source: Source, samples: list[Sample], chance: random.Random) -> Any:
        if not self.learner.strangers or chance.random() >= self.learner.strangers:
            return self.learner.example(samples, chance)
        stranger = source.dataset[chance.choice(chance.choice(source.scenes))]
        return self.learner.example_beside(samples, stranger, chance)

    def _samples(self, source: Source, scene: int, chance: random.Random) -> list[Sample]:
        """Up to ``together`` samples of one scene, without replacement."""
        indices = source.scenes[scene]
        chosen = chance.sample(indices, min(len(indices), self.learner.together))
        return [source.dataset[index] for index in chosen]


def parts_of(
    sources: Sequence[Source], learner: Learner, seed: int, shares: Shares, step: int, workers: int
) -> Iterator[list[Made]]:
    """This process's parts from step ``step`` on, made ahead of their use by ``workers`` processes."""
    mixture = Mixture([s.weight for s in sources], [len(s.scenes) for s in sources], seed)
    loader = DataLoader(
        Examples(sources, learner, seed),
        batch_sampler=_Parts(mixture, shares, step),
        num_workers=workers,
        collate_fn=list,
        # The learner holds the model: forked workers share its memory, spawned ones would copy it.
        multiprocessing_context="fork" if workers else None,
    )
    return iter(loader)


class _Parts:
    """What a DataLoader takes as batch sampler: an iterable of lists of draws."""

    def __init__(self, mixture: Mixture, shares: Shares, step: int) -> None:
        self.mixture, self.shares, self.step = mixture, shares, step

    def __iter__(self) -> Iterator[list[Draw]]:
        return self.shares.parts_from(self.mixture, self.step)
