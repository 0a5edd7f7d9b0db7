"""What the index of a COCO annotation file costs: measured in a process of its own, which imports no torch."""

from __future__ import annotations

import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

import numpy as np

from instructseg.data.readers.coco_index import open_index
from instructseg.streaming.statistics import resident_bytes

from .data_sets import instances
from .figures import Figure, figure
from .options import MeasurementFailed


def index_cost(root: Path, images: int, draw: np.random.Generator) -> tuple[list[Figure], dict[str, Any]]:
    """Seconds and memory to index the annotations of ``images`` images, in a process of its own."""
    path = root / "large.json"
    content = instances(draw, images)
    count = len(content["annotations"])
    path.write_text(json.dumps(content))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        seconds, kept = pool.apply(_open_index, (path,))
    megabytes = path.stat().st_size / 1e6
    figures = [
        figure("index of a COCO file, a million annotations", "s", seconds / count * 1e6),
        figure("index of a COCO file, memory an annotation", "bytes", kept / count),
    ]
    return figures, {"index": {"annotations": count, "file MB": megabytes, "seconds": seconds, "kept MB": kept / 1e6}}


def _open_index(path: Path) -> tuple[float, int]:
    before, began = resident_bytes(), time.perf_counter()
    index = open_index(path)
    seconds = time.perf_counter() - began
    if not len(index):
        raise MeasurementFailed(f"{path}: no annotation was found")
    return seconds, max(0, resident_bytes() - before)
