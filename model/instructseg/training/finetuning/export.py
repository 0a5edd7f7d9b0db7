"""From a saved state to what is used: adapters, and the whole model with them merged in.

The checkpoint that training started from is read again for it, on the CPU, whatever trained: so what is written holds
exactly what the adapters hold, and a run that was stopped can be exported as well.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import torch

from ...core import BadInput
from ...data.benchmarks import open_dataset
from ..adapters import put_tensors, read_tensor_file
from ..learner import LoraSettings, build_learner
from .configuration import RunConfig
from .mixture import usable_samples
from .state import AVERAGE, TRAINED, states_in

log = logging.getLogger(__name__)
ADAPTERS, CHECKPOINT, STATES = "adapters", "checkpoint", "states"


def export(config: RunConfig, out: Path) -> Path:
    """Write ``out/adapters`` and ``out/checkpoint`` of the newest state, the averaged weights where the run keeps them;
    the path of the latter. Raises BadInput where there is no state."""
    states = states_in(out / STATES)
    if not states:
        raise BadInput(f"{out} holds no saved state; train first")
    check_place(config, out)
    averaged = (states[-1] / AVERAGE).is_file()
    tensors = read_tensor_file(states[-1] / (AVERAGE if averaged else TRAINED))
    learner = build_learner(
        config.recipe, config.checkpoint, torch.device("cpu"), None, config.options, lora_of(config)
    )
    learner.meet(usable_samples(open_dataset(data.benchmark, data.root, data.split) for data in config.data))
    put_tensors(learner.module, tensors, learner.trained)
    for name, write in ((ADAPTERS, learner.save_adapters), (CHECKPOINT, learner.save_merged)):
        partial = out / f"{name}.partial"
        for leftover in (partial, out / name):
            shutil.rmtree(leftover, ignore_errors=True)
        write(partial)
        partial.replace(out / name)
    log.info("exported %s%s", states[-1].name, ", averaged weights" if averaged else "")
    return out / CHECKPOINT


def check_place(config: RunConfig, out: Path) -> None:
    """Raises BadInput where the export would replace what training starts from."""
    begun, written = Path(config.checkpoint).resolve(), [(out / name).resolve() for name in (ADAPTERS, CHECKPOINT)]
    if any(begun.is_relative_to(folder) for folder in written):
        raise BadInput(f"checkpoint {begun} would be overwritten by the export into {out}; move it to another folder")


def lora_of(config: RunConfig) -> LoraSettings:
    return LoraSettings(config.lora.rank, config.lora.alpha, config.lora.dropout)
