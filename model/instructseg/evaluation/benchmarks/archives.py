"""Archives for the benchmarks' servers: ``<video>/<expression>/<frame>.png``, 0 and 255, for MeViS at the top, for
Ref-YouTube-VOS in a folder ``Annotations``."""

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
from .whole_files import whole_file

SERVERS = {"mevis": "", "ref-youtube-vos": "Annotations/"}  # what stands before the video


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
    with the reason. What cannot be read is left out and returned too. The file appears when it is whole."""
    lacking: list[str] = []
    above = SERVERS[dataset.name]
    with whole_file(path) as unfinished, zipfile.ZipFile(unfinished, "w") as archive:  # stored: PNG is compressed
        for index in indices:
            try:
                sample = dataset[index]
            except BadInput as error:
                lacking.append(f"sample {index}: {error}")
                continue
            reason = _add(archive, above, sample, predictions.get(index))
            if reason:
                lacking.append(f"{sample.id}: {reason}")
    return lacking


def _add(archive: zipfile.ZipFile, above: str, sample: Sample, prediction: Prediction | None) -> str:
    """Why the masks are black or left out; "" where they are not."""
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
        place = f"{above}{sample.footage.name}/{sample.expression}/{name}.png"
        archive.writestr(place, black if reason else picture)
    return reason


def _png(mask: np.ndarray) -> bytes:
    return cv2.imencode(".png", mask.astype(np.uint8) * 255)[1].tobytes()
