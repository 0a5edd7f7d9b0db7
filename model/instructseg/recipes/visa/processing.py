"""VISA as a Segmenter: it answers on one chosen target frame; that mask is what a memory tracker begins with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

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
from ...language import clean_instruction
from ...modules.evidence import rejection_score
from ...options import parse_options
from ...preprocessing import clip_pixels
from ...sampling_text import FrameSampler
from ...tracking.following import FollowingSegmenter
from ...tracking.memory_checkpoint import load_memory_tracker
from ..token_prompted import Once, PromptedFeatures, PromptToken, TokenPromptedSegmenter
from .checkpoint import Loaded, load_checkpoint
from .configuration import VisaOptions
from .frame_choice import reference_frames
from .frame_samplers import make_frame_sampler
from .modeling import Reading
from .prompts import ANSWERS, Turn, conversation, question

TEXT = 256  # positions that a usual prompt takes beside its images
NO_TRACKER = (
    "no tracker_checkpoint: the [SEG] embedding prompts SAM on every frame, where the publication carries the mask of "
    "the target frame on with a memory tracker"
)
TRACKER = "SAM 2 memory carries the masks on, in place of the published XMem: video scores are not the published ones"


@dataclasses.dataclass(frozen=True, eq=False)
class VisaFeatures(PromptedFeatures):
    """tokens: the frame's merged and projected tokens ``(M, D)``, what the language model sees of it. look: CLIP's
    pooled state ``(W,)``, for a frame sampler that compares frames with words."""

    tokens: Once
    look: Once


class VisaSegmenter(TokenPromptedSegmenter):
    """``frame_sampler`` may be replaced: any object with ``choose``, see ``instructseg.sampling_text``. ``tracked``: a
    tracker carries the masks, so a target's score in the key frame is its business."""

    name = "visa"
    max_targets = 1
    carries_tokens = False
    notes_untracked = (NO_TRACKER,)

    def __init__(self, loaded: Loaded, options: VisaOptions, device: torch.device, dtype: torch.dtype) -> None:
        self.model = loaded.model.to(device)
        super().__init__(self.model.clip, self.model.sam, device, dtype)
        self.tokenizer = loaded.tokenizer
        self.seg_id = loaded.seg_id
        self.options = options
        self.tracked = bool(options.tracker_checkpoint)
        self.sampling = Sampling(options.clip_frames, 1, options.horizon_s)
        self.load_report = loaded.report
        self.frame_sampler: FrameSampler = make_frame_sampler(self, options, loaded.clip_folder)
        self.notes = (*loaded.notes, NO_TRACKER)
        _check_length(self, options)

    def encode(self, frames: Sequence[Frame]) -> list[EncodedFrame]:
        return [self._with_tokens(encoded) for encoded in super().encode(frames)]

    def ground(self, clip: Clip, instructions: Sequence[Instruction]) -> list[Grounding]:
        stamps = tuple(encoded.frame.stamp_ns for encoded in clip.frames)
        return [
            Grounding(instruction.id, stamps[-1], stamps, (self._target(clip, instruction),), ANSWERS[0])
            for instruction in instructions
        ]

    def read(self, frames: Sequence[EncodedFrame], target: int, expression: str) -> tuple[Reading, tuple[int, ...]]:
        """One pass of the language model about ``expression`` on the target frame, and the reference frames it saw.

        Call within ``precision()``.
        """
        references = reference_frames(len(frames), target, self.options.max_image_token)
        text = conversation([Turn(question(expression, len(references)), ANSWERS[0])])
        ids = torch.tensor([self.tokenizer.encode_with_images(text)], device=self.torch_device)  # (1, T)
        visual = [frames[i].features.tokens() for i in (*references, target)]  # the target is shown once more
        return self.model.read(ids, [visual], self.seg_id), references

    def _target(self, clip: Clip, instruction: Instruction) -> Target:
        expression = clean_instruction(instruction.text).lower()  # as in the published evaluation
        chosen = self.frame_sampler.choose(clip.frames, expression)
        if not 0 <= chosen < len(clip.frames):
            raise BadInput(f"the frame sampler chose frame {chosen} of a clip of {len(clip.frames)}")
        frame = clip.frames[chosen]
        with self.precision():
            reading, _ = self.read(clip.frames, chosen, expression)
            prompt = self.model.prompts(reading)  # (1, C)
            probability = float(self.model.token_probability(reading, self.seg_id)[0])
        low_res = self.decode(frame, prompt[None])  # (1, 4h, 4w)
        mask, confidence, evidence = next(self.masks(frame.frame, low_res))
        absent = rejection_score(probability, evidence, self.options.rejection)
        if not mask.any():
            return Target(None, evidence, absent, True, reason="the mask on the target frame is empty")
        token, found = PromptToken(prompt), TargetMask(mask, evidence, None, confidence)
        score = evidence if frame is clip.key or self.tracked else self.segment(clip.key, [token])[0].score
        return Target(token, score, absent, False, reason=_where(clip, chosen), anchor=Anchor(chosen, found))

    def _with_tokens(self, encoded: EncodedFrame) -> EncodedFrame:
        features: PromptedFeatures = encoded.features
        tokens = Once(lambda: self._tokens(features, encoded.frame))
        look = Once(lambda: self._look(encoded.frame))
        return EncodedFrame(encoded.frame, VisaFeatures(features.clip, features.sam, tokens, look))

    def _look(self, frame: Frame) -> torch.Tensor:
        pixels = clip_pixels(frame.image, self.clip.image_size)[None].to(self.torch_device, self._weights(self.clip))
        with self.precision():
            return self.clip.clip(pixels).pooler_output[0]  # (W,)

    def _tokens(self, features: PromptedFeatures, frame: Frame) -> torch.Tensor:
        patches = features.clip()[None]  # (1, P, C)
        with self.precision():
            return self.model.visual_tokens(patches, self._noise(patches.shape[1], frame))[0]  # (M, D)

    def _noise(self, patches: int, frame: Frame) -> list[torch.Tensor] | None:
        """The published noise of one frame. It depends on seed and time stamp alone, so that a frame's tokens can be
        kept and a run repeated."""
        if self.options.merge_noise == "none":
            return None
        mixed = np.random.SeedSequence((self.options.merge_seed, frame.stamp_ns & (2**64 - 1)))
        generator = torch.Generator().manual_seed(int(mixed.generate_state(1)[0]))  # of which 32 bits count
        return [n.to(self.torch_device) for n in self.model.merging.draw_noise(patches, generator)]


