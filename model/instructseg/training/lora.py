"""LoRA on chosen layers of a model, in place, and gradients for exactly what is trained."""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import nn

from ..core import BadInput


def add_lora(module: nn.Module, layers: str, rank: int, alpha: float, dropout: float) -> None:
    """Put a LoRA update (initially none) on every layer whose full name in ``module`` matches the pattern ``layers``.

    Full names, because vision towers and mask decoders have projections of the same short names that must stay as they
    are. Needs the package peft. Raises BadInput for a rank below 1 and where no layer matches.
    """
    if rank < 1:
        raise BadInput(f"the LoRA rank must be 1 or more; got {rank}")
    names = [name for name, _ in module.named_modules() if re.fullmatch(layers, name)]
    if not names:
        raise BadInput(f"the language model has no layer like {layers!r} to put LoRA on")
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=names, bias="none")
    inject_adapter_in_model(config, module)


def train_only(model: nn.Module, whole: Callable[[str], bool]) -> tuple[str, ...]:
    """Switch gradients on for LoRA and for the parameters whose names ``whole`` picks, off for all others; the names of
    what is trained."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".lora_" in name or whole(name))
    return tuple(name for name, parameter in model.named_parameters() if parameter.requires_grad)
