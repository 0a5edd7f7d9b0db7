"""What a run needs to go on as if it had never stopped: weights, optimiser, average, step. No pickles.

What is drawn and every chance of a step follow from the seed and the step's number, so they need no state. A state is a
folder that appears under its name only when it is complete.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ...checkpoints import read_json
from ...core import BadInput
from ..adapters import put_tensors, read_tensor_file, trained_state
from ..learner import Learner
from .average import WeightAverage
from .processes import like, whole

log = logging.getLogger(__name__)
TRAINED, OPTIMISER, AVERAGE, TABLE = "trained.safetensors", "optimiser.safetensors", "average.safetensors", "state.json"
KEPT = 2  # states; the one before the newest, in case the newest cannot be read
_NAME = re.compile(r"step-(\d{8})")
_BETWEEN = "|"  # between a parameter's name and what the optimiser keeps of it

# Keys that may change between a state and its continuation: without changing a bit of what is computed ...
FREE = ("workers", "save_every", "log_every", "failing_samples")
# ... and with the same samples in the same order, but other rounding and other chance of dropout.
SHARING = ("processes", "distributed", "accumulation", "gradient_checkpointing", "device")
SCENES = "scenes"  # what there is to draw from, of each data set: mended data may be trained on, but are no secret


class RunState:
    """The parts of a run that change. steps: those that are done. failures: samples that could not be used."""

    def __init__(self, learner: Learner, optimiser: torch.optim.Optimizer, average: WeightAverage | None) -> None:
        self.learner, self.optimiser, self.average = learner, optimiser, average
        self.steps, self.failures = 0, 0

    def weights(self) -> dict[str, torch.Tensor]:
        """What trains, by name, as it is shared out."""
        return trained_state(self.learner.module, self.learner.trained)

    def save(self, folder: Path, config: Mapping[str, Any], is_main: bool) -> Path | None:
        """Write ``folder/step-N``. All processes take part, the main one writes; it alone gets the path."""
        tables = {TRAINED: {name: whole(tensor) for name, tensor in self.weights().items()}}
        tables[OPTIMISER] = self._optimiser_tensors()
        if self.average is not None:
            tables[AVERAGE] = {name: whole(tensor) for name, tensor in self.average.tensors.items()}
        if not is_main:
            return None
        numbers = {"steps": self.steps, "failures": self.failures, "config": dict(config)}
        final = folder / f"step-{self.steps:08d}"
        partial = folder / f"{final.name}.partial"
        for leftover in (partial, final):
            shutil.rmtree(leftover, ignore_errors=True)
        partial.mkdir(parents=True)
        for name, tensors in tables.items():
            save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, partial / name)
        (partial / TABLE).write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
        _to_disk(partial)
        os.replace(partial, final)
        for old in states_in(folder)[:-KEPT]:
            shutil.rmtree(old)
        return final

    def load(self, state: Path, config: Mapping[str, Any]) -> None:
        """Put back what :meth:`save` wrote. Raises BadInput where the configuration is another one, or a file is
        damaged."""
        numbers = read_state_table(state)
        for key, value in config.items():
            before = numbers["config"].get(key)
            if before == value or key in FREE:
                continue
            if key == SCENES:
                log.warning("the data have %s scenes, %s before: other samples are drawn from here on", value, before)
                continue
            if key not in SHARING:
                raise BadInput(
                    f"{state} was made with {key} {before!r}; the configuration says {value!r}. A resumed run may "
                    f"change {', '.join(FREE + SHARING)}; for anything else start one in another folder"
                )
            log.warning("%s was %r before: the run goes on with the same samples, but not bit for bit", key, before)
        weights = self.weights()
        kept = read_tensor_file(state / TRAINED)
        try:
            put_tensors(self.learner.module, kept, self.learner.trained, like)
        except BadInput as error:
            raise BadInput(f"{state / TRAINED}: {error}") from None
        self._put_optimiser(read_tensor_file(state / OPTIMISER), weights, state)
        if self.average is not None:
            average = _as_places(read_tensor_file(state / AVERAGE), self.average.tensors, state)
            self.average.tensors = {name: average[name] for name in self.average.tensors}
        self.steps, self.failures = numbers["steps"], numbers["failures"]

    def _optimiser_tensors(self) -> dict[str, torch.Tensor]:
        """``name|exp_avg`` and so on of every parameter that has had a gradient."""
        weights = dict(self.learner.module.named_parameters())
        return {
            f"{name}{_BETWEEN}{key}": whole(value)
            for name in self.learner.trained
            for key, value in self.optimiser.state.get(weights[name], {}).items()
        }

    def _put_optimiser(
        self, kept: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor], state: Path
    ) -> None:
        parameters = dict(self.learner.module.named_parameters())
        self.optimiser.state.clear()
        for full, value in kept.items():
            name, _, key = full.rpartition(_BETWEEN)
            if name not in parameters or (value.ndim and value.shape != weights[name].shape):
                raise BadInput(f"{state / OPTIMISER}: {full} does not fit the model")
            # AdamW counts its steps on the CPU; its averages lie where the weight lies.
            placed = value if not value.ndim else like(value, weights[name])
            self.optimiser.state[parameters[name]][key] = placed


def states_in(folder: Path) -> list[Path]:
    """Complete states, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and _NAME.fullmatch(path.name))


def read_state_table(state: Path) -> dict[str, Any]:
    """``state.json``, judged. Raises BadInput."""
    numbers = read_json(state / TABLE)
    whole_numbers = isinstance(numbers, dict) and all(
        isinstance(numbers.get(key), int) and numbers[key] >= 0 for key in ("steps", "failures")
    )
    if not whole_numbers or not isinstance(numbers.get("config"), dict):
        raise BadInput(f"{state / TABLE} must hold steps, failures and config; remove the folder to resume before it")
    return numbers


def _as_places(
    tensors: Mapping[str, torch.Tensor], places: Mapping[str, torch.Tensor], state: Path
) -> dict[str, torch.Tensor]:
    if set(tensors) != set(places):
        raise BadInput(f"{state} holds the weights of another model: {min(set(tensors) ^ set(places))}")
    for name, tensor in tensors.items():
        if tensor.shape != places[name].shape:
            raise BadInput(f"{state}: {name} has shape {tuple(tensor.shape)}, not {tuple(places[name].shape)}")
    return {name: like(tensor, places[name]) for name, tensor in tensors.items()}


def _to_disk(folder: Path) -> None:
    """Wait until every file has reached the disk, so that the new name never stands for half of it."""
    for path in (*folder.iterdir(), folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
