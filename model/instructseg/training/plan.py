"""``instructseg train``: scenes, mixture, the two stages and their early abort rules, as one YAML file. No torch here:
--help stays quick."""

# ruff: noqa: RUF009 - the fields below are made by a function that returns dataclasses.field
from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from ..core import BadInput
from .typed_yaml import fill, key, plain, read_yaml, table_of

SOURCES = ("flat", "tabletop", "drawn2", "tabletop2")  # of scenes: version 1 and 2; drawn in 2-D, rendered by MuJoCo
SHIPPED = "shipped"
Precision = Literal["fp32", "bf16"]


@dataclasses.dataclass(frozen=True)
class AbortRule:
    """Either ``loss`` stays below ``below``, or the validation figure ``validation`` is at least ``at_least``."""

    after: int = key("steps of the stage from which on the rule holds", low=1)
    loss: str | None = key("a loss of the stage, smoothed over some 30 steps", None, none="")
    below: float | None = key("what that loss must be below", None, none="")
    validation: str | None = key("a figure of the stage's validation", None, none="")
    at_least: float | None = key("what that figure must at least be", None, none="")

    def fault(self) -> str | None:
        """What is wrong with the rule, in words."""
        given = {f.name for f in dataclasses.fields(self) if getattr(self, f.name) is not None}
        if given in ({"after", "loss", "below"}, {"after", "validation", "at_least"}):
            return None
        shown = ", ".join(sorted(given - {"after"})) or "neither"
        return f"must have either loss and below, or validation and at_least; got {shown}"


@dataclasses.dataclass(frozen=True)
class PerceptionPlan:
    """The first stage: pictures."""

    minutes: float = key("wall-clock minutes of training, over all calls", 60.0, above=0)
    steps: int | None = key("steps of training; where given, minutes do not count", None, low=1, none="off")
    batch: int = key("episodes a step, two frames of each", 8, low=1, high=4096)
    accumulation: int = key("parts in which a step is computed", 1, low=1)
    learning_rate: float = key("highest learning rate", 2e-3, above=0, high=1)
    precision: Precision = key("fp32, or bf16 in the encoder; weights stay in fp32", "bf16")
    mixture: dict[str, float] = key(
        "share of each source in the draws, relative to the others'; {}: as many as there are",
        {"tabletop2": 0.72, "tabletop": 0.24, "flat": 0.04}, names=SOURCES, low=0,
    )  # fmt: skip
    validate_every: int = key("steps between two validations", 1000, low=1)
    log_every: int = key("steps between two lines of the log and points of the curves", 50, low=1)
    abort: tuple[AbortRule, ...] = key(
        "early abort rules",
        (AbortRule(1500, loss="color", below=1.2), AbortRule(2000, validation="recall", at_least=0.2)),
        of="rules with after and what must hold",
    )


@dataclasses.dataclass(frozen=True)
class LanguagePlan:
    """The second stage: questions about encoded pictures."""

    minutes: float = key("wall-clock minutes of training, over all calls", 60.0, above=0)
    steps: int | None = key("steps of training; where given, minutes do not count", None, low=1, none="off")
    batch: int = key("scenes a step", 24, low=1, high=4096)
    questions: int = key("questions about each scene of a step", 8, low=1, high=256)
    accumulation: int = key("parts in which a step is computed", 1, low=1)
    learning_rate: float = key("highest learning rate", 1.2e-3, above=0, high=1)
    precision: Precision = key("fp32, or bf16; weights stay in fp32", "fp32")
    mixture: dict[str, float] = key(
        "share of each source in the draws, relative to the others'; {}: as many as there are", {}, names=SOURCES,
        low=0,
    )  # fmt: skip
    validate_every: int = key("steps between two validations", 600, low=1)
    log_every: int = key("steps between two lines of the log and points of the curves", 100, low=1)
    abort: tuple[AbortRule, ...] = key(
        "early abort rules",
        (AbortRule(1500, loss="motion", below=1.0), AbortRule(1800, validation="attribute", at_least=0.3)),
        of="rules with after and what must hold",
    )


