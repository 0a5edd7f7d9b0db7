"""Scores as a table, with what is in print beside them, and as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .predictions import Prediction, RunDescription
from .protocol import Protocol
from .published import Published
from .scoring import Scores

NAMED = 10  # failures and missing predictions that are printed


def format_scores(
    run: RunDescription,
    protocol: Protocol,
    scores: Scores,
    published: Sequence[Published],
    asked: Sequence[Prediction],
    whole: int,
) -> str:
    """Figures in percent; counts as they are. whole: samples of the split; the column of ours says if not all."""
    differs = "not as published" if protocol.publication else "note"
    lines = [
        f"{run.benchmark} {run.split}: {run.recipe}, {words_of(run, protocol)}; {extent(scores, whole)} samples",
        *(f"  {differs}: {note}" for note in protocol.deviations if run.protocol == "published"),
    ]
    if run.protocol == "streaming":
        lines.append("  asked with: " + ", ".join(f"{key} {value}" for key, value in sorted(run.settings.items())))
    ours = "ours" if scores.samples == whole else f"ours, {extent(scores, whole)}"
    heads = ["", "figure", ours, "95 %", *(f"in print: {p.of}" for p in published)]
    rows = [heads]
    for name, row in scores.table.items():
        title = f"{name} ({row['samples']})"
        for figure, value in row.items():
            if figure == "samples":
                continue
            within = scores.ranges.get(figure) if name == "overall" else None
            shown = "" if within is None else f"{100 * within[0]:.1f} .. {100 * within[1]:.1f}"
            beside = [p.figures.get(name, {}).get(figure) for p in published]
            rows.append([title, figure, _percent(value), shown, *("" if b is None else f"{b:g}" for b in beside)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
    for place, row in enumerate(rows):
        name = "" if place > 1 and row[0] == rows[place - 1][0] else row[0]
        cells = [name.ljust(widths[0]), row[1].ljust(widths[1])]
        cells += [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    lines += _trouble("without a prediction, counted as zero", scores.missing)
    lines += _trouble("failed, counted as zero", [f"{name}: {why}" for name, why in scores.failed.items()])
    if run.protocol == "streaming":
        lines.append(_streaming_line(streaming_figures(asked)))
    return "\n".join(lines)


def extent(scores: Scores, whole: int) -> str:
    return str(whole) if scores.samples == whole else f"the first {scores.samples} of {whole}"


def words_of(run: RunDescription, protocol: Protocol) -> str:
    if run.protocol == "streaming":
        return "streaming protocol, latency charged (published figures are offline ones)"
    return f"protocol as published by {protocol.publication}" if protocol.publication else "this project's own protocol"


def scores_json(
    run: RunDescription,
    protocol: Protocol,
    scores: Scores,
    published: Sequence[Published],
    asked: Sequence[Prediction],
    whole: int,
) -> dict[str, Any]:
    """Figures as fractions, published ones in percent as printed; undefined ones are null."""
    content = {
        "run": dataclasses.asdict(run),
        "protocol": {**dataclasses.asdict(protocol), "words": words_of(run, protocol)},
        "headline": scores.headline,
        "table": scores.table,
        "ranges_95": scores.ranges,
        "published_percent": [dataclasses.asdict(p) for p in published],
        "samples": scores.samples,
        "samples_of_split": whole,
        "missing": scores.missing,
        "failed": scores.failed,
        "seconds_per_sample": _median([p.seconds for p in asked if not p.error]),
        "judged": [
            {"id": one.id, "index": one.index, **{k: _plain(v) for k, v in one.values.items()}} for one in scores.judged
        ],
    }
    if run.protocol == "streaming":
        content["streaming"] = streaming_figures(asked)
    return content


def streaming_figures(asked: Sequence[Prediction]) -> dict[str, float | None]:
    """Medians over the streams; ``without_mask``: the share that never had one."""
    streams = [p.figures for p in asked if p.figures]
    names = ("first_mask_s", "age_p50_s", "age_p95_s")
    medians = {name: _median([f[name] for f in streams if f.get(name) is not None]) for name in names}
    without = [f.get("first_mask_s") is None for f in streams]
    return medians | {"without_mask": float(np.mean(without)) if without else None}


def _streaming_line(figures: Mapping[str, float | None]) -> str:
    def seconds(name: str) -> str:
        value = figures[name]
        return "-" if value is None else f"{value:.3f} s"

    never = figures["without_mask"]
    return (
        f"streams: first mask after {seconds('first_mask_s')} (median), age of results p50 / p95 "
        f"{seconds('age_p50_s')} / {seconds('age_p95_s')}, without any mask "
        f"{'-' if never is None else f'{100 * never:.1f} %'}"
    )


def _trouble(what: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    more = [f"  ... and {len(names) - NAMED} more, all of them in the JSON"] if len(names) > NAMED else []
    return [f"{len(names)} {what}:", *(f"  {name[:200]}" for name in names[:NAMED]), *more]


def _percent(value: float | None) -> str:
    return "undefined" if value is None else f"{100 * value:.2f}"


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
