"""Geometry of masks, the confidence image and the overlay."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from instructseg.core import Instruction, State
from instructseg.rendering.labels import Geometry, confidence_map, geometry
from instructseg.rendering.overlay import OverlayStyle, colour_of, draw_overlay, state_lines
from instructseg.tracking import TargetState, instance_map

H, W = 60, 80
MUG = Instruction("a", "the red mug", class_id=3)


def target(instance_id: int = 1, state: State = State.PRESENT, mask: np.ndarray | None = None, **fields) -> TargetState:
    values = {"instruction": MUG, "score": 0.9, "rejection_score": 0.1, "reason": "", "since_ns": 0} | fields
    return TargetState(instance_id=instance_id, state=state, mask=mask, grounded_stamp_ns=0, **values)


def block(x: int, y: int, width: int, height: int) -> np.ndarray:
    mask = np.zeros((H, W), bool)
    mask[y : y + height, x : x + width] = True
    return mask


def test_confidence_follows_the_owner_of_each_pixel() -> None:
    sure = target(1, mask=block(0, 0, 10, 10))
    graded = target(2, mask=block(5, 5, 10, 10), score=0.95, confidence=np.full((H, W), 120, np.uint8))
    lost = target(3, State.LOST)
    instances = instance_map([graded, sure, lost], (H, W))
    confidence = confidence_map([graded, sure, lost], instances)
    assert (confidence[2, 2], confidence[7, 7], confidence[40, 40]) == (255, 120, 0)
    assert confidence.dtype == np.uint8


def test_geometry_of_a_block_of_nothing_and_of_one_pixel() -> None:
    assert geometry(block(10, 20, 4, 2)) == Geometry(10, 20, 4, 2, 8, 11.5, 20.5)
    assert geometry(block(79, 59, 1, 1)) == Geometry(79, 59, 1, 1, 1, 79.0, 59.0)
    assert geometry(np.zeros((H, W), bool)) == Geometry() == geometry(None)


@pytest.mark.parametrize("style", ["fill", "contour", "both"])
def test_masks_are_coloured_and_the_frame_is_left_alone(style: str) -> None:
    image = np.full((H, W, 3), 50, np.uint8)
    before = image.copy()
    drawn = draw_overlay(image, [target(1, mask=block(20, 20, 30, 30))], OverlayStyle(style, 0.5, text=False))
    np.testing.assert_array_equal(image, before)
    assert (drawn[20, 35] != 50).any()  # the rim
    assert (drawn[35, 35] != 50).any() == (style != "contour")  # the middle
    assert (drawn[5, 5] == 50).all()
    if style == "fill":
        np.testing.assert_allclose(drawn[35, 35], (50 + np.array(colour_of(1))) / 2, atol=1)


def test_words_name_the_best_state_of_each_instruction_and_the_reason() -> None:
    other = Instruction("b", "the bowl", 2)
    targets = [
        target(1, State.LOST, reason="out of view"),
        target(2, mask=block(0, 0, 9, 9)),
        target(3, mask=block(20, 0, 9, 9)),
        target(0, State.NO_TARGET, instruction=other, reason="no bowl here"),
    ]
    lines = state_lines(targets)
    assert [line for line, _ in lines] == ['"the red mug" PRESENT x2', '"the bowl" NO_TARGET: no bowl here']
    assert lines[0][1] != lines[1][1]


def test_text_is_drawn_and_odd_characters_and_lengths_do_no_harm() -> None:
    odd = Instruction("a", "die Tasse \u4e2d\u6587 \x1b[31m " + "x" * 9_000)
    targets = [target(1, mask=block(70, 0, 10, 10), instruction=odd), target(2, mask=block(0, 0, 1, 1))]
    image = np.zeros((H, W, 3), np.uint8)
    drawn = draw_overlay(image, targets, OverlayStyle(text=True), caption="12 ms \u00e4")
    assert drawn.any()
    assert drawn.shape == image.shape
    line = state_lines(targets)[0][0]
    assert len(line) <= 72
    assert line.isascii()
    assert line.isprintable()


@pytest.mark.parametrize("state", [state for state in State if state is not State.PRESENT])
def test_only_words_are_drawn_for_a_target_without_a_mask(state: State) -> None:
    image = np.full((H, W, 3), 50, np.uint8)
    without = draw_overlay(image, [target(0, state)], OverlayStyle(text=False))
    np.testing.assert_array_equal(without, image)
    assert (draw_overlay(image, [target(0, state)]) != image).any()


def test_colours_are_stable_strong_and_differ_between_neighbours() -> None:
    colours = [np.array(colour_of(i), int) for i in range(1, 9)]
    assert all(c.max() == 255 for c in colours)
    assert all(np.abs(a - b).sum() > 100 for a, b in itertools.pairwise(colours))
    assert colour_of(65535) == colour_of(65535)


def test_a_name_is_not_written_over_the_state_lines() -> None:
    """The state line of a mask at the top of the picture reads as it does for one far below."""
    style = OverlayStyle(style="contour")
    black = np.zeros((120, 640, 3), np.uint8)
    masks = np.zeros((2, 120, 640), bool)
    masks[0, :10, 10:40] = masks[1, 90:100, 10:40] = True
    upper, lower = (draw_overlay(black, [target(mask=mask)], style)[2:18, 60:] for mask in masks)  # beside the contours
    assert upper.any()
    assert np.array_equal(upper, lower)
