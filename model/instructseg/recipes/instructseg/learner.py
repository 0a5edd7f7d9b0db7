"""InstructSeg while it learns: all that is said about an object as one instruction, a key frame between its references;
where a sample of reasoning is about an image, words are learned as well."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ...checkpoints import read_json, resolve_checkpoint
from ...core import BadInput
from ...data.samples import Kind, Sample
from ...options import parse_options
from ...training.adapters import belonging, hold_in_float32
from ...training.explanations import asked_text
from ...training.image_samples import has_words
from ...training.learner import Learner, LoraSettings, Published
from ...training.merging import merged_state, under_published_names, write_checkpoint
from ...training.video_samples import FrameReader
from .checkpoint import LoadedInstructSeg, fuse_thirds, load_checkpoint
from .configuration import REFERENCES, InstructSegOptions
from .criterion import CriterionSettings
from .images import frame_pixels, mask_pixels
from .modeling import InstructSegModel
from .prompts import instruction_text, joined_instruction, segmentation_prompt
from .splicing import IGNORE_LABEL, PLACEHOLDERS
from .training import (
    LORA_ALPHA,
    LORA_DROPOUT,
    LORA_RANK,
    TrainingBatch,
    prepare_training,
    supervised,
    training_frames,
    training_losses,
)

# Gradients are not cut. 4 samples on each of the authors' devices, whose number they do not tell.
PUBLISHED = Published(4e-5, (0.9, 0.999), 0.0, math.inf, 0.03, "cosine", 100_000, 4)
SENTENCES = 16  # about one object at most
DRAWS = 200  # of frames, to find some in which the target is seen
LONGEST = 2048  # positions of a prompt


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
    """pixels ``(3, S, S)`` of Swin; frames ``(1 + R, 3, s, s)`` of SigLIP, the key frame first; ids, labels ``(T,)``;
    instruction ``(W,)`` ids; mask ``(1, S, S)``, padded like the pixels. with_text: whether words are learned."""

    pixels: torch.Tensor
    frames: torch.Tensor
    ids: torch.Tensor
    labels: torch.Tensor
    instruction: torch.Tensor
    mask: torch.Tensor
    with_text: bool


class InstructSegLearner(Learner):
    """settings: of the mask losses."""

    name = "instructseg"
    published = PUBLISHED
    together = SENTENCES
    settings = CriterionSettings()

    def __init__(self, loaded: LoadedInstructSeg, source: Path, lora: LoraSettings) -> None:
        self.module: InstructSegModel = loaded.model
        self.tokens, self.source, self.report = loaded.tokens, source, loaded.report
        lora = lora.filled(LORA_RANK, LORA_ALPHA, LORA_DROPOUT)
        self.trained = prepare_training(self.module, lora.rank, lora.alpha, lora.dropout)
        hold_in_float32(self.module, self.trained)
        self.belongs_to = belonging(self.name, lora.rank, lora.alpha, self.module, self.trained)

    def takes(self, sample: Sample) -> bool:
        """It was never shown anything absent: one mask is always the right one."""
        return has_words(sample) and bool(sample.objects)

    def scene_of(self, sample: Sample) -> Hashable | None:
        """Expressions that refer to the same things; a question for reasoning stands alone."""
        return None if _reasons(sample) else (sample.footage.name, sample.objects)

    def example(self, samples: Sequence[Sample], draw: random.Random) -> Example:
        frames = FrameReader(samples)
        key, references = self._choose(frames, draw)
        is_video, reasons = len(frames) > 1, _reasons(samples[0])
        with_text = reasons and not is_video
        instruction = _instruction(samples, reasons, is_video, draw)
        explanation = str(samples[0].extra.get("explanation", "")) if with_text and draw.random() < 0.5 else ""
        task = "reasoning" if reasons else "referring"
        ids, labels = supervised(
            self.tokens, segmentation_prompt(task, is_video, explain=bool(explanation)), explanation
        )
        words = self.tokens.instruction(instruction)
        self._check_length(samples[0], len(ids) + len(words), len(references))
        size = self.module.sizes.masks.image_size
        pixels, inside = mask_pixels(frames.image(key), size)
        mask = _in_square(frames.union(key)[0], inside, size)
        if not mask.any():
            raise BadInput(f"sample {samples[0].id}: nothing of its mask is left in the {size} pixels that Swin sees")
        seen = [frame_pixels(frames.image(i), self.module.sizes.vision["image_size"]) for i in (key, *references)]
        return Example(
            pixels, torch.stack(seen), torch.tensor(ids), torch.tensor(labels), torch.tensor(words), mask, with_text
        )

    def losses(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Words count by the share of the samples that teach them: published batches are of one kind, so that this is
        their mean over many batches."""
        device = self.module.head.weight.device
        pad = torch.nn.utils.rnn.pad_sequence
        labels = [e.labels if e.with_text else torch.full_like(e.labels, IGNORE_LABEL) for e in examples]
        taught = sum(example.with_text for example in examples)
        batch = TrainingBatch(
            torch.stack([example.pixels for example in examples]).to(device),
            [example.frames.to(device) for example in examples],
            pad([example.ids for example in examples], batch_first=True, padding_value=self.tokens.end_id).to(device),
            pad(labels, batch_first=True, padding_value=IGNORE_LABEL).to(device),
            pad([torch.ones(len(example.ids), dtype=torch.bool) for example in examples], batch_first=True).to(device),
            [example.instruction.to(device) for example in examples],
            [example.mask.to(device) for example in examples],
            taught > 0,
        )
        found = training_losses(self.module, batch, self.settings)
        masks = found.masks
        text = masks.total.new_zeros(()) if found.text is None else found.text * (taught / len(examples))
        return {
            "total": masks.total + text, "text": text, "score": masks.score, "mask": masks.mask, "dice": masks.dice,
        }  # fmt: skip

    def save_merged(self, folder: Path) -> None:
        """The published layout; keys that have no place in the network are left out."""
        tensors = fuse_thirds(under_published_names(merged_state(self.module), self.report))
        write_checkpoint(folder, tensors, read_json(self.source / "config.json"), self.source)

    def _choose(self, frames: FrameReader, draw: random.Random) -> tuple[int, tuple[int, ...]]:
        """(key frame, its references): the target is seen on the key frame, and on every reference that is annotated.
        Raises BadInput."""
        sample = frames.samples[0]
        if len(frames) == 1:
            if not all(frames.seen(0)):
                raise BadInput(f"sample {sample.id}: nothing that it names is marked in {frames.footage.name}")
            return 0, ()
        if len(frames) <= REFERENCES:
            raise BadInput(
                f"sample {sample.id}: the video {frames.footage.name} has {len(frames)} frames; a key frame with its "
                f"references needs {REFERENCES + 1}"
            )
        for _ in range(DRAWS):
            key, references = training_frames(len(frames), draw)
            if all(frames.seen(key)) and not any(False in frames.seen(i) for i in references):
                return key, references
        raise BadInput(
            f"sample {sample.id}: in {DRAWS} draws of frames from {frames.footage.name} ({len(frames)} frames) what it "
            "names was not to be seen on all of them"
        )

    def _check_length(self, sample: Sample, ids: int, references: int) -> None:
        sizes = self.module.sizes
        patches = (sizes.vision["image_size"] // sizes.vision["patch_size"]) ** 2
        visual = patches + max(references, 1) * sizes.reference_tokens + sizes.masks.queries
        positions = ids - len(PLACEHOLDERS) + visual
        limit = min(LONGEST, sizes.language.get("max_position_embeddings", LONGEST))
        if positions > limit:
            raise BadInput(f"sample {sample.id}: its prompt takes {positions} positions, {limit} are allowed")


def _reasons(sample: Sample) -> bool:
    """ReVOS (known by its ``type_id``) is asked as reasoning throughout, as published."""
    return sample.is_sentence or sample.kind is Kind.REASONING or "type_id" in sample.extra


def _instruction(samples: Sequence[Sample], reasons: bool, is_video: bool, draw: random.Random) -> str:
    """One question, or all sentences about an object in the order of the data set."""
    if reasons:
        return instruction_text(asked_text(samples[0], draw), "reasoning", is_video)
    ordered = sorted(samples, key=lambda sample: (len(sample.id), sample.id))
    return joined_instruction([sample.instruction.strip().rstrip(".") for sample in ordered])


def _in_square(mask: torch.Tensor, inside: tuple[int, int], size: int) -> torch.Tensor:
    """``(H, W)`` to ``(1, size, size)`` as the image goes into Swin's square, without new values at borders."""
    resized = Image.fromarray(mask.numpy().astype(np.uint8)).resize(inside[::-1], Image.Resampling.NEAREST)
    square = torch.zeros(1, size, size)
    square[0, : inside[0], : inside[1]] = torch.from_numpy(np.array(resized))
    return square


def build_learner(
    checkpoint: str | Path,
    device: torch.device,
    dtype: torch.dtype | None,
    options: Mapping[str, str],
    lora: LoraSettings,
) -> InstructSegLearner:
    """LoRA that lies beside the checkpoint's weights is merged, and a new one begins. Raises BadInput."""
    parse_options(InstructSegOptions, options, "recipe instructseg")
    loaded = load_checkpoint(checkpoint)
    if dtype is None:
        loaded.model.to(device)
    else:
        loaded.model.place(device, dtype)
    return InstructSegLearner(loaded, resolve_checkpoint(checkpoint), lora)
