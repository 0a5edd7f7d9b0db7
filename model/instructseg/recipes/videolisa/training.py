"""VideoLISA's training step: what is trained, and the three losses of a batch (paper, sec. 3.4 and appendix).

Trained in full: the language model's embeddings and output layer, the mask decoder, the token projection. By LoRA: the
fused ``qkv_proj`` of every layer of the language model. Frozen: the rest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from ...modules.clip_patches import ClipPatches
from ...modules.sam_masks import upscale_masks
from ...training.lora import add_lora, train_only
from ...training.mask_losses import batch_mask_losses, text_loss
from .modeling import VideoLISA, seg_positions

TEXT_WEIGHT, BCE_WEIGHT, DICE_WEIGHT = 1.0, 2.0, 0.5
LORA_RANK, LORA_ALPHA, LORA_DROPOUT = 8, 16, 0.05
LORA_LAYERS = r"model\.layers\.\d+\.self_attn\.qkv_proj"
TRAINED = ("llm.lm_head.", "llm.model.embed_tokens.", "sam.sam.mask_decoder.", "text_hidden_fcs.")


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingBatch:
    """B samples, one conversation each.

    clip_pixels: ``(B, S, 3, s, s)``. sam_pixels: for each sample its D dense frames ``(D, 3, Z, Z)``. dense: ``(B, D)``
    positions among the S frames. input_ids, labels, attention_mask: ``(B, T)``, right-padded; ids hold one placeholder,
    labels -100 where nothing is learned. targets: for each sample ``(D n, H, W)`` of 0 and 1, frame-major, n the
    number of its ``[SEG]`` tokens. resized_hw, original_hw: (height, width) of each sample's frames in SAM's square and
    in ``targets``.
    """

    clip_pixels: torch.Tensor
    sam_pixels: Sequence[torch.Tensor]
    dense: torch.Tensor
    input_ids: torch.Tensor
    labels: torch.Tensor
    attention_mask: torch.Tensor
    targets: Sequence[torch.Tensor]
    resized_hw: Sequence[tuple[int, int]]
    original_hw: Sequence[tuple[int, int]]


@dataclasses.dataclass(frozen=True, eq=False)
class Losses:
    """Scalars; text, bce and dice already carry their weights, total is their sum. low_res: the mask logits behind
    them, ``(D, n, h, w)`` for each sample."""

    total: torch.Tensor
    text: torch.Tensor
    bce: torch.Tensor
    dice: torch.Tensor
    low_res: tuple[torch.Tensor, ...]
    logits: torch.Tensor  # (B, L, vocabulary)


def training_losses(model: VideoLISA, tower: ClipPatches, batch: TrainingBatch, seg_id: int) -> Losses:
    """Forward pass and losses. No gradient reaches the vision tower or SAM's image encoder."""
    videos = _videos(model, tower, batch)
    spliced = model.embed(batch.input_ids, videos, batch.attention_mask, batch.labels)
    states = model.states(spliced.embeddings, spliced.attention_mask)  # (B, L, H)
    logits = model.llm.lm_head(states)
    text = TEXT_WEIGHT * text_loss(logits, spliced.labels)
    low_res, masks = [], []
    places = seg_positions(batch.input_ids, seg_id, len(videos[0]))
    for sample, positions in enumerate(places):
        low = _decode(model, batch.sam_pixels[sample], states[sample, positions])  # (D, n, h, w)
        low_res.append(low)
        masks.append(_at_original_size(model, low, batch, sample))
    bce, dice = batch_mask_losses(masks, batch.targets)
    bce, dice = BCE_WEIGHT * bce, DICE_WEIGHT * dice
    return Losses(text + bce + dice, text, bce, dice, tuple(low_res), logits)


def prepare_training(
    model: VideoLISA, rank: int = LORA_RANK, alpha: float = LORA_ALPHA, dropout: float = LORA_DROPOUT
) -> list[str]:
    """Put LoRA on the language model in place and set ``requires_grad`` everywhere; the names of what is trained.

    Needs the package peft. Raises BadInput for a rank below 1.
    """
    add_lora(model.llm, LORA_LAYERS, rank, alpha, dropout)
    return list(train_only(model, lambda name: name.startswith(TRAINED)))


def _videos(model: VideoLISA, tower: ClipPatches, batch: TrainingBatch) -> list[torch.Tensor]:
    samples, sparse = batch.clip_pixels.shape[:2]
    with torch.no_grad():
        features = tower(batch.clip_pixels.flatten(0, 1)).unflatten(0, (samples, sparse))  # (B, S, P, C)
    return [
        model.video_tokens(features[i], range(sparse), batch.dense[i].tolist()) for i in range(samples)
    ]  # B x (V, H)


def _decode(model: VideoLISA, pixels: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """Low-resolution logits ``(D, n, h, w)`` of n states ``(n, H)`` on D frames."""
    with torch.no_grad():
        images = model.sam.encode(pixels)  # (D, C, h / 4, w / 4)
    prompts = model.mask_prompts(states)  # (n, 1, C)
    return model.sam.decode(images, prompts.expand(len(images), *prompts.shape))[0]


def _at_original_size(model: VideoLISA, low_res: torch.Tensor, batch: TrainingBatch, sample: int) -> torch.Tensor:
    """``(D n, H, W)`` logits; a sample without ``[SEG]`` gives none."""
    height, width = batch.original_hw[sample]
    if low_res.shape[1] == 0:
        return low_res.new_zeros(0, height, width)
    size = model.sam.sizes.image_size
    return upscale_masks(low_res.flatten(0, 1), batch.resized_hw[sample], (height, width), size)
