"""What the default recipe learns from masks: which latents a phrase means, and whether it means any.

The generator's training knows every step on the way to an answer (``training/language_losses.py``); a sample of a data
set knows its words and its masks. What follows from these is supervised, in the form and with the weight it has there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from ...modules.object_latents import ObjectLatents
from ...training.language_losses import balanced_bce
from ...training.latent_bank import cover
from .modeling import END, REJ, TRK, UnifiedModel
from .rehearsal import forgetting_loss

DOUBTFUL = 0.25  # weight of "the noun does not name this": of two crates, "the left crate" names one
HALF = 0.5  # of a latent inside a mask, of a mask covered by latents


@dataclasses.dataclass(frozen=True, eq=False)
class Labels:
    """What Q questions about one scene answer on its key frame (K latents) and on a later one."""

    target: torch.Tensor  # (Q, K) bool: the latent is what is asked for
    seen: torch.Tensor  # (Q,) bool: all that is asked for is covered by latents; else no latent has a fair label
    present: torch.Tensor  # (Q,) bool: the masks are not empty
    whole_class: torch.Tensor  # (Q,) bool: everything that the noun names is in the masks
    later: torch.Tensor  # (Q, K) bool: the latent of the later frame is what is asked for


@dataclasses.dataclass(frozen=True, eq=False)
class Scenes:
    """A batch: B scenes with N questions about them, rows in the scenes' order."""

    key: ObjectLatents  # of B frames; masks are not looked at
    motion: torch.Tensor  # (B, K, code)
    later: ObjectLatents  # of B frames
    words: torch.Tensor  # (N, W) ids, 0 = padding
    scene: torch.Tensor  # (N,) which of the B scenes
    labels: Labels  # of all N questions
    rehearsed: torch.Tensor  # (M, W') ids of questions that the model could answer before
    rehearsed_scene: torch.Tensor  # (M,)


def labels_of(
    key: ObjectLatents,
    later: ObjectLatents,
    masks: Sequence[np.ndarray],
    later_masks: Sequence[np.ndarray],
    whole_class: Sequence[bool],
) -> Labels:
    """Of Q questions about one scene, from masks ``(n, h, w)`` bool in the encoder's pixels on its two frames."""
    of_key = [covering(key, found, whole) for found, whole in zip(masks, whole_class, strict=True)]
    of_later = [covering(later, found, whole) for found, whole in zip(later_masks, whole_class, strict=True)]
    device = key.valid.device
    return Labels(
        torch.stack([chosen for chosen, _ in of_key]),
        torch.tensor([complete for _, complete in of_key], device=device),
        torch.tensor([bool(found.any()) for found in masks], device=device),
        torch.tensor(list(whole_class), device=device),
        torch.stack([chosen for chosen, _ in of_later]),
    )


def covering(latents: ObjectLatents, masks: np.ndarray, whole_class: bool) -> tuple[torch.Tensor, bool]:
    """Which latents ``(K,)`` of one frame the masks ``(n, h, w)`` bool are, and whether nothing of the masks is without
    a latent. whole_class: one mask may hold many things."""
    inked = torch.from_numpy(masks[masks.any((1, 2))]).to(latents.valid.device)
    if not len(inked):
        return torch.zeros_like(latents.valid[0]), True
    if not whole_class:
        each = cover(latents.expand(len(inked)), inked.to(torch.uint8)) > 0  # (n, K)
        return each.any(0), bool(each.any(1).all())
    union = F.avg_pool2d(inked.any(0)[None].float(), 2).flatten() > HALF  # (P,)
    things = (latents.masks[0] > HALF).flatten(1)  # (K, P)
    chosen = ((things & union).sum(1) > HALF * things.sum(1)) & latents.valid[0]
    covered = (things[chosen].any(0) & union).sum()
    return chosen, bool(covered > HALF * union.sum())


def sample_losses(model: UnifiedModel, before: UnifiedModel | None, scenes: Scenes) -> dict[str, torch.Tensor]:
    """Weighted losses by name, and their sum ``total``. Each question fills one slot; the others say END. before: the
    model as it was when training began; None: it knew nothing that it could forget."""
    labels, of = scenes.labels, scenes.scene
    thought = model.reason(model.visual_tokens(scenes.key, scenes.motion), scenes.key.valid, scenes.words, of)
    answers = torch.full(thought.answers.shape[:2], END, device=of.device)  # (N, S)
    answers[:, 0] = torch.where(labels.present, TRK, REJ)
    first = dataclasses.replace(thought, states=thought.states[:, :1], answers=thought.answers[:, :1])
    scores = model.score(first, scenes.key, scenes.motion, of)  # N rows: the slot that is used
    fair = labels.seen[:, None] & scenes.key.valid[of]  # (N, K)
    target = labels.target.float()
    question = model.head.question(first.states[:, 0])
    again = model.head.match(question, scenes.later.appearance[of], scenes.later.valid[of])
    found = {
        "answer": F.cross_entropy(thought.answers.flatten(0, 1), answers.flatten()),
        "target": 4.0 * balanced_bce(scores.target, target, fair),
        "match": 2.0 * balanced_bce(scores.match, target, fair * _sureness(labels.target, labels.whole_class)),
        "presence": _presence(scores.presence, labels),
        "later": balanced_bce(
            again,
            labels.later.float(),
            scenes.later.valid[of] * _sureness(labels.later, labels.whole_class) * labels.present[:, None],
        ),
        "forgetting": _forgetting(model, before, scenes),
    }
    return found | {"total": torch.stack(list(found.values())).sum()}


def _forgetting(model: UnifiedModel, before: UnifiedModel | None, scenes: Scenes) -> torch.Tensor:
    if before is None:
        return scenes.motion.new_zeros(())
    return forgetting_loss(model, before, scenes.key, scenes.motion, scenes.rehearsed, scenes.rehearsed_scene)


def join_labels(scenes: Sequence[Labels], used: int) -> Labels:
    """Those of several scenes as those of one batch, about the first ``used`` latents of each."""
    columns = {field.name: [getattr(scene, field.name) for scene in scenes] for field in dataclasses.fields(Labels)}
    return Labels(
        **{
            name: torch.cat([part[..., :used] if part.ndim == 2 else part for part in parts])
            for name, parts in columns.items()
        }
    )


def _sureness(named: torch.Tensor, whole_class: torch.Tensor) -> torch.Tensor:
    """Weight ``(N, K)`` of the label "the noun names this latent" or "it does not"."""
    return torch.where(named | whole_class[:, None], 1.0, DOUBTFUL)


def _presence(logits: torch.Tensor, labels: Labels) -> torch.Tensor:
    """Over questions whose answer the latents can show."""
    loss = F.binary_cross_entropy_with_logits(logits, labels.present.float(), reduction="none")
    return (loss * labels.seen).sum() / labels.seen.sum().clamp(min=1)
