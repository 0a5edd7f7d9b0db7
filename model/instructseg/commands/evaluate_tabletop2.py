"""``instructseg eval tabletop2``: answers by type of instruction with confidence intervals, the worst of them, pictures
of these; with ``--stream`` also what latency costs, times to the first mask and switched identities."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..core import BadInput, Segmenter
from ..data.scene import Episode
from ..data.tabletop2.benchmark import SIZES, draw_case, size_of
from ..data.tabletop2.questions import Asked
from ..data.tabletop2.rendering import WorldRenderer
from ..data.tabletop2.things import AXES
from ..data.tabletop2.world import KEY, TIMES
from ..evaluation import tabletop2, tabletop2_stream
from ..evaluation.tabletop_stream import stream_times
from ..evaluation.timed_segmenter import Charges
from .answer_page import EvaluationPage, add_page_options, check_page
from .failure_pictures import save_failures
from .options import add_model_options, load_segmenter, positive_number, whole_number

DESCRIPTION = f"""Ask rendered scenes of version 2 of the tabletop benchmark (11 shapes, 11 colours, things on and in
others, events). Scenes and questions of a split are always the same. val: as training draws them, other scenes.
held_out: what training never sees. Each of {", ".join(AXES)}: only that one. written: instructions by hand."""
WORST = 20
KEPT = 4
STREAM_SECONDS = TIMES[-1]


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    words = "generated scenes, version 2: by type of instruction, with intervals"
    parser = subparsers.add_parser("tabletop2", help=words, description=DESCRIPTION)
    parser.add_argument("--split", choices=list(SIZES), default="held_out", help="default: %(default)s")
    parser.add_argument(
        "--episodes", type=whole_number(1, 100_000), metavar="N",
        help="the first N scenes (default: all; " + ", ".join(f"{name} {size}" for name, size in SIZES.items()) + ")",
    )  # fmt: skip
    for name, default in (("--width", 640), ("--height", 480)):
        help_text = "of the frames, in pixels; 4:3 (default: %(default)s)"
        parser.add_argument(name, type=whole_number(64, 1920), default=default, metavar="N", help=help_text)
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write table, arguments and every answer")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="write worst.png: the worst answers, worst first")
    add_page_options(parser)
    group = parser.add_argument_group("causal evaluation")
    group.add_argument("--stream", action="store_true", help="charge latency: every question to a running camera")
    group.add_argument(
        "--rate", type=positive_number(60.0), default=10.0, metavar="HZ",
        help="frames per second of the camera (default: %(default)s)",
    )  # fmt: skip
    for name, what in (("--step-ms", "each call of encode and of segment"), ("--ground-ms", "each grounding")):
        group.add_argument(
            name, type=whole_number(0, 600_000), metavar="MS",
            help=f"milliseconds that {what} takes (default: what it really took on this machine)",
        )  # fmt: skip
    add_model_options(parser)
    parser.set_defaults(run=run)


class RenderedCases:
    """The first ``count`` cases of a split, rendered one at a time; an index gives the episode again."""

    def __init__(
        self, split: str, count: int | None, width: int, height: int, times: Sequence[float] = TIMES, key: int = KEY
    ):
        if 3 * width != 4 * height:
            raise BadInput(f"tabletop2 is drawn for pictures of 4:3, such as 640 x 480; got {width} x {height}")
        self._split, self._count = split, size_of(split, count)
        self._times, self._key = tuple(times), key
        self._renderer = WorldRenderer(width, height)
        self._again: dict[int, Episode] = {}  # the last few that were asked for by index

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Episode:
        if index not in self._again:
            if len(self._again) >= KEPT:
                self._again.pop(next(iter(self._again)))
            world = draw_case(self._split, index).world
            self._again[index] = self._renderer.episode(world, self._times, self._key)
        return self._again[index]

    def __iter__(self) -> Iterator[tuple[int, Episode, tuple[Asked, ...]]]:
        for index in range(self._count):
            case = draw_case(self._split, index)
            yield index, self._renderer.episode(case.world, self._times, self._key), case.questions


def run(arguments: argparse.Namespace, segmenter: Segmenter | None = None) -> int:
    """Print the table, write what was asked for. segmenter: instead of the one that the options name."""
    a = arguments
    _check(a)
    if a.stream:
        times, key = stream_times(a.rate, STREAM_SECONDS)
        cases = RenderedCases(a.split, a.episodes, a.width, a.height, tuple(times), key)
        return _run_stream(a, cases, segmenter or load_segmenter(a))
    cases = RenderedCases(a.split, a.episodes, a.width, a.height)
    segmenter = segmenter or load_segmenter(a)
    page = EvaluationPage(a.page, a.page_limit) if a.page is not None else None
    answers = tabletop2.evaluate_cases(segmenter, cases, seen=page and page.add)
    table, absent = tabletop2.summarise(answers), tabletop2.absent_details(answers)
    print(tabletop2.format_table(table))
    print(f"over all targets of the key frames: gIoU {table['all']['giou']}, cIoU {table['all']['ciou']}")
    print("absent targets refused: " + "; ".join(f"{name} {share}" for name, share in absent.items()))
    wrong = sorted((x for x in answers if x.error > 0), key=lambda x: (-x.error, -abs(x.score - 0.5)))
    if a.out is not None:
        details = {name: dataclasses.asdict(share) for name, share in absent.items()}
        _write(a, {"table": tabletop2.plain(table), "absent": details, "answers": _plain(answers)})
    if a.pictures is not None and wrong:
        path = a.pictures / "worst.png"
        save_failures(path, segmenter, cases, wrong[:WORST])
        print(f"written: {path}")
    if page is not None:
        print(f"written: {page.write(a, len(cases), tabletop2.cells(table))}")
    return 0


def _run_stream(a: argparse.Namespace, cases: RenderedCases, segmenter: Segmenter) -> int:
    charges = Charges(*(None if ms is None else ms / 1e3 for ms in (a.step_ms, a.ground_ms)))
    report = tabletop2_stream.stream_cases(segmenter, cases, charges)
    table = tabletop2_stream.summarise(report)
    print(tabletop2.format_table(table, tabletop2_stream.COLUMNS))
    if a.out is not None:
        content = {"table": tabletop2.plain(table), "stream": report.figures.summary()}
        _write(a, {**content, "records": _plain(report.records), "instant": _plain(report.instant)})
    return 0


def _plain(rows: Sequence[Any]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(row) for row in rows]


def _write(a: argparse.Namespace, content: dict[str, Any]) -> None:
    given = {k: str(v) if isinstance(v, Path) else v for k, v in vars(a).items() if k not in ("run", "command")}
    a.out.write_text(json.dumps({"arguments": given, **content}, indent=1, allow_nan=False) + "\n", "utf-8")
    print(f"written: {a.out}")


def _check(a: argparse.Namespace) -> None:
    """Before minutes of work, not after."""
    size_of(a.split, a.episodes)
    check_page(a)
    if a.stream and a.pictures is not None:
        raise BadInput("--pictures shows answers on single frames; leave it out, or leave out --stream")
    if not a.stream and (a.step_ms, a.ground_ms) != (None, None):
        raise BadInput("--step-ms and --ground-ms charge latency, which only --stream does; add --stream")
    if a.out is not None:
        if a.out.is_dir():
            raise BadInput(f"--out {a.out} is a folder; give a file")
        a.out.parent.mkdir(parents=True, exist_ok=True)
    if a.pictures is not None:
        if a.pictures.exists() and not a.pictures.is_dir():
            raise BadInput(f"--pictures {a.pictures} is a file; give a folder")
        a.pictures.mkdir(parents=True, exist_ok=True)
