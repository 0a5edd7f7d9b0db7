"""Predictions as one JSON of COCO results: of images as COCO's detection files, of videos as YouTube-VIS's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...core import BadInput
from ...data.samples import Dataset, Sample
from .masks import empty_runs
from .predictions import Prediction
from .whole_files import write_whole


def write_coco(
    path: Path, dataset: Dataset, indices: Sequence[int], predictions: Mapping[int, Prediction], video: bool
) -> int:
    """One entry a sample that has a prediction; how many there are."""
    entries = []
    for index in indices:
        prediction = predictions.get(index)
        if prediction is None or prediction.error:
            continue
        try:
            entries.append(_entry(dataset[index], prediction, video))
        except BadInput:
            continue  # an unreadable sample has no image to belong to
    write_whole(path, json.dumps(entries) + "\n")
    return len(entries)


def _entry(sample: Sample, prediction: Prediction, video: bool) -> dict[str, Any]:
    common = {
        "sample": sample.id,
        "expression": sample.expression,
        "caption": sample.instruction,
        "category_id": int(sample.extra.get("category_id", 1)),
        "score": prediction.score,
        "refused": prediction.refused,
    }
    if video:
        names = list(sample.footage.frames)
        return {"video_id": sample.footage.name, "frames": names, "segmentations": list(prediction.masks), **common}
    image = sample.extra.get("image_id", sample.footage.name)
    # Readers of COCO files know no null in a single image.
    runs = prediction.masks[0] or empty_runs(*sample.footage.read(0).shape[:2])
    return {"image_id": image, "segmentation": runs, **common}
