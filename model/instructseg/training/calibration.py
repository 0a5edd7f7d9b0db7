"""The threshold on presence, chosen on validation scenes and phrasings that training did not draw."""

from __future__ import annotations

import numpy as np
import torch

from ..recipes.unified.modeling import UnifiedModel
from .language_losses import think
from .latent_bank import LatentBank
from .questions import Asker, ask_every_scene


@torch.inference_mode()
def presence_scores(
    model: UnifiedModel, tokenizer, bank: LatentBank, questions: int = 16, seed: int = 23
) -> tuple[np.ndarray, np.ndarray]:
    """Presence probabilities and labels of fresh questions about the bank's scenes."""
    model.eval()
    writer = Asker(np.random.default_rng(seed))
    scores, labels = [], []
    device = next(model.parameters()).device
    placed = bank.to(device)
    for batch in ask_every_scene(bank, tokenizer, model.config, writer, questions):
        presence = torch.sigmoid(think(model, placed, batch.to(device)).scores.presence).cpu()
        scores.append(presence[batch.used].numpy())
        labels.append(batch.present[batch.used].numpy() > 0.5)
    return np.concatenate(scores), np.concatenate(labels)


def calibrate_presence(model: UnifiedModel, tokenizer, bank: LatentBank) -> tuple[float, tuple[float, float]]:
    """The threshold where as many present targets are kept as absent ones are rejected, and (kept, rejected) there."""
    scores, labels = presence_scores(model, tokenizer, bank)
    thresholds = np.linspace(0.05, 0.95, 91)
    kept = np.array([(scores[labels] >= t).mean() for t in thresholds])
    rejected = np.array([(scores[~labels] < t).mean() for t in thresholds])
    best = int(np.argmax(np.minimum(kept, rejected)))
    return float(round(thresholds[best], 3)), (float(kept[best]), float(rejected[best]))
