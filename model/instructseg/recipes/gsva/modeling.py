"""GSVA and LISA as one model: CLIP and a projector feed a Llama, whose states before ``[SEG]`` prompt SAM.

Every part is a class of transformers; only ``text_hidden_fcs`` is new (LISA, sec. 3.2; GSVA, sec. 3.3).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from transformers import LlamaForCausalLM

from ...core import BadInput
from ...modules.clip_patches import ClipPatches
from ...modules.sam import TokenPromptedSam
from ...modules.splicing import Spliced, predicting_positions, splice
from ...modules.token_mlp import project, projector, text_hidden_fcs
from .configuration import GsvaConfig


class GsvaModel(nn.Module):
    """The parts and the steps between them; no step keeps anything."""

    def __init__(self, config: GsvaConfig):
        super().__init__()
        width = config.llama.hidden_size
        self.config = config
        self.vision = ClipPatches(config.clip, config.select_layer)
        self.projector = projector(config.projector, config.clip.hidden_size, width)
        self.llm = LlamaForCausalLM(config.llama)
        self.text_hidden_fcs = text_hidden_fcs(width, config.prompt_width)
        self.sam = TokenPromptedSam(config.sam)

    def see(self, pixels: torch.Tensor) -> torch.Tensor:
        """Rows of the language model's sequence ``(B, P, D)`` of CLIP pixels ``(B, 3, s, s)``."""
        return self.projector(self.vision(pixels))

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Input embeddings ``(..., D)`` of token ids ``(...)``."""
        return self.llm.get_input_embeddings()(ids)

    def splice(
        self,
        input_ids: torch.Tensor,
        image_rows: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
    ) -> Spliced:
        """Each conversation's one placeholder replaced by its image: ids ``(N, T)``, rows ``(N, P, D)``."""
        return splice(input_ids, [[rows] for rows in image_rows], self.embed, attention_mask, labels)

    def read(self, spliced: Spliced) -> torch.Tensor:
        """States ``(N, L, D)`` after the final norm; positions count from the first token whatever the padding."""
        mask = None if spliced.attention_mask.all() else spliced.attention_mask
        return self.llm.model(inputs_embeds=spliced.embeddings, attention_mask=mask, use_cache=False).last_hidden_state

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Next-token logits ``(..., V)`` of states ``(..., D)``."""
        return self.llm.lm_head(states)

    def prompts(self, states: torch.Tensor) -> torch.Tensor:
        """SAM prompts ``(..., C)`` of states ``(..., D)``."""
        return project(self.text_hidden_fcs, states)

    def masks(self, image_embeddings: torch.Tensor, prompts: torch.Tensor) -> torch.Tensor:
        """Low-resolution logits ``(n, 4h, 4w)`` of prompts ``(n, C)`` on one image's embeddings ``(1, C, h, w)``.

        Prompts do not see one another.
        """
        return self.sam.decode(image_embeddings, prompts[None, :, None])[0][0]  # (1, n, 1, C) in, (1, n, ..) out


def image_of_row(offset: torch.Tensor, rows: int) -> list[int]:
    """The image each of ``rows`` conversations belongs to: rows ``offset[b]`` to ``offset[b + 1] - 1`` are image b's.

    Raises BadInput where ``offset`` does not run from 0 to ``rows``.
    """
    bounds = offset.tolist()
    if len(bounds) < 2 or bounds[0] != 0 or bounds[-1] != rows or sorted(bounds) != bounds:
        raise BadInput(f"offset must rise from 0 to the number of conversations ({rows}); got {bounds}")
    return [b for b in range(len(bounds) - 1) for _ in range(bounds[b], bounds[b + 1])]


def slot_positions(row: torch.Tensor, tokens: Sequence[int], visual_length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Where a row's slots are decided: (spliced positions of the states that predict them, the tokens in order).

    row: ``(T,)`` ids with one placeholder before all slots. A slot is any of ``tokens`` (``[SEG]``, ``[REJ]``).
    """
    found = [(predicting_positions(row, token, [visual_length]), token) for token in tokens]
    places = torch.cat([positions for positions, _ in found])  # (K,)
    kinds = torch.cat([torch.full_like(positions, token) for positions, token in found])
    order = places.argsort()
    return places[order], kinds[order]
