"""``instructseg eval tabletop``: held-out figures of a checkpoint, its worst answers, and pictures of them."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..core import BadInput, Segmenter
from ..data.scene import Episode
from ..evaluation.tabletop import SlotRecord, evaluate_tabletop, format_table, summarise
from ..training.bank import episode_sampler
from .failure_pictures import save_failures
from .options import add_model_options, load_segmenter, whole_number

DESCRIPTION = """Ask generated scenes with exact answers. The split held_out shows colour-shape pairs and uses phrasings
that training never draws; val is drawn like training, from other seeds."""
WORST = 20


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("eval", help="figures on generated scenes", description=DESCRIPTION)
    parser.add_argument("benchmark", choices=["tabletop"], help="what to evaluate on")
    parser.add_argument("--split", choices=["held_out", "val"], default="held_out", help="default: %(default)s")
    parser.add_argument(
        "--source", choices=["tabletop", "flat"], default="tabletop",
        help="MuJoCo (needs the extra [sim]) or 2-D scenes (default: %(default)s)",
    )  # fmt: skip
    for name, low, high, default, words in (
        ("--episodes", 1, 100_000, 100, "scenes"),
        ("--questions", 1, 1000, 8, "instructions asked of each scene"),
        ("--width", 64, 1920, 640, "of the frames, in pixels"),
        ("--height", 64, 1920, 480, "of the frames, in pixels"),
        ("--seed", 0, 2**31, 1, "of scenes and questions"),
    ):
        help_text = f"{words} (default: %(default)s)"
        parser.add_argument(name, type=whole_number(low, high), default=default, metavar="N", help=help_text)
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write table, arguments and the worst answers")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="write worst.png: the worst answers, worst first")
    add_model_options(parser)
    parser.set_defaults(run=run)


class GeneratedEpisodes:
    """Episodes drawn one at a time, each from its own seed, so that any of them can be drawn again."""

    def __init__(self, source: str, split: str, count: int, seed: int, width: int, height: int) -> None:
        self._sample = episode_sampler(source, width, height)
        self._split, self._count, self._seed = split, count, seed

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Episode:
        return self._sample(np.random.default_rng([self._seed, index, len(self._split)]), self._split)

    def __iter__(self) -> Iterator[Episode]:
        return (self[index] for index in range(self._count))


def run(arguments: argparse.Namespace, segmenter: Segmenter | None = None) -> int:
    """Print the table, write what was asked for. segmenter: instead of the one that the options name."""
    _check_outputs(arguments)
    segmenter = segmenter or load_segmenter(arguments)
    a = arguments
    episodes = GeneratedEpisodes(a.source, a.split, a.episodes, a.seed, a.width, a.height)
    records = evaluate_tabletop(segmenter, episodes, a.split, a.questions, a.seed)
    table = summarise(records)
    print(format_table(table))
    worst = worst_records(records, WORST)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(report(arguments, table, records, worst), indent=1) + "\n", "utf-8")
        print(f"written: {arguments.out}")
    if arguments.pictures is not None and worst:
        path = arguments.pictures / "worst.png"
        save_failures(path, segmenter, episodes, worst)
        print(f"written: {path}")
    return 0


def worst_records(records: list[SlotRecord], count: int) -> list[SlotRecord]:
    """The ``count`` most wrong answers that are wrong at all, the worst first, the surest of equals first."""
    wrong = [record for record in records if record.error > 0]
    return sorted(wrong, key=lambda record: (-record.error, -abs(record.score - 0.5)))[:count]


def report(
    arguments: argparse.Namespace, table: dict[str, dict[str, float]], records: list[SlotRecord],
    worst: list[SlotRecord],
) -> dict[str, Any]:  # fmt: skip
    """What --out holds; figures of no cases are null."""
    given = {k: str(v) if isinstance(v, Path) else v for k, v in vars(arguments).items() if k not in ("run", "command")}
    figures = {
        kind: {name: None if math.isnan(value) else value for name, value in row.items()} for kind, row in table.items()
    }
    return {
        "arguments": given,
        "n": len(records),
        "table": figures,
        "worst": [dataclasses.asdict(record) for record in worst],
    }


def _check_outputs(arguments: argparse.Namespace) -> None:
    """Before minutes of work, not after."""
    if arguments.out is not None:
        if arguments.out.is_dir():
            raise BadInput(f"--out {arguments.out} is a folder; give a file")
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
    if arguments.pictures is not None:
        if arguments.pictures.exists() and not arguments.pictures.is_dir():
            raise BadInput(f"--pictures {arguments.pictures} is a file; give a folder")
        arguments.pictures.mkdir(parents=True, exist_ok=True)
