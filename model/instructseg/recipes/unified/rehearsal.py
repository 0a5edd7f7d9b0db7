"""What the model could before goes on being asked, so that a few hundred new sentences do not wipe it out.

No data is needed for it: on the scenes that training shows anyway, questions in the generator's words are answered by
the model as it was, and the one that trains is held to these answers (Li and Hoiem 2016, learning without forgetting).
"""

from __future__ import annotations

import functools

import numpy as np
import torch
import torch.nn.functional as F

from ...data.flat_scenes import sample_flat_episode
from ...data.instructions import QuestionWriter, SceneFacts
from ...data.tabletop2.facts import WorldFacts
from ...data.tabletop2.questions import Questioner
from ...data.tabletop2.world import draw_world
from ...modules.object_latents import ObjectLatents
from ...modules.relational_mask_head import HeadScores
from .modeling import END, Reasoning, UnifiedModel

SCENES, ASKED = 16, 32  # drawn scenes of each version that the questions are written for, questions a scene
WIDE = 0.5  # how often a question of version 2 has a wider wording, as in training


@functools.cache
def rehearsal_texts() -> tuple[str, ...]:
    """The same questions in every process, of both versions; about scenes that are drawn for it, asked of others."""
    chance = np.random.default_rng(0)
    writer, questioner = QuestionWriter(chance), Questioner(chance, frozenset(), WIDE)
    flat = (SceneFacts(sample_flat_episode(chance, "train", (0.0,), 0, 128, 96)) for _ in range(SCENES))
    texts = {writer.ask(facts).text for facts in flat for _ in range(ASKED)}
    worlds = (WorldFacts(draw_world("train", number)) for number in range(SCENES))
    asked = (questioner.draw(facts) for facts in worlds for _ in range(ASKED))
    return tuple(sorted(texts | {question.text for question in asked if question is not None}))


def forgetting_loss(
    model: UnifiedModel,
    before: UnifiedModel,
    key: ObjectLatents,
    motion: torch.Tensor,
    words: torch.Tensor,
    scene: torch.Tensor,
) -> torch.Tensor:
    """How far the answers to N questions ``words`` ``(N, W)`` about scenes ``(N,)`` of B are from those of ``before``:
    a weighted sum of Kullback-Leibler divergences, 0 where they are the same."""
    with torch.no_grad():
        said, found = _answers(before, key, motion, words, scene)
    says, finds = _answers(model, key, motion, words, scene)
    slots = said.answers.shape[1]
    used = said.answers.argmax(-1) != END  # (N, S)
    used[:, 0] = True
    used = used.flatten()  # (N * S,)
    latents = used[:, None] & key.valid[scene.repeat_interleave(slots)]  # (N * S, K)
    return (
        _choice(says.answers.flatten(0, 1), said.answers.flatten(0, 1), torch.ones_like(used))
        + 4.0 * _yes_or_no(finds.target, found.target, latents)
        + 2.0 * _yes_or_no(finds.match, found.match, latents)
        + _yes_or_no(finds.anchor, found.anchor, latents)
        + _choice(finds.pointer[:, 0], found.pointer[:, 0], used)
        + _choice(finds.pointer[:, 1], found.pointer[:, 1], used)
        + _choice(finds.choice, found.choice, used)
        + _yes_or_no(finds.presence, found.presence, used)
    )


def _answers(
    model: UnifiedModel, key: ObjectLatents, motion: torch.Tensor, words: torch.Tensor, scene: torch.Tensor
) -> tuple[Reasoning, HeadScores]:
    reasoning = model.reason(model.visual_tokens(key, motion), key.valid, words, scene)
    return reasoning, model.score(reasoning, key, motion, scene)


def _yes_or_no(logits: torch.Tensor, others: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """Mean divergence of probabilities from the others', over what is counted (bool)."""
    logits, others = logits.clamp(-30, 30), others.clamp(-30, 30)
    wanted = torch.sigmoid(others)
    cross = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    own = F.binary_cross_entropy_with_logits(others, wanted, reduction="none")
    return ((cross - own) * counted).sum() / counted.sum().clamp(min=1)


def _choice(logits: torch.Tensor, others: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """The same for rows ``(R, C)`` of which one column is chosen."""
    divergence = F.kl_div(logits.log_softmax(-1), others.log_softmax(-1), reduction="none", log_target=True).sum(-1)
    return (divergence * counted).sum() / counted.sum().clamp(min=1)
