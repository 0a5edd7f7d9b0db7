"""Readers of video data: frames and masks per second of CPU time, on 480p videos written for the purpose."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as coco

from instructseg.data.benchmarks import open_dataset
from instructseg.data.readers.recordings import RecordedExpression, write_recording
from instructseg.data.samples import Dataset

from .figures import Figure, Floor, figure
from .metrics import cpu_seconds, one_thread
from .options import Options
from .video_clips import AREAS, pictures, truth_masks

AHEAD = Floor("at least", 25.0, ">= 25 frames/s a core: ahead of 50 samples/s on two")
ENTRIES = 200  # lists of masks in the RLE file, of which one video uses three


def measure(options: Options) -> tuple[list[Figure], dict[str, Any]]:
    frames, rounds = (24, 5) if not options.quick else (4, 2)
    masks = np.stack([truth_masks(frames, thing) for thing in range(AREAS)])  # (things, T, H, W)
    images = pictures(masks)
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder, one_thread():
        for name, write in WRITERS.items():
            options.say(name)
            root = Path(folder) / name
            dataset = write(root, images, masks)
            figures += _figures(LABELS[name], dataset, rounds)
        file = Path(folder) / "mevis/train/mask_dict.json"
        opened = [_first_mask(Path(folder) / "mevis") for _ in range(rounds)]
        figures.append(figure("MeViS: from opening to the first mask", "ms", opened))
        details = {"frames": frames, "objects": AREAS, "rle_file_mb": file.stat().st_size / 1e6, "processes": 1}
    return figures, details


def _figures(name: str, dataset: Dataset, rounds: int) -> list[Figure]:
    """Speeds over the sample that names all things."""
    sample = max(dataset, key=lambda sample: len(sample.objects))
    assert sample.truth is not None
    count = len(sample.footage)
    speeds: dict[str, list[float]] = {"masks": [], "frames with masks": []}
    for _ in range(rounds):
        masks = cpu_seconds(lambda: [sample.truth(i) for i in range(count)])
        frames = cpu_seconds(lambda: [sample.footage.read(i) for i in range(count)])
        speeds["masks"].append(count / masks)
        speeds["frames with masks"].append(count / (masks + frames))
    return [
        figure(f"{name}: {what}", "frames/s", values, AHEAD if what != "masks" else None)
        for what, values in speeds.items()
    ]


def _first_mask(root: Path) -> float:
    def look() -> None:
        dataset = open_dataset("mevis", root, "train")
        assert dataset[0].truth is not None
        dataset[0].truth(0)

    return 1e3 * cpu_seconds(look)


def _davis(root: Path, images: np.ndarray, masks: np.ndarray) -> Dataset:
    """Palette images, all things in one."""
    _frames(root / "valid/JPEGImages/blackswan", images)
    folder = root / "valid/Annotations/blackswan"
    folder.mkdir(parents=True)
    for t in range(len(images)):
        labels = np.zeros(images.shape[1:3], np.uint8)
        for thing, track in enumerate(masks):
            labels[track[t]] = thing + 1
        picture = Image.fromarray(labels)
        picture.putpalette([value for value in range(256) for _ in range(3)])
        picture.save(folder / f"{t:05d}.png")
    expressions = {str(4 * i): {"exp": "a thing", "obj_id": str(i + 1)} for i in range(len(masks))}
    _index(root / "meta_expressions/valid/meta_expressions.json", "blackswan", len(images), expressions)
    return open_dataset("ref-davis17", root, "valid")


def _mevis(root: Path, images: np.ndarray, masks: np.ndarray) -> Dataset:
    """Run lengths, in a file with those of many other videos."""
    _frames(root / "train/JPEGImages/video", images)
    tracks = {
        str(i): [_rle(masks[i % len(masks), t]) for t in range(len(images))] for i in range(ENTRIES)
    }  # those of other videos are as long
    ids = list(range(len(masks)))
    _index(root / "train/meta_expressions.json", "video", len(images), {"0": _about(ids)})
    (root / "train/mask_dict.json").write_text(json.dumps(tracks), encoding="utf-8")
    return open_dataset("mevis", root, "train")


def _recording(root: Path, images: np.ndarray, masks: np.ndarray) -> Dataset:
    """A bag (MCAP) of JPEG pictures and PNG instance masks."""
    labels = np.zeros(masks.shape[1:], np.uint16)
    for thing, track in enumerate(masks):
        labels[track] = thing + 1
    ids = range(1, len(masks) + 1)
    frames = ((10**18 + t * 10**8, image, labels[t]) for t, image in enumerate(images))
    expressions = [RecordedExpression("the things", tuple(ids))]
    names = {i: f"thing {i}" for i in ids}
    write_recording(root / "a", frames, expressions, names, {"train": [(0, math.inf)]}, pictures="jpeg")
    return open_dataset("recordings", root, "train")


WRITERS = {"davis": _davis, "mevis": _mevis, "recording": _recording}
LABELS = {"davis": "palette PNG, 3 objects", "mevis": "RLE, 3 objects", "recording": "bag, 3 objects"}


def _frames(folder: Path, images: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for t, image in enumerate(images):
        cv2.imwrite(str(folder / f"{t:05d}.jpg"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))


def _index(path: Path, video: str, frames: int, expressions: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [f"{t:05d}" for t in range(frames)]
    content = {"videos": {video: {"frames": names, "expressions": expressions}}}
    path.write_text(json.dumps(content), encoding="utf-8")


def _about(ids: list[int]) -> dict[str, Any]:
    return {"exp": "things that move", "obj_id": ids, "anno_id": ids}


def _rle(mask: np.ndarray) -> dict[str, Any]:
    encoded = coco.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode("ascii")}
