"""VISA's training step: what is learned, and the losses of a batch.

Published: LoRA on the queries and values of the language model, and all of its embedding table, its head, SAM's mask
decoder and the layers between them. Loss = cross-entropy + 2 BCE + 0.5 Dice. Image encoders run without gradients.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from ...core import BadInput
from ...modules.sam_masks import upscale_masks
from ...training.lora import add_lora, train_only
from ...training.mask_losses import batch_mask_losses, text_loss
from .modeling import VisaModel

LORA_RANK, LORA_ALPHA, LORA_DROPOUT = 8, 16, 0.05
LORA_LAYERS = r"model\.layers\.\d+\.self_attn\.[qv]_proj"
FULLY_TRAINED = ("llm.model.embed_tokens.", "llm.lm_head.", "text_hidden_fcs.", "sam.sam.mask_decoder.")
BCE_WEIGHT, DICE_WEIGHT = 2.0, 0.5
LEARNING_RATE, WARM_UP, STEPS = 3e-4, 100, 15_000


@dataclasses.dataclass(frozen=True, eq=False)
class VisaSample:
    """One video with its target frame, and conversations about it.

    input_ids, labels: ``(n, T)``, right-padded with 0 and -100; each row has a placeholder for every image.
    clip_pixels: ``(i, 3, s, s)``, references in order and the target last. sam_pixels: ``(3, S, S)`` of the target.
    masks: ``(k, H, W)`` of 0 and 1, one for each supervised ``[SEG]`` of the rows, in order. resized_hw: of the part of
    ``sam_pixels`` that is image.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    clip_pixels: torch.Tensor
    sam_pixels: torch.Tensor
    masks: torch.Tensor
    resized_hw: tuple[int, int]


@dataclasses.dataclass(frozen=True, eq=False)
class VisaLosses:
    """Unweighted losses; ``total`` weighs them as published."""

    text: torch.Tensor
    bce: torch.Tensor
    dice: torch.Tensor

    @property
    def mask(self) -> torch.Tensor:
        return BCE_WEIGHT * self.bce + DICE_WEIGHT * self.dice

    @property
    def total(self) -> torch.Tensor:
        return self.text + self.mask


def prepare_training(
    model: VisaModel, rank: int = LORA_RANK, alpha: float = LORA_ALPHA, dropout: float = LORA_DROPOUT
) -> tuple[str, ...]:
    """Add LoRA and switch gradients on for exactly what is learned; the names of these parameters.

    Needs the package peft (extra ``train``). The weights that LoRA wraps get ``base_layer`` in their names; a saved
    state dict of it is read again like any training dump.
    """
    add_lora(model.llm, LORA_LAYERS, rank, alpha, dropout)
    return train_only(model, lambda name: name.startswith(FULLY_TRAINED))


def learning_rate(step: int) -> float:
    """The published rate at an optimiser step counted from 0: linear warm-up, then linear decay to zero."""
    if step < WARM_UP:
        return LEARNING_RATE * step / WARM_UP
    return LEARNING_RATE * max(0, STEPS - step) / (STEPS - WARM_UP)


def training_losses(
    model: VisaModel,
    samples: Sequence[VisaSample],
    seg_id: int,
    noise: Sequence[Sequence[torch.Tensor | None] | None] | None = None,
) -> VisaLosses:
    """One forward pass over a batch. noise: of each sample's token merging, as ``TokenMerging`` takes it.

    Samples without ``[SEG]`` (plain questions) add to the text loss alone. Raises BadInput where masks and ``[SEG]``
    differ in number.
    """
    if not samples:
        raise BadInput("a batch needs at least one sample; got none")
    ids = _padded([sample.input_ids for sample in samples], 0)  # (N, T)
    labels = _padded([sample.labels for sample in samples], -100)
    reading = model.read(ids, _visual(model, samples, noise), seg_id, labels)
    logits = model.llm.lm_head(reading.states)  # (N, L, V)

    rows = [len(sample.input_ids) for sample in samples]
    found = torch.tensor([len(at) for at in reading.positions]).split(rows)
    prompts = model.prompts(reading).split([int(count.sum()) for count in found])  # a (k, C) each sample
    predicted = [_masks(model, sample, own) for sample, own in zip(samples, prompts, strict=True)]
    bce, dice = batch_mask_losses(predicted, [sample.masks for sample in samples])
    return VisaLosses(text_loss(logits, reading.spliced.labels), bce, dice)


def _visual(
    model: VisaModel,
    samples: Sequence[VisaSample],
    noise: Sequence[Sequence[torch.Tensor | None] | None] | None,
) -> list[list[torch.Tensor]]:
    """Each row's image tokens; the rows of a sample share theirs, which are computed once."""
    visual = []
    for sample, jitter in zip(samples, noise or [None] * len(samples), strict=True):
        with torch.no_grad():
            tokens = model.visual_tokens(model.clip(sample.clip_pixels), jitter)  # (i, M, D)
        visual += [list(tokens)] * len(sample.input_ids)
    return visual


def _masks(model: VisaModel, sample: VisaSample, prompts: torch.Tensor) -> torch.Tensor:
    """Logits ``(k, H, W)`` at the size of the sample's own masks."""
    if len(prompts) != len(sample.masks):
        raise BadInput(f"a sample has {len(prompts)} supervised [SEG] and {len(sample.masks)} masks")
    with torch.no_grad():
        embedding = model.sam.encode(sample.sam_pixels[None])  # (1, C, h, w)
    low_res, _ = model.masks(embedding, prompts)  # (k, 4h, 4w)
    return upscale_masks(low_res, sample.resized_hw, sample.masks.shape[1:], model.sam.sizes.image_size)


def _padded(rows: Sequence[torch.Tensor], value: int) -> torch.Tensor:
    flat = [row for block in rows for row in block]
    return torch.nn.utils.rnn.pad_sequence(flat, batch_first=True, padding_value=value)
