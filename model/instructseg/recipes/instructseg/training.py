"""InstructSeg's training step: what is learned, what a conversation supervises, and the losses of a batch.

Published: LoRA on the language model's queries and values; its embeddings and output layer and all that makes masks in
full; SigLIP, its projector and Swin stay as they are. AdamW at 4e-5 without weight decay, cosine with 3 % warm-up,
100,000 steps. A batch holds samples of one kind.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

import torch

from ...core import BadInput
from ...training.lora import add_lora, train_only
from ...training.mask_losses import text_loss
from .configuration import REFERENCES
from .criterion import CriterionLosses, CriterionSettings, Draw, criterion
from .modeling import InstructSegModel
from .prompts import ANSWERED, PromptTokens
from .splicing import IGNORE_LABEL

LORA_RANK, LORA_ALPHA, LORA_DROPOUT = 8, 16, 0.05
_ADAPTED = r"language\.layers\.\d+\.self_attn\.[qv]_proj"
_FROZEN = ("language.", "frames.", "image.backbone.")
_TRAINED_LANGUAGE = ("language.embed_tokens.",)
_BEFORE_ANSWER = 2  # ids of "ASSISTANT: " that are supervised too: the colon and the blank
_JUMPS = range(2, 10)  # the longest distance between neighbours of one sample, in frames
_REVERSED = 0.3


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingBatch:
    """B samples. pixels ``(B, 3, S, S)`` of Swin; frames: per sample ``(1 + R, 3, s, s)`` of SigLIP, the key frame
    first; input_ids, labels, attention_mask ``(B, T)``, right-padded, labels -100 there; instructions: per sample
    ``(W,)`` ids; masks: per sample ``(G, S, S)`` of 0 and 1, padded like the pixels. with_text: whether words are
    learned as well, as from reasoning on images; other samples in such a batch must have no label left."""

    pixels: torch.Tensor
    frames: Sequence[torch.Tensor]
    input_ids: torch.Tensor
    labels: torch.Tensor
    attention_mask: torch.Tensor
    instructions: Sequence[torch.Tensor]
    masks: Sequence[torch.Tensor]
    with_text: bool


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingLosses:
    """masks: weighted, of all heads of the mask decoder. text: None where words are not learned."""

    masks: CriterionLosses
    text: torch.Tensor | None

    @property
    def total(self) -> torch.Tensor:
        return self.masks.total if self.text is None else self.masks.total + self.text


def prepare_training(
    model: InstructSegModel, rank: int = LORA_RANK, alpha: float = LORA_ALPHA, dropout: float = LORA_DROPOUT
) -> tuple[str, ...]:
    """Put LoRA on the language model (in place), freeze what was not trained, and name what trains."""
    add_lora(model, _ADAPTED, rank, alpha, dropout)
    return train_only(model, lambda name: name.startswith(_TRAINED_LANGUAGE) or not name.startswith(_FROZEN))


def supervised(tokens: PromptTokens, prompt: str, explanation: str = "") -> tuple[list[int], list[int]]:
    """Ids and labels of a prompt with its answer: learned is what follows " ASSISTANT:", from its colon on.

    explanation: said before ``[SEG]`` in a sample of reasoning that asks why. Placeholders in the answer keep their id
    as label, and lose it when they are spliced.
    """
    before, found, _ = prompt.partition(ANSWERED)
    if not found:
        raise BadInput(f"a prompt for training must hold {ANSWERED!r} and what is answered; got {prompt[-60:]!r}")
    ids = tokens.prompt(prompt, explanation)
    silent = len(tokens.prompt(before + ANSWERED)) - _BEFORE_ANSWER
    return ids, [IGNORE_LABEL] * silent + ids[silent:]


def training_frames(count: int, rng: random.Random) -> tuple[int, tuple[int, ...]]:
    """Of a video of ``count`` frames a key frame and its four references, two on each side in the order of the sample;
    in three of ten samples time runs backwards. Draw again where the target is not in all of them."""
    if count <= REFERENCES:
        raise BadInput(f"a video must have at least {REFERENCES + 1} frames to be trained on; got {count}")
    jump = min(count, rng.choice(_JUMPS))
    chosen = [rng.randrange(count)]
    while len(chosen) <= REFERENCES:
        near = [i for i in range(count) if i not in chosen and any(abs(i - k) <= jump for k in chosen)]
        chosen.append(rng.choice(near))
    chosen.sort(reverse=rng.random() < _REVERSED)
    middle = REFERENCES // 2
    return chosen[middle], (*chosen[:middle], *chosen[middle + 1 :])


def training_losses(
    model: InstructSegModel,
    batch: TrainingBatch,
    settings: CriterionSettings | None = None,
    draw: Draw | None = None,
) -> TrainingLosses:
    """One forward pass. settings, draw: see :func:`criterion.criterion`."""
    tokens = [model.frames(frames) for frames in batch.frames]  # (1 + R, P, hidden) each
    references = [
        # without references the key frame is its own
        model.reference_tokens(seen[1:] if len(seen) > 1 else seen, ids)
        for seen, ids in zip(tokens, batch.instructions, strict=True)
    ]
    keys = torch.stack([seen[0] for seen in tokens])  # (B, P, hidden)
    reading = model.read(
        batch.input_ids, batch.instructions, keys, references, batch.attention_mask.bool(), batch.labels
    )
    heads = model.predict(reading, model.image(batch.pixels))
    text = text_loss(model.logits(reading.states), reading.spliced.labels) if batch.with_text else None
    return TrainingLosses(criterion(heads, batch.masks, settings, draw), text)
