"""Data sets written by the benchmark itself, in the published layouts: JPEG with the detail of photographs, outlines of
dozens of points."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as coco

WIDTH, HEIGHT = 640, 480
PER_IMAGE = 7  # annotations of an image; COCO has 7.3
MEAN_POINTS = 30
VIDEO_FRAMES, OBJECTS, VIDEO_SIZE = 20, 3, (1280, 720)  # YouTube-VOS is 720p, every fifth frame
PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]


def photograph(draw: np.random.Generator, size: tuple[int, int] = (WIDTH, HEIGHT)) -> np.ndarray:
    """``(height, width, 3)`` uint8 RGB: detail at every scale, so that JPEG takes as much as of a photograph."""
    width, height = size
    image = np.full((height, width, 3), 128, np.float32)
    for scale, strength in ((80, 45), (20, 25), (5, 12), (1, 4)):
        grid = draw.normal(0, strength, (height // scale + 2, width // scale + 2, 3)).astype(np.float32)
        image += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    return image.clip(0, 255).astype(np.uint8)


def outline(draw: np.random.Generator, size: tuple[int, int] = (WIDTH, HEIGHT)) -> list[float]:
    """A round thing with a ragged edge: ``[x, y, x, y, ...]`` within the image, rounded to hundredths as COCO does."""
    width, height = size
    count = int(draw.integers(MEAN_POINTS // 2, MEAN_POINTS * 3 // 2))
    angles = np.sort(draw.uniform(0, 2 * np.pi, count))
    radius = draw.uniform(20, 0.3 * height) * draw.uniform(0.7, 1.0, count)
    centre = draw.uniform((0.2 * width, 0.2 * height), (0.8 * width, 0.8 * height))
    points = centre + radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)  # (points, xy)
    return np.round(points.clip(0, (width - 1, height - 1)), 2).ravel().tolist()


def annotation(draw: np.random.Generator, number: int, image_id: int) -> dict[str, Any]:
    polygon = outline(draw)
    x, y = np.array(polygon).reshape(-1, 2).T
    box = [float(v) for v in (x.min(), y.min(), np.ptp(x), np.ptp(y))]
    return {
        "segmentation": [polygon, outline(draw)] if number % 10 == 0 else [polygon],
        "area": box[2] * box[3] / 2,
        "iscrowd": 0,
        "image_id": image_id,
        "bbox": box,
        "category_id": 1 + number % 80,
        "id": number,
    }


def instances(draw: np.random.Generator, images: int) -> dict[str, Any]:
    rows = [
        {"id": i, "file_name": f"COCO_train2014_{i:012d}.jpg", "width": WIDTH, "height": HEIGHT}
        for i in range(1, images + 1)
    ]
    numbers = range(images * PER_IMAGE)
    annotations = [annotation(draw, number, number // PER_IMAGE + 1) for number in numbers]
    categories = [{"id": i, "name": f"class {i}", "supercategory": "thing"} for i in range(1, 81)]
    return {"images": rows, "annotations": annotations, "categories": categories}


def write_refcoco(root: Path, images: int, draw: np.random.Generator) -> None:
    """Two references an image, three sentences each, all in the split ``train``."""
    (root / "refcoco").mkdir(parents=True)
    folder = root / "images/mscoco/images/train2014"
    folder.mkdir(parents=True)
    content = instances(draw, images)
    (root / "refcoco/instances.json").write_text(json.dumps(content))
    references = []
    for number in range(2 * images):
        image_id = number // 2 + 1
        sentences = [
            {"sent_id": 3 * number + k, "sent": f"the thing {k} on the left", "raw": "", "tokens": []} for k in range(3)
        ]
        annotation_id = PER_IMAGE * (image_id - 1) + number % 2
        ids = {"ref_id": number, "ann_id": annotation_id, "category_id": 1, "image_id": image_id}
        references.append({**ids, "split": "train", "sentences": sentences})
    (root / "refcoco/refs(unc).p").write_bytes(pickle.dumps(references, 0))
    for row in content["images"]:
        Image.fromarray(photograph(draw)).save(folder / row["file_name"], quality=90)


def write_reason_seg(root: Path, images: int, draw: np.random.Generator) -> None:
    folder = root / "ReasonSeg/train"
    folder.mkdir(parents=True)
    for number in range(images):
        shapes = [
            {"label": "target", "points": np.reshape(outline(draw), (-1, 2)).tolist(), "shape_type": "polygon"}
            for _ in range(2)
        ]
        content = {"shapes": shapes, "text": ["what is it that shines?"], "is_sentence": True}
        (folder / f"{number:06d}.json").write_text(json.dumps(content))
        Image.fromarray(photograph(draw)).save(folder / f"{number:06d}.jpg", quality=90)


def write_videos(root: Path, videos: int, draw: np.random.Generator) -> None:
    """The same videos as Ref-YouTube-VOS (label images) and, under ``root/mevis``, as MeViS (run lengths)."""
    youtube, mevis = root / "ref-youtube-vos", root / "mevis"
    frames = [f"{5 * t:05d}" for t in range(VIDEO_FRAMES)]
    entries: dict[str, dict] = {"youtube": {}, "meta": {}, "mevis": {}}
    runs: dict[str, list] = {}
    for number in range(videos):
        name = f"video{number:04d}"
        labels = _write_frames(youtube / "train" / "JPEGImages" / name, mevis / "train/JPEGImages" / name, frames, draw)
        folder = youtube / "train/Annotations" / name
        folder.mkdir(parents=True)
        for frame, label in zip(frames, labels, strict=True):
            _indexed(label).save(folder / f"{frame}.png")
        things = range(1, OBJECTS + 1)
        for thing in things:
            masks = [coco.encode(np.asfortranarray((label == thing).view(np.uint8))) for label in labels]
            runs[str(OBJECTS * number + thing)] = [m | {"counts": m["counts"].decode()} for m in masks]
        said = {str(k - 1): {"exp": f"thing {k} that moves", "obj_id": str(k)} for k in things}
        entries["youtube"][name] = {"expressions": said, "frames": frames}
        entries["meta"][name] = {"objects": {str(k): {"category": "thing", "frames": frames} for k in things}}
        said = {
            str(k - 1): {"exp": f"thing {k} that moves", "obj_id": [k - 1], "anno_id": [OBJECTS * number + k]}
            for k in things
        }
        entries["mevis"][name] = {"vid_id": number, "frames": frames, "expressions": said}
    _write(youtube / "meta_expressions/train/meta_expressions.json", {"videos": entries["youtube"]})
    _write(youtube / "train/meta.json", {"videos": entries["meta"]})
    _write(mevis / "train/meta_expressions.json", {"videos": entries["mevis"]})
    _write(mevis / "train/mask_dict.json", runs)


def _write_frames(folder: Path, link: Path, frames: list[str], draw: np.random.Generator) -> np.ndarray:
    """A photograph over which things move; ``(frames, height, width)`` uint8, the number of the thing on top."""
    folder.mkdir(parents=True)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(folder.resolve(), target_is_directory=True)
    width, height = VIDEO_SIZE
    ground = photograph(draw, VIDEO_SIZE)
    shapes = [np.reshape(outline(draw, VIDEO_SIZE), (-1, 2)) for _ in range(OBJECTS)]
    labels = np.zeros((len(frames), height, width), np.uint8)
    for t, frame in enumerate(frames):
        for number, shape in enumerate(shapes, 1):
            cv2.fillPoly(labels[t], [(shape + (4 * t, 2 * t)).astype(np.int32)], number)
        image = ground.copy()
        image[labels[t] > 0] //= 2
        Image.fromarray(image).save(folder / f"{frame}.jpg", quality=90)
    return labels


def _indexed(labels: np.ndarray) -> Image.Image:
    """A palette image whose indices are the labels."""
    image = Image.frombytes("P", labels.shape[::-1], labels.tobytes())
    image.putpalette(PALETTE)
    return image


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
