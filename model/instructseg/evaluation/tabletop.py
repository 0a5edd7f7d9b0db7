"""The project's own benchmark on generated scenes with exact answers, through the Segmenter interface.

Held out twice: by composition (every episode of the split ``held_out`` shows colour-shape pairs that training
never draws)
and by phrasing (half of its questions use carrier sentences, relation wordings and use phrases that training never
asks).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np
from tqdm import tqdm

from ..core import Clip, Frame, Instruction, Segmenter
from ..data.instructions import KINDS, Question, QuestionWriter, SceneFacts
from ..data.scene import Episode
from ..training.bank import KEY

NO_ANSWER = "no answer for this target"


@dataclasses.dataclass
class SlotRecord:
    """One target slot: was there a target, was it kept, how well was it cut out (key frame; worst of the later
    frames)."""

    kind: str
    text: str
    present: bool
    kept: bool
    score: float
    iou: float  # 0 for a rejected or missing target
    later_iou: float
    episode: int = 0  # index among the episodes
    slot: int = 0  # index among the targets that the text names
    targets: tuple[int, ...] = ()  # the right objects' ids in the instance images
    reason: str = ""  # what the recipe says about its answer, of a refusal above all

    @property
    def error(self) -> float:
        """How wrong the answer is, 0..1: what is missing of a present target's mask, the score of a false alarm."""
        return 1.0 - self.iou if self.present else self.score * self.kept


Seen = Callable[[SlotRecord, Episode, np.ndarray], None]  # an answer, its episode, its mask (H, W) on the key frame


def mask_iou(mask: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union of two boolean masks; 1 where both are empty."""
    union = np.count_nonzero(mask | truth)
    return np.count_nonzero(mask & truth) / union if union else 1.0


def evaluate_tabletop(
    segmenter: Segmenter,
    episodes: Iterable[Episode],
    split: str,
    questions: int = 8,
    seed: int = 5,
    progress: bool = True,
    seen: Seen | None = None,
) -> list[SlotRecord]:
    """Ask every episode ``questions`` questions on its clip up to the key frame; follow what was found on later
    frames. seen: is called with every answer."""
    writer = QuestionWriter(np.random.default_rng([seed, len(split)]), split)
    records: list[SlotRecord] = []
    bar = tqdm(episodes, desc="evaluating", disable=not progress, mininterval=2)
    for number, episode in enumerate(bar):
        facts = SceneFacts(episode)
        frames = [
            Frame(np.ascontiguousarray(i), round(t * 1e9)) for i, t in zip(episode.images, episode.times, strict=True)
        ]
        encoded = segmenter.encode(frames)
        asked = [writer.ask(facts) for _ in range(questions)]
        instructions = [Instruction(str(i), q.text) for i, q in enumerate(asked)]
        groundings = segmenter.ground(Clip(tuple(encoded[: KEY + 1])), instructions)
        for question, grounding in zip(asked, groundings, strict=True):
            records += _records(segmenter, number, episode, encoded, question, grounding.targets, seen)
    return records


def _records(
    segmenter: Segmenter, number: int, episode: Episode, encoded, question: Question, targets, seen: Seen | None
) -> list[SlotRecord]:
    records = []
    for index, slot in enumerate(question.slots):
        given = targets[index] if index < len(targets) else None
        kept = given is not None and not given.rejected
        score = given.score if given else 0.0
        iou = later_iou = 0.0
        if kept and slot.targets:
            truths = [np.isin(ids, list(slot.targets)) for ids in episode.instances]
            token, ious = given.token, []
            for t in range(KEY, len(truths)):
                found = segmenter.segment(encoded[t], [token])[0]
                token = found.token
                if truths[t].any():
                    ious.append(mask_iou(found.mask, truths[t]) if found.score >= 0.5 else 0.0)
            iou, later_iou = ious[0], min(ious[1:], default=ious[0])
        ids = tuple(sorted(slot.targets))
        reason = given.reason if given else NO_ANSWER
        record = SlotRecord(
            question.kind, question.text, bool(ids), kept, score, iou, later_iou, number, index, ids, reason
        )
        records.append(record)
        if seen is not None:
            mask = segmenter.segment(encoded[KEY], [given.token])[0].mask if kept else _nothing(episode)
            seen(record, episode, mask)
    return records


def _nothing(episode: Episode) -> np.ndarray:
    return np.zeros(episode.instances.shape[1:], bool)


def summarise(records: list[SlotRecord]) -> dict[str, dict[str, float]]:
    """By kind and over all: number of targets, mean IoU (missing = 0), accuracy at IoU 0.5, kept and rejected rates."""
    table = {}
    for kind in (*KINDS, "all"):
        rows = [r for r in records if kind in (r.kind, "all")]
        present, absent = [r for r in rows if r.present], [r for r in rows if not r.present]
        table[kind] = {
            "present": len(present),
            "absent": len(absent),
            "mean_iou": _mean([r.iou for r in present]),
            "accuracy_0.5": _mean([r.iou > 0.5 for r in present]),
            "later_mean_iou": _mean([r.later_iou for r in present]),
            "kept": _mean([r.kept for r in present]),
            "rejected": _mean([not r.kept for r in absent]),
        }
    return table


def format_table(table: dict[str, dict[str, float]]) -> str:
    return "\n".join(f"{kind:12}" + "".join(f"{c:>15}" for c in rest) for kind, *rest in cells(table))


def cells(table: dict[str, dict[str, float]]) -> list[list[str]]:
    """The heading and one row a kind, as texts."""
    columns = ("present", "absent", "mean_iou", "accuracy_0.5", "later_mean_iou", "kept", "rejected")
    rows = [["kind", *columns]]
    for kind, row in table.items():
        rows.append([kind, *(str(row[c]) if isinstance(row[c], int) else f"{row[c]:.3f}" for c in columns)])
    return rows


def _mean(values: list) -> float:
    return round(float(np.mean(values)), 4) if values else float("nan")
