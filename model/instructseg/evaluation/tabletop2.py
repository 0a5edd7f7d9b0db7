"""The benchmark ``tabletop2`` through the Segmenter interface: answers by type of instruction, with intervals.

Offline: a clip up to the key frame, one answer, followed on the later frames by its token. What latency costs, the time
to the first mask and switched identities need the streaming engine: ``tabletop2_stream``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from tqdm import tqdm

from ..core import Clip, EncodedFrame, Frame, Instruction, Segmenter
from ..data.scene import Episode
from ..data.tabletop2.questions import KINDS, Asked
from . import intervals
from .intervals import Estimate
from .region_boundary import score_video
from .tabletop import NO_ANSWER, Seen, SlotRecord, mask_iou

FOLLOWED = 0.5  # score from which on a followed target counts as shown


@dataclasses.dataclass
class Answer(SlotRecord):
    """One target slot.

    about: the type whose form the question has, also of an absent target. detail: the form of the question. j, f: means
    over the frames from the key frame on that show the target, None where none does. hidden: how many do not show it,
    false_masks: on how many of these a mask was given.
    """

    about: str = ""
    detail: str = ""
    j: float | None = None
    f: float | None = None
    hidden: int = 0
    false_masks: int = 0
    shared: int = 0  # pixels of the key frame that mask and target share
    covered: int = 0  # that either covers

    @property
    def j_and_f(self) -> float | None:
        return None if self.j is None or self.f is None else (self.j + self.f) / 2


def evaluate_cases(
    segmenter: Segmenter, cases: Iterable[tuple[int, Episode, Sequence[Asked]]], progress: bool = True,
    seen: Seen | None = None,
) -> list[Answer]:  # fmt: skip
    """Ask every scene its questions. cases: number of the scene, its frames, the questions. seen: is called with every
    answer."""
    answers: list[Answer] = []
    for number, episode, questions in tqdm(cases, desc="evaluating", disable=not progress, mininterval=2):
        frames = [
            Frame(np.ascontiguousarray(image), round((t - episode.times[0]) * 1e9))
            for image, t in zip(episode.images, episode.times, strict=True)
        ]
        encoded = segmenter.encode(frames)
        instructions = [Instruction(str(i), question.text) for i, question in enumerate(questions)]
        groundings = segmenter.ground(Clip(tuple(encoded[: episode.key + 1])), instructions)
        for question, grounding in zip(questions, groundings, strict=True):
            for slot in range(len(question.slots)):
                given = grounding.targets[slot] if slot < len(grounding.targets) else None
                answer, mask = _answer(segmenter, number, episode, encoded, question, slot, given)
                answers.append(answer)
                if seen is not None:
                    seen(answer, episode, mask)
    return answers


def _answer(
    segmenter: Segmenter,
    number: int,
    episode: Episode,
    encoded: Sequence[EncodedFrame],
    question: Asked,
    slot: int,
    given,
) -> tuple[Answer, np.ndarray]:
    """The answer, and its mask ``(H, W)`` on the key frame."""
    targets = tuple(sorted(question.slots[slot].targets))
    kept = given is not None and not given.rejected
    truth = np.isin(episode.instances[episode.key :], targets)  # (T, H, W)
    masks = np.zeros_like(truth)
    token = given.token if kept else None
    if token is not None:
        for t, frame in enumerate(encoded[episode.key :]):
            found = segmenter.segment(frame, [token])[0]
            token = found.token
            if t == 0 or found.score >= FOLLOWED:
                masks[t] = found.mask
    shown = truth.any(axis=(1, 2))
    ious = [mask_iou(mask, right) for mask, right, seen in zip(masks, truth, shown, strict=True) if seen]
    answer = Answer(
        question.kind, question.text, bool(targets), kept, given.score if given else 0.0, ious[0] if ious else 0.0,
        min(ious[1:], default=0.0), number, slot, targets, given.reason if given else NO_ANSWER,
        question.about, question.detail,
        hidden=int((~shown).sum()), false_masks=int(masks.any(axis=(1, 2))[~shown].sum()),
        shared=int(np.count_nonzero(masks[0] & truth[0])), covered=int(np.count_nonzero(masks[0] | truth[0])),
    )  # fmt: skip
    if shown.any():
        scores = score_video(masks[shown], truth[shown])
        answer.j, answer.f = scores.j, scores.f
    return answer, masks[0]


def summarise(answers: Sequence[Answer]) -> dict[str, dict[str, Estimate | int]]:
    """By type and over all.

    iou, accuracy (IoU over 0.5): key frame, present targets, a refused one counts 0. j_and_f: all frames that show a
    present target. t_acc: present targets kept; n_acc: absent ones refused; f1: of the presence decision. giou, ciou:
    key frame, present and absent targets, as ``refusal.refusal_scores`` defines them for gRefCOCO, with blank masks for
    what is refused. The row of a type counts the absent targets whose question has its form; the row ``absent`` counts
    all of them.
    """
    table = {}
    for kind in (*KINDS, "all"):
        rows = [a for a in answers if kind == "all" or a.kind == kind or (not a.present and a.about == kind)]
        if rows:
            table[kind] = _figures(rows)
    return table


def absent_details(answers: Sequence[Answer]) -> dict[str, Estimate]:
    """Share of the absent targets that were refused, by the way in which they are absent."""
    rows = [a for a in answers if a.kind == "absent" and not a.present]
    return {
        detail: intervals.mean(
            [float(not a.kept) for a in rows if a.detail == detail], [a.episode for a in rows if a.detail == detail]
        )
        for detail in sorted({a.detail for a in rows})
    }


def _figures(rows: list[Answer]) -> dict[str, Estimate | int]:
    present, absent = [a for a in rows if a.present], [a for a in rows if not a.present]
    scenes, no_scenes = [a.episode for a in present], [a.episode for a in absent]
    # F1 = 2 TP / (2 TP + FP + FN), a sum over rows divided by another
    hits = [2.0 * (a.present and a.kept) for a in rows]
    decided = [float(a.present) + float(a.kept) for a in rows]
    return {
        "present": len(present),
        "absent": len(absent),
        "iou": intervals.mean([a.iou for a in present], scenes),
        "accuracy_0.5": intervals.mean([float(a.iou > 0.5) for a in present], scenes),
        "j_and_f": intervals.mean([a.j_and_f for a in present], scenes),
        "t_acc": intervals.mean([float(a.kept) for a in present], scenes),
        "n_acc": intervals.mean([float(not a.kept) for a in absent], no_scenes),
        "f1": intervals.ratio_of_sums(hits, decided, [a.episode for a in rows]) if present else Estimate(None),
        "giou": intervals.mean([a.iou if a.present else float(not a.kept) for a in rows], [a.episode for a in rows]),
        "ciou": intervals.ratio_of_sums(
            [float(a.shared) for a in rows], [float(a.covered) for a in rows], [a.episode for a in rows]
        ) if present else Estimate(None),
    }


COLUMNS = {"J&F": "j_and_f", "IoU": "iou", "acc@0.5": "accuracy_0.5", "T-acc": "t_acc", "N-acc": "n_acc", "F1": "f1"}


def format_table(table: dict[str, dict[str, Estimate | int]], columns: dict[str, str] | None = None) -> str:
    """One line a type: numbers of present and absent targets, then value [95 % interval] of each figure."""
    lines = []
    for kind, present, absent, *figures in cells(table, columns or COLUMNS):
        lines.append(f"{kind:12}{present:>8}{absent:>8}" + "".join(f"{figure:>21}" for figure in figures))
    return "\n".join(lines)


def cells(table: dict[str, dict[str, Estimate | int]], columns: dict[str, str] = COLUMNS) -> list[list[str]]:
    """The heading and one row a type, as texts."""
    names = ("present", "absent", *columns.values())
    rows = [[kind, *(str(row[name]) for name in names)] for kind, row in table.items()]
    return [["type", "present", "absent", *columns], *rows]


def plain(table: dict[str, dict[str, Estimate | int]]) -> dict[str, dict]:
    """The table as values that JSON holds."""
    return {
        kind: {key: dataclasses.asdict(cell) if isinstance(cell, Estimate) else cell for key, cell in row.items()}
        for kind, row in table.items()
    }
