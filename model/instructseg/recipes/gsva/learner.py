"""GSVA and LISA while they learn: conversations as published, and how a trained model is saved.

GSVA is asked about several things of an image in one conversation and answers ``[REJ]`` for what is absent; LISA gets a
conversation of its own for each, and is shown nothing absent. Reasoning data gets single questions in both.
"""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from peft.tuners.lora import LoraLayer
from torch import nn

from ...checkpoints import read_json, resolve_checkpoint
from ...core import BadInput
from ...data.samples import Kind, Sample
from ...modules.clip_patches import find_clip
from ...options import parse_options
from ...preprocessing import clip_pixels, sam_pixels
from ...training.adapters import belonging, hold_in_float32
from ...training.explanations import Reasons, asked_text, draw_reasons
from ...training.image_samples import Picture, has_words, read_picture
from ...training.learner import Learner, LoraSettings, Published
from ...training.merging import copy_part, merged_state, write_checkpoint
from .checkpoint import PEFT_PREFIX, Loaded, load_checkpoint
from .configuration import GsvaOptions
from .conversations import CONVERSATIONS, answer_labels, mark_image, truncate
from .lora import ALPHA, DROPOUT, RANK, add_lora
from .modeling import GsvaModel
from .prompts import (
    EXPLANATION_REQUESTS,
    IMAGE_LINE,
    MULTI_ANSWERS,
    MULTI_QUESTIONS,
    REJ,
    SEG,
    SENTENCE_QUESTIONS,
    SINGLE_ANSWERS,
    SINGLE_QUESTIONS,
    multi_answer,
    multi_question,
    single_question,
)
from .training import TrainingBatch, freeze_all_but_trained, training_step

PUBLISHED = Published(3e-4, (0.9, 0.95), 0.0, 1.0, 0.02, "linear", 5000, 20)  # 20 on each of the authors' devices
TARGETS = 3  # targets a conversation at most
RANK_13B, WIDTH_13B = 64, 5120
LONGEST = {"gsva": 1024, "lisa": 512}  # tokens of a conversation, the image's rows counted


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
    """One image. pixels ``(3, S, S)`` of SAM, clip_pixels ``(3, s, s)``; rows: (ids, labels) of each conversation;
    masks ``(n, H, W)``, one a slot; resized: (height, width) of the image in ``pixels``."""

    pixels: torch.Tensor
    clip_pixels: torch.Tensor
    rows: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    masks: torch.Tensor
    resized: tuple[int, int]


