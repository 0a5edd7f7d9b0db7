"""MLLMSeg while it learns: up to five expressions of an image in one conversation, ``[REJ]`` for those that are absent,
the picture as a camera's JPEG would show it.
"""

from __future__ import annotations

import dataclasses
import io
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ...checkpoints import read_json, resolve_checkpoint
from ...core import BadInput
from ...data.samples import Sample
from ...options import parse_options
from ...training.adapters import belonging, hold_in_float32
from ...training.image_samples import has_words, read_picture
from ...training.learner import Learner, LoraSettings, Published
from ...training.merging import merged_state, write_checkpoint
from .checkpoint import LORA_PREFIX, LORA_SCALE, Loaded, load_checkpoint
from .configuration import MllmSegOptions
from .fused_weights import fuse_projections
from .modeling import MllmSegModel
from .processing import image_pixels
from .prompts import LONGEST, TRAINING_ANSWERS, TRAINING_QUESTIONS, Conversation, conversation, training_texts
from .training import LORA_DROPOUT, LORA_RANK, collate, prepare_training, training_losses

PUBLISHED = Published(4e-5, (0.9, 0.999), 0.05, 1.0, 0.03, "cosine", 50_000, 32)
TARGETS = 5  # expressions a conversation at most
QUALITIES = (75, 100)  # of the JPEG that a training image goes through


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
    """pixels ``(3, S, S)``; masks ``(n, H, W)``, one a slot of the conversation in its order."""

    pixels: torch.Tensor
    conversation: Conversation
    masks: torch.Tensor


class MllmSegLearner(Learner):
    name = "mllmseg"
    published = PUBLISHED
    together = TARGETS

    def __init__(self, loaded: Loaded, source: Path, lora: LoraSettings) -> None:
        self.module: MllmSegModel = loaded.model
        self.tokenizer, self.source = loaded.tokenizer, source
        self.keys = {name: loaded.report.converted.get(name, name) for name in loaded.report.loaded}
        rank = lora.rank or LORA_RANK
        alpha = lora.alpha or LORA_SCALE * rank
        dropout = LORA_DROPOUT if lora.dropout is None else lora.dropout
        self.trained = prepare_training(self.module, rank, alpha, dropout)
        hold_in_float32(self.module, self.trained)
        self.belongs_to = belonging(self.name, rank, alpha, self.module, self.trained)

    def takes(self, sample: Sample) -> bool:
        return has_words(sample)

    def example(self, samples: Sequence[Sample], draw: random.Random) -> Example:
        picture = read_picture(samples, draw)
        words = [sample.instruction for sample in picture.samples]
        question, answer = training_texts(
            words, picture.absent, draw.randrange(len(TRAINING_QUESTIONS)), draw.randrange(len(TRAINING_ANSWERS))
        )
        talk = conversation(self.tokenizer, question, answer, self.module.config.image_tokens)
        slots = sum(talk.ids.count(token) for token in (self.tokenizer.seg, self.tokenizer.rej))
        if slots != len(words) or len(talk.ids) > LONGEST:
            raise BadInput(
                f"sample {picture.samples[0].id}: its conversation has {slots} slots for {len(words)} expression(s) "
                f"and {len(talk.ids)} tokens of {LONGEST}; do its words hold a special token?"
            )
        pixels = image_pixels(as_jpeg(picture.image, draw.randint(*QUALITIES)), self.module.config.image_size)
        return Example(pixels, talk, picture.masks)

    def losses(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        device = self.module.mllm.lm_head.weight.device
        tokens = collate([example.conversation for example in examples])
        tokens = type(tokens)(*(getattr(tokens, field.name).to(device) for field in dataclasses.fields(tokens)))
        found = training_losses(
            self.module,
            torch.stack([example.pixels for example in examples]).to(device),
            tokens,
            [example.masks.to(device) for example in examples],
            self.tokenizer.seg,
            self.tokenizer.rej,
        )
        return {"total": found.total, "text": found.text, "focal": found.focal, "dice": found.dice, "iou": found.iou}

    def save_merged(self, folder: Path) -> None:
        """A folder as the publication's merge tool writes it, with the tokenizer; ``safetensors`` in place of
        ``.bin``."""
        state = merged_state(self.module)
        published = {
            self.keys[name].replace(LORA_PREFIX, "language_model.", 1): tensor for name, tensor in state.items()
        }
        config = read_json(self.source / "config.json") | {"use_llm_lora": 0}
        write_checkpoint(folder, fuse_projections(published, self.module.config), config, self.source)


def as_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """``(H, W, 3)`` uint8 RGB as it is after JPEG of this quality."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream).convert("RGB"))


def build_learner(
    checkpoint: str | Path,
    device: torch.device,
    dtype: torch.dtype | None,
    options: Mapping[str, str],
    lora: LoraSettings,
) -> MllmSegLearner:
    """LoRA that lies beside a checkpoint's weights is merged, as for the published second stage. Raises BadInput."""
    parse_options(MllmSegOptions, options, "recipe mllmseg")
    loaded = load_checkpoint(checkpoint, dtype)
    loaded.model.to(device)
    return MllmSegLearner(loaded, resolve_checkpoint(checkpoint), lora)
