"""Contact sheets of windows in which something failed: what the node showed, and what the reference shows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from instructseg.core import BadInput

from ..conversions import compressed_to_rgb, image_to_rgb
from .drawing import GREY, RED, WHITE, answer_line, draw_masks, outline, text_width, write_text
from .judge import Judgement, View, is_false
from .records import Run
from .results import MaskStream
from .source import Source

TILE = (320, 240)  # (width, height)
LINE = 26  # pixels of a line in the caption
REFERENCE = (255, 60, 60)


def write_sheets(run: Run, judgements: Sequence[Judgement], source: Source, folder: Path) -> list[Path]:
    """One PNG for each window that failed; their paths. Earlier sheets of the folder are taken away."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("failed_[0-9]*_*.png"):
        old.unlink()
    written = []
    for number, judgement in enumerate(judgements, 1):
        if judgement.passed:
            continue
        words = re.sub(r"[^A-Za-z0-9]+", "_", judgement.window.expectation.name).strip("_")[:40]
        path = folder / f"failed_{number}_{words}.png"
        done, data = cv2.imencode(".png", cv2.cvtColor(sheet(run, judgement, source), cv2.COLOR_RGB2BGR))
        if not done:
            raise OSError(f"the contact sheet {path} could not be made into a PNG")
        path.write_bytes(data.tobytes())
        written.append(path)
    return written


def sheet(run: Run, judgement: Judgement, source: Source) -> np.ndarray:
    """``(H, W, 3)`` RGB: what failed in words, and four frames of the window."""
    chosen = moments(judgement)
    tiles = _tiles(run, judgement, source, chosen)
    width, height = TILE
    tiles += [np.full((height, width, 3), 40, np.uint8)] * (4 - len(tiles))
    failures = [check for check in judgement.checks if not check.passed]
    lines = [(judgement.window.name, WHITE)]
    lines += [(f"{check.key}: wanted {check.wanted}, got {check.got}", RED) for check in failures]
    caption = np.full((LINE * len(lines) + 12, 4 * width, 3), 24, np.uint8)
    for number, (line, colour) in enumerate(lines):
        write_text(caption, line, (12, LINE * (number + 1) - 4), 0.6, colour, 4 * width - 260)
    if judgement.window.expectation.reference is not None:
        legend = "red line: reference"
        write_text(caption, legend, (4 * width - 12 - text_width(legend, 0.45), LINE - 6), 0.45, REFERENCE)
    return np.concatenate([caption, np.concatenate(tiles, axis=1)])


def moments(judgement: Judgement) -> list[tuple[str, View]]:
    """The frames to be shown, in order of time: the first, the middle and the last, and the one that is worst."""
    views = judgement.views
    if not views:
        return []
    named = [("start", 0), _worst(judgement), ("middle", len(views) // 2), ("end", len(views) - 1)]
    found: dict[int, str] = {}
    for label, index in named:
        found[index] = label if index not in found or label not in ("start", "middle", "end") else found[index]
    return [(found[index], views[index]) for index in sorted(found)]


def _worst(judgement: Judgement) -> tuple[str, int]:
    """The first frame that shows what failed: a mask of nothing, the least overlap, no answer."""
    views = judgement.views
    failed = {check.key for check in judgement.checks if not check.passed}
    false = [i for i, view in enumerate(views) if is_false(view, judgement.window.expectation)]
    if "max_false_masks" in failed and false:
        return "false mask", false[0]
    scored = [(view.iou, i) for i, view in enumerate(views) if view.truth and view.record]
    if "min_iou" in failed and scored:
        return f"IoU {min(scored)[0]:.2f}, the least", min(scored)[1]
    silent = [i for i, view in enumerate(views) if view.record is None]
    return ("nothing published", silent[0]) if silent else ("middle", len(views) // 2)


def _tiles(run: Run, judgement: Judgement, source: Source, chosen: Sequence[tuple[str, View]]) -> list[np.ndarray]:
    expectation = judgement.window.expectation
    own = MaskStream(run.results, f"{run.node}/instance_mask/compressed")
    reference = expectation.reference
    right = reference and MaskStream(reference.bag or run.bag, reference.topic, reference.tolerance_s)
    tiles = []
    for label, view in chosen:
        frame = view.frame
        picture = _image(source, view)
        masks = own.at(frame.stamp_ns, frame.frame_id) if view.record else None
        if masks is not None and masks.shape != picture.shape[:2]:
            masks = None
        picture = draw_masks(picture, view.targets, masks)
        truth = right.at(frame.stamp_ns) if right else None
        if truth is not None and truth.shape == picture.shape[:2]:
            outline(picture, expectation.right(truth), REFERENCE, 2)
        tiles.append(_tile(picture, label, view))
    return tiles


def _image(source: Source, view: View) -> np.ndarray:
    """The played image; grey where it cannot be decoded."""
    message = source.image_at(view.frame.camera, source.log_time(view.frame.time))
    try:
        return (compressed_to_rgb if source.compressed else image_to_rgb)(message)
    except BadInput:
        return np.full((TILE[1], TILE[0], 3), 90, np.uint8)


def _tile(picture: np.ndarray, label: str, view: View) -> np.ndarray:
    """Fitted into TILE with its proportions kept, the words over and under it."""
    width, height = TILE
    scale = min(width / picture.shape[1], height / picture.shape[0])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    tile = np.full((height, width, 3), 24, np.uint8)
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    tile[top : top + size[1], left : left + size[0]] = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    tile[:22] = tile[:22] // 4
    tile[-20:] = tile[-20:] // 4
    write_text(tile, label, (6, 16), 0.42, WHITE, width - 70)
    clock = f"{view.frame.time:.2f} s"
    write_text(tile, clock, (width - 6 - text_width(clock, 0.42), 16), 0.42, GREY)
    answer, colour = answer_line(view.targets) if view.targets else (view.state.lower(), GREY)
    write_text(tile, answer, (6, height - 6), 0.42, colour, width - 12)
    return cv2.copyMakeBorder(tile[1:-1, 1:-1], 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=(24, 24, 24))
