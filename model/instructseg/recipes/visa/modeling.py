"""VISA's network (arXiv 2407.11325, sec. 4): CLIP frames, merged, through a language model whose state before [SEG]
prompts SAM on the target frame."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import nn
from transformers import CLIPVisionConfig, LlamaForCausalLM

from ...core import BadInput
from ...modules.clip_patches import ClipPatches
from ...modules.dpc_knn import TokenMerging
from ...modules.sam import TokenPromptedSam
from ...modules.sam_sizes import SamSizes
from ...modules.splicing import Spliced, predicting_positions, splice
from ...modules.token_mlp import project, projector, text_hidden_fcs
from ...sentencepieces import IMAGE_PLACEHOLDER
from .configuration import VisaConfig

PADDING = 0  # Vicuna's <unk>: padding, and masked wherever it stands


@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
    """What the language model made of a batch of conversations.

    spliced: its input. states: ``(N, L, D)`` after the final norm. positions: a row's states that predict ``[SEG]``,
    one ``(K_n,)`` tensor a row. images: where the images of the first row begin, and how many states each has.
    """

    spliced: Spliced
    states: torch.Tensor
    positions: tuple[torch.Tensor, ...]
    images: tuple[tuple[int, int], ...]

    @property
    def seg_states(self) -> torch.Tensor:
        """``(K, D)``: the states before every ``[SEG]``, conversation by conversation."""
        return torch.cat([row[at] for row, at in zip(self.states, self.positions, strict=True)])

    def image_states(self) -> torch.Tensor:
        """``(I, D)``: the mean state of each image of the first conversation."""
        return torch.stack([self.states[0, begin : begin + length].mean(0) for begin, length in self.images])


class VisaModel(nn.Module):
    """All weights of one VISA, as transformers' own classes where there are any."""

    def __init__(self, config: VisaConfig, clip: CLIPVisionConfig, sam: SamSizes) -> None:
        super().__init__()
        if clip.hidden_size != config.vision_width:
            raise BadInput(f"the CLIP tower is {clip.hidden_size} wide, VISA's mm_hidden_size is {config.vision_width}")
        if sam.prompt != config.prompt:
            raise BadInput(f"SAM's prompts are {sam.prompt} wide, VISA's out_dim is {config.prompt}")
        self.config = config
        self.clip = ClipPatches(clip, config.vision_layer)
        self.merging = TokenMerging(config.levels)
        self.mm_projector = projector("linear", config.vision_width, config.hidden)
        self.llm = LlamaForCausalLM(config.llama())
        self.text_hidden_fcs = text_hidden_fcs(config.hidden, config.prompt)
        self.sam = TokenPromptedSam(sam)
        self.tokens_per_frame = sum(self.merging.lengths(self.clip.num_patches))  # embeddings that stand for one image

    def visual_tokens(self, features: torch.Tensor, noise: Sequence[torch.Tensor | None] | None = None) -> torch.Tensor:
        """CLIP features ``(N, P, C)`` of N frames, merged and projected to ``(N, M, D)``."""
        return self.mm_projector(self.merging(features, noise))

    def read(
        self,
        input_ids: torch.Tensor,
        visual: Sequence[Sequence[torch.Tensor]],
        seg_id: int,
        labels: torch.Tensor | None = None,
    ) -> Reading:
        """One pass over conversations ``(N, T)`` with teacher-forced answers; nothing is generated.

        visual: per conversation the ``(M, D)`` tokens of its images, in the order of their placeholders. With
        ``labels`` only a supervised ``[SEG]`` counts, without them each one does, as published.
        """
        for n, ids in enumerate(input_ids):
            if not bool((ids == IMAGE_PLACEHOLDER).any()):
                raise BadInput(f"conversation {n} shows no image; VISA is defined for conversations about frames")
        spliced = splice(input_ids, visual, self.llm.get_input_embeddings(), input_ids != PADDING, labels)
        states = self.llm.model(
            inputs_embeds=spliced.embeddings, attention_mask=spliced.attention_mask.long(), use_cache=False
        ).last_hidden_state  # (N, L, D)
        counted = input_ids
        if labels is not None:
            counted = input_ids.masked_fill((input_ids == seg_id) & (labels != seg_id), PADDING)
        positions = tuple(
            predicting_positions(ids, seg_id, [len(image) for image in images])
            for ids, images in zip(counted, visual, strict=True)
        )
        return Reading(spliced, states, positions, _image_places(input_ids[0], visual[0]))

    def prompts(self, reading: Reading) -> torch.Tensor:
        """Mask prompts ``(K, C)`` of every ``[SEG]`` of a reading."""
        return project(self.text_hidden_fcs, reading.seg_states)

    def token_probability(self, reading: Reading, seg_id: int) -> torch.Tensor:
        """``(K,)``: how probable the model itself finds each ``[SEG]`` that it was made to say."""
        return self.llm.lm_head(reading.seg_states).float().softmax(-1)[:, seg_id]

    def masks(self, embedding: torch.Tensor, prompts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Low-resolution logits ``(K, 4h, 4w)`` and IoU estimates ``(K,)`` on one frame.

        embedding: ``(1, C, h, w)`` of the frame; prompts: ``(K, C)``, each a mask of its own.
        """
        low_res, iou = self.sam.decode(embedding, prompts[None, :, None])  # (1, K, 4h, 4w), (1, K)
        return low_res[0], iou[0]


def _image_places(ids: torch.Tensor, images: Sequence[torch.Tensor]) -> tuple[tuple[int, int], ...]:
    """(first state, number of states) of each image of one row of ids."""
    places, added = [], 0
    for place, image in zip(torch.nonzero(ids == IMAGE_PLACEHOLDER)[:, 0].tolist(), images, strict=True):
        places.append((place + added, len(image)))
        added += len(image) - 1
    return tuple(places)
