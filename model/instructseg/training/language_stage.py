"""Stage 2: language, motion, association and the mask head, trained on encoded scenes with fresh instructions.

Everything the head asks is supervised where the generator knows it (candidates, anchors, motion, identity): with that,
each part is learned within minutes, and the answer itself only has to combine them.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..data.instructions import KINDS, Question, QuestionWriter
from ..modules.object_latents import ObjectLatents
from ..recipes.unified.modeling import END, REJ, TRK, UnifiedModel
from ..recipes.unified.tokenizer import encode_words
from .bank import CLIP_TIMES, KEY
from .latent_bank import LatentBank
from .state import save_state, weight_average

log = logging.getLogger(__name__)


@dataclasses.dataclass
class LanguageBatch:
    """B scenes, N questions with S slots each; R = N * S rows. Row labels are over the K latents of the key frame."""

    rows: torch.Tensor  # (B,) episodes of the bank
    scene: torch.Tensor  # (N,) which of the B scenes a question is about
    words: torch.Tensor  # (N, W)
    answers: torch.Tensor  # (N, S) TRK, REJ, END
    used: torch.Tensor  # (R,) bool: the slot answers something
    target: torch.Tensor  # (R, K) float labels
    match: torch.Tensor  # (R, K)
    anchor: torch.Tensor  # (R, K)
    present: torch.Tensor  # (R,) float
    seen: torch.Tensor  # (R,) bool: every target is covered by some latent (else the row has no fair label)
    later: torch.Tensor  # (R, K) candidates on the later frame
    later_time: int
    kinds: list[str]
    phrases: torch.Tensor  # (P, 2) question and position of the last word of every noun phrase
    phrase_labels: torch.Tensor  # (P, K) what that phrase names by itself
    pointer: torch.Tensor  # (R,) word that names the slot's anchor, W = none, -1 = slot not used


def make_batch(
    bank: LatentBank, tokenizer, config, rng: np.random.Generator, scenes: int, questions: int
) -> LanguageBatch:
    writer = QuestionWriter(rng)
    rows = rng.integers(len(bank), size=scenes)
    asked = [(b, writer.ask(bank.facts[row])) for b, row in enumerate(rows) for _ in range(questions)]
    return collate(
        bank, tokenizer, config, torch.from_numpy(rows), asked, later_time=int(rng.integers(KEY + 1, len(CLIP_TIMES)))
    )


def collate(
    bank: LatentBank,
    tokenizer,
    config,
    rows: torch.Tensor,
    asked: list[tuple[int, Question]],
    later_time: int = KEY + 1,
) -> LanguageBatch:
    slots, n = config.max_targets, len(asked)
    texts = [encode_words(tokenizer, q.text, config.max_words) for _, q in asked]
    words = torch.zeros(n, max(map(len, texts)), dtype=torch.long)
    answers = torch.full((n, slots), END)
    rows_of: dict[str, list] = {"targets": [], "candidates": [], "anchors": []}
    used = torch.zeros(n, slots, dtype=torch.bool)
    for i, (_, question) in enumerate(asked):
        words[i, : len(texts[i])] = torch.tensor(texts[i])
        for s in range(slots):
            slot = question.slots[s] if s < len(question.slots) else None
            used[i, s] = slot is not None
            if slot is not None:
                answers[i, s] = TRK if slot.targets else REJ
            for name, column in rows_of.items():
                column.append(getattr(slot, name) if slot else frozenset())
    scene = torch.tensor([b for b, _ in asked])
    of_row = scene.repeat_interleave(slots)
    key_ids, later_ids = bank.covered(rows, KEY)[of_row], bank.covered(rows, later_time)[of_row]
    labels = {name: _labels(key_ids, sets) for name, sets in rows_of.items()}
    targets = rows_of["targets"]
    seen = torch.tensor([all(bool((key_ids[r] == t).any()) for t in targets[r]) for r in range(len(targets))])
    present = torch.tensor([bool(t) for t in targets]).float()
    return LanguageBatch(
        rows, scene, words, answers, used.flatten(), labels["targets"], labels["candidates"], labels["anchors"],
        present, seen, _labels(later_ids, rows_of["candidates"]), later_time, [q.kind for _, q in asked],
        *_phrases(asked, key_ids[::slots], used, words.shape[1]),
    )  # fmt: skip


def _phrases(
    asked: list[tuple[int, Question]], key_ids: torch.Tensor, used: torch.Tensor, width: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Where each noun phrase ends, ``(P, 2)`` (question, word), the latents ``(P, K)`` that it names by itself, and the
    word ``(R,)`` that names each slot's anchor."""
    places, sets = [], []
    pointer = torch.where(used, width, -1)  # (N, S)
    for i, (_, question) in enumerate(asked):
        tokens, cursor = question.text.split(), 0
        for s, slot in enumerate(question.slots):
            for nth, (words, ids) in enumerate(slot.phrases):
                wanted = words.split()
                starts = [k for k in range(len(tokens)) if tokens[k : k + len(wanted)] == wanted]
                cursor = next((k for k in starts if k >= cursor), starts[0]) + len(wanted)
                places.append((i, cursor - 1))
                sets.append(ids)
                if nth == 1:  # the second phrase of a slot is what its relation refers to
                    pointer[i, s] = cursor - 1
    index = torch.tensor(places, dtype=torch.long).reshape(-1, 2)
    return index, _labels(key_ids[index[:, 0]], sets), pointer.flatten()


