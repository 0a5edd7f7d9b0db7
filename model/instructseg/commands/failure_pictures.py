"""A contact sheet of the worst answers of an evaluation: what was asked, what is right, what was given."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from ..core import Clip, Frame, Instruction, InstructSegError, Segmenter
from ..data.scene import Episode
from ..evaluation.tabletop import SlotRecord
from ..training.bank import KEY

TILE_WIDTH, CAPTION, COLUMNS = 320, 58, 4
RIGHT, GIVEN, WHITE = (60, 230, 60), (255, 60, 60), (255, 255, 255)


class Episodes(Protocol):
    """Episodes that can be had again by index."""

    def __getitem__(self, index: int) -> Episode: ...


def save_failures(path: Path, segmenter: Segmenter, episodes: Episodes, worst: Sequence[SlotRecord]) -> None:
    """Ask again for each record (``SlotRecord.episode`` is its index in ``episodes``) and write the sheet as PNG."""
    tiles = [failure_tile(segmenter, episodes[record.episode], record, rank) for rank, record in enumerate(worst, 1)]
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % COLUMNS)
    rows = [np.hstack(tiles[i : i + COLUMNS]) for i in range(0, len(tiles), COLUMNS)]
    if not cv2.imwrite(str(path), cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR)):
        raise InstructSegError(f"{path} cannot be written; is there space, and may this folder be written to?")


def failure_tile(segmenter: Segmenter, episode: Episode, record: SlotRecord, rank: int) -> np.ndarray:
    """``(H, TILE_WIDTH, 3)`` uint8 RGB: the key frame, the truth as a green line, the answer in red, words below."""
    image = np.array(episode.images[KEY])
    truth = np.isin(episode.instances[KEY], record.targets)
    given = given_mask(segmenter, episode, record)
    image[given] = (image[given] * 0.5 + np.array(GIVEN) * 0.5).astype(np.uint8)
    lines, _ = cv2.findContours(truth.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(image, lines, -1, RIGHT, max(1, image.shape[1] // 320))
    height = round(image.shape[0] * TILE_WIDTH / image.shape[1])
    tile = np.zeros((height + CAPTION, TILE_WIDTH, 3), np.uint8)
    tile[:height] = cv2.resize(image, (TILE_WIDTH, height), interpolation=cv2.INTER_AREA)
    answer = f"{'there' if record.present else 'not there'}, {'kept' if record.kept else 'rejected'}"
    words = textwrap.wrap(f"{rank}. {record.text}", 52)[:2]
    words.append(f"{record.kind}, slot {record.slot + 1}: {answer}, score {record.score:.2f}, IoU {record.iou:.2f}")
    for row, line in enumerate(words):
        place = (4, height + 16 + 18 * row)
        cv2.putText(tile, line, place, cv2.FONT_HERSHEY_SIMPLEX, 0.36, WHITE, 1, cv2.LINE_AA)
    return tile


def given_mask(segmenter: Segmenter, episode: Episode, record: SlotRecord) -> np.ndarray:
    """``(H, W)`` bool: the segmenter's mask on the key frame, empty when it refused."""
    frames = [
        Frame(np.ascontiguousarray(image), round(seconds * 1e9))
        for image, seconds in zip(episode.images[: KEY + 1], episode.times[: KEY + 1], strict=True)
    ]
    encoded = segmenter.encode(frames)
    targets = segmenter.ground(Clip(tuple(encoded)), [Instruction("0", record.text)])[0].targets
    if record.slot >= len(targets) or targets[record.slot].token is None:
        return np.zeros(frames[-1].size, bool)
    return segmenter.segment(encoded[-1], [targets[record.slot].token])[0].mask
