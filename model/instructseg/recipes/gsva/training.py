"""What GSVA and LISA are trained on: next-token cross-entropy and mask losses over present and absent targets alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from ...core import BadInput
from ...modules.sam_masks import upscale_masks
from ...training.mask_losses import batch_mask_losses, text_loss
from .modeling import GsvaModel, image_of_row, slot_positions
from .vocabulary import Vocabulary

CE_WEIGHT, BCE_WEIGHT, DICE_WEIGHT = 1.0, 2.0, 0.5
TRAINED = ("lm_head", "embed_tokens", "mask_decoder", "text_hidden_fcs", "lora_")


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingBatch:
    """B images with N conversations. pixels: ``(B, 3, S, S)`` of SAM; clip_pixels: ``(B, 3, s, s)``.

    input_ids, labels: ``(N, T)``, right-padded. offset: ``(B + 1,)``, rows of each image. masks: per image
    ``(n, H, W)`` of 0 and 1, a zero mask for an absent target. resized: per image (height, width) inside SAM's square.
    """

    pixels: torch.Tensor
    clip_pixels: torch.Tensor
    input_ids: torch.Tensor
    labels: torch.Tensor
    offset: torch.Tensor
    masks: Sequence[torch.Tensor]
    resized: Sequence[tuple[int, int]]


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingStep:
    """Weighted losses, and what they were computed from. predicted: per row ``(n, H, W)`` logits, one a ``[SEG]``."""

    loss: torch.Tensor
    ce: torch.Tensor
    bce: torch.Tensor
    dice: torch.Tensor
    states: torch.Tensor
    prompts: tuple[torch.Tensor, ...]
    predicted: tuple[torch.Tensor, ...]


def freeze_all_but_trained(model: GsvaModel, whole_llm: bool = False) -> list[str]:
    """Set which parameters train, and return their names: LoRA, token embeddings and output layer, mask decoder and
    ``text_hidden_fcs``. whole_llm: the language model's layers as well (no LoRA)."""
    trained = (*TRAINED, *(("llm.model.layers.",) if whole_llm else ()))
    names = []
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(part in name for part in trained))
        if parameter.requires_grad:
            names.append(name)
    return names


def training_step(model: GsvaModel, vocabulary: Vocabulary, batch: TrainingBatch) -> TrainingStep:
    """One forward pass with all losses; GSVA sec. 3.3, weights 1 (text), 2 (BCE) and 0.5 (Dice).

    A target answered with ``[REJ]`` counts as a mask of logits 0 against its empty truth: a constant, which weakens the
    others. Raises BadInput where an image's slots and masks differ in number.
    """
    owners = image_of_row(batch.offset, len(batch.input_ids))
    with torch.no_grad():
        patches = model.vision(batch.clip_pixels)  # (B, P, C)
        image_embeddings = torch.cat([model.sam.encode(image[None]) for image in batch.pixels])  # (B, C, h, w)
    rows = model.projector(patches)[owners]  # (N, P, D)
    attended = batch.input_ids != vocabulary.pad
    spliced = model.splice(batch.input_ids, rows, attended, batch.labels)
    states = model.read(spliced)  # (N, L, D)
    ce = CE_WEIGHT * text_loss(model.logits(states), spliced.labels)

    prompts, predicted = [], []
    per_image: list[list[torch.Tensor]] = [[] for _ in batch.masks]
    for n, (ids, owner) in enumerate(zip(batch.input_ids, owners, strict=True)):
        places, kinds = slot_positions(ids, vocabulary.slot_tokens, rows.shape[1])
        is_seg = kinds == vocabulary.seg  # (K,)
        prompts.append(model.prompts(states[n, places[is_seg]]))  # (n, C)
        low_res = model.masks(image_embeddings[owner][None], prompts[-1])  # (n, 4h, 4w)
        size = batch.masks[owner].shape[1:]
        predicted.append(upscale_masks(low_res, batch.resized[owner], size, model.sam.sizes.image_size))
        per_image[owner].append(_with_rejected(predicted[-1], is_seg))
    logits = [torch.cat(slots) for slots in per_image]
    for index, (slots, truth) in enumerate(zip(logits, batch.masks, strict=True)):
        if len(slots) != len(truth):
            raise BadInput(f"image {index} has {len(slots)} slots in its answers for {len(truth)} mask(s)")
    bce, dice = batch_mask_losses(logits, batch.masks)
    bce, dice = BCE_WEIGHT * bce, DICE_WEIGHT * dice
    return TrainingStep(ce + bce + dice, ce, bce, dice, states, tuple(prompts), tuple(predicted))


def _with_rejected(predicted: torch.Tensor, is_seg: torch.Tensor) -> torch.Tensor:
    """Logits ``(K, H, W)`` of all slots in order: predictions ``(n, H, W)`` at ``[SEG]``, constant 0 at ``[REJ]``."""
    slots = predicted.new_zeros(len(is_seg), *predicted.shape[1:])
    slots[is_seg] = predicted
    return slots
