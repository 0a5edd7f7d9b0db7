"""InstructSeg's network (arXiv 2412.14006): one pass of a language model over text, frames and mask queries.

    reference frames ─► SigLIP ─► projector ─► object-aware perceiver ─┐
    key frame ────────► SigLIP ─► projector ───────────────────────────┤
    instruction ──────► embeddings ────────────────────────────────────┼─► Phi-2 ─► states
    mask queries (learned) ────────────────────────────────────────────┘
    states of the instruction ─► text fusion with Swin's last map ─► embedding of what is asked for
    states of the queries ─► mask decoder on Swin's maps ─► masks, scored by that embedding

Nothing is generated to segment. States are read where queries and words stand, not one position before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import nn
from transformers import PhiConfig, PhiModel, SiglipVisionConfig, SiglipVisionModel

from ...modules.object_aware_perceiver import ObjectAwarePerceiver
from ...modules.text_fusion import TextFusion
from ...modules.token_mlp import projector
from .configuration import InstructSegSizes
from .mask_decoder import ImageEncoder, ImageFeatures, MaskDecoder, Prediction
from .splicing import IMAGE, INSTRUCTION, QUERIES, REFERENCES, SplicedPrompt, splice_prompt


@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
    """What the language model makes of N prompts.

    queries ``(N, Q, width)`` for the mask decoder; words: per prompt ``(W, hidden)`` states of its instruction; states
    ``(N, L, hidden)`` of all positions; spliced: the prompts as the model saw them.
    """

    queries: torch.Tensor
    words: list[torch.Tensor]
    states: torch.Tensor
    spliced: SplicedPrompt


class FrameEncoder(nn.Module):
    """SigLIP up to the selected layer, and the projector: a frame as tokens of the language model."""

    def __init__(self, sizes: InstructSegSizes):
        super().__init__()
        config = SiglipVisionConfig(**{**sizes.vision, "num_hidden_layers": sizes.vision_layers}, vision_use_head=False)
        self.vision = SiglipVisionModel(config)
        self.vision.post_layernorm = nn.Identity()  # features are read before it
        self.projector = projector(sizes.projector, config.hidden_size, sizes.hidden)

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """``(N, 3, s, s)`` to ``(N, P, C)``, one row for each patch, no class token."""
        return self.vision(pixels.to(self.vision.dtype)).last_hidden_state

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """``(N, 3, s, s)`` to ``(N, P, hidden)``."""
        return self.projector(self.features(pixels))


class InstructSegModel(nn.Module):
    """All trained parts. The language half (``language``, ``head``, ``frames``, ``perceiver``) and Swin may run in
    half precision, the rest stays in float32: see :meth:`place`."""

    def __init__(self, sizes: InstructSegSizes):
        super().__init__()
        self.sizes = sizes
        ovp, vmtf = sizes.perceiver, sizes.fusion
        self.language = PhiModel(PhiConfig(**sizes.language))
        self.head = nn.Linear(sizes.hidden, sizes.head_rows, bias=False)  # Phi-2's own has a bias, this one has none
        self.frames = FrameEncoder(sizes)
        self.perceiver = ObjectAwarePerceiver(ovp.width, sizes.reference_tokens, ovp.depth, ovp.heads, ovp.head_width)
        self.queries = nn.Parameter(torch.zeros(sizes.masks.queries, sizes.hidden))
        self.query_projector = nn.Linear(sizes.hidden, sizes.masks.width)
        self.fusion = TextFusion(
            sizes.hidden, sizes.masks.channels[-1], sizes.masks.width,
            vmtf.width, vmtf.depth, vmtf.heads, vmtf.head_width,
        )  # fmt: skip
        self.image = ImageEncoder(sizes.masks)
        self.decoder = MaskDecoder(sizes.masks)

    def place(self, device: torch.device, dtype: torch.dtype) -> InstructSegModel:
        """To ``device``; language, frame encoder, perceiver and Swin in ``dtype``, what makes masks in float32."""
        for module in (self.language, self.head, self.frames, self.perceiver, self.image.backbone):
            module.to(device, dtype)
        for module in (self.query_projector, self.fusion, self.image.decoder, self.decoder):
            module.to(device, torch.float32)
        self.queries.data = self.queries.data.to(device, dtype)
        return self

    @property
    def dtype(self) -> torch.dtype:
        """Of the language half."""
        return self.language.dtype

    def reference_tokens(self, frames: torch.Tensor, instruction: torch.Tensor) -> torch.Tensor:
        """frames ``(T, P, hidden)`` from :class:`FrameEncoder`, instruction ``(W,)`` ids: ``(T, n, hidden)``."""
        words = self.language.embed_tokens(instruction)[None]  # (1, W, hidden)
        return self.perceiver(frames[None].to(words.dtype), words)[0]

    def read(
        self,
        input_ids: torch.Tensor,
        instructions: Sequence[torch.Tensor],
        keys: torch.Tensor,
        references: Sequence[torch.Tensor],
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
    ) -> Reading:
        """One pass over N prompts.

        input_ids ``(N, T)`` with the four placeholders; instructions: per prompt ``(W,)`` ids; keys ``(N, P, hidden)``:
        the key frames' tokens; references: per prompt ``(T * n, hidden)`` from :meth:`reference_tokens`.
        """
        embed = self.language.embed_tokens
        sources = [
            {
                REFERENCES: references[n].flatten(0, -2),
                IMAGE: keys[n],
                INSTRUCTION: embed(instruction),
                QUERIES: self.queries,
            }
            for n, instruction in enumerate(instructions)
        ]
        spliced, states = self._run(input_ids, sources, attention_mask, labels)
        at = spliced.origin
        asked = states[at == QUERIES].unflatten(0, (len(states), -1)).float()  # (N, Q, hidden)
        words = [row[where].float() for row, where in zip(states, at == INSTRUCTION, strict=True)]
        return Reading(self.query_projector(asked), words, states, spliced)

    def predict(self, reading: Reading, features: ImageFeatures) -> list[Prediction]:
        """Masks and scores on N images; of every head, the last one being the result."""
        return self.decoder(reading.queries, self.embed_targets(reading, features), features)

    def embed_targets(self, reading: Reading, features: ImageFeatures) -> torch.Tensor:
        """``(N, 1, width)``: what each instruction asks for."""
        last = features.backbone[-1]
        return torch.stack([self.fusion(words, last[n]) for n, words in enumerate(reading.words)])

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """``(..., hidden)`` to ``(..., rows)``; the output layer may have more rows than there are embeddings."""
        return self.head(states)

    def chat_states(self, input_ids: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        """``(T,)`` ids with one image placeholder, key ``(P, hidden)``: states ``(L, hidden)``."""
        return self._run(input_ids[None], [{IMAGE: key}])[1][0]

    @torch.inference_mode()
    def chat(self, input_ids: torch.Tensor, key: torch.Tensor, limit: int, end_id: int | None = None) -> list[int]:
        """Greedy answer to ``(T,)`` ids about one image, at most ``limit`` ids; ends with ``end_id``, or with an id
        that has no embedding (the output layer has more rows): the last id given may be such a one."""
        ids: list[int] = []
        while len(ids) < limit:
            states = self.chat_states(torch.cat([input_ids, input_ids.new_tensor(ids)]), key)
            ids.append(int(self.logits(states[-1]).argmax()))
            if ids[-1] == end_id or ids[-1] >= self.language.embed_tokens.num_embeddings:
                break
        return ids

    def _run(
        self,
        input_ids: torch.Tensor,
        sources: Sequence[Mapping[int, torch.Tensor]],
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
    ) -> tuple[SplicedPrompt, torch.Tensor]:
        """The spliced prompts, and the language model's states ``(N, L, hidden)`` after its last norm."""
        spliced = splice_prompt(input_ids, sources, self.language.embed_tokens, attention_mask, labels)
        # Embeddings that train are in float32 whatever the layers are in; a norm takes one type only.
        embeddings = spliced.embeddings.to(self.language.final_layernorm.weight.dtype)
        states = self.language(inputs_embeds=embeddings, attention_mask=spliced.attention_mask)
        return spliced, states.last_hidden_state
