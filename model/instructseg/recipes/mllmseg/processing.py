"""MLLMSeg as a Segmenter: an image is read once, an instruction is its short suffix, a token is a target's slot.

The recipe works on single images, and its target token depends on the image: so the token that travels is the slot of
the instruction, and ``segment`` reads the instruction again on each frame, all of them in one pass.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from ...core import (
    Anchor,
    BadInput,
    Clip,
    EncodedFrame,
    Frame,
    Grounding,
    Instruction,
    Sampling,
    Segmenter,
    Target,
    TargetMask,
)
from ...modules.evidence import mask_evidence
from ...options import parse_options
from ...recent_images import RecentImages, Value
from .checkpoint import Loaded, load_checkpoint
from .commands import Command, CommandReader
from .configuration import MllmSegOptions
from .inference import refusal_probability
from .modeling import ImageMemory

IMAGE_MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # of ImageNet
IMAGE_STD = np.array([0.229, 0.224, 0.225], np.float32)
TOGETHER = 32  # masks decoded at once; bounds the memory of a frame with many instructions


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
    """image: :class:`ImageMemory` of a frame, computed on demand."""

    image: Value


@dataclasses.dataclass(frozen=True, eq=False)
class SlotToken:
    """A target token: which slot of which instruction."""

    command: Command
    slot: int


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
    """One slot on one frame. refusal: probability that the target is absent, by the rule in force. evidence: of the
    mask. probabilities: ``(S, S)`` on the device. refused: the verdict."""

    refusal: float
    evidence: float
    refused: bool
    probabilities: torch.Tensor

    @property
    def score(self) -> float:
        """Evidence in [0, 1] that the target is visible: as weak as the weaker of the two signs."""
        return min(self.evidence, 1.0 - self.refusal)


class MllmSegSegmenter(Segmenter):
    name = "mllmseg"
    sampling = Sampling(sparse=1, dense=1, horizon_s=0.0)

    def __init__(self, loaded: Loaded, device: torch.device, options: MllmSegOptions) -> None:
        self.model = loaded.model.to(device)
        self.torch_device, self.device = device, str(device)
        self.load_report, self.notes = loaded.report, loaded.notes
        self.max_targets = options.max_targets
        self.rule = rejection_rule(options.rejection, loaded.can_refuse)
        self.rej = loaded.tokenizer.rej
        self.images = RecentImages(options.images_kept)
        self.reader = CommandReader(
            loaded.tokenizer, loaded.model.config.image_tokens, options.prompt, options.max_targets
        )

    def encode(self, frames: Sequence[Frame]) -> list[EncodedFrame]:
        return [EncodedFrame(frame, self._features(frame)) for frame in frames]

    def ground(self, clip: Clip, instructions: Sequence[Instruction]) -> list[Grounding]:
        if not instructions:
            return []
        key, stamp = clip.key, clip.key.frame.stamp_ns
        commands = [self.reader.read(instruction.text) for instruction in instructions]
        tokens = [SlotToken(command, slot) for command in commands for slot in range(len(command.phrases))]
        seen = iter(zip(tokens, self.look(key, tokens), strict=True))
        groundings = []
        for instruction, command in zip(instructions, commands, strict=True):
            slots = [next(seen) for _ in command.phrases]
            targets = tuple(self._target(clip, token, view) for token, view in slots)
            text = self.reader.answer(command.phrases, [view.refused for _, view in slots])
            groundings.append(Grounding(instruction.id, stamp, (stamp,), targets, text))
        return groundings

    def segment(self, encoded: EncodedFrame, tokens: Sequence[SlotToken]) -> list[TargetMask]:
        return [
            target_mask(view, encoded.frame.size, token)
            for token, view in zip(tokens, self.look(encoded, tokens), strict=True)
        ]

    @torch.inference_mode()
    def look(self, encoded: EncodedFrame, tokens: Sequence[SlotToken]) -> list[Seen]:
        """Every slot on a frame, in order: the instructions they belong to are read once each, in one pass."""
        if not tokens:
            return []
        image: ImageMemory = encoded.features.image()
        commands = list({id(token.command): token.command for token in tokens}.values())
        states = self.model.read_commands(image, [command.suffix for command in commands])
        by_command = {id(command): rows for command, rows in zip(commands, states, strict=True)}
        prompts = torch.stack([by_command[id(t.command)][t.command.reads[t.slot]] for t in tokens])  # (n, C)
        spoken = refusal_probability(self.model.logits(prompts), self.rej).tolist()
        seen = []
        for first in range(0, len(tokens), TOGETHER):
            logits = self.model.image_masks(image, prompts[first : first + TOGETHER]).float()  # (n, S, S)
            evidence = mask_evidence(logits).tolist()
            seen += [
                self._judge(spoken[first + i], evidence[i], probabilities)
                for i, probabilities in enumerate(logits.sigmoid())
            ]
        return seen

    def _judge(self, spoken: float, evidence: float, probabilities: torch.Tensor) -> Seen:
        if not math.isfinite(spoken + evidence):  # half floats overflowed: nothing was seen
            spoken, evidence = 1.0, 0.0
        refusal = {"token": spoken, "evidence": 1.0 - evidence, "both": max(spoken, 1.0 - evidence)}[self.rule]
        return Seen(refusal, evidence, refusal > 0.5, probabilities)

    def _target(self, clip: Clip, token: SlotToken, view: Seen) -> Target:
        phrase = token.command.phrases[token.slot]
        if view.refused:
            # The rule "both" takes the more sceptical sign: the evidence, unless the word says more.
            by_mask = self.rule != "token" and view.refusal <= 1.0 - view.evidence
            why = "the mask decoder finds no pixel it is sure of" if by_mask else "answered with [REJ]"
            return Target(None, 1.0 - view.refusal, view.refusal, True, phrase, why)
        anchor = Anchor(len(clip.frames) - 1, target_mask(view, clip.key.frame.size, token))
        return Target(token, 1.0 - view.refusal, view.refusal, False, phrase, anchor=anchor)

    def _features(self, frame: Frame) -> Features:
        return Features(self.images.value(lambda: self._read_image(frame)))

    @torch.inference_mode()
    def _read_image(self, frame: Frame) -> ImageMemory:
        pixels = image_pixels(frame.image, self.model.config.image_size)[None].to(self.torch_device)
        return self.model.read_image(pixels, self.reader.prefix)


def target_mask(view: Seen, size: tuple[int, int], token: Any) -> TargetMask:
    """Probabilities enlarged to the frame's ``size`` (height, width) and cut at one half, as published."""
    small = view.probabilities[None, None]
    wide = functional.interpolate(small, size, mode="bilinear", align_corners=False)[0, 0]  # (H, W)
    confidence = (wide * 255).round().to(torch.uint8).cpu().numpy()
    return TargetMask((wide >= 0.5).cpu().numpy(), view.score, token, confidence)


