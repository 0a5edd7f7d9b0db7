"""``--page`` of ``eval tabletop`` and ``eval tabletop2``: every answer with its key frame, failures first."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from ..core import BadInput
from ..data.scene import Episode
from ..evaluation.tabletop import SlotRecord
from ..evaluation.verdicts import VERDICTS, verdict
from ..rendering.answer_page import AnswerPage, Card, Cells
from .options import whole_number

LIMIT = 2500


def add_page_options(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--page", type=Path, metavar="DIR", help="write DIR/index.html: every answer with its picture, failures first"
    )
    parser.add_argument(
        "--page-limit", type=whole_number(1, 1_000_000), default=LIMIT, metavar="N",
        help="with --page: show at most N answers, the worst (default: %(default)s)",
    )  # fmt: skip


def check_page(arguments: argparse.Namespace) -> None:
    """Before minutes of work, not after. Raises BadInput."""
    page = arguments.page
    if page is None:
        return
    if arguments.stream:
        raise BadInput("--page shows answers on single frames; leave it out, or leave out --stream")
    if page.exists() and not page.is_dir():
        raise BadInput(f"--page {page} is a file; give a folder")
    page.mkdir(parents=True, exist_ok=True)


class EvaluationPage:
    """Takes the answers of an evaluation as they are given (``seen`` of the evaluating functions)."""

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        self._page = AnswerPage(folder, VERDICTS, limit)

    def add(self, record: SlotRecord, episode: Episode, mask: np.ndarray) -> None:
        """mask: ``(H, W)`` bool given on the key frame, empty where it was refused."""
        instances = episode.instances[episode.key]
        truth = np.isin(instances, record.targets)
        name = verdict(record, instances, mask)
        card = Card(name, record.kind, _error(record), record.episode, record.text, _lines(record))
        self._page.add(card, episode.images[episode.key], truth, mask)

    def write(self, arguments: argparse.Namespace, scenes: int, figures: Cells) -> Path:
        a = arguments
        title = f"{a.benchmark}, split {a.split}"
        model = f"recipe {a.recipe}, {f'checkpoint {a.checkpoint}' if a.checkpoint else 'its own checkpoint'}"
        return self._page.write(title, [f"{model}; {scenes} scenes of {a.width} x {a.height} pixels"], figures)


def _error(record: SlotRecord) -> float:
    """Orders the answers of one verdict: how much of a mask is wrong, how sure a wrong decision was."""
    if not record.present:
        return record.score
    return 1 - record.iou if record.kept else 1 - record.score


def _lines(record: SlotRecord) -> tuple[str, ...]:
    there = "is there" if record.present else "is not there"
    answer = f"{there}, {'accepted' if record.kept else 'refused'}, presence {record.score:.2f}"
    answer += f", IoU {record.iou:.2f}" if record.present else ""
    about, detail = getattr(record, "about", ""), getattr(record, "detail", "")
    form = record.kind + (f" ({about})" if about not in ("", record.kind) else "")
    form += f": {detail}" if detail not in ("", record.kind, about) else ""
    place = f"scene {record.episode}, target {record.slot + 1}"
    return (answer, *((f"reason: {record.reason}",) if record.reason else ()), f"{form}; {place}")