def _labels(ids: torch.Tensor, wanted: list[frozenset[int]]) -> torch.Tensor:
    table = torch.zeros(len(wanted), 256)
    for row, members in enumerate(wanted):
        table[row, list(members)] = 1.0
    return table.gather(1, ids)


def language_losses(model: UnifiedModel, bank: LatentBank, batch: LanguageBatch) -> dict[str, torch.Tensor]:
    """Named losses, already weighted."""
    key = bank.frames(batch.rows, KEY)
    past = [bank.frames(batch.rows, t) for t in range(KEY)]
    seconds = torch.tensor([CLIP_TIMES[KEY] - CLIP_TIMES[t] for t in range(KEY)]).expand(len(batch.rows), -1)
    keep = torch.rand(len(past)) > 0.08  # clips at a stream's start are short
    motion = model.perceiver(key, [f for f, k in zip(past, keep, strict=True) if k], seconds[:, keep])
    visual = model.visual_tokens(key, motion)
    reasoning = model.reason(visual, key.valid, batch.words, batch.scene)
    scores = model.score(reasoning, key, motion, batch.scene)
    of_row = batch.scene.repeat_interleave(reasoning.states.shape[1])
    fair = (batch.used & batch.seen)[:, None] & key.valid[of_row]
    losses = {"answer": F.cross_entropy(reasoning.answers.flatten(0, 1), batch.answers.flatten())}
    losses["target"] = 4.0 * _bce(scores.target, batch.target, fair)
    losses["match"] = 2.0 * _bce(scores.match, batch.match, fair)
    losses["anchor"] = 1.0 * _bce(scores.anchor, batch.anchor, fair)
    losses["pointer"] = F.cross_entropy(scores.pointer, batch.pointer, ignore_index=-1)
    judged = batch.used & batch.seen
    losses["presence"] = 1.0 * F.binary_cross_entropy_with_logits(scores.presence[judged], batch.present[judged])
    later = bank.frames(batch.rows, batch.later_time)
    question = model.head.question(reasoning.states.flatten(0, 1))
    again = model.head.match(question, later.appearance[of_row], later.valid[of_row])
    losses["later"] = 1.0 * _bce(again, batch.later, batch.used[:, None] & later.valid[of_row])
    losses["phrases"] = 2.0 * _phrase_loss(model, batch, reasoning.words, key)
    losses["motion"] = _motion_loss(model, bank, batch, motion, bool(keep.all()))
    losses["identity"] = 0.5 * _identity_loss(model, bank, batch, key, [*past, later])
    return losses


def _bce(logits: torch.Tensor, labels: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    loss = F.binary_cross_entropy_with_logits(
        logits.clamp(-30, 30), labels, reduction="none", pos_weight=torch.tensor(2.0)
    )
    return (loss * counted).sum() / counted.sum().clamp(min=1)


def _phrase_loss(model: UnifiedModel, batch: LanguageBatch, words: torch.Tensor, key: ObjectLatents) -> torch.Tensor:
    """The last word of every noun phrase points at what the phrase names: a relation's anchor is then one look away."""
    asked, position = batch.phrases.unbind(1)
    scene = batch.scene[asked]
    question = model.head.question(words[asked, position])
    return _bce(
        model.head.match(question, key.appearance[scene], key.valid[scene]), batch.phrase_labels, key.valid[scene]
    )


def _motion_loss(model, bank, batch, motion, whole_clip: bool) -> torch.Tensor:
    ids = bank.covered(batch.rows, KEY)
    label = bank.motions[batch.rows].gather(1, ids)
    label = torch.where(ids > 0, label, -1)
    loss = F.cross_entropy(model.perceiver.motion(motion).flatten(0, 1), label.flatten(), ignore_index=-1)
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
    shift = 0.01 * torch.randn(len(ids), 1, 6) * torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])  # places move, sizes stay
    moved = dataclasses.replace(key, geometry=key.geometry + shift)
    for other, other_ids, dt in [*pairs, (moved, ids, 0.07)]:
        same = (ids[:, :, None] == other_ids[:, None]) & (ids > 0)[:, :, None]  # (B, K, K')
        nowhere = ~same.any(-1, keepdim=True)
        label = torch.cat([same, nowhere], -1).float().argmax(-1)
        logits = model.perceiver.association.logits(
            key.appearance, key.geometry, other, torch.full((len(ids),), float(dt))
        )
        label = torch.where(ids > 0, label, -1)
        total = total + F.cross_entropy(logits.flatten(0, 1), label.flatten(), ignore_index=-1)
    return total / (len(pairs) + 1)


