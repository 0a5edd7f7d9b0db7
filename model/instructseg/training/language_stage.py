"""Stage 2: language, motion, association and the mask head, trained on encoded scenes with fresh instructions.

Everything the head asks is supervised where the generator knows it (candidates, anchors, motion, identity): with that,
each part is learned within minutes, and the answer itself only has to combine them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from ..core import BadInput
from ..recipes.unified.modeling import UnifiedModel
from .bank import EpisodeBank
from .language_losses import language_losses, think
from .latent_bank import LatentBank
from .questions import Asker, ask_every_scene, make_batch
from .shares import draw_rows
from .stage import Drawn, Running, Schedule, Stage
from .state import weight_average


def train_language(
    model: UnifiedModel, tokenizer, bank: LatentBank, checkpoint: Path, minutes: float, scenes: int = 24,
    questions: int = 8, learning_rate: float = 1.2e-3, seed: int = 0, validation: LatentBank | None = None, *,
    steps: int | None = None, precision: str = "fp32", shares: Mapping[str, float] | None = None,
    episodes: EpisodeBank | None = None, running: Running | None = None,
) -> int:  # fmt: skip
    """Train everything but the perception, where the model lies, for ``minutes`` of wall time or, where given, for
    ``steps`` (the schedule's length); writes ``checkpoint`` every two minutes and resumes from it. Leaves the averaged
    weights in the model.

    bank: on the CPU. scenes: of a step, over all its parts. episodes: what ``bank`` was made of, in the same order:
    names of places in messages, and the sources that shares need. shares: how often scenes of each source are asked
    about, by default as often as there are. Returns the steps done. Raises TrainingPaused and TrainingStopped
    (:meth:`Stage.run`), and BadInput where bank, episodes and shares do not go together.
    """
    _check_sources(bank, episodes, shares)
    running = running or Running(log_every=100)
    model.perception.requires_grad_(False).eval()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=1e-2, betas=(0.9, 0.98))
    schedule = Schedule(minutes, steps, learning_rate, warm_up=150, floor=1e-6)
    average = weight_average(model, 0.996)
    stage = Stage("language", model, trained, optimizer, average, schedule, checkpoint, (seed, 7), 1.0, running)
    device = trained[0].device
    placed, part = bank.to(device), scenes // running.accumulation
    sources = {"all": np.arange(len(bank))} if episodes is None else episodes.by_source()

    def draw(rng: np.random.Generator) -> Drawn:
        model.train()
        model.perception.eval()
        rows = np.array(draw_rows(sources, rng, part, shares))
        batch = make_batch(bank, tokenizer, model.config, rng, part, questions, rows=rows).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            losses = language_losses(model, placed, batch)
        return {name: loss.float() for name, loss in losses.items()}, rows

    judge = None if validation is None else lambda averaged: evaluate_latents(averaged, tokenizer, validation)
    stage.run(draw, str if episodes is None else episodes.place, judge)
    return stage.step


def _check_sources(bank: LatentBank, episodes: EpisodeBank | None, shares: Mapping[str, float] | None) -> None:
    if shares and episodes is None:
        raise BadInput("shares of the sources need the episodes that the latents were made of")
    if episodes is not None and len(episodes) != len(bank):
        raise BadInput(f"{len(bank)} encoded episodes do not belong to {len(episodes)} episodes")


@torch.inference_mode()
def evaluate_latents(
    model: UnifiedModel, tokenizer, bank: LatentBank, split: str = "train", questions: int = 12
) -> dict[str, float]:
    """Quick figures without pixels: how often the chosen latents are exactly right, by kind; how often presence is
    right."""
    model.eval()
    writer = Asker(np.random.default_rng(11), split)
    right: dict[str, list[float]] = {}
    device = next(model.parameters()).device
    placed = bank.to(device)
    for batch in ask_every_scene(bank, tokenizer, model.config, writer, questions, limit=200):
        scores = think(model, placed, batch.to(device)).scores
        chosen = (scores.target > 0).float().cpu()
        presence = scores.presence.cpu()
        exact = (chosen == batch.target).all(-1)
        slots = model.config.max_targets
        for r in torch.nonzero(batch.used & batch.seen)[:, 0].tolist():
            if batch.present[r]:
                right.setdefault(batch.kinds[r // slots], []).append(float(exact[r]))
            right.setdefault("kept" if batch.present[r] else "rejected", []).append(
                float((presence[r] > 0) == bool(batch.present[r]))
            )
    return {k: float(np.mean(v)) for k, v in sorted(right.items())}
