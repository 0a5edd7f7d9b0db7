"""Pictures of the demo: masks only where they belong, words that fit."""

from __future__ import annotations

import numpy as np
import pytest

from instructseg.core import State
from instructseg_node.demo import pictures as demo_pictures
from instructseg_node.demo.pictures import answer_line, draw_masks, video_frame
from instructseg_node.demo.records import FrameRecord, TargetRecord

IMAGE = np.full((120, 160, 3), 90, np.uint8)
INSTANCES = np.zeros((120, 160), np.uint16)
INSTANCES[20:40, 20:40], INSTANCES[20:40, 100:120] = 3, 300


def target(instance: int, state: State, reason: str = "", text: str = "the mug") -> TargetRecord:
    return TargetRecord(text, instance, state, 0.9, 0.1, reason)


def changed(picture: np.ndarray) -> np.ndarray:
    return (picture != IMAGE).any(axis=-1)


def test_masks_are_drawn_where_they_are_and_the_image_stays() -> None:
    before = IMAGE.copy()
    picture = draw_masks(IMAGE, [target(3, State.PRESENT), target(300, State.PRESENT)], INSTANCES)
    assert (before == IMAGE).all()
    where = changed(picture)
    assert where[INSTANCES > 0].all()
    far = np.ones_like(where)
    far[15:45, 15:45] = far[15:45, 95:125] = False
    assert not where[far].any()
    assert (picture[30, 30] != picture[30, 110]).any(), "two targets, two colours"


@pytest.mark.parametrize("state", [state for state in State if state is not State.PRESENT])
def test_no_other_state_shows_pixels(state: State) -> None:
    assert not changed(draw_masks(IMAGE, [target(3, state)], INSTANCES)).any()


def test_no_mask_image_no_pixels() -> None:
    assert not changed(draw_masks(IMAGE, [target(3, State.PRESENT)], None)).any()


def test_answers_in_words() -> None:
    assert answer_line([]) == ("", demo_pictures.GREY)
    assert answer_line([target(0, State.NO_TARGET, "nothing like it")])[0] == "NO_TARGET: nothing like it"
    two = [target(1, State.LOST, "gone"), target(2, State.PRESENT, "visible")]
    assert answer_line(two) == ("LOST + PRESENT 0.90", demo_pictures.GREEN)


class Recording:
    """Both bags at once, with one frame."""

    def __init__(self, text: str) -> None:
        self.frames = {0: FrameRecord(0, (target(3, State.PRESENT, text=text),), 0.05, 0.06)}

    def image(self, stamp: int) -> np.ndarray:
        return IMAGE

    def instances(self, stamp: int) -> np.ndarray:
        return INSTANCES

    def seconds(self, stamp: int) -> float:
        return 0.0


@pytest.mark.parametrize("text", ["the mug", "das große Gefäß " * 20])
def test_a_frame_of_the_video_keeps_its_size(text: str) -> None:
    recording = Recording(text)
    picture = video_frame(recording, recording, 0)
    assert picture.shape == IMAGE.shape
    assert picture.dtype == np.uint8
    assert (picture[-demo_pictures.BAND :] > 150).any(), "there are words"
