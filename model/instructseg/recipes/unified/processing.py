"""The default recipe as a Segmenter: frames to latents, text to target tokens, tokens to masks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from ...core import BadInput, Clip, EncodedFrame, Frame, Grounding, Instruction, Sampling, Segmenter, Target, TargetMask
from ...language import clean_instruction
from ...modules.folding import fold_batch_norm
from ...modules.object_latents import ObjectLatents
from ...modules.relational_mask_head import HeadScores
from ...options import NoOptions, parse_options
from .checkpoint import load_checkpoint
from .configuration import UnifiedConfig
from .modeling import END, TRK, UnifiedModel
from .tokenizer import encode_words

MEMBERS = 6  # things one target token can stand for ("all the red blocks")
LINK_THRESHOLD = 0.5  # probability that a latent is the thing meant before
MATCH_FLOOR = 0.2  # a thing that stops looking like what was named is not it any more


@dataclasses.dataclass(frozen=True, eq=False)
class Placement:
    """Where a frame lies in the encoder's input of size ``target``: letterboxed, so that shapes keep their
    proportions."""

    target: tuple[int, int]
    height: int
    width: int
    top: int
    left: int
    scaled_height: int
    scaled_width: int

    @staticmethod
    def of(size: tuple[int, int], target: tuple[int, int]) -> Placement:
        scale = min(target[0] / size[0], target[1] / size[1])
        h, w = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
        return Placement(target, *size, (target[0] - h) // 2, (target[1] - w) // 2, h, w)


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
    """What ``encode`` keeps of a frame: its latents (batch of one) and where it lies."""

    latents: ObjectLatents
    placement: Placement


@dataclasses.dataclass(frozen=True, eq=False)
class TargetToken:
    """The slot's question, and the identity of what answered it: how it looked, where and when it was last seen."""

    question: torch.Tensor  # (2 * head_hidden,)
    appearance: torch.Tensor  # (M, A)
    place: torch.Tensor  # (M, GEOMETRY)
    seen_ns: tuple[int, ...]  # M stamps


