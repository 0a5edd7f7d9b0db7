"""Miniature image benchmarks in the layout their owners publish, drawn in code: a few images of 48 x 64 pixels.

Each function writes one root and returns the scenes in it by name of the image (the file's name without suffix).
"""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco

HEIGHT, WIDTH = 48, 64
COLOURS = {"red": (200, 40, 40), "blue": (40, 90, 200), "green": (60, 170, 60)}
CATEGORIES = {"red": (1, "box"), "blue": (3, "ball"), "green": (18, "box top")}  # COCO's ids have gaps too
MSCOCO = "images/mscoco/images/train2014"


@dataclasses.dataclass(frozen=True, eq=False)
class MiniScene:
    """image ``(48, 64, 3)`` uint8 RGB; masks: ``(48, 64)`` bool by colour; polygons: the same as COCO writes them;
    image_id and the annotations' ids as in ``instances.json``."""

    name: str
    image_id: int
    image: np.ndarray
    masks: dict[str, np.ndarray]
    polygons: dict[str, list[list[float]]]

    def annotation_id(self, colour: str) -> int:
        return 10 * self.image_id + list(COLOURS).index(colour)


def draw_scene(image_id: int, colours: Sequence[str] = tuple(COLOURS)) -> MiniScene:
    """Red: a square; blue: a thing of two parts (one polygon each); green: a bar. They do not overlap and lie
    elsewhere in every image."""
    move = image_id % 5
    boxes = {
        "red": [(4 + move, 6, 20 + move, 22)],
        "blue": [(32 + move, 6, 40 + move, 20), (44 + move, 6, 54 + move, 20)],
        "green": [(6, 30 + move, 58, 38 + move)],
    }
    ramp = np.broadcast_to(np.linspace(90, 140, WIDTH).astype(np.uint8), (HEIGHT, WIDTH))
    image, masks, polygons = np.repeat(ramp[..., None], 3, axis=-1).copy(), {}, {}
    for colour in colours:
        masks[colour] = np.zeros((HEIGHT, WIDTH), bool)
        for left, top, right, bottom in boxes[colour]:
            masks[colour][top:bottom, left:right] = True
        image[masks[colour]] = COLOURS[colour]
        polygons[colour] = [_corners(*box) for box in boxes[colour]]
    return MiniScene(f"COCO_train2014_{image_id:012d}", image_id, image, masks, polygons)


def refcoco(
    root: Path, name: str = "refcoco", splits: Mapping[str, int] | None = None, protocol: int = 0, by: str = ""
) -> dict[str, MiniScene]:
    """One of RefCOCO, RefCOCO+, RefCOCOg and RefCLEF: ``splits`` images a split (default 2 of train, 1 of the others),
    in each a reference to red (two sentences) and one to blue. protocol: of the pickle, as Python 2 had them. by:
    whose split, "unc", "umd" or "google"; "" for the usual one."""
    by = by or ("umd" if name == "refcocog" else "unc")
    tests = {"refcocog": ("val", "test"), "refclef": ("val",)}.get(name, ("val", "testA", "testB"))
    splits = splits or {"train": 2, **dict.fromkeys(tests, 1)}
    scenes, references = {}, []
    for split, count in splits.items():
        for _ in range(count):
            scene = draw_scene(len(scenes) + 1)
            scenes[scene.name] = scene
            for colour, texts in (("red", ("the red box", "Red thing")), ("blue", ("two blue parts",))):
                references.append(_reference(len(references), split, scene, [colour], texts))
    for reference in references:
        reference |= {"ann_id": reference["ann_id"][0], "category_id": reference["category_id"][0]}
    (root / name).mkdir(parents=True, exist_ok=True)
    (root / name / f"refs({by}).p").write_bytes(pickle.dumps(references, protocol))
    content = instances(scenes.values(), "{}.jpg")
    if name == "refclef":  # whose masks are lists of run lengths
        masks = {scene.annotation_id(colour): mask for scene in scenes.values() for colour, mask in scene.masks.items()}
        for annotation in content["annotations"]:
            annotation["segmentation"] = [plain_runs(masks[annotation["id"]])]
    write_json(root / name / "instances.json", content)
    write_images(root / ("images/saiapr_tc-12" if name == "refclef" else MSCOCO), scenes.values())
    return scenes


def grefcoco(root: Path, splits: Mapping[str, int] | None = None) -> dict[str, MiniScene]:
    """gRefCOCO: in each image a reference to red, one to red and blue together, one to nothing that is there."""
    splits = splits or {"train": 2, "val": 1, "testA": 1, "testB": 1}
    scenes, references = {}, []
    for split, count in splits.items():
        for _ in range(count):
            scene = draw_scene(len(scenes) + 1)
            scenes[scene.name] = scene
            for colours, text in ((["red"], "the red box"), (["red", "blue"], "all but green"), ([], "a zebra")):
                references.append(_reference(len(references), split, scene, colours, [text]))
    write_json(root / "grefcoco" / "grefs(unc).json", references)
    write_json(root / "grefcoco" / "instances.json", instances(scenes.values(), "{}.jpg"))
    write_images(root / MSCOCO, scenes.values())
    return scenes


