"""The report of a replay: a table for people, JSON for programs, JUnit XML for continuous integration."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from .judge import Check, Judgement
from .records import Run

HEAD = ("expectation", "", "state", "IoU", "held", "age p95", "false masks", "drops")


@dataclasses.dataclass(frozen=True)
class Report:
    """A run and the judgements on it, in the order of the expectations."""

    run: Run
    judgements: tuple[Judgement, ...] = ()

    @property
    def passed(self) -> bool:
        """Every expectation is met."""
        return all(judgement.passed for judgement in self.judgements)


def as_table(report: Report) -> str:
    """For the terminal."""
    lines = _grid([HEAD, *(_row(judgement) for judgement in report.judgements)]) if report.judgements else []
    failures = [(j, check) for j in report.judgements for check in j.checks if not check.passed]
    lines += ["", *(f"{j.window.name}: {_failure(check)}" for j, check in failures)] if failures else []
    return "\n".join([*lines, *([""] if lines else []), *_account(report)])


def as_json(report: Report) -> dict[str, Any]:
    """Every figure; numbers rounded to what they are worth."""
    run = report.run
    return {
        "passed": report.passed,
        "bag": str(run.bag),
        "results": str(run.results),
        "every_frame": run.rate is None,
        "rate": run.rate,
        "start_s": _rounded(run.start),
        "end_s": _rounded(run.end),
        "frames_played": len(run.frames),
        "dropped": run.dropped,
        "notes": list(run.notes),
        "commands": [
            {
                "words": given.command.words,
                "start_s": _rounded(given.start),
                "end_s": _rounded(given.end),
                "instruction_ids": list(given.ids),
            }
            for given in run.given
        ],
        "expectations": [_judgement_json(judgement) for judgement in report.judgements],
        "wall_s": round(run.wall_s, 2),
    }


def as_junit(report: Report) -> str:
    """One test case for each expectation, named by command and window; a failure says every check that failed."""
    failed = sum(not judgement.passed for judgement in report.judgements)
    facts = {"tests": str(len(report.judgements)), "failures": str(failed), "errors": "0", "skipped": "0"}
    suites = ElementTree.Element("testsuites", facts)
    suite = ElementTree.SubElement(
        suites,
        "testsuite",
        {"name": f"instructseg_replay {report.run.bag.name}", **facts, "time": _s(report.run.wall_s)},
    )
    for judgement in report.judgements:
        window = judgement.window
        case = ElementTree.SubElement(
            suite,
            "testcase",
            {
                "classname": f"instructseg_replay.{report.run.bag.stem}",
                "name": _printable(window.name),
                "time": _s(window.end - window.start),
            },
        )
        failures = [_printable(_failure(check)) for check in judgement.checks if not check.passed]
        if failures:
            element = ElementTree.SubElement(case, "failure", {"message": "; ".join(failures)})
            element.text = "\n".join([*failures, f"expected in {window.expectation.place}"])
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def write(report: Report, json_file: Path | None, junit_file: Path | None) -> None:
    """The files that were asked for."""
    contents = {json_file: lambda: json.dumps(as_json(report), indent=2, ensure_ascii=False) + "\n"}
    contents[junit_file] = lambda: as_junit(report)
    for file, content in contents.items():
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content(), encoding="utf-8")


def _row(judgement: Judgement) -> tuple[str, ...]:
    return (
        judgement.window.name,
        "ok" if judgement.passed else "FAILED",
        judgement.state,
        _or_dash(judgement.iou, "{:.2f}"),
        f"{judgement.held * 100:.0f} %",
        _or_dash(judgement.age_p95, "{:.3f} s"),
        _or_dash(judgement.false_masks, "{}"),
        f"{judgement.drops} of {judgement.frames}",
    )


def _account(report: Report) -> list[str]:
    run = report.run
    drops = ", ".join(f"{cause} {count}" for cause, count in sorted(run.dropped.items()) if count) or "none"
    pace = "every frame" if run.rate is None else f"rate {run.rate:g}"
    lines = [
        f"played {round(run.start, 3):g} to {round(run.end, 3):g} s of {run.bag} ({pace}): {len(run.frames)} frames, "
        f"{len(run.given)} {'command' if len(run.given) == 1 else 'commands'}, in {run.wall_s:.0f} s",
        f"dropped by the node: {drops}",
        f"recorded in {run.results}",
        *(f"note: {note}" for note in run.notes),
    ]
    refused = [given.command.words for given in run.given if given.command.asks and not given.ids]
    lines += [f"note: the node made no instruction of {words!r}" for words in refused]
    if report.judgements:
        met = sum(judgement.passed for judgement in report.judgements)
        lines.append(f"{met} of {len(report.judgements)} expectations met")
    return lines


def _failure(check: Check) -> str:
    word = {"min": "at least ", "max": "at most "}.get(check.key[:3], "")
    return f"{check.key}: expected {word}{check.wanted}, got {check.got}"


def _judgement_json(judgement: Judgement) -> dict[str, Any]:
    window = judgement.window
    return {
        "command": window.expectation.name,
        "camera": window.expectation.camera,
        "place": window.expectation.place,
        "start_s": _rounded(window.start),
        "end_s": _rounded(window.end),
        "passed": judgement.passed,
        "state": judgement.state,
        "states": list(judgement.states),
        "frames": judgement.frames,
        "drops": judgement.drops,
        "held": _rounded(judgement.held),
        "mean_iou": _rounded(judgement.iou),
        "compared": judgement.compared,
        "age_p95_s": _rounded(judgement.age_p95),
        "false_masks": judgement.false_masks,
        "instance_ids": list(judgement.ids),
        "first_mask_s": _rounded(judgement.first_mask),
        "checks": [dataclasses.asdict(check) for check in judgement.checks],
    }


def _grid(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]


def _printable(text: str) -> str:
    """XML knows no control characters."""
    return "".join(c if c.isprintable() else " " for c in text)


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _s(seconds: float) -> str:
    return f"{seconds:.3f}"
