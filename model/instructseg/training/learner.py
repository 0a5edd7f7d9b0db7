"""What a recipe offers to be trained: the one interface between the training loop and the five systems.

A recipe implements :class:`Learner` in ``recipes/<name>/learner.py`` with a function ``build_learner(checkpoint,
device, dtype, options, lora) -> Learner``. The loop (``training/finetuning``) knows data sets, optimiser, schedule,
processes and files; the learner knows its prompts, its preprocessing, its losses and its published layout.
"""

from __future__ import annotations

import abc
import dataclasses
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..data.samples import Sample


@dataclasses.dataclass(frozen=True)
class LoraSettings:
    """LoRA on the language model; None: as the recipe was published."""

    rank: int | None = None
    alpha: float | None = None
    dropout: float | None = None


@dataclasses.dataclass(frozen=True)
class Published:
    """The optimisation a system was published with; the defaults of a training configuration."""

    learning_rate: float
    betas: tuple[float, float]
    weight_decay: float
    clip_norm: float
    warm_up: float  # share of the steps
    schedule: str  # linear (to zero) or cosine
    steps: int
    batch: int  # samples a step, over all processes and accumulated parts


class Learner(abc.ABC):
    """One recipe while it learns. ``module`` holds every weight; what trains has ``requires_grad``."""

    name: str
    module: nn.Module
    trained: tuple[str, ...]  # names of the parameters that train
    published: Published

    @abc.abstractmethod
    def example(self, sample: Sample, draw: random.Random) -> Any:
        """What one sample gives to a step: prompt, ids, labels, pixels, masks; runs in a worker process, on the CPU,
        without the module. All chance comes from ``draw``. Raises BadInput naming file and sample."""

    @abc.abstractmethod
    def losses(self, examples: Sequence[Any]) -> dict[str, torch.Tensor]:
        """One forward pass over a batch on the module's device: scalars by name, weighted as published; ``total`` is
        what is minimised."""

    @abc.abstractmethod
    def save_adapters(self, folder: Path) -> None:
        """What was trained, and nothing else: one ``.safetensors`` and a JSON that says what it belongs to."""

    @abc.abstractmethod
    def load_adapters(self, folder: Path) -> None:
        """Put back what :meth:`save_adapters` wrote. Raises BadInput where it belongs to another model."""

    @abc.abstractmethod
    def save_merged(self, folder: Path) -> None:
        """The whole model with LoRA merged, in the layout that ``instructseg.load(name, folder)`` reads."""
