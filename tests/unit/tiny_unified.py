"""The default recipe in miniature, with random weights: for tests of what does not depend on training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from instructseg.core import Frame
from instructseg.data.instructions import training_words
from instructseg.recipes.unified.checkpoint import save_checkpoint
from instructseg.recipes.unified.configuration import UnifiedConfig
from instructseg.recipes.unified.modeling import UnifiedModel
from instructseg.recipes.unified.tokenizer import build_tokenizer

TINY = UnifiedConfig(
    image_size=(64, 64), channels=(8, 8, 8, 8), blocks=(1, 1, 1, 1), pyramid=8, slots=5, embedding=4, hidden=32,
    layers=1, heads=2, intermediate=32, head_hidden=16, present_threshold=0.01,
)  # fmt: skip


def tiny_model(config: UnifiedConfig = TINY, seed: int = 0) -> tuple[UnifiedModel, object]:
    """A random model that sees things everywhere (a fresh heat map starts from "nowhere"), and its tokenizer."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(training_words())
    model = UnifiedModel(config, tokenizer.get_vocab_size())
    with torch.no_grad():
        model.perception.encoder.instance[-1].bias[0] = 1.0
        model.perception.encoder.instance[-1].weight[0] *= 5.0
        model.perceiver.association.nowhere.fill_(-5.0)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):  # statistics as after training, not those of a fresh layer
                module.running_mean.uniform_(-0.2, 0.2)
                module.running_var.uniform_(0.5, 1.5)
    return model.eval(), tokenizer


def tiny_checkpoint(folder: Path, config: UnifiedConfig = TINY) -> Path:
    save_checkpoint(folder, *tiny_model(config))
    return folder


def noise_frame(height: int, width: int, seconds: float = 0.0, seed: int = 0) -> Frame:
    """Coloured blocks of noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 4, 3), np.uint8)
    image = np.kron(coarse, np.ones((-(-height // 4), -(-width // 4), 1), np.uint8))[:height, :width]
    return Frame(np.ascontiguousarray(image), round(seconds * 1e9))
