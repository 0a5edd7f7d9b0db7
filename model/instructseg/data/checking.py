"""What lies on disk of a benchmark, held against what was published: found, missing, broken by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ..core import BadInput
from .benchmarks import open_dataset
from .samples import Benchmark, Dataset, Footage, Kind, NotOnDisk, Sample

KEPT = 1000  # problems remembered by name; the others are counted
Progress = Callable[[Iterable[int], str], Iterable[int]]


@dataclasses.dataclass
class SplitReport:
    """found: numbers of what was counted; published: the same of the owners where known. on_disk: False where the split
    is not there at all. problems: at most ``KEPT`` of ``named``, those of numbers that differ not among them."""

    benchmark: str
    split: str
    on_disk: bool = True
    found: dict[str, int] = dataclasses.field(default_factory=dict)
    published: dict[str, int] = dataclasses.field(default_factory=dict)
    problems: list[str] = dataclasses.field(default_factory=list)
    named: int = 0

    @property
    def differing(self) -> list[str]:
        """What was published in another number than found."""
        return [name for name, count in self.published.items() if self.on_disk and self.found.get(name) != count]

    @property
    def problem_count(self) -> int:
        return self.named + len(self.differing)

    def add(self, problem: str) -> None:
        self.named += 1
        if len(self.problems) < KEPT:
            self.problems.append(problem)

    def to_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "differing": self.differing, "problem_count": self.problem_count}


def check_split(
    row: Benchmark, root: Path, split: str, images: bool = False, progress: Progress = lambda items, words: items
) -> SplitReport:
    """Look at every sample of a split, and at its images and masks too if asked to. What is broken is reported.

    Raises BadInput only where ``root`` is no root of the benchmark.
    """
    report = SplitReport(row.name, split, published=dict(row.counts.get(split, {})))
    try:
        dataset = open_dataset(row.name, root, split)
    except NotOnDisk as error:
        report.on_disk = False  # whether this is a fault the caller judges
        report.problems.append(str(error))
        return report
    except BadInput as error:
        report.add(str(error))
        return report
    _look_through(dataset, row, report, images, progress)
    return report


def _look_through(dataset: Dataset, row: Benchmark, report: SplitReport, images: bool, progress: Progress) -> None:
    ids: set[str] = set()
    footages: set[str] = set()
    references: set[Any] = set()
    without = 0
    for index in progress(range(len(dataset)), f"{row.name} {report.split}"):
        try:
            sample = dataset[index]
        except BadInput as error:
            report.add(str(error))
            continue
        if sample.id in ids:
            report.add(f"the sample id {sample.id!r} occurs more than once")
        ids.add(sample.id)
        without += sample.kind is Kind.NO_TARGET
        references |= {sample.extra["ref_id"]} if "ref_id" in sample.extra else set()
        for problem in _sample_problems(sample):
            report.add(f"{sample.id}: {problem}")
        new = sample.footage.name not in footages
        footages.add(sample.footage.name)
        if new:
            for problem in _footage_problems(sample.footage, images):
                report.add(problem)
        if images:
            for problem in _truth_problems(sample):
                report.add(problem)
    report.found = {"expressions": len(dataset), "videos" if row.video else "images": len(footages)}
    if references:
        report.found["references"] = len(references)
    if without:
        report.found["without target"] = without


def _sample_problems(sample: Sample) -> Iterator[str]:
    if not sample.instruction.strip() and sample.kind is not Kind.FIRST_FRAME:
        yield "the instruction is empty"
    if not sample.objects and sample.kind is not Kind.NO_TARGET and sample.truth is not None:
        yield "the expression names no object"
    if sample.objects and sample.kind is Kind.NO_TARGET:
        yield f"the expression should name nothing, but has {len(sample.objects)} object(s)"


def _footage_problems(footage: Footage, images: bool) -> Iterator[str]:
    absent = footage.missing()
    yield from (f"{name} is missing" for name in absent)
    if absent or not images:
        return
    size = None
    for index in range(len(footage)):
        try:
            image = footage.read(index)
        except BadInput as error:
            yield str(error)
            continue
        if size is not None and image.shape != size:
            yield (
                f"frame {footage.frames[index]} of {footage.name} is {image.shape[1]} x {image.shape[0]}, the frames "
                f"before are {size[1]} x {size[0]}"
            )
        size = image.shape


def _truth_problems(sample: Sample) -> Iterator[str]:
    """Masks that cannot be read, and things that have no pixel on any frame."""
    if sample.truth is None or sample.footage.missing():
        return
    seen = [False] * len(sample.objects)
    annotated = 0
    for index in range(len(sample.footage)):
        try:
            truth = sample.truth(index)
        except BadInput as error:
            yield str(error)
            return
        if truth is None:
            continue
        annotated += 1
        if len(truth.masks) != len(sample.objects):
            yield f"{sample.id}: {len(truth.masks)} masks for {len(sample.objects)} objects"
            return
        seen = [before or bool(mask.any()) for before, mask in zip(seen, truth.masks, strict=True)]
    if annotated:
        for name, visible in zip(sample.objects, seen, strict=True):
            if not visible:
                yield f"{sample.id}: the object {name!r} has no pixel on any frame"
