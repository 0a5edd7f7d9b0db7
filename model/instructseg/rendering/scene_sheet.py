"""One generated scene on a page: the key frame with the numbers of its things, all frames, each question's answer."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import cv2
import numpy as np

from ..data.instructions import Question
from ..data.scene import CLUTTER, Episode
from .overlay import colour_of

KEY_WIDTH, TILE_WIDTH, COLUMNS, CAPTION = 480, 320, 4, 46
_WHITE, _GREY, _BLACK = (255, 255, 255), (170, 170, 170), (0, 0, 0)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_scene(episode: Episode, questions: Sequence[Question], title: str) -> np.ndarray:
    """``(h, w, 3)`` uint8 RGB. Targets are outlined in the colour of their slot; a question without any names nothing
    that is there."""
    tiles = [_question_tile(episode, question) for question in questions]
    blank = np.zeros((_height(episode, TILE_WIDTH) + CAPTION, TILE_WIDTH, 3), np.uint8)
    tiles += [blank] * (-len(tiles) % COLUMNS)
    rows = [np.hstack(tiles[i : i + COLUMNS]) for i in range(0, len(tiles), COLUMNS)]
    return np.vstack([_head(episode, title), *rows])


def _head(episode: Episode, title: str) -> np.ndarray:
    """Left the key frame with numbers, right all frames with their times."""
    width = COLUMNS * TILE_WIDTH
    key = _resized(_numbered(episode), KEY_WIDTH)
    height, per_row = key.shape[0], 4
    small = (width - KEY_WIDTH) // per_row
    tiles = []
    for image, t in zip(episode.images, episode.times, strict=True):
        tile = _resized(image, small)
        _write(tile, f"{t:+.1f} s", (4, 14))
        tiles.append(tile)
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % per_row)
    strip = np.vstack([np.hstack(tiles[i : i + per_row]) for i in range(0, len(tiles), per_row)])
    strip = strip[:height]
    canvas = np.zeros((height, width, 3), np.uint8)
    canvas[:, :KEY_WIDTH] = key
    canvas[: strip.shape[0], KEY_WIDTH : KEY_WIDTH + strip.shape[1]] = strip
    lines = [title, *(f"{o.id} {o.size} {o.color} {o.shape}" for o in episode.objects if o.shape != CLUTTER)]
    for row, line in enumerate(lines):
        column, place = divmod(row, 3)
        _write(canvas, line, (KEY_WIDTH + 8 + 190 * column, strip.shape[0] + 18 + 16 * place))
    return canvas


def _numbered(episode: Episode) -> np.ndarray:
    image = np.array(episode.images[episode.key])
    for item in episode.objects:
        rows, columns = np.nonzero(episode.instances[episode.key] == item.id)
        if len(rows) and item.shape != CLUTTER:
            place = int(columns.mean()) - 6, int(rows.mean()) + 6
            cv2.putText(image, str(item.id), place, _FONT, 0.7, _BLACK, 4, cv2.LINE_AA)
            cv2.putText(image, str(item.id), place, _FONT, 0.7, _WHITE, 1, cv2.LINE_AA)
    return image


def _question_tile(episode: Episode, question: Question) -> np.ndarray:
    image = np.array(episode.images[episode.key])
    for number, slot in enumerate(question.slots, 1):
        mask = np.isin(episode.instances[episode.key], list(slot.targets)).astype(np.uint8)
        lines, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(image, lines, -1, colour_of(number), max(2, image.shape[1] // 160))
    tile = np.zeros((_height(episode, TILE_WIDTH) + CAPTION, TILE_WIDTH, 3), np.uint8)
    tile[:-CAPTION] = _resized(image, TILE_WIDTH)
    answer = " ; ".join(",".join(map(str, sorted(slot.targets))) or "nothing" for slot in question.slots)
    for row, line in enumerate([*textwrap.wrap(question.text, 50)[:2], f"{question.kind}: {answer}"]):
        _write(tile, line, (4, tile.shape[0] - CAPTION + 13 + 14 * row), _GREY if row else _WHITE)
    return tile


def _height(episode: Episode, width: int) -> int:
    return round(episode.images.shape[1] * width / episode.images.shape[2])


def _resized(image: np.ndarray, width: int) -> np.ndarray:
    size = width, round(image.shape[0] * width / image.shape[1])
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _write(image: np.ndarray, text: str, place: tuple[int, int], colour: tuple[int, int, int] = _WHITE) -> None:
    cv2.putText(image, text, place, _FONT, 0.4, _BLACK, 3, cv2.LINE_AA)
    cv2.putText(image, text, place, _FONT, 0.4, colour, 1, cv2.LINE_AA)
