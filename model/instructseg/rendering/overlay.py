"""A picture for people: masks in colour over the frame, and the state of every instruction in words.

Nothing reads this picture but eyes; label images and messages are for programs. NumPy and OpenCV only.
"""

from __future__ import annotations

import colorsys
import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np

from ..core import State
from ..tracking import TargetState
from .labels import geometry

STYLES = ("fill", "contour", "both")

_STATE_COLOURS = {
    State.GROUNDING: (120, 190, 255),
    State.PRESENT: (120, 255, 120),
    State.OCCLUDED: (255, 210, 90),
    State.UNCERTAIN: (255, 210, 90),
}
_ALARM = (255, 120, 120)  # LOST, NO_TARGET, STALE, ERROR
_LINE = 16  # pixels from one line of text to the next
_MAX_LINE = 72  # characters


@dataclasses.dataclass(frozen=True)
class OverlayStyle:
    """style: masks as ``fill``, ``contour`` or ``both``; alpha: weight of the fill colour, 0..1; text: draw words."""

    style: str = "both"
    alpha: float = 0.45
    text: bool = True


def colour_of(instance_id: int) -> tuple[int, int, int]:
    """A strong RGB colour for an instance, the same in every frame; neighbours in id are far apart in hue."""
    red, green, blue = colorsys.hsv_to_rgb((instance_id * 0.618034) % 1.0, 0.75, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_overlay(
    image: np.ndarray, targets: Sequence[TargetState], style: OverlayStyle = OverlayStyle(), caption: str = ""
) -> np.ndarray:
    """A new ``(H, W, 3)`` uint8 RGB picture; ``image`` stays as it is. caption: a line at the bottom."""
    canvas = image.copy()
    for target in targets:
        if target.mask is not None:
            _draw_mask(canvas, target.mask, colour_of(target.instance_id), style)
    if style.text:
        lines = state_lines(targets)
        for target in targets:
            _name_target(canvas, target, below=_LINE * len(lines))
        for row, (line, colour) in enumerate(lines, 1):
            _write(canvas, line, 4, _LINE * row, colour)
    if caption:
        _write(canvas, _plain(caption), 4, canvas.shape[0] - 8, (255, 255, 255))
    return canvas


def state_lines(targets: Sequence[TargetState]) -> list[tuple[str, tuple[int, int, int]]]:
    """One line an instruction: its words, the best state of its targets, how many of them are seen or why not."""
    by_instruction: dict[str, list[TargetState]] = {}
    for target in targets:
        by_instruction.setdefault(target.instruction.id, []).append(target)
    lines = []
    for group in by_instruction.values():
        present = sum(target.state is State.PRESENT for target in group)
        first = next((target for target in group if target.state is State.PRESENT), group[0])
        detail = f" x{present}" if present > 1 else "" if present else f": {first.reason}" if first.reason else ""
        line = f'"{first.instruction.text}" {first.state.name}{detail}'
        lines.append((_plain(line), _STATE_COLOURS.get(first.state, _ALARM)))
    return lines


def _draw_mask(canvas: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int], style: OverlayStyle) -> None:
    box = geometry(mask)
    if box.area == 0:
        return
    rows, columns = slice(box.y, box.y + box.height), slice(box.x, box.x + box.width)
    part, inside = canvas[rows, columns], mask[rows, columns]  # only the box is touched: most masks are small
    if style.style in ("fill", "both"):
        pixels = part[inside].astype(np.float32)  # (N, 3)
        part[inside] = (pixels * (1.0 - style.alpha) + np.float32(colour) * style.alpha).astype(np.uint8)
    if style.style in ("contour", "both"):
        outline = np.ascontiguousarray(inside).view(np.uint8)
        lines, _ = cv2.findContours(outline, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(canvas, lines, -1, colour, 2, cv2.LINE_AA, offset=(box.x, box.y))


def _name_target(canvas: np.ndarray, target: TargetState, below: int) -> None:
    """Its id and words at the upper edge of its mask, but never over the state lines at the top of the picture."""
    box = geometry(target.mask)
    if box.area:
        name = _plain(f"{target.instance_id} {target.phrase or target.instruction.text}"[:32] + f" {target.score:.2f}")
        _write(canvas, name, box.x, max(box.y - 5, below + _LINE), colour_of(target.instance_id))


def _plain(text: str) -> str:
    """The built-in font has ASCII only."""
    kept = "".join(c if " " <= c <= "~" else "?" for c in text)
    return kept if len(kept) <= _MAX_LINE else kept[: _MAX_LINE - 3] + "..."


def _write(canvas: np.ndarray, text: str, x: int, y: int, colour: tuple[int, int, int]) -> None:
    scale = min(0.5, canvas.shape[1] / 1280 + 0.15)
    cv2.putText(canvas, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), 3, cv2.LINE_AA)  # a dark rim
    cv2.putText(canvas, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1, cv2.LINE_AA)
