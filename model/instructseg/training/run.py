"""``instructseg train``: scenes, perception, language, calibration, checkpoint; every step resumes where it was
stopped."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import cv2
import torch
from tokenizers import Tokenizer

from ..checkpoints import read_json
from ..core import BadInput
from ..data.tabletop2.wider_wordings import training_words
from ..modules.perception import Perception
from ..recipes.unified import backbones
from ..recipes.unified.adapting import freeze_language_backbone, without_lora
from ..recipes.unified.checkpoint import load_checkpoint, save_checkpoint
from ..recipes.unified.configuration import UnifiedConfig
from ..recipes.unified.modeling import UnifiedModel
from ..recipes.unified.tokenizer import build_tokenizer
from ..registry import pick_device
from .bank import EpisodeBank
from .calibration import calibrate_presence
from .curves import CURVES, draw_curves, read_curves
from .generation import generate, wanted_shards
from .language_stage import train_language
from .latent_bank import LatentBank, encode_bank
from .perception import evaluate_perception, train_perception
from .plan import LanguagePlan, PerceptionPlan, TrainingPlan
from .stage import Running
from .stopping import StopRequest
from .warm_start import start_from

log = logging.getLogger(__name__)
PLAN, PERCEPTION, LANGUAGE = "plan.json", "perception.pt", "language.pt"
FIXED = ("scenes", "validation", "start_from", "model", "seed")  # what a folder's training cannot change on its way


def run_training(
    out: Path, plan: TrainingPlan, config: UnifiedConfig | None = None, stop: StopRequest | None = None
) -> Path:
    """Train the default recipe into ``out``; returns the folder of the finished checkpoint.

    Raises TrainingPaused where ``stop`` asks for it, with everything done so far saved, TrainingStopped where training
    cannot usefully go on, and BadInput where ``out`` holds another training.
    """
    stop = stop or StopRequest()
    device = pick_device(plan.device)
    out.mkdir(parents=True, exist_ok=True)
    _keep_plan(out, plan)
    torch.set_num_threads(plan.threads)
    torch.manual_seed(plan.seed)
    model, tokenizer = _begin(plan, config or UnifiedConfig(seed=plan.seed))
    with stop.listening():
        try:
            return _train(out, plan, model, tokenizer, device, stop)
        finally:
            cv2.imwrite(str(out / "curves.png"), draw_curves(read_curves(out / CURVES)))


def _begin(plan: TrainingPlan, config: UnifiedConfig) -> tuple[UnifiedModel, Tokenizer]:
    """A new model of ``config``, or the assembled one that the plan names, with its own configuration."""
    if plan.model is None:
        tokenizer = build_tokenizer(training_words())
        return UnifiedModel(config, tokenizer.get_vocab_size()), tokenizer
    model, tokenizer, _ = load_checkpoint(plan.model)
    if not model.config.untrained:
        raise BadInput(f"model {plan.model} is trained already; a configuration trains it further (docs/training.md)")
    return model, tokenizer


def _train(
    out: Path, plan: TrainingPlan, model: UnifiedModel, tokenizer: Any, device: torch.device, stop: StopRequest
) -> Path:
    config = model.config
    generate(wanted_shards(out / "scenes", plan.scenes, plan.validation), config.image_size, plan.workers, stop)
    train_scenes, validation_scenes = (EpisodeBank([out / "scenes" / split]) for split in ("train", "val"))
    if plan.start_from is not None and not (out / PERCEPTION).exists():
        report = start_from(model.perception, config, plan.start_from)
        log.info("perception starts from %s: %s", plan.start_from, report)
    model.to(device)
    stage, steps = plan.perception, 0
    if plan.model is None or backbones.PERCEPTION in config.untrained:
        steps = train_perception(
            model.perception, config, [out / "scenes" / "train"], out / PERCEPTION, stage.minutes, stage.batch,
            stage.learning_rate, plan.seed, stage.mixture, steps=stage.steps, precision=stage.precision,
            validation=validation_scenes, running=_running(out, stage, stop),
        )  # fmt: skip
    quality = evaluate_perception(model.perception, config, validation_scenes)
    log.info("perception on validation scenes: %s", quality)
    latents = out / "latents" / f"step-{steps}"  # of these weights
    train = _encode(model.perception, train_scenes, latents / "train", stop)
    validation = _encode(model.perception, validation_scenes, latents / "val", stop)
    stage = plan.language
    freeze_language_backbone(model)
    train_language(
        model, tokenizer, train, out / LANGUAGE, stage.minutes, stage.batch, stage.questions, stage.learning_rate,
        plan.seed, validation, steps=stage.steps, precision=stage.precision, shares=stage.mixture,
        episodes=train_scenes, running=_running(out, stage, stop),
    )  # fmt: skip
    threshold, (kept, rejected) = calibrate_presence(model, tokenizer, validation)
    log.info("present_threshold %.3f: kept %.3f, rejected %.3f on validation scenes", threshold, kept, rejected)
    model = without_lora(model)
    model.config = dataclasses.replace(config, present_threshold=threshold, untrained=())
    save_checkpoint(out / "checkpoint", model.cpu(), tokenizer)
    record = {"plan": plan.as_table(), "perception": quality, "kept": kept, "rejected": rejected}
    (out / "training.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return out / "checkpoint"


def _running(out: Path, stage: PerceptionPlan | LanguagePlan, stop: StopRequest) -> Running:
    return Running(stage.accumulation, out, stage.abort, stop, stage.validate_every, stage.log_every)


def _encode(perception: Perception, scenes: EpisodeBank, cache: Path, stop: StopRequest) -> LatentBank:
    """Shard by shard, so that what a call has done is there for the next one."""
    cache.mkdir(parents=True, exist_ok=True)
    parts = []
    for path in scenes.paths:
        file = cache / f"{path.name}.pt"
        if not file.exists():
            stop.check("scenes were encoded")
            log.info("encoding %s", path.name)
        parts.append(encode_bank(perception, EpisodeBank([path]), file))
    return LatentBank.join(parts)


def _keep_plan(out: Path, plan: TrainingPlan) -> None:
    """Write the plan into ``out``. Raises BadInput where a training of other scenes was begun there; says in the log
    what else is new."""
    path, table = out / PLAN, plan.as_table()
    before = read_json(path) if path.exists() else table
    if not isinstance(before, dict):
        raise BadInput(f"{path} is no plan of a training; give another --out, or remove it")
    for name, value in table.items():
        if before.get(name) == value:
            continue
        if name in FIXED:
            raise BadInput(
                f"{out} holds a training with {name} {before.get(name)!r}; the plan says {value!r}: give another --out"
            )
        log.warning("the plan's %s was %s; what is trained from here on follows the new one", name, before.get(name))
    path.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
