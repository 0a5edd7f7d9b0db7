"""``instructseg eval BENCHMARK``: predictions on disk, the benchmark's figures, archives for servers, pictures."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from ..core import Segmenter
from ..data.benchmarks import benchmarks
from .options import add_model_options, load_segmenter, positive_number, whole_number

if TYPE_CHECKING:  # the metrics and what they bring, only where something is evaluated
    from ..evaluation.benchmarks.evaluation import Evaluation

DESCRIPTION = """Ask a recipe about a benchmark and score it. Answers are written as they come; the same command goes on
where an earlier one stopped, and prints the table when none is missing. Exit code: 0 all is well, 1 samples are missing
or failed (they count as zero), 2 the call was wrong."""


def add_parsers(subparsers: argparse._SubParsersAction) -> None:
    """One command a benchmark."""
    for row in benchmarks().values():
        parser = subparsers.add_parser(row.name, help=row.title.replace("%", "%%"), description=DESCRIPTION)
        parser.add_argument("--root", type=Path, required=True, metavar="DIR", help="where it lies, see docs/data.md")
        local = next((split for split in row.splits if split != "train" and split in row.local), row.splits[-1])
        parser.add_argument("--split", choices=row.splits, default=local, help="default: %(default)s")
        parser.add_argument(
            "--protocol", choices=["published", "streaming"], default="published",
            help="as published for the recipe; or the streaming engine, causal with latency charged (videos only)",
        )  # fmt: skip
        _add_extent(parser)
        _add_outputs(parser)
        _add_streaming(parser)
        add_model_options(parser)
        parser.set_defaults(run=run)


def _add_extent(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", type=whole_number(1, 10**9), metavar="N", help="only the first N samples, rounded "
                        "up to whole videos")  # fmt: skip
    parser.add_argument("--shard", default="0/1", metavar="I/N", help="this machine's part of the samples; see docs")
    parser.add_argument("--retry", action="store_true", help="ask again what failed in an earlier run")
    parser.add_argument("--jobs", type=whole_number(1, 256), default=1, metavar="N", help="processes that score "
                        "(default: %(default)s)")  # fmt: skip
    parser.add_argument("--score", action="store_true", help="only score what lies in --out, without a model")


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("results")
    group.add_argument(
        "--out", type=Path, metavar="DIR",
        help="predictions and scores.json (default: out/eval/BENCHMARK-SPLIT-RECIPE-PROTOCOL)",
    )  # fmt: skip
    group.add_argument("--pictures", type=Path, metavar="DIR", help="pictures of the 20 worst samples, worst first")
    group.add_argument(
        "--archive", type=Path, metavar="FILE.zip", help="what the server takes (mevis, ref-youtube-vos)"
    )
    group.add_argument("--rle", type=Path, metavar="FILE.json", help="predictions as COCO results (run lengths)")


def _add_streaming(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("time")
    group.add_argument(
        "--rate", type=positive_number(240.0), default=10.0, metavar="HZ",
        help="frames per second of the videos, which benchmarks do not tell (default: %(default)s)",
    )  # fmt: skip
    for name, words in (("--step-ms", "each call of encode and of segment"), ("--ground-ms", "each grounding")):
        group.add_argument(
            name, type=whole_number(0, 600_000), metavar="MS",
            help=f"streaming: milliseconds that {words} takes (default: what it really took on this machine)",
        )  # fmt: skip


def run(arguments: argparse.Namespace, segmenter: Segmenter | None = None) -> int:
    """segmenter: instead of the one that the options name."""
    from ..evaluation.benchmarks.evaluation import Evaluation

    evaluation = Evaluation(arguments, load_segmenter if segmenter is None else lambda *_: segmenter)
    try:
        evaluation.ask()
        if not evaluation.is_last_word:
            return 0
        return _report(arguments, evaluation)
    finally:
        evaluation.close()


def _report(arguments: argparse.Namespace, evaluation: Evaluation) -> int:
    from ..evaluation.benchmarks.archives import write_archive
    from ..evaluation.benchmarks.coco_export import write_coco
    from ..evaluation.benchmarks.published import published_figures
    from ..evaluation.benchmarks.report import format_scores, scores_json
    from ..evaluation.benchmarks.whole_files import write_whole
    from ..evaluation.benchmarks.worst import save_worst

    predictions, indices = evaluation.predictions(), evaluation.indices
    troubles = 0
    if evaluation.has_truth:
        scores = evaluation.score(predictions)
        run = evaluation.run
        beside = published_figures(run.recipe, run.benchmark, run.split)
        given = run, evaluation.protocol, scores, beside, list(predictions.values()), len(evaluation.dataset)
        print(format_scores(*given))
        path = evaluation.folder / "scores.json"
        write_whole(path, json.dumps(scores_json(*given), indent=1, allow_nan=False) + "\n")
        print(f"written: {path}")
        troubles = len(scores.missing) + len(scores.failed)
        if arguments.pictures is not None:
            paths = save_worst(arguments.pictures, evaluation.dataset, scores.judged, predictions)
            print(f"written: {len(paths)} pictures of the worst in {arguments.pictures}")
    if arguments.archive is not None:
        lacking = write_archive(arguments.archive, evaluation.dataset, indices, predictions)
        whole = len(evaluation.dataset)
        part = "" if len(indices) == whole else f", the first of {whole}: the server wants all of them"
        print(f"written: {arguments.archive}, {len(indices)} expressions{part}")
        for line in lacking:
            print(f"  black or left out, because there is no answer: {line}")
        troubles += len(lacking)
    if arguments.rle is not None:
        count = write_coco(arguments.rle, evaluation.dataset, indices, predictions, evaluation.row.video)
        print(f"written: {arguments.rle}, {count} samples")
    return 1 if troubles else 0
