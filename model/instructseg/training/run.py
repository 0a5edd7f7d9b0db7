"""``instructseg train``: scenes, perception, language, calibration, checkpoint; every step resumes where it was
stopped."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path

import numpy as np
import torch

from ..data.instructions import training_words
from ..modules.perception import Perception
from ..recipes.unified.checkpoint import save_checkpoint
from ..recipes.unified.configuration import UnifiedConfig
from ..recipes.unified.modeling import UnifiedModel
from ..recipes.unified.tokenizer import build_tokenizer
from .bank import EpisodeBank, generate_shard
from .calibration import calibrate_presence
from .language_stage import train_language
from .latent_bank import encode_bank
from .perception import evaluate_perception, train_perception
from .plan import TrainingPlan
from .state import averaged_weights

log = logging.getLogger(__name__)
SHARD = 150
VALIDATION_SEED, HELD_OUT_SEED = 2000, 1000


def run_training(out: Path, plan: TrainingPlan, config: UnifiedConfig | None = None) -> Path:
    """Train the default recipe into ``out``; returns the folder of the finished checkpoint."""
    config = config or UnifiedConfig(seed=plan.seed)
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(plan.threads)
    torch.manual_seed(plan.seed)
    tokenizer = build_tokenizer(training_words())
    model = UnifiedModel(config, tokenizer.get_vocab_size())
    _generate(out / "scenes", plan, config)
    state = out / "perception.pt"
    train_perception(
        model.perception, config, [out / "scenes" / "train"], state, plan.perception_minutes, seed=plan.seed
    )
    steps = _keep_average(model.perception, state)
    validation_scenes = EpisodeBank([out / "scenes" / "val"])
    quality = evaluate_perception(model.perception, config, validation_scenes)
    log.info("perception on validation scenes: %s", quality)
    train = encode_bank(model.perception, EpisodeBank([out / "scenes" / "train"]), out / f"latents-train-{steps}.pt")
    validation = encode_bank(model.perception, validation_scenes, out / f"latents-val-{steps}.pt")
    state = out / "language.pt"
    train_language(model, tokenizer, train, state, plan.language_minutes, seed=plan.seed, validation=validation)
    threshold, curve = calibrate_presence(model, tokenizer, validation)
    log.info("present_threshold %.3f: kept %.3f, rejected %.3f on validation scenes", threshold, *curve)
    model.config = dataclasses.replace(config, present_threshold=threshold)
    save_checkpoint(out / "checkpoint", model, tokenizer)
    record = {"plan": dataclasses.asdict(plan), "perception": quality, "kept": curve[0], "rejected": curve[1]}
    (out / "training.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return out / "checkpoint"


def _generate(scenes: Path, plan: TrainingPlan, config: UnifiedConfig) -> None:
    height, width = config.image_size
    wanted = [("train", "flat", plan.flat_episodes, 0), ("train", "tabletop", plan.tabletop_episodes, 0)]
    source = "tabletop" if plan.tabletop_episodes else "flat"
    wanted.append(("val", source, plan.validation_episodes, VALIDATION_SEED))
    for split, source, episodes, first in wanted:
        for shard in range(int(np.ceil(episodes / SHARD))):
            count = min(SHARD, episodes - shard * SHARD)
            log.info("scenes: %s %s shard %d (%d episodes)", split, source, shard, count)
            generate_shard(
                scenes / split / f"{source}-{first + shard:04d}", source, split, first + shard, count, width, height
            )


def _keep_average(perception: Perception, state: Path) -> int:
    """A resumed run that had finished this stage holds raw weights: take the average from its state.
    Returns the steps behind it, which name what is computed with these weights."""
    saved = torch.load(state, weights_only=True)
    perception.load_state_dict(averaged_weights(saved["average"]))
    return int(saved["step"])
