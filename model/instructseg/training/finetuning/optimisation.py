"""Optimiser and learning rate: the published ones, with what the configuration sets in their place."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import torch

from ..learner import Published
from .configuration import RunConfig


@dataclasses.dataclass(frozen=True)
class Optimisation:
    """What a run uses, nothing left open. warm_up: share of the steps."""

    steps: int
    batch: int
    learning_rate: float
    schedule: str
    warm_up: float
    weight_decay: float
    clip_norm: float
    betas: tuple[float, float]

    def rate(self, step: int) -> float:
        """The learning rate of step ``step``, from 0: a linear rise, then the schedule."""
        rising = round(self.warm_up * self.steps)
        if step < rising:
            return self.learning_rate * (step + 1) / rising
        past = (step - rising) / max(1, self.steps - rising)  # 0 to almost 1
        factor = {"constant": 1.0, "linear": 1.0 - past, "cosine": 0.5 * (1.0 + math.cos(math.pi * past))}
        return self.learning_rate * factor[self.schedule]

    def optimiser(self, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.AdamW:
        return torch.optim.AdamW(parameters, self.learning_rate, self.betas, weight_decay=self.weight_decay)


def optimisation_of(config: RunConfig, published: Published) -> Optimisation:
    """The configuration's values, and the published one wherever it has none."""
    values = {}
    for field in dataclasses.fields(Optimisation):
        own = getattr(config, field.name, None)
        values[field.name] = getattr(published, field.name) if own is None else own
    return Optimisation(**values)
