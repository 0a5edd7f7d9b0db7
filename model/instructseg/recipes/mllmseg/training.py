"""MLLMSeg's training step: what is learned, how conversations become a batch, and the losses of one.

Published: LoRA on the whole language model and all of the mask decoder; of the rest only what the training script's
names happened to match (the final norm; with InternLM2 embeddings and output layer too, which is why a Qwen2 model
never learned to say ``[SEG]`` or ``[REJ]``). The vision encoder and its projector stay as they are. AdamW at 4e-5 with
weight decay 0.05, cosine with 3 % warm-up, batches of 32, 50,000 steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from ...core import BadInput
from ...training.lora import add_lora, train_only
from .losses import Losses, losses
from .modeling import MllmSegModel
from .prompts import Conversation

LORA_RANK, LORA_ALPHA, LORA_DROPOUT = 64, 128, 0.05
_LANGUAGE = "mllm.model.language_model."
_ADAPTED = r"mllm\.model\.language_model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj"
_TRAINED = {
    "internlm2": ("decoder.", f"{_LANGUAGE}norm.", f"{_LANGUAGE}embed_tokens.", "mllm.lm_head."),
    "qwen2": ("decoder.", f"{_LANGUAGE}norm."),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Tokens:
    """Conversations of one batch, each ``(B, N)``: input_ids, labels, attention_mask (bool), position_ids."""

    input_ids: torch.Tensor
    labels: torch.Tensor
    attention_mask: torch.Tensor
    position_ids: torch.Tensor


def prepare_training(
    model: MllmSegModel, rank: int = LORA_RANK, alpha: float = LORA_ALPHA, dropout: float = LORA_DROPOUT
) -> tuple[str, ...]:
    """Put LoRA on the language model (in place), freeze what was not trained, and name what trains.

    InternLM2's queries, keys and values are apart here and were one matrix there: three updates of rank 64 take the
    place of one that they shared.
    """
    add_lora(model, _ADAPTED, rank, alpha, dropout)
    return train_only(model, lambda name: name.startswith(_TRAINED[model.config.family]))


def collate(conversations: Sequence[Conversation]) -> Tokens:
    """Padded on the right as published: with id 0 in ids *and labels*, so that padding is supervised; masked by the
    id alone, and at position 0."""
    if not conversations:
        raise BadInput("a batch needs at least one conversation")
    pad = torch.nn.utils.rnn.pad_sequence
    ids = pad([torch.tensor(c.ids) for c in conversations], batch_first=True)  # (B, N)
    labels = pad([torch.tensor(c.labels) for c in conversations], batch_first=True)
    attended = ids != 0
    positions = (attended.long().cumsum(1) - 1).masked_fill(~attended, 0)
    return Tokens(ids, labels, attended, positions)


def training_losses(
    model: MllmSegModel,
    pixels: torch.Tensor,
    tokens: Tokens,
    truths: Sequence[torch.Tensor],
    seg: int,
    rej: int,
) -> Losses:
    """One forward pass: ``pixels`` ``(B, 3, S, S)``; truths: per image ``(n, H, W)`` of 0 and 1 in the order of its
    slots, a zero map for ``[REJ]``. The decoder sees the targets of one conversation at a time, as published, which its
    batch norm notices. Raises BadInput where slots and truths differ in number."""
    reading = model(pixels, tokens.input_ids, tokens.attention_mask, tokens.position_ids)
    masks, present = [], []
    for row, ids in enumerate(tokens.input_ids):
        slots = torch.nonzero((ids == seg) | (ids == rej))[:, 0]
        spoken = ids[slots] == seg
        masks.append(model.masks(reading, row, slots[spoken].tolist()).float().sigmoid())  # enlarged in float32
        present.append(spoken)
    return losses(model.logits(reading.states), tokens.labels, masks, present, truths)
