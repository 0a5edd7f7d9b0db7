"""Label images, geometry and the overlay: what is painted, and above all what is not."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from instructseg.core import Instruction, State
from instructseg_node.labels import Geometry, geometry, paint
from instructseg_node.overlay import OverlayStyle, colour_of, draw_overlay, state_lines

H, W = 60, 80
MUG = Instruction("a", "the red mug", class_id=3)


@dataclasses.dataclass
class FakeTarget:
    """The fields of a target state that drawing reads."""

    instance_id: int = 1
    state: State = State.PRESENT
    score: float = 0.9
    mask: np.ndarray | None = None
    confidence: np.ndarray | None = None
    instruction: Instruction = MUG
    phrase: str = ""
    reason: str = ""


def block(x: int, y: int, width: int, height: int) -> np.ndarray:
    mask = np.zeros((H, W), bool)
    mask[y : y + height, x : x + width] = True
    return mask


def test_overlaps_go_to_the_higher_score_and_are_never_summed() -> None:
    weak = FakeTarget(instance_id=300, score=0.6, mask=block(0, 0, 40, 40))
    strong = FakeTarget(instance_id=7, score=0.8, mask=block(20, 20, 40, 40), instruction=Instruction("b", "x", 9))
    for order in ([weak, strong], [strong, weak]):
        images = paint(order, (H, W))
        assert images.instance[30, 30] == 7 and images.label[30, 30] == 9
        assert images.instance[5, 5] == 300 and images.label[5, 5] == 3
        assert set(np.unique(images.instance)) == {0, 7, 300}
        assert (images.instance.dtype, images.label.dtype) == (np.uint16, np.uint8)
    assert images.confidence is None


def test_at_equal_scores_the_smaller_area_wins() -> None:
    large = FakeTarget(instance_id=1, mask=block(0, 0, 50, 50))
    small = FakeTarget(instance_id=2, mask=block(10, 10, 5, 5))
    for order in ([large, small], [small, large]):
        assert paint(order, (H, W)).instance[12, 12] == 2


@pytest.mark.parametrize("state", [state for state in State if state is not State.PRESENT])
def test_only_present_is_painted_even_if_another_state_brings_a_mask(state: State) -> None:
    target = FakeTarget(state=state, mask=block(0, 0, 40, 40))
    images = paint([target], (H, W), with_confidence=True)
    assert not images.instance.any() and not images.label.any() and not images.confidence.any()
    image = np.full((H, W, 3), 50, np.uint8)
    np.testing.assert_array_equal(draw_overlay(image, [target], OverlayStyle(text=False)), image)


def test_confidence_follows_the_winner() -> None:
    sure = FakeTarget(instance_id=1, mask=block(0, 0, 10, 10))
    graded = FakeTarget(instance_id=2, score=0.95, mask=block(5, 5, 10, 10), confidence=np.full((H, W), 120, np.uint8))
    confidence = paint([graded, sure], (H, W), with_confidence=True).confidence
    assert (confidence[2, 2], confidence[7, 7], confidence[40, 40]) == (255, 120, 0)


def test_geometry_of_a_block_of_nothing_and_of_one_pixel() -> None:
    assert geometry(block(10, 20, 4, 2)) == Geometry(10, 20, 4, 2, 8, 11.5, 20.5)
    assert geometry(block(79, 59, 1, 1)) == Geometry(79, 59, 1, 1, 1, 79.0, 59.0)
    assert geometry(np.zeros((H, W), bool)) == Geometry() == geometry(None)


@pytest.mark.parametrize("style", ["fill", "contour", "both"])
def test_masks_are_coloured_and_the_frame_is_left_alone(style: str) -> None:
    image = np.full((H, W, 3), 50, np.uint8)
    before = image.copy()
    drawn = draw_overlay(image, [FakeTarget(mask=block(20, 20, 30, 30))], OverlayStyle(style, 0.5, text=False))
    np.testing.assert_array_equal(image, before)
    assert (drawn[20, 35] != 50).any()  # the rim
    assert (drawn[35, 35] != 50).any() == (style != "contour")  # the middle
    assert (drawn[5, 5] == 50).all()
    if style == "fill":
        np.testing.assert_allclose(drawn[35, 35], (50 + np.array(colour_of(1))) / 2, atol=1)


def test_words_name_the_best_state_of_each_instruction_and_the_reason() -> None:
    other = Instruction("b", "the bowl", 2)
    targets = [
        FakeTarget(instance_id=1, state=State.LOST, reason="out of view"),
        FakeTarget(instance_id=2, mask=block(0, 0, 9, 9)),
        FakeTarget(instance_id=3, mask=block(20, 0, 9, 9)),
        FakeTarget(instance_id=0, state=State.NO_TARGET, instruction=other, reason="no bowl here"),
    ]
    lines = state_lines(targets)
    assert [line for line, _ in lines] == ['"the red mug" PRESENT x2', '"the bowl" NO_TARGET: no bowl here']
    assert lines[0][1] != lines[1][1]


def test_text_is_drawn_and_odd_characters_and_lengths_do_no_harm() -> None:
    odd = Instruction("a", "die Tasse \u4e2d\u6587 \x1b[31m " + "x" * 9_000)
    targets = [FakeTarget(instruction=odd, mask=block(70, 0, 10, 10)), FakeTarget(instance_id=2, mask=block(0, 0, 1, 1))]
    image = np.zeros((H, W, 3), np.uint8)
    drawn = draw_overlay(image, targets, OverlayStyle(text=True), caption="12 ms \u00e4")
    assert drawn.any() and drawn.shape == image.shape
    line = state_lines(targets)[0][0]
    assert len(line) <= 72 and line.isascii() and line.isprintable()


def test_colours_are_stable_strong_and_differ_between_neighbours() -> None:
    colours = [np.array(colour_of(i), int) for i in range(1, 9)]
    assert all(c.max() == 255 for c in colours)
    assert all(np.abs(a - b).sum() > 100 for a, b in itertools.pairwise(colours))
    assert colour_of(65535) == colour_of(65535)
