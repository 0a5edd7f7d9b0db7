"""Learners of the miniature checkpoints of VideoLISA, VISA and InstructSeg."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from unit import tiny_instructseg, tiny_videolisa, tiny_visa

from instructseg.recipes.instructseg.criterion import CriterionSettings
from instructseg.training.learner import Learner, LoraSettings, build_learner

RECIPES = ("videolisa", "visa", "instructseg")
_TINY = {"videolisa": tiny_videolisa, "visa": tiny_visa, "instructseg": tiny_instructseg}
SPARSE, DENSE = 4, 2  # frames of a clip of VideoLISA


def tiny_checkpoints(folder: Path) -> dict[str, Path]:
    """One of each recipe in ``folder``."""
    return {name: _TINY[name].tiny_checkpoint(folder / name) for name in RECIPES}


def options_of(recipe: str, base: Path) -> dict[str, str]:
    """What a model needs that began as the miniature in ``base``."""
    if recipe == "videolisa":
        clip = base / Path(tiny_videolisa.CONFIG.mm_vision_tower).name
        return {"clip": str(clip), "sparse_frames": str(SPARSE), "dense_frames": str(DENSE)}
    return {"clip": str(base / tiny_visa.CONFIG.vision_tower)} if recipe == "visa" else {}


def learner_of(
    recipe: str, base: Path, checkpoint: Path | None = None, dtype: torch.dtype | None = torch.float32, **lora: Any
) -> Learner:
    """checkpoint: another one than ``base`` itself."""
    torch.manual_seed(0)  # a new LoRA begins at random
    device, options = torch.device("cpu"), options_of(recipe, base)
    learner = build_learner(recipe, checkpoint or base, device, dtype, options, LoraSettings(**lora))
    if recipe == "instructseg":
        learner.settings = CriterionSettings(points=64)
    return learner
