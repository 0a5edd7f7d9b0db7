"""What a benchmark reports: figures with units, each beside its floor where the project has promised one."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Floor:
    """A promise. kind: "at least" or "at most". text: the promise in words, with its limit in the figure's unit."""

    kind: str
    limit: float
    text: str

    def __post_init__(self) -> None:
        if self.kind not in ("at least", "at most"):
            raise ValueError(f"Floor.kind must be 'at least' or 'at most'; got {self.kind!r}")

    def verdict(self, value: float) -> str:
        held = value >= self.limit if self.kind == "at least" else value <= self.limit
        return "met" if held else "not met"


@dataclasses.dataclass(frozen=True)
class Figure:
    """One measured quantity. values: every repetition; a figure that exists only once has one. The median is the value
    that is compared with the floor."""

    name: str
    unit: str
    values: tuple[float, ...]
    floor: Floor | None = None

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError(f"figure {self.name!r} has no value: nothing was measured")

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def verdict(self) -> str:
        """The median against the floor: "met" or "not met"; empty where nothing was promised."""
        return self.floor.verdict(self.median) if self.floor else ""

    def to_dict(self) -> dict[str, Any]:
        result: dict[str, Any] = {"name": self.name, "unit": self.unit}
        if len(self.values) > 1:
            result |= {"min": min(self.values), "median": self.median, "max": max(self.values)}
        else:
            result["value"] = self.values[0]
        result["repetitions"] = len(self.values)
        if self.floor:
            result["floor"] = dataclasses.asdict(self.floor) | {"verdict": self.verdict}
        return result


def figure(name: str, unit: str, values: float | Sequence[float], floor: Floor | None = None) -> Figure:
    """A figure from one number or from all repetitions."""
    several = (float(values),) if isinstance(values, (int, float)) else tuple(float(v) for v in values)
    return Figure(name, unit, several, floor)


@dataclasses.dataclass(frozen=True)
class Report:
    """One part's figures and the circumstances they were measured in."""

    part: str
    quick: bool
    checkpoint: str
    machine: dict[str, Any]
    figures: tuple[Figure, ...]
    details: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {
            "part": self.part,
            "quick": self.quick,
            "checkpoint": self.checkpoint,
            "machine": self.machine,
            "figures": [figure.to_dict() for figure in self.figures],
            "details": self.details,
        }

    def write(self, folder: Path) -> Path:
        """``<folder>/<part>.json``, replaced in one move."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.part}.json"
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")
        partial.replace(path)
        return path


def table(report: Report) -> str:
    """The figures for people, one line each."""
    head = ("", "min", "median", "max", "unit", "floor", "")
    rows = [head, *(_row(figure) for figure in report.figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = []
    for row in rows:
        cells = [c.rjust(w) if 1 <= i <= 3 else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    machine = report.machine
    title = f"{report.part}{' (quick: few repetitions)' if report.quick else ''}: {machine['cpu']}, "
    title += f"{machine['cores']} cores, load {machine['load_average'][0]:.1f} at the start, {report.checkpoint}"
    return "\n".join([title, *("  " + line for line in lines)])


def _row(figure: Figure) -> tuple[str, ...]:
    several = len(figure.values) > 1
    low, high = (_number(min(figure.values)), _number(max(figure.values))) if several else ("", "")
    floor = figure.floor.text if figure.floor else ""
    return (figure.name, low, _number(figure.median), high, figure.unit, floor, figure.verdict)


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
