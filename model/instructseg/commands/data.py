"""``instructseg data``: which benchmarks can be read, whether those on this machine are whole, and how they look."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from ..core import BadInput
from ..data.benchmarks import benchmark, benchmarks, identify, locate, open_dataset
from ..data.checking import SplitReport, check_split
from ..data.samples import Benchmark, NotOnDisk
from . import preview_generated
from .options import whole_number
from .preview_generated import GENERATED

SHOWN = 10  # problems printed of a split

CHECK = """Look at every sample of the benchmarks in ROOT: what is found, what is missing, numbers held against the
published ones, broken files by name. Exit code 0: all is well; 1: there are problems; 2: the call was wrong."""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    words = "check, list and look at data sets"
    parser = subparsers.add_parser("data", help=words, description=words)
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="the benchmarks that can be read", description="Known benchmarks.")
    listing.set_defaults(run=run_list)

    check = actions.add_parser("check", help="is a data set whole?", description=CHECK)
    check.add_argument("root", type=Path, metavar="ROOT", help="the root of a benchmark, or a folder of several")
    check.add_argument("--benchmark", metavar="NAME", help="only this one (default: all that are found)")
    check.add_argument("--split", metavar="S", help="only this split (default: all that are there)")
    check.add_argument("--images", action="store_true", help="decode every image and every mask too (takes long)")
    check.add_argument("--out", type=Path, metavar="FILE.json", help="write what was found, with every problem")
    check.add_argument("--all", action="store_true", help=f"print every problem, not only {SHOWN} a split")
    check.set_defaults(run=run_check)

    preview = actions.add_parser(
        "preview", help="pictures of samples", description="Write samples as pictures: image, masks and instruction."
    )
    known = "see `instructseg data list`; or tabletop, tabletop2: generated, without ROOT (need the extra [sim])"
    preview.add_argument("benchmark", metavar="BENCHMARK", help=known)
    words = "the root of the benchmark, or a folder of several"
    preview.add_argument("root", type=Path, nargs="?", metavar="ROOT", help=words)
    preview.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the pictures go")
    preview.add_argument("--split", metavar="S", help="default: the first one that is there")
    preview.add_argument(
        "--count", type=whole_number(1, 1000), default=8, metavar="N",
        help="samples, evenly over the split (default: %(default)s)",
    )  # fmt: skip
    preview.set_defaults(run=run_preview)


def run_list(arguments: argparse.Namespace) -> int:
    for row in benchmarks().values():
        splits = [split if split in row.local else f"{split} (no public truth)" for split in row.splits]
        print(f"{row.name}: {row.title}")
        print(f"  {'videos' if row.video else 'images'}; splits: {', '.join(splits)}")
        print(f"  licence: {row.licence}")
        print(f"  from: {row.where}")
    return 0


def run_check(arguments: argparse.Namespace) -> int:
    if arguments.out is not None and (arguments.out.is_dir() or not arguments.out.absolute().parent.is_dir()):
        raise BadInput(f"--out {arguments.out} must be a file in a folder that exists")
    rows = _chosen(arguments)
    reports = []
    for row in rows:
        print(f"{row.name}: {row.title}\n  {locate(row, arguments.root)}", flush=True)
        before = len(reports)
        for split in [arguments.split] if arguments.split else row.splits:
            report = check_split(row, arguments.root, split, arguments.images, _bar)
            if not report.on_disk and arguments.split:
                report.named = 1
            reports.append(report)
            _print(report, None if arguments.all else SHOWN)
        if not any(report.on_disk for report in reports[before:]):
            reports[before].named = 1
    if arguments.out is not None:
        content = {"root": str(arguments.root), "splits": [report.to_dict() for report in reports]}
        arguments.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        print(f"written: {arguments.out}")
    count = sum(report.problem_count for report in reports)
    print("all is well" if count == 0 else f"{count} problem{'' if count == 1 else 's'}")
    return 0 if count == 0 else 1


def run_preview(arguments: argparse.Namespace) -> int:
    from ..rendering.samples import draw_sample  # brings the drawing libraries

    if arguments.out.exists() and not arguments.out.is_dir():
        raise BadInput(f"--out {arguments.out} is a file; give a folder")
    if arguments.benchmark in GENERATED:
        return preview_generated.preview(arguments)
    row = benchmark(arguments.benchmark)
    if arguments.root is None:
        raise BadInput(f"{arguments.benchmark} lies in a folder: give its root, or the folder of several")
    dataset = _first_split(row, arguments)
    arguments.out.mkdir(parents=True, exist_ok=True)
    broken = 0
    for index in np.unique(np.linspace(0, len(dataset) - 1, arguments.count).round().astype(int)):
        path = arguments.out / f"{row.name}_{dataset.split}_{index:06d}.png"
        try:
            sample = dataset[int(index)]
            Image.fromarray(draw_sample(sample)).save(path)
        except BadInput as error:
            print(f"instructseg data: sample {index}: {error}", file=sys.stderr)
            broken += 1
            continue
        print(f"{path}: {sample.instruction}")
    return 1 if broken else 0


def _chosen(arguments: argparse.Namespace) -> list[Benchmark]:
    """The benchmarks to check. Raises BadInput where none is there."""
    if arguments.benchmark:
        rows = [benchmark(arguments.benchmark)]
        locate(rows[0], arguments.root)
    else:
        rows = [benchmark(name) for name in identify(arguments.root)]
    if not rows:
        marks = "\n".join(f"  {row.name}: {' or '.join(row.marks)}" for row in benchmarks().values() if row.marks)
        print(f"known by these files:\n{marks}", file=sys.stderr)
        raise BadInput(f"{arguments.root} holds no known benchmark, nor do its folders")
    if arguments.split:
        known = [row for row in rows if arguments.split in row.splits]
        if not known:
            given = "; ".join(f"{row.name}: {', '.join(row.splits)}" for row in rows)
            raise BadInput(f"there is no split {arguments.split!r}; splits are {given}")
        return known
    return rows


def _first_split(row: Benchmark, arguments: argparse.Namespace):
    if arguments.split:
        return open_dataset(row.name, arguments.root, arguments.split)
    for split in row.splits:
        try:
            return open_dataset(row.name, arguments.root, split)
        except NotOnDisk:
            continue
    raise BadInput(f"{arguments.root} holds none of the splits of {row.name}: {', '.join(row.splits)}")


def _bar(items: Iterable[int], words: str) -> Iterable[int]:
    from tqdm import tqdm

    return tqdm(items, desc=f"  {words}", unit=" samples", leave=False, disable=None, mininterval=0.5)


def _print(report: SplitReport, most: int | None) -> None:
    if not report.on_disk:
        print(f"  {report.split}: not on this disk")
        return
    names = dict.fromkeys([*report.found, *report.published])
    counted = [_count(name, report.found.get(name, 0), report.published.get(name)) for name in names]
    verdict = (
        "well"
        if not report.problem_count
        else f"{report.problem_count} problem{'' if report.problem_count == 1 else 's'}"
    )
    print(f"  {report.split}: {'; '.join([', '.join(counted) or 'nothing to be read', verdict])}")
    for problem in report.problems[:most]:
        print(f"    {problem}")
    more = report.named - len(report.problems[:most])
    if more:
        print(f"    ... and {more} more (--all or --out to have them by name)")


def _count(name: str, number: int, published: int | None) -> str:
    words = f"{name} {number}"
    if published is None:
        return words
    return f"{words} as published" if published == number else f"{words} of {published} published"
