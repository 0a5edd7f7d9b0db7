"""VideoLISA as a Segmenter: a clip and an instruction to one token, that token to a mask on every frame."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from ...core import BadInput, Clip, EncodedFrame, Frame, Grounding, Instruction, Sampling, Target
from ...language import clean_instruction
from ...modules.evidence import mask_evidence, rejection_score
from ...options import parse_options
from ...sampling import dense_among_sparse, spread_or_repeat
from ..token_prompted import PromptToken, TokenPromptedSegmenter
from .checkpoint import Loaded, load_checkpoint
from .configuration import VideoLISAOptions
from .modeling import seg_positions
from .prompts import pick_template
from .tokens import Phi3Tokens

TEXT_POSITIONS = 96  # what a usual prompt takes beside the video


class VideoLISASegmenter(TokenPromptedSegmenter):
    """One token an instruction, computed once a grounding and used unchanged on every later frame (the paper's
    One-Token-Seg-All as a stream). It never refuses by itself: its rejection score is ours."""

    name = "videolisa"
    max_targets = 1

    def __init__(
        self,
        loaded: Loaded,
        tokens: Phi3Tokens,
        options: VideoLISAOptions,
        device: torch.device,
        dtype: torch.dtype,
        notes: tuple[str, ...] = (),
    ):
        self.model = loaded.model.to(device)
        super().__init__(loaded.tower.to(device), self.model.sam, device, dtype)
        self.tokens = tokens
        self.options = options
        self.load_report = loaded.report
        self.notes = notes
        self.sampling = Sampling(options.sparse_frames, options.dense_frames, options.horizon_s)
        self._check_length(self._visual_tokens(options.dense_frames) + TEXT_POSITIONS)

    def encode(self, frames: Sequence[Frame]) -> list[EncodedFrame]:
        if self.options.colours == "rgb":
            return super().encode(frames)
        swapped = [dataclasses.replace(frame, image=frame.image[..., ::-1].copy()) for frame in frames]
        return [EncodedFrame(f, seen.features) for f, seen in zip(frames, super().encode(swapped), strict=True)]

    def ground(self, clip: Clip, instructions: Sequence[Instruction]) -> list[Grounding]:
        if not instructions:
            return []
        texts = [clean_instruction(instruction.text) for instruction in instructions]
        with self.precision():
            prompts, probabilities = self.reason(self.video_tokens(clip), texts)
            evidence = self._evidence(clip, prompts)
        stamps = tuple(encoded.frame.stamp_ns for encoded in clip.frames)
        return [
            Grounding(instruction.id, stamps[-1], stamps, (self._target(prompt, probability, seen),))
            for instruction, prompt, probability, seen in zip(
                instructions, prompts, probabilities, evidence, strict=True
            )
        ]

    def video_tokens(self, clip: Clip) -> torch.Tensor:
        """``(V, H)`` of a clip of any length: frames are repeated where it is shorter than the sparse frames wanted."""
        sparse, dense = frame_choice(clip, self.sampling, self.options.dense)
        used = sorted({*sparse, *dense})
        features = self.clip_features([clip.frames[i] for i in used])  # (F, P, C)
        place = {frame: row for row, frame in enumerate(used)}
        return self.model.video_tokens(features, [place[i] for i in sparse], [place[i] for i in dense])

    def reason(self, video: torch.Tensor, texts: Sequence[str]) -> tuple[torch.Tensor, list[float]]:
        """Mask prompts ``(N, 1, C)`` of N texts about one video ``(V, H)``, and how probable ``[SEG]`` was for each."""
        input_ids, positions, mask = self._conversations(texts, len(video))
        self._check_length(input_ids.shape[1] - 1 + len(video))
        spliced = self.model.embed(input_ids, [video] * len(texts), mask)
        states = self.model.states(spliced.embeddings, spliced.attention_mask)
        picked = states[torch.arange(len(texts), device=states.device), positions]  # (N, H)
        chances = self.model.llm.lm_head(picked).float().softmax(-1)[:, self.tokens.seg_id]
        return self.model.mask_prompts(picked), chances.tolist()

    def _conversations(
        self, texts: Sequence[str], visual_tokens: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Right-padded ids ``(N, T)``, the position ``(N,)`` whose state prompts the mask, attention mask (N, T)."""
        seg_id, rows, positions = self.tokens.seg_id, [], []
        for text in texts:
            ids = self.tokens.encode_prompt(pick_template(self.options.template, text).prompt(text))
            positions.append(seg_positions(torch.tensor([ids]), seg_id, visual_tokens)[0][0])
            rows.append(torch.tensor(ids[: ids.index(seg_id)] if self.options.stop_before_seg else ids))
        pad = torch.nn.utils.rnn.pad_sequence
        input_ids = pad(rows, batch_first=True, padding_value=self.model.config.pad_token_id)
        mask = pad([torch.ones(len(row), dtype=torch.bool) for row in rows], batch_first=True)
        device = self.torch_device
        return input_ids.to(device), torch.stack(positions).to(device), mask.to(device)

    def _evidence(self, clip: Clip, prompts: torch.Tensor) -> list[float]:
        """Mask evidence on the key frame for each prompt, where the rejection rule asks for it."""
        if self.options.rejection not in ("mask", "both"):
            return [1.0] * len(prompts)
        return mask_evidence(self.decode(clip.key, prompts)).tolist()

    def _target(self, prompt: torch.Tensor, probability: float, evidence: float) -> Target:
        rule = self.options.rejection
        absent = rejection_score(probability, evidence, rule)
        reason = "" if rule == "none" else f"[SEG] has probability {probability:.2f}, its mask evidence {evidence:.2f}"
        return Target(PromptToken(prompt), 1.0 - absent, absent, False, reason=reason)

    def _visual_tokens(self, dense: int) -> int:
        return self.sampling.sparse + dense * self.clip.num_patches

    def _check_length(self, positions: int) -> None:
        limit = self.model.config.max_position_embeddings
        if positions > limit:
            raise BadInput(
                f"{self.sampling.sparse} sparse and {self.sampling.dense} dense frames with the text take {positions} "
                f"positions; the language model has {limit}: choose fewer dense_frames"
            )


def frame_choice(clip: Clip, sampling: Sampling, dense: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(sparse, dense) frame numbers of a clip: as many as ``sampling`` wants, repeated where the clip is short.

    dense ``spread``: the published positions among the sparse frames. ``newest``: the frames that the clip itself marks
    as dense, which a stream puts last.
    """
    frames = len(clip.frames)
    sparse = spread_or_repeat(frames, sampling.sparse)
    if dense == "spread":
        return sparse, tuple(sparse[i] for i in dense_among_sparse(sampling.sparse, sampling.dense))
    marked = sorted({i % frames for i in clip.dense}) or [frames - 1]
    return sparse, tuple(marked[i] for i in spread_or_repeat(len(marked), sampling.dense))


def build(
    checkpoint: str | Path, device: torch.device, dtype: torch.dtype | None, options: Mapping[str, str]
) -> VideoLISASegmenter:
    """The recipe from a folder or a hub id. dtype None: bfloat16 on CUDA, as published; float32 on the CPU."""
    chosen = parse_options(VideoLISAOptions, options, "recipe 'videolisa'")
    picked = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
    loaded, tokens, notes = load_checkpoint(checkpoint, chosen, picked)
    return VideoLISASegmenter(loaded, tokens, chosen, device, picked, notes)