@dataclasses.dataclass(frozen=True)
class TrainingPlan:
    """Everything a training depends on. Raises BadInput naming the key, its value and what is allowed."""

    scenes: dict[str, int] = key(
        "episodes of each source to generate for training", {"flat": 900, "tabletop": 3600, "tabletop2": 6000},
        names=SOURCES, low=0,
    )  # fmt: skip
    validation: dict[str, int] = key(
        "episodes of each source to judge by, from other seeds", {"tabletop": 150, "tabletop2": 150}, names=SOURCES,
        low=0,
    )  # fmt: skip
    perception: PerceptionPlan = key("the first stage", PerceptionPlan())
    language: LanguagePlan = key("the second stage", LanguagePlan())
    start_from: str | None = key(
        "a checkpoint of the recipe, or shipped, whose fitting weights the perception starts from", None, none="nothing"
    )
    model: str | None = key(
        "an assembled checkpoint to train (docs/unified_large.md) in place of a new small model", None, none="a new one"
    )
    device: str = key("auto, cpu, cuda or cuda:N", "auto")
    threads: int = key("CPU threads of torch", 2, low=1, high=1024)
    workers: int = key("processes that draw scenes", 1, low=1, high=256)
    seed: int = key("seed of the weights and of every chance of a step", 0, low=0, high=2**31 - 1)

    def __post_init__(self) -> None:
        for name in ("scenes", "validation"):
            if not any(getattr(self, name).values()):
                doing = "train on" if name == "scenes" else "judge by"
                raise BadInput(f"{name} must name a source with at least 1 episode: there is nothing to {doing}")
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise BadInput(f"device must be auto, cpu, cuda or cuda:N; got {self.device!r}")
        if self.start_from is not None and not self.start_from.strip():
            raise BadInput("start_from must name a checkpoint folder, or shipped; got an empty text")
        if self.model is not None and not self.model.strip():
            raise BadInput("model must name the folder of an assembled checkpoint; got an empty text")
        if self.model is not None and self.start_from is not None:
            raise BadInput("model and start_from cannot both be given: an assembled model knows what it starts from")
        for name in ("perception", "language"):
            self._check_stage(name, getattr(self, name))

    def _check_stage(self, name: str, stage: PerceptionPlan | LanguagePlan) -> None:
        if stage.batch % stage.accumulation:
            raise BadInput(
                f"{name}.batch must be a multiple of {name}.accumulation ({stage.accumulation}); got {stage.batch}"
            )
        drawn = {source for source, share in stage.mixture.items() if share > 0}
        if stage.mixture and not drawn & {source for source, count in self.scenes.items() if count}:
            raise BadInput(f"{name}.mixture names none of the sources of scenes; got {stage.mixture}, {self.scenes}")
        for index, rule in enumerate(stage.abort):
            if fault := rule.fault():
                raise BadInput(f"{name}.abort[{index}] {fault}")

    def as_table(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return plain(self)


# A run of minutes that shows that everything works; its checkpoint knows next to nothing.
SMOKE: dict[str, Any] = {
    "scenes": {"flat": 20},
    "validation": {"flat": 8},
    "perception": {"minutes": 0.1},
    "language": {"minutes": 0.1},
}


def plan_of(values: Any) -> TrainingPlan:
    """The plan that parsed YAML says. Raises BadInput."""
    return fill(TrainingPlan, table_of(values, "the plan"))


def read_plan(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file, found valid. A ``start_from`` or ``model`` that is there beside the file
    becomes a full path. Raises BadInput naming the file."""
    values = read_yaml(path)
    try:
        plan = plan_of(values)
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None
    for name, place in (("start_from", plan.start_from), ("model", plan.model)):
        if place not in (None, SHIPPED) and (path.parent / place).expanduser().exists():
            values[name] = str((path.parent / place).expanduser().resolve())
    return values


def with_settings(values: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """The plan's values with ``KEY=VALUE`` put in, as ``perception.steps=500``; values are read as YAML. Raises
    BadInput."""
    table = plan_of(dict(values)).as_table()
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise BadInput(f"--set {setting} must have the form KEY=VALUE, as perception.minutes=5")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise BadInput(f"--set {setting}: the value cannot be read as YAML") from None
        *parents, last = path.strip().split(".")
        place = table
        for depth, parent in enumerate(parents, 1):
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise BadInput(f"--set {setting}: {'.'.join(parents[:depth])} has no keys of its own")
        place[last] = value
    return table


def joined(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two tables of a plan's values as one; of the stages, key by key."""
    values = dict(below) | dict(above)
    for name in ("perception", "language"):
        if isinstance(below.get(name), dict) and isinstance(above.get(name), dict):
            values[name] = below[name] | above[name]
    return values