class GsvaLearner(Learner):
    published = PUBLISHED
    together = TARGETS

    def __init__(self, loaded: Loaded, options: GsvaOptions, source: Path, lora: LoraSettings) -> None:
        self.module: GsvaModel = loaded.model
        self.name = loaded.layout
        self.vocabulary, self.options, self.source = loaded.vocabulary, options, source
        self.keys = loaded.report.converted
        rank, alpha = _prepare_lora(self.module, lora)
        self.trained = tuple(freeze_all_but_trained(self.module))
        hold_in_float32(self.module, self.trained)
        self.belongs_to = belonging(self.name, rank, alpha, self.module, self.trained)

    def takes(self, sample: Sample) -> bool:
        return has_words(sample) and (self.name == "gsva" or bool(sample.objects))

    def example(self, samples: Sequence[Sample], draw: random.Random) -> Example:
        reasons = _reasons(samples[0])
        alike = [sample for sample in samples if _reasons(sample) == reasons]
        picture = read_picture(alike, draw, needs_present=self.name == "lisa")
        if self.name == "gsva" and not reasons:
            turns, masks = [self._several(picture, draw)], picture.masks
        else:
            turns = [self._single(*one, draw) for one in zip(picture.samples, picture.absent, strict=True)]
            masks = picture.masks[torch.tensor([_has_slot(answer) for _, answer in turns])]
        rows = tuple(self._tokens(*turn, picture) for turn in turns)
        slots = sum(self._slots(ids) for ids, _ in rows)
        if slots != len(masks):
            raise BadInput(
                f"sample {picture.samples[0].id}: its conversation has {slots} slots for {len(masks)} mask(s): do its "
                "words hold a special token?"
            )
        pixels, resized = sam_pixels(picture.image, self.module.config.sam.image_size)
        return Example(
            pixels,
            clip_pixels(picture.image, self.module.config.clip.image_size),
            rows,
            masks,
            resized,
        )

    def losses(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        device = self.module.llm.lm_head.weight.device
        rows = [row for example in examples for row in example.rows]
        pad = torch.nn.utils.rnn.pad_sequence
        starts = torch.tensor([0, *(len(example.rows) for example in examples)])
        batch = TrainingBatch(
            torch.stack([example.pixels for example in examples]).to(device),
            torch.stack([example.clip_pixels for example in examples]).to(device),
            pad([ids for ids, _ in rows], batch_first=True, padding_value=self.vocabulary.pad).to(device),
            pad([labels for _, labels in rows], batch_first=True, padding_value=-100).to(device),
            starts.cumsum(0),
            [example.masks.to(device) for example in examples],
            [example.resized for example in examples],
        )
        step = training_step(self.module, self.vocabulary, batch)
        return {"total": step.loss, "text": step.ce, "bce": step.bce, "dice": step.dice}

    def save_merged(self, folder: Path) -> None:
        """A folder as LISA publishes its own, for GSVA too: language model and SAM under one prefix-free set of names,
        with tokenizer and ``config.json``; CLIP inside where the checkpoint had it inside."""
        clip_inside = any(name.startswith("vision.") for name in self.keys)
        tensors = {}
        keys = {_plain(name): _plain(key).removeprefix(PEFT_PREFIX) for name, key in self.keys.items()}
        for name, tensor in merged_state(self.module).items():
            if clip_inside or not name.startswith("vision."):
                tensors[keys[name]] = tensor
        architecture = {"gsva": "GSVAForCausalLM", "lisa": "LISAForCausalLM"}[self.name]
        rows = self.module.config.llama.vocab_size
        config = read_json(self.source / "config.json") | {"architectures": [architecture], "vocab_size": rows}
        write_checkpoint(folder, tensors, config, self.source)
        if not clip_inside:
            named = config.get("mm_vision_tower") or config.get("vision_tower", "")
            copy_part(find_clip(self.options.clip, named, self.source), self.source, folder)
        added = self.vocabulary.pieces.added
        (folder / "added_tokens.json").write_text(json.dumps(added, indent=2) + "\n", encoding="utf-8")

    def _several(self, picture: Picture, draw: random.Random) -> tuple[str, str]:
        """One question over all things of the image, and the answer with a slot for each."""
        names = [sample.instruction for sample in picture.samples]
        classes = all(sample.kind is Kind.SEMANTIC for sample in picture.samples)
        question = multi_question(names, draw.randrange(len(MULTI_QUESTIONS)))
        choice = draw.randrange(len(MULTI_ANSWERS))
        return question, multi_answer(names, picture.absent, choice, "," if classes else ", ")

    def _single(self, sample: Sample, absent: bool, draw: random.Random) -> tuple[str, str]:
        """One question about one thing; where an explanation is known, it may be asked for and given as well."""
        text, explanation = asked_text(sample, draw), sample.extra.get("explanation")
        answer = draw.choice(SINGLE_ANSWERS).replace(SEG, REJ if absent and self.name == "gsva" else SEG)
        reasons = draw_reasons(sample, draw)
        if reasons is Reasons.ALONE:
            return f"{IMAGE_LINE}{text}", str(explanation)
        if reasons is Reasons.BESIDE:
            return f"{IMAGE_LINE}{text} {draw.choice(EXPLANATION_REQUESTS[self.name])}", f"{answer} {explanation}"
        if sample.is_sentence:
            return IMAGE_LINE + draw.choice(SENTENCE_QUESTIONS).format(name=text), answer
        return single_question(text, draw.randrange(len(SINGLE_QUESTIONS))), answer

    def _tokens(self, question: str, answer: str, picture: Picture) -> tuple[torch.Tensor, torch.Tensor]:
        """(ids, labels) of one conversation. Raises BadInput where the cut to the longest length loses a slot."""
        conversation, pieces = CONVERSATIONS[self.options.conversation], self.vocabulary.pieces
        text = conversation.render([(mark_image(question), answer)])
        ids = pieces.encode_with_images(text)
        labels = answer_labels(ids, text, conversation, pieces)
        limit, visual = LONGEST[self.name], self.module.config.visual_tokens
        kept = truncate(torch.tensor(ids), limit, visual)
        if self._slots(kept) < self._slots(torch.tensor(ids)):
            raise BadInput(
                f"sample {picture.samples[0].id}: its conversation has {len(ids)} tokens beside the image, of which "
                f"{len(kept)} fit; a slot of the answer would be cut off"
            )
        return kept, truncate(labels, limit, visual)

    def _slots(self, ids: torch.Tensor) -> int:
        return int(torch.isin(ids, torch.tensor(self.vocabulary.slot_tokens)).sum())


def _has_slot(answer: str) -> bool:
    return SEG in answer or REJ in answer


def _reasons(sample: Sample) -> bool:
    return sample.is_sentence or sample.kind is Kind.REASONING


def _plain(name: str) -> str:
    return name.replace(".base_layer.", ".")


def _prepare_lora(model: GsvaModel, lora: LoraSettings) -> tuple[int, float]:
    """LoRA on the model, the checkpoint's own or a new one; its (rank, alpha)."""
    if not any(isinstance(layer, LoraLayer) for layer in model.modules()):
        published = RANK_13B if model.config.llama.hidden_size == WIDTH_13B else RANK
        add_lora(model.llm, lora.rank or published, lora.alpha or ALPHA)
    dropout = DROPOUT if lora.dropout is None else lora.dropout
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            layer.lora_dropout["default"] = nn.Dropout(dropout)
            rank, scaling = layer.r["default"], layer.scaling["default"]
    return rank, rank * scaling


def build_learner(
    checkpoint: str | Path,
    device: torch.device,
    dtype: torch.dtype | None,
    options: Mapping[str, str],
    lora: LoraSettings,
) -> GsvaLearner:
    """GSVA or LISA, whichever the checkpoint is of. A checkpoint's unmerged LoRA is trained further, unless another
    rank or alpha is asked for: then it is merged, and a new one put beside it. Raises BadInput."""
    chosen = parse_options(GsvaOptions, options, "recipe gsva")
    loaded = load_checkpoint(checkpoint, chosen, dtype, keep_lora=lora.rank is None and lora.alpha is None)
    path = resolve_checkpoint(checkpoint, allow_file=True)
    source = resolve_checkpoint(chosen.base) if chosen.base else path if path.is_dir() else path.parent
    loaded.model.to(device)
    return GsvaLearner(loaded, chosen, source, lora)
