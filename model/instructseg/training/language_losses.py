"""What the language stage is trained on: the answer, and everything that the generator knows on the way to it."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F

from ..modules.object_latents import ObjectLatents
from ..modules.relational_mask_head import HeadScores
from ..modules.scene_concepts import SceneConcepts
from ..recipes.unified.modeling import Reasoning, UnifiedModel
from .bank import CLIP_TIMES, KEY
from .labelled import labelled_cross_entropy
from .latent_bank import LatentBank
from .questions import LanguageBatch


@dataclasses.dataclass
class Thought:
    """The model's forward pass on a batch."""

    key: ObjectLatents
    motion: torch.Tensor  # (B, K, code)
    reasoning: Reasoning
    scores: HeadScores
    concepts: SceneConcepts


def think(model: UnifiedModel, bank: LatentBank, batch: LanguageBatch, keep: torch.Tensor | None = None) -> Thought:
    """Run the model on a batch; ``keep`` ``(KEY,)`` bool leaves past frames of the clip out."""
    kept = [t for t in range(KEY) if keep is None or bool(keep[t])]
    key = bank.frames(batch.rows, KEY)
    past = [bank.frames(batch.rows, t) for t in kept]
    ages = [CLIP_TIMES[KEY] - CLIP_TIMES[t] for t in kept]
    seconds = torch.tensor(ages, device=batch.rows.device).expand(len(batch.rows), -1)
    motion = model.perceiver(key, past, seconds)
    reasoning = model.reason(model.visual_tokens(key, motion), key.valid, batch.words, batch.scene)
    concepts = model.concepts(key, motion)
    return Thought(key, motion, reasoning, model.score(reasoning, key, motion, batch.scene, concepts), concepts)


def language_losses(model: UnifiedModel, bank: LatentBank, batch: LanguageBatch) -> dict[str, torch.Tensor]:
    """Named losses, already weighted."""
    keep = torch.rand(KEY) > 0.08  # clips at a stream's start are short
    thought = think(model, bank, batch, keep)
    key, motion, reasoning, scores = thought.key, thought.motion, thought.reasoning, thought.scores
    of_row = batch.scene.repeat_interleave(reasoning.states.shape[1])
    fair = (batch.used & batch.seen)[:, None] & key.valid[of_row]
    losses = {"answer": F.cross_entropy(reasoning.answers.flatten(0, 1), batch.answers.flatten())}
    losses["target"] = 4.0 * balanced_bce(scores.target, batch.target, fair)
    losses["match"] = 2.0 * balanced_bce(scores.match, batch.match, fair)
    losses["anchor"] = 1.0 * balanced_bce(scores.anchor, batch.anchor, fair)
    losses["pointer"] = labelled_cross_entropy(scores.pointer.flatten(0, 1), batch.pointer.flatten())
    if (batch.choice >= 0).any():
        losses["choice"] = labelled_cross_entropy(scores.choice, batch.choice)
    losses["concepts"] = 2.0 * _concept_loss(thought.concepts, bank.concepts(batch.rows))
    judged = batch.used & batch.seen
    presence = F.binary_cross_entropy_with_logits(scores.presence[judged], batch.present[judged], reduction="sum")
    losses["presence"] = presence / judged.sum().clamp(min=1)
    later = bank.frames(batch.rows, batch.later_time)
    question = model.head.question(reasoning.states.flatten(0, 1))
    again = model.head.match(question, later.appearance[of_row], later.valid[of_row])
    losses["later"] = 1.0 * balanced_bce(again, batch.later, batch.used[:, None] & later.valid[of_row])
    losses["phrases"] = 2.0 * _phrase_loss(model, batch, reasoning.words, key)
    losses["motion"] = _motion_loss(model, bank, batch, motion, bool(keep.all()))
    losses["identity"] = 0.5 * _identity_loss(
        model, bank, batch, key, [*(bank.frames(batch.rows, t) for t in range(KEY)), later]
    )
    return losses


def _concept_loss(concepts: SceneConcepts, labels: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Mean over the concepts, whatever their number of pairs: few things lie in or on others."""
    total, counted = 0.0, 0
    for logits, told in zip((concepts.relations, concepts.orders, concepts.doings), labels, strict=True):
        logits, told = logits.flatten(0, -2), told.flatten(0, -2)  # (P, C)
        known = told >= 0
        loss = F.binary_cross_entropy_with_logits(
            logits.clamp(-20, 20), told.clamp(min=0).float(), reduction="none", pos_weight=logits.new_tensor(2.0)
        )
        total = total + ((loss * known).sum(0) / known.sum(0).clamp(min=1)).sum()
        counted += int(known.any(0).sum())
    return total / max(counted, 1)


def balanced_bce(logits: torch.Tensor, labels: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """Mean over what is ``counted`` (bool, or weights), of labels of which few are 1."""
    loss = F.binary_cross_entropy_with_logits(
        logits.clamp(-30, 30), labels, reduction="none", pos_weight=logits.new_tensor(2.0)
    )
    return (loss * counted).sum() / counted.sum().clamp(min=1)


def _phrase_loss(model: UnifiedModel, batch: LanguageBatch, words: torch.Tensor, key: ObjectLatents) -> torch.Tensor:
    """The last word of every noun phrase points at what the phrase names: a relation's anchor is then one look away."""
    asked, position = batch.phrases.unbind(1)
    scene = batch.scene[asked]
    question = model.head.question(words[asked, position])
    return balanced_bce(
        model.head.match(question, key.appearance[scene], key.valid[scene]), batch.phrase_labels, key.valid[scene]
    )


def _motion_loss(model, bank, batch, motion, whole_clip: bool) -> torch.Tensor:
    ids = bank.covered(batch.rows, KEY)
    label = bank.motions[batch.rows].gather(1, ids)
    label = torch.where(ids > 0, label, -1)
    loss = labelled_cross_entropy(model.perceiver.motion(motion).flatten(0, 1), label.flatten())
    return loss * (1.0 if whole_clip else 0.3)


def _identity_loss(model, bank, batch, key: ObjectLatents, others: list[ObjectLatents]) -> torch.Tensor:
    """Each latent of the key frame finds the latent of the same object in another frame, or nowhere; the key frame
    itself,
    slightly moved, stands for the next camera frame."""
    times = [*range(KEY), batch.later_time]
    ids = bank.covered(batch.rows, KEY)  # (B, K)
    total = key.geometry.new_zeros(())
    pairs = [
        (o, bank.covered(batch.rows, t), abs(CLIP_TIMES[KEY] - CLIP_TIMES[t]))
        for o, t in zip(others, times, strict=True)
    ]
    moves = key.geometry.new_tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])  # places move, sizes stay
    shift = 0.01 * torch.randn(len(ids), 1, 6).to(key.geometry) * moves
    moved = dataclasses.replace(key, geometry=key.geometry + shift)
    for other, other_ids, dt in [*pairs, (moved, ids, 0.07)]:
        same = (ids[:, :, None] == other_ids[:, None]) & (ids > 0)[:, :, None]  # (B, K, K')
        nowhere = ~same.any(-1, keepdim=True)
        label = torch.cat([same, nowhere], -1).float().argmax(-1)
        logits = model.perceiver.association.logits(
            key.appearance, key.geometry, other, torch.full((len(ids),), float(dt), device=ids.device)
        )
        label = torch.where(ids > 0, label, -1)
        total = total + labelled_cross_entropy(logits.flatten(0, 1), label.flatten())
    return total / (len(pairs) + 1)
