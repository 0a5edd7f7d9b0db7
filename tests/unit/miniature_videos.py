"""Miniature video benchmarks in the layout their owners publish, drawn in code: a few frames of 24 x 32 pixels.

Each function writes one root and returns what is true in it, by name of the video.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as coco

from instructseg.data.readers.recordings import RecordedExpression, write_recording
from instructseg.data.samples import Kind

HEIGHT, WIDTH = 24, 32
COLOURS = ((200, 40, 40), (40, 90, 200), (60, 170, 60))
PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]  # as DAVIS and YouTube-VOS begin theirs
VOID = 255


@dataclasses.dataclass(frozen=True, eq=False)
class MiniVideo:
    """images ``(T, H, W, 3)`` uint8 RGB; masks: ``(T, H, W)`` bool of each object by its id, from 1; they do not
    overlap. Object 2 comes into view in frame 1."""

    name: str
    frames: tuple[str, ...]
    images: np.ndarray
    masks: dict[int, np.ndarray]

    @property
    def labels(self) -> np.ndarray:
        """``(T, H, W)`` uint8: 0 or the object's id."""
        labels = np.zeros(self.images.shape[:3], np.uint8)
        for number, mask in self.masks.items():
            labels[mask] = number
        return labels


def draw_video(name: str, count: int = 4, objects: int = 2, step: int = 5) -> MiniVideo:
    """Rectangles that move by two pixels a frame over a grey ramp; each has its own rows."""
    ramp = np.linspace(60, 140, WIDTH).astype(np.uint8)
    images = np.repeat(np.broadcast_to(ramp, (count, HEIGHT, WIDTH))[..., None], 3, axis=-1).copy()
    band = HEIGHT // objects
    masks = {}
    for number in range(1, objects + 1):
        mask = np.zeros((count, HEIGHT, WIDTH), bool)
        for t in range(1 if number == 2 else 0, count):
            top, left = (number - 1) * band + 1, 3 + 2 * t + 4 * number
            mask[t, top : top + band - 3, left : left + 9] = True
        images[mask] = COLOURS[number - 1]
        masks[number] = mask
    return MiniVideo(name, tuple(f"{step * t:05d}" for t in range(count)), images, masks)


