"""The report on a demo run: verdict on every command, account of every frame, age of the masks. No rclpy.

python -m instructseg_node.demo.report BAG RESULTS writes the report of an earlier run anew.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from instructseg.core import BadInput, InstructSegError, State
from instructseg.streaming.statistics import percentile

from .records import DemoBag, Expectation, FrameRecord, ResultsBag
from .verdicts import CommandVerdict, FrameCount, SegmentVerdict, judge

AGES = (("p50", 0.50), ("p95", 0.95), ("p99", 0.99))


@dataclasses.dataclass(frozen=True)
class Report:
    """commands: in order. frames: account of the frames by name.

    ages_ms: percentiles over the frames with a mask. "received": from the frame's stamp to the arrival of ``~/targets``
    at the recorder, on a clock interpolated between the ticks of /clock. "node": as the node measured them just before
    publication, with a clock that stands still between two ticks and lags where the node is short of CPU.
    """

    commands: tuple[CommandVerdict, ...]
    frames: dict[str, int]
    dropped: dict[str, int]
    ages_ms: dict[str, dict[str, float]]
    grounding_ms: float
    results_mb: float

    @property
    def passed(self) -> bool:
        """Every verdict is the expected one."""
        return all(command.passed for command in self.commands)


def make_report(demo: DemoBag, results: ResultsBag, results_mb: float = 0.0) -> Report:
    """Judge what the node said about the recording."""
    if not results.frames:
        raise BadInput("the recording of the node holds no ~/targets: it published nothing to be judged")
    following = [*demo.expectations[1:], None]
    commands = tuple(
        judge(command, count_frames(demo, results, command, later))
        for command, later in zip(demo.expectations, following, strict=True)
    )
    frames, dropped = frame_account(demo, results)
    with_mask = [frame for frame in results.frames.values() if _present(frame)]
    ages = {
        "node": _percentiles(frame.age for frame in with_mask),
        "received": _percentiles(frame.received_age for frame in with_mask),
    }
    grounding = percentile([seconds for _, seconds in results.groundings], 0.5)
    return Report(commands, frames, dropped, ages, round(grounding * 1e3, 1), results_mb)


def count_frames(
    demo: DemoBag, results: ResultsBag, command: Expectation, later: Expectation | None = None
) -> list[FrameCount]:
    """The published frames of a command's time, with its targets and their pixels against the truth.

    A frame taken just before the ``later`` command may be published just after it: where it answers that one already
    it belongs to neither.
    """
    counted = []
    for stamp in sorted(results.frames):
        if not command.start <= demo.seconds(stamp) < command.end:
            continue
        frame, truth = results.frames[stamp], demo.truth(stamp)
        if later and later.own(frame.targets) and not command.own(frame.targets):
            continue
        if truth is not None:
            counted.append(_count(demo.seconds(stamp), frame, results.instances(stamp), truth, command))
    return counted


def frame_account(demo: DemoBag, results: ResultsBag) -> tuple[dict[str, int], dict[str, int]]:
    """What became of every camera frame, and the node's drops by cause (bad input that was no frame among them)."""
    figures = results.diagnostics
    dropped = {key.removeprefix("dropped "): int(value) for key, value in figures.items() if key.startswith("dropped ")}
    received, out = int(figures.get("frames in", 0)), int(figures.get("frames out", 0))
    published = len(set(results.frames) & set(demo.stamps))
    account = {
        "in_recording": len(demo.stamps),
        "received_by_node": received,
        "published": published,
        "dropped": sum(dropped.values()),
        "not_delivered_to_node": len(demo.stamps) - received,
        "not_delivered_to_recorder": out - published - results.repeated,
        "published_twice": results.repeated,
        "masks_not_recorded": sum(_present(f) and not results.has_mask(stamp) for stamp, f in results.frames.items()),
        "unknown_stamp": len(set(results.frames) - set(demo.stamps)),
    }
    return account, dropped


def as_json(report: Report) -> dict[str, Any]:
    """For report.json; figures rounded to what they are worth."""
    return {
        "passed": report.passed,
        "commands": [_command_json(command) for command in report.commands],
        "frames": report.frames,
        "dropped": report.dropped,
        "age_of_masks_ms": report.ages_ms,
        "median_grounding_ms": report.grounding_ms,
        "results_mb": round(report.results_mb, 2),
    }


