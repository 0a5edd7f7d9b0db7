"""Masks, states and words drawn into pictures for people. A mask is only ever drawn on the frame whose stamp it has."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from instructseg.core import State

from .results import TargetRecord

WHITE, GREY, GREEN, AMBER, RED = (255, 255, 255), (175, 175, 175), (110, 240, 110), (255, 205, 90), (255, 110, 110)
STATE_COLOURS = {
    State.PRESENT: GREEN,
    State.GROUNDING: AMBER,
    State.OCCLUDED: AMBER,
    State.UNCERTAIN: AMBER,
    State.NO_TARGET: RED,
}
FONT = cv2.FONT_HERSHEY_DUPLEX
MASK_COLOURS = ((0, 230, 255), (170, 255, 0), (255, 0, 200), (255, 160, 0))  # by place in the command; unlike things


def draw_masks(image: np.ndarray, targets: Sequence[TargetRecord], instances: np.ndarray | None) -> np.ndarray:
    """A copy of the image with the masks of its PRESENT targets, taken from its instance image."""
    picture = image.copy()
    shown = [target for target in targets if target.state is State.PRESENT and instances is not None]
    for index, target in enumerate(shown):
        mask = instances == target.instance_id
        colour = MASK_COLOURS[index % len(MASK_COLOURS)]
        picture[mask] = picture[mask] * 0.65 + np.array(colour) * 0.35
        outline(picture, mask, WHITE, 4)
        outline(picture, mask, colour, 2)
    return picture


def outline(picture: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int], width: int) -> None:
    """Draw the edge of a ``(H, W)`` mask."""
    edges, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, edges, -1, colour, width, cv2.LINE_AA)


def answer_line(targets: Sequence[TargetRecord]) -> tuple[str, tuple[int, int, int]]:
    """The states of the targets in words, with scores, and the colour of the best one."""
    if not targets:
        return "", GREY
    words = []
    for target in targets:
        score = f" {target.score:.2f}" if target.state is State.PRESENT else ""
        explained = target.reason and target.state is not State.PRESENT and len(targets) == 1
        reason = f": {target.reason}" if explained else ""
        words.append(f"{target.state.name}{score}{reason}")
    best = next((t.state for t in targets if t.state is State.PRESENT), targets[0].state)
    return " + ".join(words), STATE_COLOURS.get(best, RED)


def write_text(
    picture: np.ndarray, text: str, place: tuple[int, int], scale: float, colour: tuple[int, int, int], room: int = 0
) -> None:
    """A line of ASCII text, made smaller (to three quarters) and then shortened where there is no room (pixels)."""
    text = "".join(c if " " <= c <= "~" else "?" for c in text)
    if room and text_width(text, scale) > room:
        scale = max(0.75 * scale, scale * room / text_width(text, scale))
        while len(text) > 4 and text_width(text, scale) > room:
            text = text[:-4] + "..."
    cv2.putText(picture, text, place, FONT, scale, colour, 1, cv2.LINE_AA)


def text_width(text: str, scale: float) -> int:
    """In pixels."""
    return cv2.getTextSize(text, FONT, scale, 1)[0][0]
