"""The benchmarks by name, and what lies in a folder.

A reader module exports ``BENCHMARKS``; it is imported when asked for, and imports heavy libraries only where it opens
something.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from pathlib import Path

from ..core import BadInput
from .samples import Benchmark, Dataset

# Reader modules, in the order in which the commands list them.
READERS = (
    "refcoco",
    "grefcoco",
    "reason_seg",
    "coco_semantic",
    "ref_youtube_vos",
    "ref_davis17",
    "mevis",
    "revos",
    "reason_vos",
    "vos",
    "recordings",
)


@functools.cache
def benchmarks() -> dict[str, Benchmark]:
    """Every benchmark by name, in order."""
    rows: dict[str, Benchmark] = {}
    for module in READERS:
        for row in importlib.import_module(f"{__package__}.readers.{module}").BENCHMARKS:
            if row.name in rows:
                raise ValueError(f"two readers offer the benchmark {row.name!r}")
            rows[row.name] = row
    return rows


def benchmark(name: str) -> Benchmark:
    """Raises BadInput naming the known ones."""
    known = benchmarks()
    if name not in known:
        raise BadInput(f"unknown benchmark {name!r}; known are: {', '.join(known)}")
    return known[name]


def open_dataset(name: str, root: str | Path, split: str) -> Dataset:
    """One split of a benchmark. root: its own root, or a folder that holds it beside others.

    Raises BadInput for an unknown name or split, and for a root that holds no such benchmark, naming what it holds.
    """
    row = benchmark(name)
    if split not in row.splits:
        raise BadInput(f"benchmark {name!r} has no split {split!r}; it has: {', '.join(row.splits)}")
    dataset = _opener(row)(locate(row, Path(root)), split)
    dataset.name, dataset.split = name, split
    return dataset


def locate(row: Benchmark, root: Path) -> Path:
    """Where the benchmark's own root is: ``root``, a folder in it, or one above it. Raises BadInput."""
    folder = check_folder(root)
    for candidate in (folder, *_folders(folder)):
        if any(_holds(candidate, mark) for mark in row.marks):
            return candidate
    if _is_part(folder, row):
        return folder.parent
    if any(_holds(folder, mark) for mark in row.shared_marks):
        return folder
    others = identify(folder)
    found = f"what is there belongs to: {', '.join(others)}" if others else "no known benchmark was found there"
    raise BadInput(f"{root} holds no {row.name} (looked for {', '.join(row.marks)} in it and in its folders); {found}")


def identify(root: Path) -> list[str]:
    """Names of the benchmarks whose files are under ``root`` or in a folder of it; where there are only files that
    several have in common, all of those."""
    folder = check_folder(root)
    candidates = [folder, *_folders(folder)]
    rows = benchmarks()
    found = [
        name
        for name, row in rows.items()
        if any(_holds(candidate, mark) for candidate in candidates for mark in row.marks) or _is_part(folder, row)
    ]
    return found or [name for name, row in rows.items() if any(_holds(folder, mark) for mark in row.shared_marks)]


def check_folder(root: Path) -> Path:
    """The absolute path of a folder that exists. Raises BadInput."""
    try:
        if not root.exists():
            raise BadInput(f"{root} does not exist; give the folder of a data set")
        if not root.is_dir():
            raise BadInput(f"{root} is a file; give the folder of a data set")
        return root.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links; a name that no file can have
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{root} cannot be opened: {getattr(error, 'strerror', None) or error}") from error


def _opener(row: Benchmark) -> Callable[[Path, str], Dataset]:
    module, _, function = row.reader.partition(":")
    return getattr(importlib.import_module(module), function)


def _is_part(folder: Path, row: Benchmark) -> bool:
    """Whether ``data/refcoco`` was given where ``data`` holds ``refcoco`` and ``images``."""
    return any(mark.split("/")[0] == folder.name and _holds(folder.parent, mark) for mark in row.marks)


def _folders(root: Path) -> list[Path]:
    try:
        return sorted(path for path in root.iterdir() if _is_folder(path))
    except OSError:
        return []


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _holds(root: Path, mark: str) -> bool:
    try:
        return next(iter(root.glob(mark)), None) is not None
    except OSError:
        return False