def build(
    checkpoint: str | Path,
    device: torch.device,
    dtype: torch.dtype | None = None,
    options: Mapping[str, str] | None = None,
) -> Segmenter:
    """A VISA from either published format, followed by a tracker where ``tracker_checkpoint`` names one. dtype: None
    takes bfloat16 on CUDA and float32 on the CPU."""
    chosen = parse_options(VisaOptions, options, "recipe 'visa'")
    dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
    visa = VisaSegmenter(load_checkpoint(checkpoint, chosen, dtype), chosen, device, dtype)
    if not chosen.tracker_checkpoint:
        return visa
    following = FollowingSegmenter(visa, load_memory_tracker(chosen.tracker_checkpoint, device, dtype))
    following.notes += (TRACKER,)
    return following


def _check_length(segmenter: VisaSegmenter, options: VisaOptions) -> None:
    """The longest prompt must fit the language model's positions; text takes the rest."""
    each, positions = segmenter.model.tokens_per_frame, segmenter.model.config.positions
    if options.max_image_token * each >= positions:
        raise BadInput(
            f"option max_image_token of recipe 'visa': {options.max_image_token} images of {each} tokens do not fit in "
            f"the {positions} positions of the language model; at most {max(0, positions - TEXT) // each} leave room "
            "for the text"
        )


def _where(clip: Clip, chosen: int) -> str:
    age_ns = clip.key.frame.stamp_ns - clip.frames[chosen].frame.stamp_ns
    return f"found {age_ns / 1e9:.1f} s before the newest frame" if age_ns else ""
