"""The default recipe's network: perception, video perceiver, a small causal language model, a relational mask head.

One encoding per frame feeds everything. The language model (transformers' Llama) reads the key frame's object
latents, with their motion codes from the sparse frames, then the words, then ``max_targets`` slots of ``<TRK>``; at
each slot it answers TRK, REJ or END in one prefill, and the slot's state is the target token that the mask head asks
frames with.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import nn
from transformers import LlamaConfig, LlamaModel

from ...modules.object_latents import GEOMETRY, ObjectLatents
from ...modules.perception import Perception
from ...modules.relational_mask_head import HeadScores, RelationalMaskHead
from ...modules.video_perceiver import VideoPerceiver
from .configuration import UnifiedConfig

MOTION_CODE = 32
TRK, REJ, END = 0, 1, 2  # answers of a slot: a target, a refusal, no further target


@dataclasses.dataclass
class Reasoning:
    """What the language model says on N instructions; S slots each."""

    states: torch.Tensor  # (N, S, hidden) target tokens
    answers: torch.Tensor  # (N, S, 3) logits of TRK, REJ, END
    context: torch.Tensor  # (N, K, hidden) contextual states of the key frame's latents


class UnifiedModel(nn.Module):
    def __init__(self, config: UnifiedConfig, vocabulary: int):
        super().__init__()
        self.config = config
        named = len(config.colors) + len(config.shapes) + len(config.sizes)
        self.perception = Perception(config)
        self.perceiver = VideoPerceiver(config.embedding, named, MOTION_CODE)
        self.latent_embedding = nn.Linear(config.appearance + 5 * GEOMETRY + MOTION_CODE, config.hidden)
        self.slot_embedding = nn.Parameter(torch.randn(config.max_targets, config.hidden) * 0.05)
        self.language = LlamaModel(
            LlamaConfig(
                vocab_size=vocabulary, hidden_size=config.hidden, intermediate_size=config.intermediate,
                num_hidden_layers=config.layers, num_attention_heads=config.heads, num_key_value_heads=config.heads,
                max_position_embeddings=config.max_words + config.max_targets + 8, initializer_range=0.05,
                pad_token_id=0, bos_token_id=None, eos_token_id=None, use_cache=False, attn_implementation="sdpa",
            )
        )  # fmt: skip
        self.answer = nn.Linear(config.hidden, 3)
        self.head = RelationalMaskHead(config.hidden, config.appearance, MOTION_CODE, config.head_hidden)

    def visual_tokens(self, key: ObjectLatents, motion: torch.Tensor) -> torch.Tensor:
        """``(B, K, hidden)`` input embeddings of the key frame's latents."""
        waves = [torch.sin(key.geometry * f) for f in (3.0, 9.0)] + [torch.cos(key.geometry * f) for f in (3.0, 9.0)]
        return self.latent_embedding(torch.cat([key.appearance, key.geometry, *waves, motion], -1))

    def reason(self, visual: torch.Tensor, valid: torch.Tensor, words: torch.Tensor, scene: torch.Tensor) -> Reasoning:
        """Visual tokens ``(B, K, hidden)`` of B scenes; words ``(N, W)`` token ids, 0 = padding; scene ``(N,)`` of
        each text."""
        n, slots, k = len(words), self.config.max_targets, visual.shape[1]
        trk = self.language.embed_tokens.weight[1] + self.slot_embedding  # (S, hidden); id 1 is <TRK>
        embeddings = torch.cat(
            [visual[scene], self.language.embed_tokens(words), trk.expand(n, -1, -1)], 1
        )  # (N, K + W + S, hidden)
        said = words > 0
        length = said.sum(1, keepdim=True)
        position = torch.cat(
            [torch.zeros_like(valid[scene], dtype=torch.long), torch.arange(1, words.shape[1] + 1).to(length) * said,
             length + 1 + torch.arange(slots).to(length)], 1
        )  # fmt: skip
        mask = attention_mask(valid[scene], said, slots)
        hidden = self.language(inputs_embeds=embeddings, attention_mask=mask, position_ids=position).last_hidden_state
        states = hidden[:, -slots:]
        return Reasoning(states, self.answer(states), hidden[:, :k])

    def score(self, reasoning: Reasoning, key: ObjectLatents, motion: torch.Tensor, scene: torch.Tensor) -> HeadScores:
        """Every slot of every instruction on its key frame, flattened to N * S rows."""
        slots = reasoning.states.shape[1]
        rows = scene.repeat_interleave(slots)
        latents = ObjectLatents(
            key.masks[:0], key.geometry[rows], key.appearance[rows], key.score[rows], key.valid[rows]
        )  # the head never looks at pixels
        said = (reasoning.answers[..., TRK] - reasoning.answers[..., REJ]).flatten()
        context = reasoning.context.repeat_interleave(slots, 0)
        return self.head(reasoning.states.flatten(0, 1), said, latents, motion[rows], context)


def attention_mask(valid: torch.Tensor, said: torch.Tensor, slots: int) -> torch.Tensor:
    """``(N, 1, L, L)`` bool, True = may attend: latents see latents, words see latents and earlier words, slots see
    all before."""
    n, k = valid.shape
    w = said.shape[1]
    length = k + w + slots
    order = torch.arange(length, device=valid.device)
    causal = order[:, None] >= order[None]
    causal[:k, :k] = True
    present = torch.cat([valid, said, torch.ones(n, slots, dtype=torch.bool, device=valid.device)], 1)
    mask = causal[None] & present[:, None]
    mask |= torch.eye(length, dtype=torch.bool, device=valid.device)  # no row may be empty
    return mask[:, None]
