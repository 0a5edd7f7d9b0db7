"""A fine-tuning run as one YAML file: typed, complete, and judged before any weight is read. No torch here."""

# ruff: noqa: RUF009 - the fields below are made by a function that returns dataclasses.field
from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

from ...core import BadInput
from ...registry import RECIPES
from ..typed_yaml import fill, key, keys_of, plain, read_yaml, table_of

__all__ = ["DataKeys", "LoraKeys", "RunConfig", "config_of", "keys_of", "read_config"]

Precision = Literal["fp32", "bf16"]
Schedule = Literal["linear", "cosine", "constant"]
Distributed = Literal["none", "ddp", "fsdp"]


def _key(help_text: str, default: Any = dataclasses.MISSING, **bounds: Any) -> Any:
    """A field; None, where that is its default, stands for the recipe's own value."""
    return key(help_text, default, **({"none": "as published"} | bounds))


@dataclasses.dataclass(frozen=True)
class LoraKeys:
    """LoRA on the language model; what is left out is as published."""

    rank: int | None = _key("rank of the update", None, low=1, high=4096)
    alpha: float | None = _key("scale of the update, times its rank", None, above=0)
    dropout: float | None = _key("share of its inputs left out in training", None, low=0, high=0.9)


@dataclasses.dataclass(frozen=True)
class DataKeys:
    """One data set of the mixture. weight: its share of the draws, relative to the others'."""

    benchmark: str = _key("name of the data set, as `instructseg data list` names it")
    root: Path = _key("folder of the data set; a relative one starts at the configuration's folder")
    split: str = _key("split of the data set", "train")
    weight: float = _key("share of the draws, relative to the others'", 1.0, above=0)


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Everything a run depends on. None: as the recipe was published (see :class:`..learner.Published`)."""

    recipe: str = _key("the system to train")
    checkpoint: str = _key("what training starts from: a folder, a file or a hub id")
    data: tuple[DataKeys, ...] = _key("the data sets and their weights", of="data set with benchmark and root")
    options: dict[str, str] = _key("options of the recipe, as for `instructseg segment --option`", {})
    lora: LoraKeys = _key("LoRA on the language model", LoraKeys())
    steps: int | None = _key("optimiser steps", None, low=1)
    batch: int | None = _key("samples a step, over all processes and parts", None, low=1)
    accumulation: int = _key("parts in which a process computes its share of a step", 1, low=1)
    learning_rate: float | None = _key("highest learning rate", None, above=0)
    schedule: Schedule | None = _key("how the rate falls after warm-up", None)
    warm_up: float | None = _key("share of the steps in which the rate rises from 0", None, low=0, high=1)
    weight_decay: float | None = _key("weight decay of AdamW", None, low=0)
    clip_norm: float | None = _key("longest gradient; a longer one is shortened", None, above=0)
    precision: Precision = _key("fp32, or bf16 with trained weights kept in fp32", "fp32")
    gradient_checkpointing: bool = _key("compute activations twice to keep fewer of them", False)
    ema_decay: float | None = _key(
        "export an average of the weights with this decay", None, above=0, high=0.999999, none="off"
    )
    seed: int = _key("seed of draws, augmentation and dropout", 0, low=0, high=2**31 - 1)
    save_every: int = _key("steps between two saved states", 500, low=1)
    log_every: int = _key("steps between two entries for TensorBoard", 1, low=1)
    workers: int = _key("processes that read samples, beside each that trains; 0: none", 2, low=0, high=256)
    failing_samples: int = _key("samples that may fail before the run stops", 100, low=0)
    distributed: Distributed = _key("how several processes share the work", "none")
    device: str = _key("auto, cpu, cuda or cuda:N; with several processes auto, cpu or cuda", "auto")

    def as_table(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return plain(self)


def read_config(path: Path) -> RunConfig:
    """The configuration in a YAML file. Raises BadInput naming file, key, value and what is allowed."""
    values = read_yaml(path)
    try:
        return config_of(values, path.parent)
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None


def config_of(values: Any, folder: Path) -> RunConfig:
    """From parsed YAML; relative paths start at ``folder``. Raises BadInput."""
    table = table_of(values, "the configuration")
    recipe = table.get("recipe")
    if recipe is not None and recipe not in RECIPES:
        raise BadInput(f"recipe must be one of {', '.join(sorted(RECIPES))}; got {recipe!r}")
    config = fill(RunConfig, table)
    places = [d for d in config.data if not (folder / d.root).expanduser().is_dir()]
    if places:
        raise BadInput(f"data root {folder / places[0].root} ({places[0].benchmark}) is no folder; correct the path")
    data = tuple(dataclasses.replace(d, root=(folder / d.root.expanduser()).resolve()) for d in config.data)
    near = (folder / config.checkpoint).expanduser() if config.checkpoint else folder
    if not config.checkpoint.strip():
        raise BadInput("checkpoint must name a folder, a file or a hub id; got an empty text")
    checkpoint = str(near.resolve()) if near.exists() else config.checkpoint
    return dataclasses.replace(config, data=data, checkpoint=checkpoint)