def train_language(
    model: UnifiedModel, tokenizer, bank: LatentBank, checkpoint: Path, minutes: float, scenes: int = 24,
    questions: int = 8,
    learning_rate: float = 1.2e-3, seed: int = 0, validation: LatentBank | None = None,
) -> None:  # fmt: skip
    """Train everything but the perception for ``minutes`` of wall time; writes and resumes from ``checkpoint``."""
    model.perception.requires_grad_(False).eval()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=1e-2, betas=(0.9, 0.98))
    average = weight_average(model, 0.996)
    done, step = 0.0, 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        done, step = state["seconds"], state["step"]
    rng = np.random.default_rng([seed, 7, step])
    start, saved, running = time.monotonic() - done, time.monotonic(), {}
    while (elapsed := time.monotonic() - start) < minutes * 60:
        progress = elapsed / (minutes * 60)
        for group in optimizer.param_groups:
            group["lr"] = float(
                learning_rate * min(1.0, (step + 1) / 150) * (0.5 + 0.5 * np.cos(np.pi * progress)) + 1e-6
            )
        model.train()
        model.perception.eval()
        losses = language_losses(model, bank, make_batch(bank, tokenizer, model.config, rng, scenes, questions))
        loss = sum(losses.values())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        average.update_parameters(model)
        step += 1
        for name, value in losses.items():
            running[name] = 0.97 * running.get(name, value.item()) + 0.03 * value.item()
        if step % 100 == 0:
            log.info(
                "language %4.1f min step %d  %s",
                elapsed / 60,
                step,
                "  ".join(f"{k} {v:.3f}" for k, v in running.items()),
            )
        if validation is not None and step % 600 == 0:
            log.info(
                "validation %s",
                {k: round(v, 3) for k, v in evaluate_latents(average.module, tokenizer, validation).items()},
            )
        if time.monotonic() - saved > 120:
            saved = save_state(checkpoint, model, average, optimizer, time.monotonic() - start, step)
    save_state(checkpoint, model, average, optimizer, time.monotonic() - start, step)
    model.load_state_dict(average.module.state_dict())


@torch.inference_mode()
def evaluate_latents(
    model: UnifiedModel, tokenizer, bank: LatentBank, split: str = "train", questions: int = 12
) -> dict[str, float]:
    """Quick figures without pixels: how often the chosen latents are exactly right, by kind; how often presence is
    right."""
    model.eval()
    rng = np.random.default_rng(11)
    writer = QuestionWriter(rng, split)
    right: dict[str, list[float]] = {k: [] for k in (*KINDS, "kept", "rejected")}
    for first in range(0, min(len(bank), 200), 20):
        rows = torch.arange(first, min(first + 20, len(bank)))
        asked = [(b, writer.ask(bank.facts[int(r)])) for b, r in enumerate(rows) for _ in range(questions)]
        batch = collate(bank, tokenizer, model.config, rows, asked)
        key, past = bank.frames(rows, KEY), [bank.frames(rows, t) for t in range(KEY)]
        seconds = torch.tensor([CLIP_TIMES[KEY] - CLIP_TIMES[t] for t in range(KEY)]).expand(len(rows), -1)
        motion = model.perceiver(key, past, seconds)
        reasoning = model.reason(model.visual_tokens(key, motion), key.valid, batch.words, batch.scene)
        scores = model.score(reasoning, key, motion, batch.scene)
        chosen = (scores.target > 0).float()
        exact = (chosen == batch.target).all(-1)
        slots = model.config.max_targets
        for r in torch.nonzero(batch.used & batch.seen)[:, 0].tolist():
            if batch.present[r]:
                right[batch.kinds[r // slots]].append(float(exact[r]))
            right["kept" if batch.present[r] else "rejected"].append(
                float((scores.presence[r] > 0) == bool(batch.present[r]))
            )
    return {k: float(np.mean(v)) if v else float("nan") for k, v in right.items()}
