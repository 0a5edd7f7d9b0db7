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
from transformers import LlamaConfig, LlamaModel, PreTrainedModel

from ...modules.language_backbone import build_language
from ...modules.object_latents import GEOMETRY, ObjectLatents
from ...modules.perception import Perception
from ...modules.relational_mask_head import HeadScores, RelationalMaskHead
from ...modules.scene_concepts import ConceptNetwork, SceneConcepts
from ...modules.video_perceiver import MOTION_CODE, VideoPerceiver
from .configuration import UnifiedConfig

TRK, REJ, END = 0, 1, 2  # answers of a slot: a target, a refusal, no further target


@dataclasses.dataclass
class Reasoning:
    """What the language model says on N instructions; S slots each."""

    states: torch.Tensor  # (N, S, hidden) target tokens
    answers: torch.Tensor  # (N, S, 3) logits of TRK, REJ, END
    context: torch.Tensor  # (N, K, hidden) contextual states of the key frame's latents
    words: torch.Tensor  # (N, W, hidden) states of the words
    spoken: torch.Tensor  # (N, W) bool, False = padding


class UnifiedModel(nn.Module):
    def __init__(self, config: UnifiedConfig, vocabulary: int):
        super().__init__()
        self.config = config
        named = len(config.colors) + len(config.shapes) + len(config.sizes)
        self.perception = Perception(config)
        self.perceiver = VideoPerceiver(config.embedding, named)
        self.concepts = ConceptNetwork(named)
        self.latent_embedding = nn.Linear(named + 5 * GEOMETRY + MOTION_CODE, config.hidden)
        self.slot_embedding = nn.Parameter(torch.randn(config.max_targets, config.hidden) * 0.05)
        self.language = language_model(config, vocabulary)
        self.answer = nn.Linear(config.hidden, 3)
        self.head = RelationalMaskHead(config.hidden, named, MOTION_CODE, config.head_hidden)

    def visual_tokens(self, key: ObjectLatents, motion: torch.Tensor) -> torch.Tensor:
        """``(B, K, hidden)`` input embeddings of the key frame's latents."""
        waves = [torch.sin(key.geometry * f) for f in (3.0, 9.0)] + [torch.cos(key.geometry * f) for f in (3.0, 9.0)]
        return self.latent_embedding(
            torch.cat([key.appearance[..., : self.head.named], key.geometry, *waves, motion], -1)
        )

    def reason(self, visual: torch.Tensor, valid: torch.Tensor, words: torch.Tensor, scene: torch.Tensor) -> Reasoning:
        """Visual tokens ``(B, K, hidden)`` of B scenes; words ``(N, W)`` ids, 0 = padding; scene ``(N,)`` of each text.

        The visual prefix runs once per scene; its keys and values serve every instruction about that scene.
        """
        n, slots, k = len(words), self.config.max_targets, visual.shape[1]
        prefix = self.language(
            inputs_embeds=visual,
            attention_mask=prefix_mask(valid),
            position_ids=torch.zeros_like(valid, dtype=torch.long),
            use_cache=True,
        )
        cache = prefix.past_key_values
        cache.batch_select_indices(scene)
        trk = self.language.embed_tokens.weight[1] + self.slot_embedding  # (S, hidden); id 1 is <TRK>
        suffix = torch.cat([self.language.embed_tokens(words), trk.expand(n, -1, -1)], 1)  # (N, W + S, hidden)
        said = words > 0
        length = said.sum(1, keepdim=True)
        order = torch.arange(1, words.shape[1] + 1, device=words.device)
        after = length + 1 + torch.arange(slots, device=words.device)
        hidden = self.language(
            inputs_embeds=suffix,
            attention_mask=suffix_mask(valid[scene], said, slots),
            position_ids=torch.cat([order * said, after], 1),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        states = hidden[:, -slots:]
        context = prefix.last_hidden_state[scene]  # (N, K, hidden)
        return Reasoning(states, self.answer(states), context[:, :k], hidden[:, : words.shape[1]], said)

    def score(
        self, reasoning: Reasoning, key: ObjectLatents, motion: torch.Tensor, scene: torch.Tensor,
        concepts: SceneConcepts | None = None,
    ) -> HeadScores:  # fmt: skip
        """Every slot of every instruction on its key frame, flattened to N * S rows. concepts: of the B scenes, where
        they are known already."""
        slots = reasoning.states.shape[1]
        rows = scene.repeat_interleave(slots)
        latents = ObjectLatents(
            key.masks[:0], key.geometry[rows], key.appearance[rows], key.score[rows], key.valid[rows]
        )  # the head never looks at pixels
        said = (reasoning.answers[..., TRK] - reasoning.answers[..., REJ]).flatten()
        context = reasoning.context.repeat_interleave(slots, 0)
        words = self.head.question(reasoning.words).repeat_interleave(slots, 0)
        spoken = reasoning.spoken.repeat_interleave(slots, 0)
        true = (concepts or self.concepts(key, motion)).rows(rows)
        return self.head(reasoning.states.flatten(0, 1), said, latents, motion[rows], context, words, spoken, true)


def language_model(config: UnifiedConfig, vocabulary: int) -> PreTrainedModel:
    """A small Llama, or the pretrained language model that the configuration describes."""
    if config.language_backbone is not None:
        return build_language(config.language_backbone.config, vocabulary)
    return LlamaModel(
        LlamaConfig(
            vocab_size=vocabulary, hidden_size=config.hidden, intermediate_size=config.intermediate,
            num_hidden_layers=config.layers, num_attention_heads=config.heads, num_key_value_heads=config.heads,
            max_position_embeddings=config.max_words + config.max_targets + 8, initializer_range=0.05,
            pad_token_id=0, bos_token_id=None, eos_token_id=None, use_cache=False, attn_implementation="sdpa",
        )
    )  # fmt: skip


def prefix_mask(valid: torch.Tensor) -> torch.Tensor:
    """``(B, 1, K, K)`` bool, True = may attend: latents see all valid latents, and themselves (no row may be empty)."""
    own = torch.eye(valid.shape[1], dtype=torch.bool, device=valid.device)
    return (valid[:, None] | own)[:, None]


def suffix_mask(valid: torch.Tensor, said: torch.Tensor, slots: int) -> torch.Tensor:
    """``(N, 1, W + S, K + W + S)`` bool: words see latents and earlier words, slots see all before them."""
    n, w = said.shape
    order = torch.arange(w + slots, device=said.device)
    causal = order[:, None] >= order[None]
    present = torch.cat([said, torch.ones(n, slots, dtype=torch.bool, device=said.device)], 1)
    own = torch.eye(w + slots, dtype=torch.bool, device=said.device)
    text = (causal[None] & present[:, None]) | own
    return torch.cat([valid[:, None].expand(-1, w + slots, -1), text], 2)[:, None]
