"""VideoLISA while it learns: one expression a clip, frames drawn as published, an image shown as a clip of itself."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from ...checkpoints import read_json, resolve_checkpoint
from ...core import BadInput
from ...data.samples import Kind, Sample
from ...modules.clip_patches import ClipPatches, find_clip
from ...modules.splicing import IGNORE_LABEL
from ...options import parse_options
from ...preprocessing import clip_pixels, sam_pixels
from ...sentencepieces import IMAGE_PLACEHOLDER
from ...training.adapters import belonging, hold_in_float32
from ...training.explanations import Reasons, asked_text, draw_reasons
from ...training.learner import Learner, LoraSettings, Published
from ...training.merging import copy_part, merged_state, under_published_names, write_checkpoint
from ...training.video_samples import FrameReader
from .checkpoint import Loaded, load_checkpoint
from .configuration import VideoLISAOptions
from .modeling import VideoLISA
from .prompts import (
    TRAINING_ANSWERS,
    TRAINING_EXPLANATIONS,
    TRAINING_PHRASES,
    TRAINING_SENTENCES,
    conversation,
)
from .tokens import TRAINING_LENGTH, Phi3Tokens
from .training import LORA_ALPHA, LORA_DROPOUT, LORA_RANK, TrainingBatch, prepare_training, training_losses
from .training_clips import training_frames

PUBLISHED = Published(3e-4, (0.9, 0.95), 0.0, 1.0, 100 / 6000, "linear", 6000, 128)
INSTANCES = 255  # of one class in a video of a data set without expressions; label images have no room for more
DRAWS = 10  # of a clip, to find one in which the target is seen


class WithTower(nn.Module):
    """Model and vision tower, which the checkpoint keeps apart, as one module."""

    def __init__(self, model: VideoLISA, tower: ClipPatches) -> None:
        super().__init__()
        self.model, self.tower = model, tower


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
    """clip_pixels ``(f, 3, s, s)`` of f different frames, shown ``(S,)``: which of them each sparse frame is.
    sam_pixels ``(d, 3, Z, Z)``, detailed ``(D,)``: the same for the dense frames, which stand at ``dense`` ``(D,)``
    among the sparse ones. ids, labels ``(T,)``; masks ``(D, H, W)``, or none where the answer has no mask."""

    clip_pixels: torch.Tensor
    shown: torch.Tensor
    sam_pixels: torch.Tensor
    detailed: torch.Tensor
    dense: torch.Tensor
    ids: torch.Tensor
    labels: torch.Tensor
    masks: torch.Tensor
    resized: tuple[int, int]


class VideoLISALearner(Learner):
    name = "videolisa"
    published = PUBLISHED
    together = INSTANCES

    def __init__(
        self, loaded: Loaded, tokens: Phi3Tokens, options: VideoLISAOptions, source: Path, lora: LoraSettings
    ) -> None:
        self.module = WithTower(loaded.model, loaded.tower)
        self.tokens, self.options, self.source, self.report = tokens, options, source, loaded.report
        self.clip_size, self.sam_size = loaded.tower.image_size, loaded.model.sam.sizes.image_size
        visual = options.sparse_frames + options.dense_frames * loaded.tower.num_patches
        self.longest = min(TRAINING_LENGTH, loaded.model.config.max_position_embeddings - visual + 1)
        if options.sparse_frames < 3 or self.longest < 1:
            raise BadInput(
                f"training shows 3 or more sparse frames, with the dense ones in {visual} positions, of which the "
                f"language model has {loaded.model.config.max_position_embeddings}; got sparse_frames "
                f"{options.sparse_frames}, dense_frames {options.dense_frames}"
            )
        lora = lora.filled(LORA_RANK, LORA_ALPHA, LORA_DROPOUT)
        names = prepare_training(loaded.model, lora.rank, lora.alpha, lora.dropout)
        self.trained = tuple(f"model.{name}" for name in names)
        hold_in_float32(self.module, self.trained)
        self.belongs_to = belonging(self.name, lora.rank, lora.alpha, self.module, self.trained)

    def takes(self, sample: Sample) -> bool:
        """It has no way to refuse, so that it is never asked for what is not there."""
        return sample.truth is not None and bool(sample.instruction.strip()) and bool(sample.objects)

    def scene_of(self, sample: Sample) -> Hashable | None:
        """All instances of a class, in videos whose objects have no expressions but classes (YouTube-VOS)."""
        return (sample.footage.name, sample.instruction) if sample.kind is Kind.FIRST_FRAME else None

    def example(self, samples: Sequence[Sample], draw: random.Random) -> Example:
        frames = FrameReader(samples)
        shown, dense = self._clip(frames, draw)
        question, answer, has_mask = conversation_of(samples[0], draw)
        ids, labels = self._tokens(samples[0], question, answer, has_mask)
        different, detailed = sorted(set(shown)), sorted({shown[i] for i in dense})
        masks = torch.cat([frames.union(shown[i]) for i in dense])  # (D, H, W)
        sam = [sam_pixels(frames.image(i), self.sam_size) for i in detailed]
        return Example(
            torch.stack([clip_pixels(frames.image(i), self.clip_size) for i in different]),
            torch.tensor([different.index(i) for i in shown]),
            torch.stack([pixels for pixels, _ in sam]),
            torch.tensor([detailed.index(shown[i]) for i in dense]),
            torch.tensor(dense),
            ids,
            labels,
            masks if has_mask else masks[:0],
            sam[0][1],
        )

    def losses(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        device = self.module.model.llm.lm_head.weight.device
        pad = torch.nn.utils.rnn.pad_sequence
        ids = [example.ids for example in examples]
        batch = TrainingBatch(
            torch.stack([example.clip_pixels.to(device)[example.shown] for example in examples]),  # (B, S, 3, s, s)
            [example.sam_pixels.to(device)[example.detailed] for example in examples],
            torch.stack([example.dense for example in examples]),
            pad(ids, batch_first=True, padding_value=self.module.model.config.pad_token_id).to(device),
            pad([example.labels for example in examples], batch_first=True, padding_value=IGNORE_LABEL).to(device),
            pad([torch.ones(len(row), dtype=torch.bool) for row in ids], batch_first=True).to(device),
            [example.masks.to(device) for example in examples],
            [example.resized for example in examples],
            [tuple(example.masks.shape[1:]) for example in examples],
        )
        found = training_losses(self.module.model, self.module.tower, batch, self.tokens.seg_id)
        return {"total": found.total, "text": found.text, "bce": found.bce, "dice": found.dice}

    def save_merged(self, folder: Path) -> None:
        """The published layout: SAM inside, CLIP not, or in a folder of its own where it was so."""
        tensors = under_published_names(merged_state(self.module.model), self.report)
        write_checkpoint(folder, tensors, read_json(self.source / "config.json"), self.source)
        tower = find_clip(self.options.clip, self.module.model.config.mm_vision_tower, self.source)
        copy_part(tower, self.source, folder)

    def _clip(self, frames: FrameReader, draw: random.Random) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(sparse frame numbers, positions among them of the dense frames); each dense frame is annotated, and the
        target is seen on one of them. Raises BadInput."""
        sparse, dense = self.options.sparse_frames, self.options.dense_frames
        sample = frames.samples[0]
        if len(frames) == 1:
            if not any(frames.seen(0)):
                raise BadInput(f"sample {sample.id}: nothing that it names is marked in {frames.footage.name}")
            return (0,) * sparse, tuple(range(dense))
        for _ in range(DRAWS):
            # Expressions: an anchor every S frames, as published; videos without expressions: any frame.
            anywhere = range(0, len(frames), 1 if sample.kind is Kind.FIRST_FRAME else sparse)
            shown, places = training_frames(len(frames), sparse, dense, draw.choice(anywhere), draw)
            others = draw.sample(range(sparse), sparse)  # in the place of frames without an annotation
            annotated = (i for i in dict.fromkeys((*places, *others)) if None not in frames.seen(shown[i]))
            chosen = tuple(sorted(itertools.islice(annotated, dense)))
            if len(chosen) == dense and any(any(frames.seen(shown[i])) for i in chosen):
                return shown, chosen
        raise BadInput(
            f"sample {sample.id}: in {DRAWS} clips of {sparse} frames drawn from {frames.footage.name} ({len(frames)} "
            f"frames) there were none with {dense} annotated frames that show what it names"
        )

    def _tokens(self, sample: Sample, question: str, answer: str, has_mask: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """(ids, labels). Raises BadInput where words hold a special token, or the cut to length loses the mask."""
        ids, labels = self.tokens.encode_labels(conversation(question, answer), answer, self.longest)
        slots, videos = ids.count(self.tokens.seg_id), ids.count(IMAGE_PLACEHOLDER)
        if (slots, videos) != (int(has_mask), 1):
            raise BadInput(
                f"sample {sample.id}: its conversation of at most {self.longest} tokens has {slots} [SEG] for "
                f"{int(has_mask)} mask(s), {videos} places for 1 video; are its words too long, or do they hold a "
                "special token?"
            )
        if all(label == IGNORE_LABEL for label in labels):
            raise BadInput(f"sample {sample.id}: nothing of the answer is left after {self.longest} tokens")
        return torch.tensor(ids), torch.tensor(labels)


def conversation_of(sample: Sample, draw: random.Random) -> tuple[str, str, bool]:
    """(question, answer, whether it has a mask): phrases in lower case, sentences and questions as they are written."""
    text, answer = asked_text(sample, draw), draw.choice(TRAINING_ANSWERS)
    reasons, explanation = draw_reasons(sample, draw), str(sample.extra.get("explanation"))
    if reasons is Reasons.ALONE:
        return text, explanation, False
    if reasons is Reasons.BESIDE:
        return f"{text} {draw.choice(TRAINING_EXPLANATIONS)}", f"{answer} {explanation}", True
    if sample.is_sentence or (sample.kind is Kind.REASONING and text.endswith("?")):
        return draw.choice(TRAINING_SENTENCES).replace("{}", text), answer, True
    return draw.choice(TRAINING_PHRASES).replace("{}", text.lower()), answer, True


def build_learner(
    checkpoint: str | Path,
    device: torch.device,
    dtype: torch.dtype | None,
    options: Mapping[str, str],
    lora: LoraSettings,
) -> VideoLISALearner:
    """LoRA that lies beside the checkpoint's weights is merged, and a new one begins. Raises BadInput."""
    chosen = parse_options(VideoLISAOptions, options, "recipe 'videolisa'")
    loaded, tokens, _ = load_checkpoint(checkpoint, chosen, dtype)
    loaded.model.to(device), loaded.tower.to(device)
    return VideoLISALearner(loaded, tokens, chosen, resolve_checkpoint(checkpoint), lora)
