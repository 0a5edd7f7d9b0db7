"""Stage 2: language, motion, association and the mask head, trained on encoded scenes with fresh instructions.

Everything the head asks is supervised where the generator knows it (candidates, anchors, motion, identity): with that,
each part is learned within minutes, and the answer itself only has to combine them.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..data.instructions import KINDS, QuestionWriter
from ..recipes.unified.modeling import UnifiedModel
from .language_losses import language_losses, think
from .latent_bank import LatentBank
from .questions import ask_every_scene, make_batch
from .state import save_state, weight_average

log = logging.getLogger(__name__)


def train_language(
    model: UnifiedModel, tokenizer, bank: LatentBank, checkpoint: Path, minutes: float, scenes: int = 24,
    questions: int = 8,
    learning_rate: float = 1.2e-3, seed: int = 0, validation: LatentBank | None = None,
) -> None:  # fmt: skip
    """Train everything but the perception for ``minutes`` of wall time; writes and resumes from ``checkpoint``."""
    model.perception.requires_grad_(False).eval()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=1e-2, betas=(0.9, 0.98))
    average = weight_average(model, 0.996)
    done, step = 0.0, 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        done, step = state["seconds"], state["step"]
    rng = np.random.default_rng([seed, 7, step])
    start, saved, running = time.monotonic() - done, time.monotonic(), {}
    while (elapsed := time.monotonic() - start) < minutes * 60:
        progress = elapsed / (minutes * 60)
        for group in optimizer.param_groups:
            group["lr"] = float(
                learning_rate * min(1.0, (step + 1) / 150) * (0.5 + 0.5 * np.cos(np.pi * progress)) + 1e-6
            )
        model.train()
        model.perception.eval()
        losses = language_losses(model, bank, make_batch(bank, tokenizer, model.config, rng, scenes, questions))
        loss = sum(losses.values())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        average.update_parameters(model)
        step += 1
        for name, value in losses.items():
            running[name] = 0.97 * running.get(name, value.item()) + 0.03 * value.item()
        if step % 100 == 0:
            log.info(
                "language %4.1f min step %d  %s",
                elapsed / 60,
                step,
                "  ".join(f"{k} {v:.3f}" for k, v in running.items()),
            )
        if validation is not None and step % 600 == 0:
            log.info(
                "validation %s",
                {k: round(v, 3) for k, v in evaluate_latents(average.module, tokenizer, validation).items()},
            )
        if time.monotonic() - saved > 120:
            saved = save_state(checkpoint, model, average, optimizer, time.monotonic() - start, step)
    save_state(checkpoint, model, average, optimizer, time.monotonic() - start, step)
    model.load_state_dict(average.module.state_dict())


@torch.inference_mode()
def evaluate_latents(
    model: UnifiedModel, tokenizer, bank: LatentBank, split: str = "train", questions: int = 12
) -> dict[str, float]:
    """Quick figures without pixels: how often the chosen latents are exactly right, by kind; how often presence is
    right."""
    model.eval()
    writer = QuestionWriter(np.random.default_rng(11), split)
    right: dict[str, list[float]] = {k: [] for k in (*KINDS, "kept", "rejected")}
    for batch in ask_every_scene(bank, tokenizer, model.config, writer, questions, limit=200):
        scores = think(model, bank, batch).scores
        chosen = (scores.target > 0).float()
        exact = (chosen == batch.target).all(-1)
        slots = model.config.max_targets
        for r in torch.nonzero(batch.used & batch.seen)[:, 0].tolist():
            if batch.present[r]:
                right[batch.kinds[r // slots]].append(float(exact[r]))
            right["kept" if batch.present[r] else "rejected"].append(
                float((scores.presence[r] > 0) == bool(batch.present[r]))
            )
    return {k: float(np.mean(v)) if v else float("nan") for k, v in right.items()}
