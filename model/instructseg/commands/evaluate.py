"""``instructseg eval tabletop``: held-out figures of a checkpoint, its worst answers, and pictures of them; with
``--stream`` the same scenes as a camera shows them, latency charged."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..core import BadInput, Segmenter
from ..data.scene import Episode
from ..evaluation import tabletop_stream
from ..evaluation.tabletop import SlotRecord, cells, evaluate_tabletop, format_table, summarise
from ..evaluation.timed_segmenter import Charges
from ..training.bank import CLIP_TIMES, KEY, episode_sampler
from . import evaluate_benchmark, evaluate_tabletop2
from .answer_page import EvaluationPage, add_page_options, check_page
from .failure_pictures import save_failures
from .options import add_model_options, load_segmenter, positive_number, whole_number

DESCRIPTION = """Ask generated scenes with exact answers. The split held_out shows colour-shape pairs and uses phrasings
that training never draws; val is drawn like training, from other seeds. With --stream every question goes to the
streaming engine while a camera runs on simulated time: a mask is scored on the frame that is current when it is
published."""
WORST = 20
QUESTIONS, STREAM_QUESTIONS = 8, 1  # of each scene by default


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    words = "figures on generated scenes and on the field's benchmarks"
    every = subparsers.add_parser("eval", help=words, description=words)
    chosen = every.add_subparsers(title="benchmarks", dest="benchmark", metavar="BENCHMARK", required=True)
    _add_tabletop(chosen)
    evaluate_tabletop2.add_parser(chosen)
    evaluate_benchmark.add_parsers(chosen)


def _add_tabletop(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("tabletop", help="generated scenes with exact answers", description=DESCRIPTION)
    parser.add_argument("--split", choices=["held_out", "val"], default="held_out", help="default: %(default)s")
    parser.add_argument(
        "--source", choices=["tabletop", "flat"], default="tabletop",
        help="MuJoCo (needs the extra [sim]) or 2-D scenes (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--questions", type=whole_number(1, 1000), metavar="N",
        help=f"instructions asked of each scene (default: {QUESTIONS}; with --stream {STREAM_QUESTIONS})",
    )  # fmt: skip
    for name, low, high, default, words in (
        ("--episodes", 1, 100_000, 100, "scenes"),
        ("--width", 64, 1920, 640, "of the frames, in pixels"),
        ("--height", 64, 1920, 480, "of the frames, in pixels"),
        ("--seed", 0, 2**31, 1, "of scenes and questions"),
    ):
        help_text = f"{words} (default: %(default)s)"
        parser.add_argument(name, type=whole_number(low, high), default=default, metavar="N", help=help_text)
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write table, arguments and the worst answers")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="write worst.png: the worst answers, worst first")
    add_page_options(parser)
    _add_stream_options(parser)
    add_model_options(parser)
    parser.set_defaults(run=run)


def _add_stream_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("causal evaluation")
    group.add_argument("--stream", action="store_true", help="charge latency: scenes as streams of a camera")
    group.add_argument(
        "--rate", type=positive_number(240.0), default=10.0, metavar="HZ",
        help="frames per second of the camera (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--seconds", type=positive_number(60.0), default=3.0, metavar="S",
        help="length of a stream after its instruction (default: %(default)s)",
    )  # fmt: skip
    for name, words in (("--step-ms", "each call of encode and of segment"), ("--ground-ms", "each grounding")):
        group.add_argument(
            name, type=whole_number(0, 600_000), metavar="MS",
            help=f"milliseconds that {words} takes (default: what it really took on this machine)",
        )  # fmt: skip


class GeneratedEpisodes:
    """Episodes drawn one at a time, each from its own seed, so that any of them can be drawn again."""

    def __init__(
        self, source: str, split: str, count: int, seed: int, width: int, height: int,
        times: Sequence[float] = CLIP_TIMES, key: int = KEY,
    ) -> None:  # fmt: skip
        self._sample = episode_sampler(source, width, height, times, key)
        self._split, self._count, self._seed = split, count, seed

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Episode:
        return self._sample(np.random.default_rng([self._seed, index, len(self._split)]), self._split, index)

    def __iter__(self) -> Iterator[Episode]:
        return (self[index] for index in range(self._count))


def run(arguments: argparse.Namespace, segmenter: Segmenter | None = None) -> int:
    """Print the table, write what was asked for. segmenter: instead of the one that the options name."""
    _check_outputs(arguments)
    segmenter = segmenter or load_segmenter(arguments)
    a = arguments
    if a.stream:
        return _run_stream(arguments, segmenter)
    episodes = GeneratedEpisodes(a.source, a.split, a.episodes, a.seed, a.width, a.height)
    page = EvaluationPage(a.page, a.page_limit) if a.page is not None else None
    asked = a.split, a.questions or QUESTIONS, a.seed
    records = evaluate_tabletop(segmenter, episodes, *asked, seen=page and page.add)
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
    if page is not None:
        print(f"written: {page.write(a, len(episodes), cells(table))}")
    return 0


def _run_stream(arguments: argparse.Namespace, segmenter: Segmenter) -> int:
    a = arguments
    times, key = tabletop_stream.stream_times(a.rate, a.seconds)
    episodes = GeneratedEpisodes(a.source, a.split, a.episodes, a.seed, a.width, a.height, tuple(times), key)
    charges = Charges(*(None if ms is None else ms / 1e3 for ms in (a.step_ms, a.ground_ms)))
    found = tabletop_stream.evaluate_stream(
        segmenter, episodes, a.split, a.questions or STREAM_QUESTIONS, a.seed, charges
    )
    table = tabletop_stream.summarise(found)
    print(tabletop_stream.format_stream(table, found.figures))
    if a.out is not None:
        content = {
            "arguments": _given(arguments),
            "n": len(found.records),
            "table": table,
            "stream": found.figures.summary(),
            "records": [dataclasses.asdict(record) for record in found.records],
            "instant": [dataclasses.asdict(record) for record in found.instant],
        }
        a.out.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", "utf-8")
        print(f"written: {a.out}")
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
    figures = {
        kind: {name: None if math.isnan(value) else value for name, value in row.items()} for kind, row in table.items()
    }
    return {
        "arguments": _given(arguments),
        "n": len(records),
        "table": figures,
        "worst": [dataclasses.asdict(record) for record in worst],
    }


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments as plain values."""
    given = vars(arguments).items()
    return {k: str(v) if isinstance(v, Path) else v for k, v in given if k not in ("run", "command")}


def _check_outputs(arguments: argparse.Namespace) -> None:
    """Before minutes of work, not after."""
    check_page(arguments)
    if arguments.stream and arguments.pictures is not None:
        raise BadInput("--pictures shows answers on single frames; leave it out, or leave out --stream")
    if not arguments.stream and (arguments.step_ms, arguments.ground_ms) != (None, None):
        raise BadInput("--step-ms and --ground-ms charge latency, which only --stream does; add --stream")
    if arguments.out is not None:
        if arguments.out.is_dir():
            raise BadInput(f"--out {arguments.out} is a folder; give a file")
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
    if arguments.pictures is not None:
        if arguments.pictures.exists() and not arguments.pictures.is_dir():
            raise BadInput(f"--pictures {arguments.pictures} is a file; give a folder")
        arguments.pictures.mkdir(parents=True, exist_ok=True)