class UnifiedSegmenter(Segmenter):
    name = "unified"
    reduced_scale = 0.75  # at half the size small things are no longer found

    def __init__(self, model: UnifiedModel, tokenizer, device: torch.device, dtype: torch.dtype | None):
        config = model.config
        self.model = model.to(device).eval()
        self.encoder = fold_batch_norm(model.perception.encoder).to(device, memory_format=torch.channels_last)
        self.tokenizer = tokenizer
        self.torch_device = device
        self.device = str(device)
        self.dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
        self.sampling = Sampling(config.sparse_frames, 1, config.horizon_s)
        self.max_targets = config.max_targets
        self.resolution_scale = 1.0
        self.notes = notes_on(config)
        self.presence_shift = float(np.log(config.present_threshold / (1 - config.present_threshold)))

    @torch.inference_mode()
    def encode(self, frames: Sequence[Frame]) -> list[EncodedFrame]:
        if not frames:
            return []
        target = self._input_size()
        placements = [Placement.of(f.size, target) for f in frames]
        images = torch.from_numpy(np.stack([letterbox(f.image, p) for f, p in zip(frames, placements, strict=True)]))
        images = images.to(self.torch_device).permute(0, 3, 1, 2).float().div_(255)  # (B, 3, h, w)
        with torch.autocast(self.torch_device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            maps = self.encoder(images.contiguous(memory_format=torch.channels_last))
        maps = type(maps)(*(getattr(maps, f.name).float() for f in dataclasses.fields(maps)))
        latents = self.model.perception.latents(images, maps)
        return [
            EncodedFrame(f, Features(latents.frame(i), p))
            for i, (f, p) in enumerate(zip(frames, placements, strict=True))
        ]

    @torch.inference_mode()
    def ground(self, clip: Clip, instructions: Sequence[Instruction]) -> list[Grounding]:
        if not instructions:
            return []
        key = clip.key.features.latents
        past = [e.features.latents for e in clip.frames[:-1]]
        gaps = [(clip.key.frame.stamp_ns - e.frame.stamp_ns) * 1e-9 for e in clip.frames[:-1]]
        motion = self.model.perceiver(key, past, torch.tensor([gaps], device=self.torch_device))
        words = self._words(instructions)
        scene = torch.zeros(len(words), dtype=torch.long, device=self.torch_device)
        reasoning = self.model.reason(self.model.visual_tokens(key, motion), key.valid, words, scene)
        scores = self.model.score(reasoning, key, motion, scene)
        questions = self.model.head.question(reasoning.states)  # (N, S, 2W)
        answers = reasoning.answers.argmax(-1).tolist()
        stamps = tuple(e.frame.stamp_ns for e in clip.frames)
        groundings = []
        for i, instruction in enumerate(instructions):
            targets = []
            for s, answer in enumerate(answers[i]):
                if answer == END and s > 0:
                    break
                row = i * len(answers[i]) + s
                targets.append(self._target(questions[i, s], scores, row, clip.key, answer == TRK))
            groundings.append(Grounding(instruction.id, stamps[-1], stamps, tuple(targets), _answer_text(targets)))
        return groundings

    @torch.inference_mode()
    def segment(self, encoded: EncodedFrame, tokens: Sequence[TargetToken]) -> list[TargetMask]:
        if not tokens:
            return []
        latents: ObjectLatents = encoded.features.latents
        now = encoded.frame.stamp_ns
        questions = torch.stack([t.question for t in tokens])
        n = len(tokens)
        looks = latents.appearance.expand(n, -1, -1)
        match = torch.sigmoid(self.model.head.match(questions, looks, latents.valid.expand(n, -1)))  # (N, K)
        return [self._follow(token, match[i], encoded, latents, now) for i, token in enumerate(tokens)]

    def likeness(self, old: TargetToken, new: TargetToken) -> float:
        """Agreement of colour and size, of the pair of things that agree best; the shape in sight changes too much with
        the side that a thing shows."""
        colors, sizes = len(self.model.config.colors), len(self.model.config.sizes)
        named = old.appearance.shape[-1] - self.model.config.embedding

        def alike(begin: int, end: int) -> torch.Tensor:  # (M, N) Bhattacharyya coefficients of probabilities
            return old.appearance[:, begin:end].clamp(min=0).sqrt() @ new.appearance[:, begin:end].clamp(min=0).sqrt().T

        return float((alike(0, colors) * alike(named - sizes, named)).max().clamp(0, 1))

    def _input_size(self) -> tuple[int, int]:
        """(height, width) of the encoder's input, multiples of 16."""
        full, scale = self.model.config.image_size, self.resolution_scale
        height, width = (max(16, 16 * round(edge * scale / 16)) for edge in full)
        return height, width

    def _words(self, instructions: Sequence[Instruction]) -> torch.Tensor:
        """``(N, W)`` token ids, right-padded with 0."""
        limit = self.model.config.max_words
        ids = [encode_words(self.tokenizer, clean_instruction(i.text), limit) for i in instructions]
        words = torch.zeros(len(ids), max(map(len, ids)), dtype=torch.long)
        for row, line in zip(words, ids, strict=True):
            row[: len(line)] = torch.tensor(line)
        return words.to(self.torch_device)

    def _target(self, question: torch.Tensor, scores: HeadScores, row: int, key: EncodedFrame, said: bool) -> Target:
        present = float(torch.sigmoid(scores.presence[row] - self.presence_shift))
        rejected = present < 0.5
        if rejected:
            return Target(None, present, 1 - present, True, reason=_refusal(scores, row))
        latents: ObjectLatents = key.features.latents
        chosen = torch.nonzero(scores.target[row] > 0)[:, 0]
        if len(chosen) == 0:
            chosen = scores.target[row].argmax()[None]
        chosen = chosen[scores.target[row, chosen].argsort(descending=True)][:MEMBERS]
        stamp = key.frame.stamp_ns
        token = TargetToken(
            question, latents.appearance[0, chosen], latents.geometry[0, chosen], (stamp,) * len(chosen)
        )
        return Target(
            token,
            present,
            1 - present,
            False,
            reason="" if said else "found by the mask head against the language model",
        )

    def _follow(
        self, token: TargetToken, match: torch.Tensor, encoded: EncodedFrame, latents: ObjectLatents, now: int
    ) -> TargetMask:
        """Find the token's things among this frame's latents, and carry their looks and places forward."""
        gaps = torch.tensor([(now - t) * 1e-9 for t in token.seen_ns], device=self.torch_device)  # (M,)
        link = self.model.perceiver.association.logits(
            token.appearance[:, None], token.place[:, None], latents.expand(len(gaps)), gaps
        )  # (M, 1, K + 1)
        link = link[:, 0].softmax(-1)[:, :-1]  # (M, K); what is left over is "nowhere"
        best, index = (link * (match[None] > MATCH_FLOOR)).max(-1)  # (M,) over K latents
        appearance, place, seen, chosen = token.appearance.clone(), token.place.clone(), list(token.seen_ns), []
        for member in torch.nonzero(best > LINK_THRESHOLD)[:, 0].tolist():
            k = int(index[member])
            chosen.append(k)
            appearance[member] = torch.lerp(appearance[member], latents.appearance[0, k], 0.1)
            place[member], seen[member] = latents.geometry[0, k], now
        score = float((best * match[index]).sqrt().max())
        masks = latents.masks[0, sorted(set(chosen))].sum(0).float().cpu().numpy() if chosen else None
        mask = _to_frame(masks, encoded.features.placement)
        return TargetMask(
            mask, score if chosen else min(score, 0.49), TargetToken(token.question, appearance, place, tuple(seen))
        )


def build(
    checkpoint: str | Path | None, device: torch.device, dtype: torch.dtype | None, options: Mapping[str, str]
) -> UnifiedSegmenter:
    parse_options(NoOptions, options, "recipe unified")
    model, tokenizer, report = load_checkpoint(checkpoint)
    if dtype == torch.float16 and device.type == "cpu":
        raise BadInput("dtype float16 works on CUDA devices only; use float32 or bfloat16 on the CPU")
    segmenter = UnifiedSegmenter(model, tokenizer, device, dtype)
    segmenter.load_report = report
    return segmenter


def notes_on(config: UnifiedConfig) -> tuple[str, ...]:
    """What the user of a checkpoint with this configuration has to know."""
    if not config.untrained:
        return ()
    parts = ", ".join(config.untrained)
    return (f"not trained yet: {parts}; what it answers means nothing (docs/unified_large.md says how to train it)",)


def letterbox(image: np.ndarray, p: Placement, around: int = 114) -> np.ndarray:
    """``(H, W[, C])`` uint8 to the size ``p.target``, with the value ``around`` beside it."""
    shrink = p.scaled_height < p.height
    resized = cv2.resize(
        image, (p.scaled_width, p.scaled_height), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
    )
    if (p.scaled_height, p.scaled_width) == p.target:
        return resized
    canvas = np.full((*p.target, *image.shape[2:]), around, np.uint8)
    canvas[p.top : p.top + p.scaled_height, p.left : p.left + p.scaled_width] = resized
    return canvas


def _to_frame(soft: np.ndarray | None, p: Placement) -> np.ndarray:
    """A soft mask at half the encoder's size to the frame's own pixels, bool."""
    if soft is None:
        return np.zeros((p.height, p.width), bool)
    if (p.scaled_height, p.scaled_width) != p.target:
        soft = cv2.resize(soft, p.target[::-1], interpolation=cv2.INTER_LINEAR)
        soft = soft[p.top : p.top + p.scaled_height, p.left : p.left + p.scaled_width]
    return cv2.resize(soft, (p.width, p.height), interpolation=cv2.INTER_LINEAR) > 0.5


def _refusal(scores: HeadScores, row: int) -> str:
    if float(scores.match[row].max()) < 0:
        return "nothing in view looks like what is named"
    if float(scores.target[row].max()) < 0:
        return "something looks like it, but not in the place, order or motion that is asked for"
    return "the instruction names something that is not in view"


def _answer_text(targets: list[Target]) -> str:
    return " ".join("[REJ]" if t.rejected else "<TRK>" for t in targets)
