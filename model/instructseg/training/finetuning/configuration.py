"""A fine-tuning run as one YAML file: typed, complete, and judged before any weight is read. No torch here."""

# ruff: noqa: RUF009 - the fields below are made by a function that returns dataclasses.field
from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from ...core import BadInput
from ...registry import RECIPES

Precision = Literal["fp32", "bf16"]
Schedule = Literal["linear", "cosine", "constant"]
Distributed = Literal["none", "ddp", "fsdp"]


def _key(help_text: str, default: Any = dataclasses.MISSING, **bounds: float) -> Any:
    """A field with its help text and, among ``bounds``, low and high (allowed) or above (not itself allowed)."""
    metadata = {"help": help_text, **bounds}
    if isinstance(default, dict | list):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


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
    data: tuple[DataKeys, ...] = _key("the data sets and their weights")
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
    ema_decay: float | None = _key("export an average of the weights with this decay", None, above=0, high=0.999999)
    seed: int = _key("seed of draws, augmentation and dropout", 0, low=0, high=2**31 - 1)
    save_every: int = _key("steps between two saved states", 500, low=1)
    log_every: int = _key("steps between two entries for TensorBoard", 1, low=1)
    workers: int = _key("processes that read samples, beside each that trains; 0: none", 2, low=0, high=256)
    failing_samples: int = _key("samples that may fail before the run stops", 100, low=0)
    distributed: Distributed = _key("how several processes share the work", "none")
    device: str = _key("auto, cpu, cuda or cuda:N; with several processes auto, cpu or cuda", "auto")

    def as_table(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return _plain(dataclasses.asdict(self))


class _EachKeyOnce(yaml.SafeLoader):
    """YAML's safe loader takes the last of two equal keys without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen and isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} twice", key.start_mark)
            seen |= {key.value} if isinstance(key, yaml.ScalarNode) else set()
        return super().construct_mapping(node, deep)


def read_config(path: Path) -> RunConfig:
    """The configuration in a YAML file. Raises BadInput naming file, key, value and what is allowed."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_EachKeyOnce)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from error
    try:
        return config_of(values, path.parent)
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None


def config_of(values: Any, folder: Path) -> RunConfig:
    """From parsed YAML; relative paths start at ``folder``. Raises BadInput."""
    table = _table(values, "the configuration")
    recipe = table.get("recipe")
    if recipe is not None and recipe not in RECIPES:
        raise BadInput(f"recipe must be one of {', '.join(sorted(RECIPES))}; got {recipe!r}")
    config = _fill(RunConfig, table, "")
    places = [d for d in config.data if not (folder / d.root).expanduser().is_dir()]
    if places:
        raise BadInput(f"data root {folder / places[0].root} ({places[0].benchmark}) is no folder; correct the path")
    data = tuple(dataclasses.replace(d, root=(folder / d.root.expanduser()).resolve()) for d in config.data)
    near = (folder / config.checkpoint).expanduser() if config.checkpoint else folder
    if not config.checkpoint.strip():
        raise BadInput("checkpoint must name a folder, a file or a hub id; got an empty text")
    checkpoint = str(near.resolve()) if near.exists() else config.checkpoint
    return dataclasses.replace(config, data=data, checkpoint=checkpoint)


def keys_of(cls: type = RunConfig) -> list[tuple[str, str, str, str]]:
    """(key, allowed, default, help) of every key, for the documentation."""
    types = typing.get_type_hints(cls)
    rows = []
    for field in dataclasses.fields(cls):
        default = field.default_factory() if callable(field.default_factory) else field.default
        shown = "needed" if default is dataclasses.MISSING else "" if _structured(default) else _written(default)
        if default is None:
            shown = "as published" if field.name not in _OFF else "off"
        rows.append((field.name, _allowed(types[field.name], field), shown, field.metadata["help"]))
    return rows


_OFF = ("ema_decay",)  # None means without, not "as published"


def _structured(default: Any) -> bool:
    return dataclasses.is_dataclass(default) or default == {}


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _fill(cls: type, table: Mapping[str, Any], where: str) -> Any:
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = sorted(str(key) for key in table if key not in fields)
    if unknown:
        raise BadInput(f"unknown key {where}{unknown[0]}; known are {', '.join(fields)}")
    needed = [
        name
        for name, field in fields.items()
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING and name not in table
    ]
    if needed:
        raise BadInput(f"key {where}{needed[0]} is missing: {fields[needed[0]].metadata['help']}")
    types = typing.get_type_hints(cls)
    return cls(**{name: _value(where + name, types[name], fields[name], table[name]) for name in table})


def _value(name: str, kind: Any, field: dataclasses.Field, value: Any) -> Any:
    optional = type(None) in typing.get_args(kind)
    if value is None and optional:
        return None
    if kind is LoraKeys:
        return _fill(LoraKeys, _table(value, name), f"{name}.")
    if kind == tuple[DataKeys, ...]:
        if not isinstance(value, list) or not value:
            raise BadInput(f"{name} must be a list of at least one data set with benchmark and root; got {value!r}")
        return tuple(_fill(DataKeys, _table(v, f"{name}[{i}]"), f"{name}[{i}].") for i, v in enumerate(value))
    if kind == dict[str, str]:
        return {str(k): _written(v) for k, v in _table(value, name).items()}
    choices = _choices(kind)
    if _base(kind) is float and isinstance(value, str):  # YAML reads 4e-5, without a point, as a text
        value = _number(value)
    right = value in choices if choices else _fits(_base(kind), value) and _inside(field, value)
    if not right:
        raise BadInput(f"{name} must be {_allowed(kind, field)}; got {value!r}")
    return _MAKE[_base(kind)](value) if not choices else value


def _base(kind: Any) -> type:
    return next((k for k in typing.get_args(kind) if k is not type(None)), kind)


def _choices(kind: Any) -> tuple:
    options = [kind, *typing.get_args(kind)]
    found = next((o for o in options if typing.get_origin(o) is Literal), None)
    return typing.get_args(found) if found is not None else ()


def _fits(kind: type, value: Any) -> bool:
    if kind in (int, float):
        allowed = (int,) if kind is int else (int, float)
        return isinstance(value, allowed) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, bool if kind is bool else str)


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _inside(field: dataclasses.Field, value: Any) -> bool:
    bounds = field.metadata
    if isinstance(value, bool | str):
        return True
    return (
        bounds.get("low", -math.inf) <= value <= bounds.get("high", math.inf) and bounds.get("above", -math.inf) < value
    )


_MAKE: dict[type, Callable[[Any], Any]] = {bool: bool, int: int, float: float, str: str, Path: Path}
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", Path: "a text"}


def _allowed(kind: Any, field: dataclasses.Field) -> str:
    choices = _choices(kind)
    if choices:
        return " or ".join(choices) if len(choices) == 2 else ", ".join(choices)
    plain = kind not in (tuple[DataKeys, ...], dict[str, str], LoraKeys)
    said = _KINDS[_base(kind)] if plain else "a list" if kind == tuple[DataKeys, ...] else "a table"
    bounds = field.metadata
    if "above" in bounds:
        said += f" above {bounds['above']:g}"
    elif "low" in bounds:
        said += f" of at least {bounds['low']:g}"
    return said + (f" and at most {bounds['high']:.12g}" if "high" in bounds else "")


def _table(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadInput(f"{name} must hold lines of the form 'key: value'; got {type(value).__name__}")
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value
