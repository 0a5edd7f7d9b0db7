"""Questions about encoded scenes as batches: word ids, and every slot's answer over the key frame's latents."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import torch

from ..data.instructions import UNKNOWN, Question, QuestionWriter, SceneFacts, Slot
from ..data.tabletop2.facts import WorldFacts
from ..data.tabletop2.questions import LONGEST, Asked, Questioner
from ..data.tabletop2.things import SPLITS
from ..recipes.unified.modeling import END, REJ, TRK
from ..recipes.unified.tokenizer import encode_words, last_pieces
from .bank import CLIP_TIMES, KEY
from .concept_labels import choice_of
from .latent_bank import LatentBank


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
    pointer: torch.Tensor  # (R, 2) words that name the slot's anchors, W = none, -1 = slot not used
    choice: torch.Tensor  # (R,) column of the head's CHOICES, -1 = not told

    def to(self, device: torch.device) -> LanguageBatch:
        """The same batch with its tensors on another device."""
        tensors = {n: v.to(device) for n, v in vars(self).items() if isinstance(v, torch.Tensor)}
        return dataclasses.replace(self, **tensors)


# Of a scene that can be asked nothing else.
_NOTHING = Asked("the spoon", (Slot(frozenset(), frozenset()),), "absent", "class", "attribute")
_MOST_TALK = 3  # unknown words before or after what is asked


class Asker:
    """Asks about scenes of both versions, each in its own way. split: whose wordings may be used.

    wide: how often scenes of version 2 are asked in the wider wordings of training.
    """

    def __init__(self, rng: np.random.Generator, split: str = "train", wide: float = 0.0) -> None:
        self._rng, self._wide = rng, wide
        self._old, self._new = QuestionWriter(rng, split), Questioner(rng, SPLITS[split], wide)

    def ask(self, facts: SceneFacts | WorldFacts) -> Question:
        """A question of any kind; version 1 brings its own unknown words."""
        if isinstance(facts, SceneFacts):
            return self._old.ask(facts)
        question = self._new.draw(facts) or _NOTHING
        return with_unknown_words(question, self._rng) if self._wide and self._rng.random() < 0.15 else question


def with_unknown_words(question: Question, rng: np.random.Generator) -> Question:
    """The same question with words that mean nothing to the model and change nothing: talk around it, or another
    adjective before a noun ("the red unheard-of mug")."""
    text, slots = question.text, question.slots
    if len(text.split()) + _MOST_TALK > LONGEST:
        return question
    phrases = [(s, n) for s, slot in enumerate(slots) for n in range(len(slot.phrases)) if slot.targets]
    if not phrases or rng.random() < 0.5:
        count = int(rng.integers(1, _MOST_TALK + 1))
        talk = " ".join([UNKNOWN] * count)
        if rng.random() < 0.5:
            return dataclasses.replace(question, text=f"{talk} {text}", begin=question.begin + count)
        return dataclasses.replace(question, text=f"{text} {talk}")
    s, n = phrases[rng.integers(len(phrases))]
    old, ids = slots[s].phrases[n]
    *before, noun = old.split()
    if text.count(old) != 1:  # which of them is meant would have to be worked out
        return question
    new = " ".join([*before, UNKNOWN, noun])
    changed = (*slots[s].phrases[:n], (new, ids), *slots[s].phrases[n + 1 :])
    slot = dataclasses.replace(slots[s], phrases=changed)
    return dataclasses.replace(question, text=text.replace(old, new), slots=(*slots[:s], slot, *slots[s + 1 :]))


def make_batch(
    bank: LatentBank, tokenizer, config, rng: np.random.Generator, scenes: int, questions: int, wide: float = 0.5,
    rows: np.ndarray | None = None,
) -> LanguageBatch:  # fmt: skip
    """Fresh questions about scenes of the bank. rows: which, by default drawn evenly."""
    asker = Asker(rng, wide=wide)
    rows = rng.integers(len(bank), size=scenes) if rows is None else rows
    asked = [(b, asker.ask(bank.facts[row])) for b, row in enumerate(rows) for _ in range(questions)]
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
    choice = torch.full((n, slots), -1)
    for i, (b, question) in enumerate(asked):
        words[i, : len(texts[i])] = torch.tensor(texts[i])
        for s in range(slots):
            slot = question.slots[s] if s < len(question.slots) else None
            used[i, s] = slot is not None
            if slot is not None:
                answers[i, s] = TRK if slot.targets else REJ
                choice[i, s] = choice_of(question, slot, bank.facts[int(rows[b])])
            rows_of["targets"].append(slot.targets if slot else frozenset())
            rows_of["candidates"].append(slot.candidates if slot else frozenset())
            rows_of["anchors"].append(_first_anchor(slot) if slot else frozenset())
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
        *_phrases(tokenizer, asked, key_ids[::slots], used, words.shape[1]), choice.flatten(),
    )  # fmt: skip


def _first_anchor(slot: Slot) -> frozenset[int]:
    """What the first pointer's word names: of "between" only the first of the two, the other one has its own."""
    return slot.phrases[1][1] if len(slot.phrases) > 2 else slot.anchors


def _phrases(
    tokenizer, asked: list[tuple[int, Question]], key_ids: torch.Tensor, used: torch.Tensor, width: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Where each noun phrase ends, ``(P, 2)`` (question, token), the latents ``(P, K)`` that it names by itself, and
    the tokens ``(R, 2)`` that name each slot's anchors."""
    places, sets = [], []
    pointer = torch.where(used, width, -1)[..., None].repeat(1, 1, 2)  # (N, S, 2)
    for i, (_, question) in enumerate(asked):
        said, ends, cursor = question.text.split(), last_pieces(tokenizer, question.text), question.begin
        for s, slot in enumerate(question.slots):
            for nth, (words, ids) in enumerate(slot.phrases):
                wanted = words.split()
                last = len(said) - len(wanted) + 1
                starts = [k for k in range(question.begin, last) if said[k : k + len(wanted)] == wanted]
                start = next((k for k in starts if k >= cursor), starts[0])  # an anchor may be said before the target
                cursor = max(cursor, start + len(wanted))
                places.append((i, ends[start + len(wanted) - 1]))
                sets.append(ids)
                if nth in (1, 2):  # the further phrases of a slot are what its relation refers to
                    pointer[i, s, nth - 1] = places[-1][1]
    index = torch.tensor(places, dtype=torch.long).reshape(-1, 2)
    return index, _labels(key_ids[index[:, 0]], sets), pointer.flatten(0, 1)


def _labels(ids: torch.Tensor, wanted: list[frozenset[int]]) -> torch.Tensor:
    table = torch.zeros(len(wanted), 256)
    for row, members in enumerate(wanted):
        table[row, list(members)] = 1.0
    return table.gather(1, ids)


def ask_every_scene(
    bank: LatentBank, tokenizer, config, writer: Asker, questions: int, limit: int | None = None
) -> Iterator[LanguageBatch]:
    """``questions`` fresh questions about each of the first ``limit`` scenes, in batches of 20 scenes."""
    count = min(len(bank), limit or len(bank))
    for first in range(0, count, 20):
        rows = torch.arange(first, min(first + 20, count))
        asked = [(b, writer.ask(bank.facts[int(r)])) for b, r in enumerate(rows) for _ in range(questions)]
        yield collate(bank, tokenizer, config, rows, asked)
