"""VISA while it learns: up to three expressions about a target frame of a video, now and then of another video, where
nothing of what they name is to be seen."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from ...checkpoints import read_json, resolve_checkpoint
from ...core import BadInput
from ...data.samples import Sample
from ...options import parse_options
from ...preprocessing import clip_pixels, sam_pixels
from ...sentencepieces import IMAGE_PLACEHOLDER
from ...training.adapters import belonging, hold_in_float32
from ...training.explanations import Reasons, asked_text, draw_reasons
from ...training.image_samples import has_words
from ...training.learner import Learner, LoraSettings, Published
from ...training.merging import copy_part, merged_state, under_published_names, write_checkpoint
from ...training.video_samples import FrameReader
from .checkpoint import TOWER, Loaded, load_checkpoint
from .configuration import VisaOptions
from .frame_choice import TRAINING_FRAMES, training_frames
from .modeling import VisaModel
from .prompts import ANSWERS, EXPLAIN, IGNORED, LONG, PREFIX, SEG, SHORT, Turn, conversation, question, supervised
from .prompts import with_frames as words_with_frames
from .training import (
    LEARNING_RATE,
    LORA_ALPHA,
    LORA_DROPOUT,
    LORA_RANK,
    STEPS,
    WARM_UP,
    VisaSample,
    prepare_training,
    training_losses,
)

PUBLISHED = Published(LEARNING_RATE, (0.9, 0.95), 0.0, 1.0, WARM_UP / STEPS, "linear", STEPS, 128)
TARGETS = 3  # expressions about a target frame at most
STRANGERS = 0.05
LONGEST = 2048  # positions of a conversation, those of its images counted
DRAWS = 10  # of frames, to find one with an annotation


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
    """noise: the published tie-breakers of token merging, ``(i, N)`` a level."""

    sample: VisaSample
    noise: tuple[torch.Tensor, ...]


class VisaLearner(Learner):
    name = "visa"
    published = PUBLISHED
    together = TARGETS
    strangers = STRANGERS

    def __init__(self, loaded: Loaded, source: Path, lora: LoraSettings) -> None:
        self.module: VisaModel = loaded.model
        self.tokenizer, self.seg_id, self.clip_folder = loaded.tokenizer, loaded.seg_id, loaded.clip_folder
        self.source, self.report = source, loaded.report
        lora = lora.filled(LORA_RANK, LORA_ALPHA, LORA_DROPOUT)
        self.trained = prepare_training(self.module, lora.rank, lora.alpha, lora.dropout)
        hold_in_float32(self.module, self.trained)
        self.belongs_to = belonging(self.name, lora.rank, lora.alpha, self.module, self.trained)

    def takes(self, sample: Sample) -> bool:
        return has_words(sample)

    def example(self, samples: Sequence[Sample], draw: random.Random) -> Example:
        frames = FrameReader(samples)
        shown, target, asked = self._choose(frames, draw)
        masks = frames.masks(target, asked)  # (n, H, W)
        return self._made(frames, shown, frames.image(target), asked, masks, draw)

    def example_beside(self, samples: Sequence[Sample], stranger: Sample, draw: random.Random) -> Example:
        """The target frame is one of another video, and nothing is to be found on it; for videos only."""
        frames = FrameReader(samples)
        if len(frames) == 1 or stranger.footage.name == frames.footage.name:
            return self.example(samples, draw)
        shown, _, asked = self._choose(frames, draw)
        other = FrameReader([stranger])
        image = other.image(draw.randrange(len(other)))
        return self._made(frames, shown, image, asked, torch.zeros(len(asked), *image.shape[:2]), draw)

    def losses(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        device = self.module.llm.lm_head.weight.device
        batch = [_to(example.sample, device) for example in examples]
        noise = [[level.to(device) for level in example.noise] for example in examples]
        found = training_losses(self.module, batch, self.seg_id, noise)
        return {"total": found.total, "text": found.text, "bce": found.bce, "dice": found.dice}

    def save_merged(self, folder: Path) -> None:
        """The published folder for evaluation, with the tokenizer and its ``[SEG]``; CLIP inside where the checkpoint
        had it inside, as dumps of training have."""
        inside = any(key.startswith(TOWER) for key in self.report.converted.values())
        state = {name: t for name, t in merged_state(self.module).items() if inside or not name.startswith("clip.")}
        config = read_json(self.source / "config.json") | {"vocab_size": self.module.config.vocabulary}
        write_checkpoint(folder, under_published_names(state, self.report), config, self.source)
        copy_part(self.clip_folder, self.source, folder)
        (folder / "added_tokens.json").write_text(json.dumps({SEG: self.seg_id}) + "\n", encoding="utf-8")

    def _choose(self, frames: FrameReader, draw: random.Random) -> tuple[tuple[int, ...], int, list[int]]:
        """(reference frames, target frame, numbers of the samples that are annotated on it). Raises BadInput where
        none is, or where a sample names something that is not to be seen on any of these frames."""
        for _ in range(DRAWS):
            shown = training_frames(len(frames), draw.choice(TRAINING_FRAMES), draw)
            for target in draw.sample(shown, len(shown)):
                asked = [number for number, seen in enumerate(frames.seen(target)) if seen is not None]
                if asked:
                    _check_visible(frames, shown, target, asked)
                    return shown, target, asked
        raise BadInput(
            f"sample {frames.samples[0].id}: no frame with an annotation was found among those drawn from "
            f"{frames.footage.name} ({len(frames)} frames)"
        )

    def _made(
        self,
        frames: FrameReader,
        shown: Sequence[int],
        target: np.ndarray,
        asked: Sequence[int],
        masks: torch.Tensor,
        draw: random.Random,
    ) -> Example:
        """About the samples ``asked``: the frames ``shown``, then the picture ``target`` ``(H, W, 3)``."""
        samples = [frames.samples[number] for number in asked]
        turns = [self._turn(sample, len(frames) == 1, len(shown), draw) for sample in samples]
        rows = [self._tokens(sample, turn, len(shown) + 1) for sample, turn in zip(samples, turns, strict=True)]
        pad = torch.nn.utils.rnn.pad_sequence
        pixels, resized = sam_pixels(target, self.module.sam.sizes.image_size)
        size = self.module.clip.image_size
        clip = torch.stack([clip_pixels(image, size) for image in (*map(frames.image, shown), target)])  # (i, 3, s, s)
        sample = VisaSample(
            pad([ids for ids, _ in rows], batch_first=True, padding_value=0),
            pad([labels for _, labels in rows], batch_first=True, padding_value=IGNORED),
            clip,
            pixels,
            masks[torch.tensor([SEG in turn.answer for turn in turns])],
            resized,
        )
        return Example(sample, self._noise(len(clip), draw))

    def _turn(self, sample: Sample, is_image: bool, references: int, draw: random.Random) -> Turn:
        """Question and answer about one sample; in images in lower case, as published."""
        text, answer = asked_text(sample, draw), draw.choice(ANSWERS)
        text = text.lower() if is_image else text
        reasons, explanation = draw_reasons(sample, draw), str(sample.extra.get("explanation"))
        if reasons is Reasons.ALONE:
            return Turn(words_with_frames(PREFIX, references) + text, explanation)
        if reasons is Reasons.BESIDE:
            asked = question(text, references, draw.randrange(len(EXPLAIN)), explain=True)
            return Turn(asked, f"{answer} {explanation}")
        templates = LONG if text.endswith("?") else SHORT
        return Turn(question(text, references, draw.randrange(len(templates))), answer)

    def _tokens(self, sample: Sample, turn: Turn, images: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(ids, labels) of one conversation. Raises BadInput where words hold a special token, or are too many."""
        text, encode = conversation([turn]), self.tokenizer.encode_with_images
        ids = encode(text)
        found = [ids.count(token) for token in (self.seg_id, self.tokenizer.eos_id, IMAGE_PLACEHOLDER)]
        wanted = [int(SEG in turn.answer), 1, images]
        if found != wanted or text.count("ASSISTANT: ") != 1:
            raise BadInput(
                f"sample {sample.id}: its conversation has {found} of {SEG}, its end and images, {wanted} are right; "
                "do its words hold a special token or the name of a speaker?"
            )
        positions = len(ids) + images * (self.module.tokens_per_frame - 1)
        limit = min(LONGEST, self.module.config.positions)
        if positions > limit:
            raise BadInput(f"sample {sample.id}: its conversation takes {positions} positions, {limit} are allowed")
        return torch.tensor(ids), torch.tensor(supervised(text, encode))

    def _noise(self, images: int, draw: random.Random) -> tuple[torch.Tensor, ...]:
        generator = torch.Generator().manual_seed(draw.getrandbits(63))
        patches = self.module.clip.num_patches
        each = [self.module.merging.draw_noise(patches, generator) for _ in range(images)]
        return tuple(torch.cat(level) for level in zip(*each, strict=True))  # (i, N) a level