def reason_seg(root: Path, splits: Mapping[str, int] | None = None) -> dict[str, MiniScene]:
    """ReasonSeg: the target is the green bar; red is painted "ignore", and blue's first part is a "flag", which counts
    for nothing. The first of two images is asked by a sentence, the second by a phrase in a file that is no UTF-8;
    train has two texts each, and an explanation of its first image."""
    splits = splits or {"train": 2, "val": 2, "test": 2}
    folder, scenes, explained = root / "ReasonSeg", {}, []
    for split, count in splits.items():
        for index in range(count):
            scene = draw_scene(len(scenes) + 1)
            scene = dataclasses.replace(scene, name=f"{scene.image_id:08d}_{split}")
            scenes[scene.name] = scene
            texts = ["what could a ruler be replaced by?"] if index % 2 == 0 else ["the caf\u00e9's long thing"]
            texts += ["the longest thing"] if split == "train" else []
            write_images(folder / split, [scene])
            shapes = [
                {"label": "ignore", "points": _points(scene, "red", 0), "shape_type": "polygon"},
                {"label": "target", "points": _points(scene, "green", 0), "shape_type": "polygon"},
                {"label": "flag", "points": _points(scene, "blue", 0), "shape_type": "polygon"},
            ]
            content = {"shapes": shapes, "text": texts, "is_sentence": index % 2 == 0}
            text = json.dumps(content, ensure_ascii=False)
            (folder / split / f"{scene.name}.json").write_bytes(text.encode("cp1252"))
            if split == "train" and index == 0:
                answer = "A ruler is long and straight, as the green bar is."
                explained.append({"image": f"{scene.name}.jpg", "query": texts[0], "outputs": answer})
    write_json(folder / "explanatory" / "train.json", explained)
    return scenes


def coco_semantic(root: Path, splits: Mapping[str, int] | None = None, year: int = 2017) -> dict[str, MiniScene]:
    """COCO's instances: ``splits`` images a split (default 2 of train, 1 of val); the first image lacks blue, and in
    the last one blue is a crowd (run lengths). One more image a split has no annotation."""
    scenes = {}
    for split, count in (splits or {"train": 2, "val": 1}).items():
        here = []
        for index in range(count):
            colours = ("red", "green") if index == 0 and count > 1 else tuple(COLOURS)
            scene = draw_scene(len(scenes) + 1 + index, colours)
            here.append(dataclasses.replace(scene, name=f"{scene.image_id:012d}"))
        empty = dataclasses.replace(draw_scene(900 + len(scenes), ()), name=f"{900 + len(scenes):012d}")
        scenes |= {scene.name: scene for scene in [*here, empty]}
        content = instances([*here, empty], "{}.jpg")
        crowd = next(a for a in content["annotations"] if a["id"] == here[-1].annotation_id("blue"))
        crowd |= {"iscrowd": 1, "segmentation": plain_runs(here[-1].masks["blue"])}
        write_json(root / "annotations" / f"instances_{split}{year}.json", content)
        write_images(root / f"{split}{year}", [*here, empty])
    return scenes


def instances(scenes: Sequence[MiniScene], file_name: str) -> dict[str, Any]:
    """The content of an ``instances.json``; file_name: how an image is called, ``{}`` for its name."""
    images, annotations = [], []
    for scene in scenes:
        size = {"height": HEIGHT, "width": WIDTH}
        images.append({"id": scene.image_id, "file_name": file_name.format(scene.name), **size, "license": 1})
        for colour, mask in scene.masks.items():
            encoded = coco.encode(np.asfortranarray(mask.view(np.uint8)))
            annotations.append(
                {
                    "segmentation": scene.polygons[colour],
                    "area": float(mask.sum()),
                    "iscrowd": 0,
                    "image_id": scene.image_id,
                    "bbox": [float(v) for v in coco.toBbox(encoded)],
                    "category_id": CATEGORIES[colour][0],
                    "id": scene.annotation_id(colour),
                }
            )
    categories = [{"supercategory": "thing", "id": number, "name": name} for number, name in CATEGORIES.values()]
    return {"info": {"year": 2014}, "images": images, "annotations": annotations, "categories": categories}


def plain_runs(mask: np.ndarray) -> dict[str, Any]:
    """A ``(H, W)`` bool mask as COCO's uncompressed run lengths: columns first, beginning with zeros."""
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return {"size": list(mask.shape), "counts": [0, *lengths] if flat[0] else lengths}


def write_images(folder: Path, scenes: Sequence[MiniScene]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for scene in scenes:
        Image.fromarray(scene.image).save(folder / f"{scene.name}.jpg", quality=95, subsampling=0)


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def _reference(
    index: int, split: str, scene: MiniScene, colours: Sequence[str], texts: Sequence[str]
) -> dict[str, Any]:
    """One row of a reference file, ``ann_id`` and ``category_id`` as lists; sentences are numbered through."""
    number = 10 * index
    annotations = [scene.annotation_id(colour) for colour in colours] or [-1]
    sentences = [
        {"tokens": text.lower().split(), "raw": text, "sent_id": number + k, "sent": text.lower()}
        for k, text in enumerate(texts)
    ]
    return {
        "sent_ids": [sentence["sent_id"] for sentence in sentences],
        "file_name": f"{scene.name}_{annotations[0]}.jpg",
        "ann_id": annotations,
        "ref_id": index,
        "image_id": scene.image_id,
        "split": split,
        "sentences": sentences,
        "category_id": [CATEGORIES[colour][0] for colour in colours] or [-1],
    }


def _corners(left: int, top: int, right: int, bottom: int) -> list[float]:
    return [float(value) for value in (left, top, right, top, right, bottom, left, bottom)]


def _points(scene: MiniScene, colour: str, part: int) -> list[list[float]]:
    """Corners as labelme writes them; the last row and column belong to the thing, as OpenCV paints."""
    left, top, _, _, right, bottom, _, _ = scene.polygons[colour][part]
    return [[left, top], [right - 1, top], [right - 1, bottom - 1], [left, bottom - 1]]