def image_pixels(image: np.ndarray, size: int) -> torch.Tensor:
    """``(3, size, size)`` float32 from ``(H, W, 3)`` uint8 RGB: squashed to a square with Pillow's bicubic filter, in
    uint8 as in training, then normalised."""
    squashed = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))
    scaled = squashed.astype(np.float32) / np.float32(255)
    return torch.from_numpy((scaled - IMAGE_MEAN) / IMAGE_STD).permute(2, 0, 1).contiguous()


def rejection_rule(asked: str, can_refuse: bool) -> str:
    """``token``, ``evidence`` or ``both``; a language model that cannot refuse leaves the evidence alone."""
    if not can_refuse:
        return "evidence"
    return "token" if asked == "auto" else asked


def build(
    checkpoint: str | Path, device: torch.device, dtype: torch.dtype | None, options: Mapping[str, str] | None = None
) -> Segmenter:
    """What ``instructseg.load("mllmseg", ...)`` calls. Raises BadInput."""
    chosen = parse_options(MllmSegOptions, options, "recipe mllmseg")
    if dtype == torch.float16 and device.type == "cpu":
        raise BadInput("dtype float16 works on CUDA devices only; use float32 or bfloat16 on the CPU")
    dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
    tracking = chosen.masks == "tracker"
    if tracking != bool(chosen.tracker_checkpoint):
        raise BadInput(
            "options masks=tracker and tracker_checkpoint=<folder, file or hub id of SAM 2 weights> go together; got "
            f"masks={chosen.masks} and tracker_checkpoint={chosen.tracker_checkpoint!r}"
        )
    recipe = MllmSegSegmenter(load_checkpoint(checkpoint, dtype), device, chosen)
    if not tracking:
        return recipe
    from ...tracking.following import FollowingSegmenter
    from ...tracking.memory_checkpoint import load_memory_tracker

    tracker = load_memory_tracker(chosen.tracker_checkpoint, device, dtype)
    return FollowingSegmenter(recipe, tracker, chosen.mask_period_s, images_kept=chosen.images_kept)
