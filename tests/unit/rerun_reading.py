"""Reading a rerun recording back: what a viewer would show, as plain Python."""

from __future__ import annotations

import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from rerun.chunk import RrdReader


class Row(NamedTuple):
    """One log call. time: nanoseconds on the recording's own timeline; None for what holds always."""

    time: int | None
    values: dict[str, Any]


def read_recording(path: Path) -> dict[str, list[Row]]:
    """Rows by entity path, in order of time."""
    rows: dict[str, list[Row]] = defaultdict(list)
    for chunk in RrdReader(path).stream():
        batch = chunk.to_record_batch()
        columns = {name.partition(":")[2]: batch.column(name).to_pylist() for name in batch.schema.names if ":" in name}
        timed = "frame_time" in batch.schema.names
        times = batch.column("frame_time").cast("int64").to_pylist() if timed else [None] * batch.num_rows
        for index, time in enumerate(times):
            rows[chunk.entity_path].append(Row(time, {name: values[index] for name, values in columns.items()}))
    return {entity: sorted(found, key=lambda row: row.time or 0) for entity, found in rows.items()}


def texts(rows: list[Row]) -> list[str]:
    return [row.values["text"][0] for row in rows]


def scalars(rows: list[Row]) -> list[float]:
    return [row.values["scalars"][0] for row in rows]


def mask(row: Row) -> np.ndarray:
    """``(H, W)`` uint16."""
    form = row.values["format"][0]
    return np.array(row.values["buffer"][0], np.uint8).view(np.uint16).reshape(form["height"], form["width"])


def names(rows: list[Row]) -> dict[int, str]:
    """The names of the last annotation context."""
    context = [row for row in rows if "context" in row.values][-1].values["context"][0]
    return {entry["class_id"]: entry["class_description"]["info"]["label"] for entry in context}
