"""What a recipe offers to be trained: the one interface between the training loop and the five systems.

A recipe implements :class:`Learner` in ``recipes/<name>/learner.py`` with a function ``build_learner(checkpoint,
device, dtype, options, lora) -> Learner``; :func:`build_learner` here finds it by the recipe's name. The loop
(``training/finetuning``) knows data sets, optimiser, schedule, processes and files; the learner knows its prompts, its
preprocessing, its losses and its published layout.
"""

from __future__ import annotations

import abc
import dataclasses
import importlib
import importlib.util
import random
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..core import BadInput
from ..data.samples import Sample
from ..registry import RECIPES
from .adapters import Belonging, read_adapters, trained_state, write_adapters


@dataclasses.dataclass(frozen=True)
class LoraSettings:
    """LoRA on the language model; None: as the recipe was published."""

    rank: int | None = None
    alpha: float | None = None
    dropout: float | None = None

    def filled(self, rank: int, alpha: float, dropout: float) -> LoraSettings:
        """With the published values where nothing else was asked for."""
        own = (self.rank, rank), (self.alpha, alpha), (self.dropout, dropout)
        return LoraSettings(*(published if asked is None else asked for asked, published in own))


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
    """One recipe while it learns. ``module`` holds every weight; what trains has ``requires_grad``.

    together: the most samples of one scene that make one example (one conversation about several things).
    strangers: share of the examples that are shown footage which they are not about.
    belongs_to: what tells this model from another, for adapters; see :func:`~.adapters.mark_of`.
    """

    name: str
    module: nn.Module
    trained: tuple[str, ...]  # names of the parameters that train
    published: Published
    together: int = 1
    strangers: float = 0.0
    belongs_to: Belonging

    def meet(self, samples: Iterable[Sample]) -> None:
        """Called once, before anything is trained or put back, with all samples of the data: for a recipe that takes
        their words into its vocabulary. What trains may be other parameters afterwards. Opens nothing unless it is
        gone through."""
        return None

    def takes(self, sample: Sample) -> bool:
        """Whether the system can be shown this sample; others are never drawn. Looks at no file."""
        return True

    def scene_of(self, sample: Sample) -> Hashable | None:
        """What samples of one data set share that may make one example, usually the image or video. None: a sample
        stands alone, so that all are seen equally often. Looks at no file."""
        return sample.footage.name if self.together > 1 else None

    @abc.abstractmethod
    def example(self, samples: Sequence[Sample], draw: random.Random) -> Any:
        """What one to ``together`` samples of the same scene give to a step: prompt, ids, labels, pixels, masks.

        Runs in a worker process, on the CPU, without the module. All chance comes from ``draw``. Raises BadInput naming
        file and sample.
        """

    def example_beside(self, samples: Sequence[Sample], stranger: Sample, draw: random.Random) -> Any:
        """:meth:`example` with footage of another scene of the same data set, for learners with ``strangers``."""
        raise NotImplementedError(f"the learner {self.name} has no use for strangers")

    @abc.abstractmethod
    def losses(self, examples: Sequence[Any]) -> dict[str, torch.Tensor]:
        """One forward pass over a batch on the module's device: scalars by name, weighted as published; ``total`` is
        what is minimised. The same names at every call (0 for what a batch has none of): processes add them up."""

    @abc.abstractmethod
    def save_merged(self, folder: Path) -> None:
        """The whole model with LoRA merged, in the layout that ``instructseg.load(name, folder)`` reads."""

    def save_adapters(self, folder: Path) -> None:
        """What was trained, and nothing else: one ``.safetensors`` and a JSON that says what it belongs to."""
        write_adapters(folder, trained_state(self.module, self.trained), self.belongs_to)

    def load_adapters(self, folder: Path) -> None:
        """Put back what :meth:`save_adapters` wrote. Raises BadInput where it belongs to another model."""
        read_adapters(folder, self.module, self.trained, self.belongs_to)

    def keep_fewer_activations(self) -> None:
        """Gradient checkpointing in every part of transformers that has it."""
        from transformers import PreTrainedModel  # here, because it takes seconds

        for part in self.module.modules():
            if isinstance(part, PreTrainedModel) and part.supports_gradient_checkpointing:
                # The older name is deprecated from transformers 5.23 on, the newer unknown before.
                switch_on = getattr(part, "activation_checkpointing_enable", part.gradient_checkpointing_enable)
                switch_on({"use_reentrant": False})

    def sharded_layers(self) -> tuple[str, ...]:
        """Class names of the layers that FSDP gathers one at a time: those that transformers names."""
        from transformers import PreTrainedModel

        found = set()
        for part in self.module.modules():
            if isinstance(part, PreTrainedModel):
                found |= set(part._no_split_modules or ())
        present = {type(part).__name__ for part in self.module.modules()}
        return tuple(sorted(found & present))


def build_learner(
    recipe: str,
    checkpoint: str | Path,
    device: torch.device,
    dtype: torch.dtype | None,
    options: Mapping[str, str],
    lora: LoraSettings,
) -> Learner:
    """The learner of a recipe, by the rule that it is ``build_learner`` in ``learner.py`` beside its ``processing.py``.

    dtype: of the weights that stay frozen; trained ones are float32. None keeps the checkpoint's. Raises BadInput.
    """
    if recipe not in RECIPES:
        raise BadInput(f"recipe must be one of {', '.join(sorted(RECIPES))}; got {recipe!r}")
    module = f"{RECIPES[recipe].module.rpartition('.')[0]}.learner"
    if importlib.util.find_spec(module) is None:
        raise BadInput(f"recipe {recipe!r} has no learner, so that a configuration cannot train it; write {module}")
    return importlib.import_module(module).build_learner(checkpoint, device, dtype, dict(options), lora)
