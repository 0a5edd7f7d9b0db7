"""Archives for the benchmarks' servers: ``Annotations/<video>/<expression>/<frame>.png``, 0 and 255 (MeViS,
Ref-YouTube-VOS)."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from ...core import BadInput
from ...data.samples import Dataset, Sample
from .masks import decode_mask
from .predictions import Prediction

SERVERS = {"mevis": "MeViS", "ref-youtube-vos": "Ref-YouTube-VOS"}


def check_archive(benchmark: str, path: Path) -> None:
    """Before hours of work. Raises BadInput."""
    if benchmark not in SERVERS:
        raise BadInput(f"--archive is for the servers of {' and '.join(SERVERS)}; {benchmark} is scored here")
    if path.suffix != ".zip" or path.is_dir():
        raise BadInput(f"--archive {path} must be a file whose name ends in .zip")


def write_archive(
    path: Path, dataset: Dataset, indices: Sequence[int], predictions: Mapping[int, Prediction]
) -> list[str]:
    """Every frame of every sample; where there is no prediction the masks are black, and the sample is returned by name
    with the reason. The file appears when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lacking: list[str] = []
    unfinished = path.with_name(f".{path.name}.unfinished")
    with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED) as archive:  # PNG is compressed already
        for index in indices:
            try:
                sample = dataset[index]
            except BadInput as error:
                lacking.append(f"sample {index}: {error}")
                continue
            reason = _add(archive, sample, predictions.get(index))
            if reason:
                lacking.append(f"{sample.id}: {reason}")
    unfinished.replace(path)
    return lacking


def _add(archive: zipfile.ZipFile, sample: Sample, prediction: Prediction | None) -> str:
    """Why the masks are black; "" where they are not."""
    reason = "" if prediction is not None else "no prediction"
    if prediction is not None and prediction.error:
        reason = prediction.error
    elif prediction is not None and (prediction.id != sample.id or len(prediction.masks) != len(sample.footage)):
        reason = f"the prediction is of {prediction.id} with {len(prediction.masks)} frames: the data set has changed"
    try:
        size = sample.footage.read(0).shape[:2]
    except BadInput as error:
        return str(error)  # a frame that nobody can read has no size
    black = _png(np.zeros(size, bool))
    pictures = []
    for frame, name in enumerate(sample.footage.frames):
        picture = black
        if not reason and prediction.masks[frame] is not None:
            try:
                picture = _png(decode_mask(prediction.masks[frame], size, f"prediction of {sample.id}, frame {name}"))
            except BadInput as error:
                reason = str(error)
        pictures.append((name, picture))
    for name, picture in pictures:
        archive.writestr(
            f"Annotations/{sample.footage.name}/{sample.expression}/{name}.png", black if reason else picture
        )
    return reason


def _png(mask: np.ndarray) -> bytes:
    return cv2.imencode(".png", mask.astype(np.uint8) * 255)[1].tobytes()