def _check_visible(frames: FrameReader, shown: Sequence[int], target: int, asked: Sequence[int]) -> None:
    """A thing may be out of view on the target frame, and is learned to be; not on all frames that are shown."""
    for number in asked:
        sample = frames.samples[number]
        if not sample.objects or any(frames.seen(i)[number] for i in (target, *shown)):
            continue
        raise BadInput(
            f"sample {sample.id}: what it names is not to be seen on any of the {len(shown)} frames drawn from "
            f"{frames.footage.name}"
        )


def _to(sample: VisaSample, device: torch.device) -> VisaSample:
    moved = {name: value.to(device) for name, value in vars(sample).items() if isinstance(value, torch.Tensor)}
    return dataclasses.replace(sample, **moved)


def build_learner(
    checkpoint: str | Path,
    device: torch.device,
    dtype: torch.dtype | None,
    options: Mapping[str, str],
    lora: LoraSettings,
) -> VisaLearner:
    """LoRA that lies beside a dump's weights is merged, and a new one begins. Raises BadInput."""
    chosen = parse_options(VisaOptions, options, "recipe 'visa'")
    loaded = load_checkpoint(checkpoint, chosen, dtype)
    loaded.model.to(device)
    path = resolve_checkpoint(checkpoint, allow_file=True)
    source = resolve_checkpoint(chosen.base) if chosen.base else path if path.is_dir() else path.parent
    return VisaLearner(loaded, source, lora)