def ref_youtube_vos(root: Path) -> dict[str, MiniVideo]:
    """train: two videos with two expressions an object; valid: one video; test: one, also listed in valid's file."""
    videos = {name: draw_video(name) for name in ("0065b171f9", "01baa5a4e1", "0062f687f1", "05e0b0f28f")}
    trained, valid, tested = list(videos)[:2], list(videos)[2], list(videos)[3]
    for name in trained:
        write_frames(root / "train/JPEGImages" / name, videos[name])
        write_labels(root / "train/Annotations" / name, videos[name].frames, videos[name].labels)
    write_json(root / "train/meta.json", {"videos": {name: _objects(videos[name]) for name in trained}})
    expressions = {str(i): {"exp": f"Thing {i} on the {i // 2 + 1}. row", "obj_id": str(i // 2 + 1)} for i in range(4)}
    _expressions(root, "train", {name: (videos[name], expressions) for name in trained})
    write_frames(root / "valid/JPEGImages" / valid, videos[valid])
    write_frames(root / "test/JPEGImages" / tested, videos[tested])
    unanswered = {"0": {"exp": "a red thing"}, "1": {"exp": "a blue thing"}}
    listed = {name: (videos[name], unanswered) for name in (valid, tested)}
    _expressions(root, "valid", listed)
    _expressions(root, "test", {tested: listed[tested]})
    return videos


def ref_davis17(root: Path) -> dict[str, MiniVideo]:
    """One video a split; four annotators; the last pixel of the second frame is void."""
    videos = {name: draw_video(name, step=1) for name in ("bear", "blackswan")}
    for split, video in zip(("train", "valid"), videos.values(), strict=True):
        labels = video.labels
        labels[1, -1, -1] = VOID
        write_frames(root / split / "JPEGImages" / video.name, video)
        write_labels(root / split / "Annotations" / video.name, video.frames, labels)
        categories = {str(i): {"category": "thing"} for i in video.masks}
        write_json(root / split / "meta.json", {"videos": {video.name: {"objects": categories}}})
        expressions = {
            str(4 * (number - 1) + annotator): {"exp": f"thing {number} by {annotator}", "obj_id": str(number)}
            for number in video.masks
            for annotator in range(4)
        }
        _expressions(root, split, {video.name: (video, expressions)})
    return videos


def mevis(root: Path) -> dict[str, MiniVideo]:
    """train and valid_u: one video with an expression about both objects and one about the second; valid: one."""
    videos = {name: draw_video(name) for name in ("e5c8a1b2", "f07d3c44", "a99e0d15")}
    for number, (split, video) in enumerate(zip(("train", "valid_u", "valid"), videos.values(), strict=True)):
        write_frames(root / split / "JPEGImages" / video.name, video)
        first = 10 * number  # ids of annotations are counted through the whole file
        both = {"exp": "Things moving right", "obj_id": [0, 1], "anno_id": [first, first + 1]}
        second = {"exp": "The one that comes later.", "obj_id": [1], "anno_id": [first + 1]}
        expressions = {"0": both, "1": second}
        if split == "valid":
            expressions = {key: {"exp": value["exp"]} for key, value in expressions.items()}
        else:
            masks = {str(first + i - 1): rle_track(mask) for i, mask in video.masks.items()}
            write_json(root / split / "mask_dict.json", masks)
        entry = {"vid_id": number, "expressions": expressions, "frames": list(video.frames)}
        write_json(root / split / "meta_expressions.json", {"videos": {video.name: entry}})
    return videos


def revos(root: Path) -> dict[str, MiniVideo]:
    """train and valid: one video each, with an expression of every type."""
    videos = {name: draw_video(name) for name in ("train_video", "valid_video")}
    masks, foreground = {}, {}
    for number, (split, video) in enumerate(zip(("train", "valid"), videos.values(), strict=True)):
        write_frames(root / "JPEGImages" / video.name, video)
        ids = [10 * number, 10 * number + 1]
        masks |= {str(ids[i - 1]): rle_track(mask) for i, mask in video.masks.items()}
        union = np.logical_or.reduce(list(video.masks.values()))
        foreground[video.name] = {"masks_rle": rle_track(union)}
        expressions = {
            "0": {"exp": "the red thing", "obj_id": [0], "anno_id": ids[:1], "type_id": 0},
            "1": {"exp": "which things could be moved(s)?", "obj_id": [0, 1], "anno_id": ids, "type_id": 1},
            "2": {"exp": "the green cat", "obj_id": [], "anno_id": [], "type_id": 2},
        }
        entry = {"vid_id": number, "expressions": expressions, "frames": list(video.frames)}
        write_json(root / f"meta_expressions_{split}_.json", {"videos": {video.name: entry}})
    write_json(root / "mask_dict.json", masks)
    write_json(root / "mask_dict_foreground.json", foreground)
    return videos


def reason_vos(root: Path) -> dict[str, MiniVideo]:
    """Two videos; every object has a short and a long expression that share its masks."""
    videos = {name: draw_video(name) for name in ("video_1", "83e0f6a1")}
    index = {}
    for video, source in zip(videos.values(), ("BURST", "MOSE"), strict=True):
        write_frames(root / "JPEGImages" / video.name, video)
        expressions = []
        for number, mask in video.masks.items():
            folder = root / "Annotations" / f"{source}_{video.name}_{number}"
            write_labels(folder, video.frames, mask * np.uint8(255), palette=False)
            for is_sent, text in ((False, "the thing that moves"), (True, "Which thing would you push?")):
                item = {"obj_id": number, "exp_id": len(expressions), "exp_text": text, "is_sent": is_sent}
                expressions.append(item)
        index[video.name] = {"source": source, "frames": list(video.frames), "expressions": expressions}
    write_json(root / "meta_expressions.json", {"videos": index})
    return videos


def davis2017(root: Path) -> dict[str, MiniVideo]:
    """Semi-supervised: one video a split. All objects are in view in the first frame."""
    videos = {}
    for split, name in (("train", "bear"), ("val", "blackswan")):
        video = draw_video(name, step=1)
        video.masks[2][0] = video.masks[2][1]
        videos[name] = video
        write_frames(root / "JPEGImages/480p" / name, video)
        write_labels(root / "Annotations/480p" / name, video.frames, video.labels)
        path = root / f"ImageSets/2017/{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name + "\n", encoding="utf-8")
    return videos


def youtube_vos(root: Path) -> dict[str, MiniVideo]:
    """Semi-supervised: train with all masks; valid with masks only where an object comes into view."""
    videos = {name: draw_video(name) for name in ("003234408d", "0062f687f1")}
    for split, video in zip(("train", "valid"), videos.values(), strict=True):
        write_frames(root / split / "JPEGImages" / video.name, video)
        shown = slice(None) if split == "train" else slice(0, 2)
        write_labels(root / split / "Annotations" / video.name, video.frames[shown], video.labels[shown])
        write_json(root / split / "meta.json", {"videos": {video.name: _objects(video)}})
    return videos


RECORDED_FIRST = 1_700_000_000 * 10**9  # stamp of a recording's first frame
RECORDED_STEP = 10**8
UNANNOTATED = 3  # the frame of a recording without a mask


def recording(root: Path, **forms: str) -> dict[str, MiniVideo]:
    """Two bags of six frames at 10 Hz, by folder; the first 0.3 s are for training. forms: pictures, masks, storage."""
    videos = {}
    expressions = (
        RecordedExpression("the red thing", (1,)),
        RecordedExpression("Which ones can be moved?", (1, 2), 0.1, 0.5, Kind.REASONING, True),
        RecordedExpression("the green cat", (), kind=Kind.NO_TARGET),
    )
    for name in ("run_1", "run_2"):
        video = draw_video(name, count=6)
        stamps = [RECORDED_FIRST + i * RECORDED_STEP for i in range(6)]
        labels = [None if i == UNANNOTATED else video.labels[i] for i in range(6)]
        names, splits = {1: "red thing", 2: "blue thing"}, {"train": [(0.0, 0.3)], "val": [(0.3, 10.0)]}
        write_recording(
            root / name, zip(stamps, video.images, labels, strict=True), expressions, names, splits, **forms
        )
        videos[name] = dataclasses.replace(video, frames=tuple(map(str, stamps)))
    return videos


def write_frames(folder: Path, video: MiniVideo) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in zip(video.frames, video.images, strict=True):
        stored = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        assert cv2.imwrite(str(folder / f"{name}.jpg"), stored, [cv2.IMWRITE_JPEG_QUALITY, 98])


def write_labels(folder: Path, names: Sequence[str], labels: np.ndarray, palette: bool = True) -> None:
    """``(T, H, W)`` uint8 as PNG files, with a palette or grey."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, label in zip(names, labels, strict=True):
        image = Image.fromarray(label)
        if palette:
            image.putpalette(PALETTE + [0] * (768 - len(PALETTE)))
        image.save(folder / f"{name}.png")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def rle_track(masks: np.ndarray) -> list[dict[str, Any] | None]:
    """COCO RLE of ``(T, H, W)`` bool; None where the object is not in view."""
    return [rle(mask) if mask.any() else None for mask in masks]


def rle(mask: np.ndarray) -> dict[str, Any]:
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode("ascii")}


def _objects(video: MiniVideo) -> dict[str, Any]:
    """An entry of YouTube-VOS's meta.json: the frames in which each object is in view."""
    objects = {}
    for number, mask in video.masks.items():
        seen = [name for name, shown in zip(video.frames, mask.any(axis=(1, 2)), strict=True) if shown]
        objects[str(number)] = {"category": ("person", "dog", "cat")[number - 1], "frames": seen}
    return {"objects": objects}


def _expressions(root: Path, split: str, videos: Mapping[str, tuple[MiniVideo, Mapping[str, Any]]]) -> None:
    entries = {n: {"expressions": dict(e), "frames": list(v.frames)} for n, (v, e) in videos.items()}
    write_json(root / "meta_expressions" / split / "meta_expressions.json", {"videos": entries})
