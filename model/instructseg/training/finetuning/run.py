"""A whole run: data sets, learner, training, export."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import torch

from ...data.benchmarks import open_dataset
from ..learner import build_learner
from .configuration import RunConfig
from .export import check_place, export, lora_of
from .loop import Training
from .memory import memory_of
from .mixture import source_of, usable_samples
from .processes import Processes

log = logging.getLogger(__name__)
FROZEN_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def finetune(config: RunConfig, out: Path, processes: Processes, resume: bool = False) -> Path | None:
    """Train into ``out``; the folder of the finished checkpoint, or None where a SIGTERM stopped the run at a saved
    state. Only the main process exports. Raises BadInput and TrainingStopped."""
    check_place(config, out)
    datasets = [open_dataset(data.benchmark, data.root, data.split) for data in config.data]
    frozen = FROZEN_TYPES[config.precision]
    torch.manual_seed(config.seed)  # a new LoRA begins at random: the same in every process and every time
    learner = build_learner(config.recipe, config.checkpoint, processes.device, frozen, config.options, lora_of(config))
    learner.meet(usable_samples(datasets))
    sources = [
        source_of(dataset, data.weight, learner.scene_of, learner.takes)
        for dataset, data in zip(datasets, config.data, strict=True)
    ]
    memory = memory_of(learner.module, learner.trained)  # before the weights are shared out
    training = Training(learner, sources, config, processes, out, resume)
    if processes.is_main:
        (out / "config.json").write_text(json.dumps(config.as_table(), indent=2) + "\n", encoding="utf-8")
        log.info("%s: %s", learner.name, memory.describe(config.precision, config.ema_decay is not None))
        log.info("%s", training.plan)
        for source in sources:
            log.info("%s %s: %d scenes", source.dataset.name, source.dataset.split, len(source.scenes))
    finished = training.train()
    processes.wait()
    if not finished:
        return None
    return export(config, out) if processes.is_main else out