def as_table(report: Report) -> str:
    """For the terminal."""
    head = ("command", "expected", "given", "", "IoU", "held", "first mask", "false masks")
    rows = [head]
    for command in report.commands:
        present = [s for segments in command.slots for s in segments if s.expected == "PRESENT"]
        rows.append(
            (
                command.expectation.text,
                command.expected,
                command.given,
                "ok" if command.passed else "WRONG",
                "-" if command.iou is None else f"{command.iou:.2f}",
                f"{min(s.share for s in present) * 100:.0f} %" if present else "-",
                "-" if command.first_mask_s is None else f"{command.first_mask_s:.2f} s",
                str(command.false_masks),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    frames, drops = report.frames, ", ".join(f"{name} {count}" for name, count in sorted(report.dropped.items()))
    node, received = report.ages_ms["node"], report.ages_ms["received"]
    return "\n".join(
        [
            *lines,
            "",
            f"frames      in {frames['in_recording']}, received by the node {frames['received_by_node']}, "
            f"published {frames['published']}, dropped {frames['dropped']}"
            + (f" ({drops})" if drops else "")
            + f", never delivered {frames['not_delivered_to_node']}",
            "age of masks" + _ages_line(received) + " from the frame's stamp to a subscriber, by the player's clock",
            "            " + _ages_line(node) + " at publication, by the node's clock (the last /clock it heard)",
            f"grounding   median {report.grounding_ms:.0f} ms",
            "IoU: mean from the first mask on, a frame without a mask counts 0. held: share of the frames in the",
            "second half that are PRESENT. false masks: frames with a mask where there is nothing.",
            f"{sum(c.passed for c in report.commands)} of {len(report.commands)} verdicts as expected",
        ]
    )


def write(report: Report, path: Path, **facts: Any) -> None:
    """report.json; facts: further entries."""
    path.write_text(json.dumps(as_json(report) | facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. Exit code 0: every verdict as expected, 1: not, 2: bad input."""
    parser = argparse.ArgumentParser(prog="demo_report", description=__doc__.splitlines()[0])
    parser.add_argument("bag", type=Path, help="the recording that was played")
    parser.add_argument("results", type=Path, help="what the node published (.mcap)")
    options = parser.parse_args(arguments)
    try:
        report = make_report(DemoBag(options.bag), ResultsBag(options.results), options.results.stat().st_size / 1e6)
    except (InstructSegError, OSError) as error:
        print(f"demo_report: {error}", file=sys.stderr)
        return 2
    print(as_table(report))
    return 0 if report.passed else 1


def _count(
    time: float, frame: FrameRecord, instances: np.ndarray | None, truth: np.ndarray, command: Expectation
) -> FrameCount:
    targets = command.own(frame.targets)
    wanted = [np.isin(truth, slot.instance_ids) for slot in command.slots]  # each (H, W)
    areas, overlaps = {}, {}
    for instance in {target.instance_id for target in targets if target.instance_id}:
        mask = np.zeros(truth.shape, bool) if instances is None else instances == instance
        areas[instance] = int(mask.sum())
        overlaps |= {(instance, slot): int((mask & seen).sum()) for slot, seen in enumerate(wanted)}
    return FrameCount(time, frame.received_age, targets, areas, tuple(int(seen.sum()) for seen in wanted), overlaps)


def _present(frame: FrameRecord) -> bool:
    return any(target.state is State.PRESENT for target in frame.targets)


def _percentiles(ages: Iterable[float | None]) -> dict[str, float]:
    known = [age for age in ages if age is not None and math.isfinite(age)]
    return {name: round(percentile(known, fraction) * 1e3, 1) for name, fraction in AGES}


def _ages_line(ages: dict[str, float]) -> str:
    return "".join(f"  {name} {ages[name]:6.1f} ms" for name, _ in AGES)


def _command_json(command: CommandVerdict) -> dict[str, Any]:
    wanted = command.expectation
    return {
        "text": wanted.text,
        "kind": wanted.kind,
        "start_s": wanted.start,
        "end_s": wanted.end,
        "expected": command.expected,
        "given": command.given,
        "passed": command.passed,
        "mean_iou": _rounded(command.iou),
        "time_to_first_mask_s": _rounded(command.first_mask_s),
        "frames": command.frames,
        "false_mask_frames": command.false_masks,
        "slots": [
            {"objects": slot.objects, "segments": [_segment_json(segment) for segment in segments]}
            for slot, segments in zip(wanted.slots, command.slots, strict=True)
        ],
    }


def _segment_json(segment: SegmentVerdict) -> dict[str, Any]:
    facts = dataclasses.asdict(segment)
    return {name: _rounded(value) if isinstance(value, float) else value for name, value in facts.items()}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


if __name__ == "__main__":
    sys.exit(main())
