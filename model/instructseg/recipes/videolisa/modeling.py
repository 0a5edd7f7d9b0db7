"""VideoLISA's model: a video as few tokens, a language model's state as the prompt of a mask decoder.

"One Token to Seg Them All" (arXiv 2409.19603). Every frame gives one token, a few frames give all of theirs
(sec. 3.2); the state that predicts ``[SEG]`` prompts SAM on every frame alike (sec. 3.3). The CLIP tower is a module of
its own (:class:`~instructseg.modules.clip_patches.ClipPatches`): it is frozen and stored elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from transformers import Phi3ForCausalLM

from ...modules.sam import TokenPromptedSam
from ...modules.sam_sizes import SamSizes
from ...modules.splicing import Spliced, predicting_positions, splice
from ...modules.token_mlp import project, projector, text_hidden_fcs
from .configuration import VideoLISAConfig


class VideoLISA(nn.Module):
    """Everything that a VideoLISA checkpoint stores. Shapes: S sparse frames, D dense ones, P patches a frame of C
    features, V = S + D P visual tokens of width H, N conversations of T ids and L = T - 1 + V positions."""

    def __init__(self, config: VideoLISAConfig, sam: SamSizes):
        super().__init__()
        self.config = config
        self.mm_projector = projector(config.mm_projector_type, config.mm_hidden_size, config.hidden_size)
        self.llm = Phi3ForCausalLM(config.phi3())
        self.text_hidden_fcs = text_hidden_fcs(config.hidden_size, config.out_dim)
        self.sam = TokenPromptedSam(sam)

    def video_tokens(self, features: torch.Tensor, sparse: Sequence[int], dense: Sequence[int]) -> torch.Tensor:
        """``(V, H)``: the mean token of every sparse frame, then all tokens of the dense frames, frame by frame.

        features: ``(F, P, C)`` patch features of F frames. sparse, dense: frame numbers in 0..F-1, which may repeat.
        """
        tokens = self.mm_projector(features)  # (F, P, H)
        means = tokens.mean(1)[list(sparse)]  # (S, H)
        return torch.cat([means, tokens[list(dense)].flatten(0, 1)])  # (S + D P, H)

    def embed(
        self,
        input_ids: torch.Tensor,
        videos: Sequence[torch.Tensor],
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
    ) -> Spliced:
        """Ids ``(N, T)`` with the placeholder of row n replaced by ``videos[n]`` ``(V, H)``."""
        return splice(input_ids, [[video] for video in videos], self.llm.model.embed_tokens, attention_mask, labels)

    def states(self, embeddings: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """States ``(N, L, H)`` after the final norm. attention_mask: ``(N, L)``, False is padding on the right, which
        leaves positions as they are."""
        if attention_mask is not None and bool(attention_mask.all()):
            attention_mask = None
        outputs = self.llm.model(inputs_embeds=embeddings, attention_mask=attention_mask, use_cache=False)
        return outputs.last_hidden_state

    def mask_prompts(self, states: torch.Tensor) -> torch.Tensor:
        """States ``(n, H)`` to mask prompts ``(n, 1, C)``."""
        return project(self.text_hidden_fcs, states)[:, None]


def seg_positions(input_ids: torch.Tensor, seg_id: int, visual_tokens: int) -> list[torch.Tensor]:
    """For each row of ids ``(N, T)`` the positions of the states that predict its ``[SEG]`` tokens, ``(n,)`` each.

    With one placeholder of V rows before it, that of text index p is p - 2 + V: one before ``[SEG]`` itself, so what
    follows has no influence on any mask.
    """
    return [
        predicting_positions(row, seg_id, [visual_tokens] * int((row < 0).sum())) for row in input_ids
    ]  # placeholders are the only negative ids
