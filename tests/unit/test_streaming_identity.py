"""An id stands for one thing: what a new answer of the reasoner may change, and what it may not."""

from __future__ import annotations

import numpy as np
from unit.fakes import COLOURS, ColourSegmenter, Owner, colour_frame, states

from instructseg.core import Instruction, State
from instructseg.streaming import FrameResult


def shown(result: FrameResult) -> dict[int, str]:
    """By instance id, the colour under its mask."""
    seen = {}
    for target in result.targets:
        if target.mask is not None:
            (colour,) = {tuple(pixel) for pixel in result.frame.image[target.mask]}
            seen[target.instance_id] = {rgb: name for name, rgb in COLOURS.items()}[colour]
    return seen


def aiming(*names: str, **config) -> Owner:
    owner = Owner(refresh_period=1.0, **config)
    owner.segmenter.aims["it"] = list(names)
    owner.engine.set_instruction(Instruction("a", "it"))
    return owner


def test_one_answer_that_points_elsewhere_does_not_move_an_id():
    owner = aiming("red")
    owner.play(0.0, 0.9, "red", "blue")
    owner.segmenter.aims["it"] = ["blue"]
    assert shown(owner.show(1.0, "red", "blue")) == {1: "red"}
    owner.segmenter.aims["it"] = ["red"]
    for i in range(11, 40):
        assert shown(owner.show(i / 10, "red", "blue")) == {1: "red"}
    assert owner.rejections == []
    assert [round(clip.key.frame.stamp_ns / 1e8) for clip in owner.segmenter.clips[:3]] == [
        0,
        10,
        15,
    ]  # asked again soon


def test_an_answer_that_is_confirmed_ends_the_id_and_the_other_thing_gets_its_own():
    owner = aiming("red")
    owner.play(0.0, 0.9, "red", "blue")
    owner.segmenter.aims["it"] = ["blue"]
    seen = [shown(owner.show(i / 10, "red", "blue")) for i in range(10, 16)]
    assert seen == [{1: "red"}] * 5 + [{2: "blue"}]
    (event,) = owner.rejections
    assert (event.instance_id, event.before, event.after) == (1, State.PRESENT, State.LOST)
    assert "another thing" in event.reason


def test_ids_stay_with_their_things_when_the_answer_changes_its_order():
    owner = aiming("red", "blue", "green")
    assert shown(owner.play(0.0, 0.9, "red", "blue", "green")) == {1: "red", 2: "blue", 3: "green"}
    owner.segmenter.aims["it"] = ["green", "red", "blue"]
    for i in range(10, 30):
        assert shown(owner.show(i / 10, "red", "blue", "green")) == {1: "red", 2: "blue", 3: "green"}
    assert owner.rejections == [] and len(owner.segmenter.clips) == 3


def test_who_is_no_longer_named_goes_and_the_other_keeps_its_id():
    owner = aiming("red", "blue")
    owner.play(0.0, 0.9, "red", "blue")
    owner.segmenter.aims["it"] = ["blue"]
    result = owner.show(1.0, "red", "blue")
    assert shown(result) == {2: "blue"}
    assert [(event.instance_id, event.after) for event in owner.rejections] == [(1, State.NO_TARGET)]


def test_a_thing_that_comes_back_is_recognised_at_another_place_of_the_answer():
    owner = aiming("red", "blue")
    owner.play(0.0, 0.5, "red", "blue")
    owner.segmenter.aims["it"] = ["blue"]
    assert states(owner.play(0.6, 2.5, "blue"))[-1] is State.PRESENT
    owner.segmenter.aims["it"] = ["blue", "red"]
    assert shown(owner.play(2.6, 4.0, "red", "blue")) == {1: "red", 2: "blue"}


def lost_red(identifies: bool) -> Owner:
    segmenter = ColourSegmenter()
    segmenter.tokens_identify = identifies
    segmenter.aims["it"] = ["red"]
    owner = Owner(segmenter)
    owner.engine.set_instruction(Instruction("a", "it"))
    owner.play(0.0, 0.5, "red")
    assert states(owner.play(0.6, 1.6)) == [State.OCCLUDED]
    assert states(owner.play(1.7, 2.0)) == [State.NO_TARGET]  # lost, and the reasoner does not see it either
    return owner


def test_what_went_out_of_view_comes_back_with_its_id():
    for identifies in (False, True):
        owner = lost_red(identifies)
        assert shown(owner.play(2.1, 3.0, "red")) == {1: "red"}


def test_what_comes_too_late_is_refused_for_its_time_and_not_for_its_place():
    owner = Owner(reacquire_within=20.0)
    owner.engine.set_instruction(Instruction("a", "red"))
    owner.play(0.0, 1.0, "red")
    (target,) = owner.show(61.0, "red").targets  # nobody looked for a minute
    assert (target.state, target.instance_id) == (State.OCCLUDED, 1)
    assert target.reason == "not visible: what looks like it comes 60 s after it was last seen"
    assert states(owner.play(61.5, 62.1, "red")) == [State.LOST]
    (target,) = owner.show(62.2, "red").targets
    assert target.reason == "what was found looks like the thing followed, but that was last seen 61 s ago"
    assert shown(owner.play(62.3, 63.0, "red")) == {2: "red"}


def test_a_look_alike_is_refused_by_a_token_that_knows_its_thing():
    owner = lost_red(identifies=True)
    owner.segmenter.aims["it"] = ["blue"]
    (target,) = owner.play(2.1, 2.5, "blue").targets
    assert target.state is State.LOST and "not the thing that was followed" in target.reason
    owner.segmenter.aims["it"] = ["red"]
    assert shown(owner.play(2.6, 3.5, "red", "blue")) == {1: "red"}


def test_a_look_alike_that_the_reasoner_insists_on_gets_an_id_of_its_own():
    owner = lost_red(identifies=True)
    owner.segmenter.aims["it"] = ["blue"]
    assert shown(owner.play(2.1, 3.5, "blue")) == {2: "blue"}


def test_what_does_not_look_like_the_lost_thing_is_another_one_even_in_its_place():
    owner = lost_red(identifies=False)
    owner.segmenter.likeness = lambda old, new: 0.2
    (target,) = owner.play(2.1, 2.5, "red").targets
    assert target.state is State.LOST and "does not look like the thing followed (0.20)" in target.reason
    assert shown(owner.play(2.6, 3.5, "red")) == {2: "red"}


def test_what_looks_alike_or_cannot_be_told_keeps_the_id_in_its_place():
    for likeness in (0.6, None):
        owner = lost_red(identifies=False)
        owner.segmenter.likeness = lambda old, new, told=likeness: told
        assert shown(owner.play(2.1, 3.0, "red")) == {1: "red"}


def test_a_likeness_that_is_no_number_is_a_fault_and_no_answer():
    owner = lost_red(identifies=False)
    owner.segmenter.likeness = lambda old, new: float("nan")
    (target,) = owner.play(2.1, 2.5, "red").targets
    assert target.state is State.ERROR and "likeness of answer 0 and target 0" in target.reason


def test_an_old_token_that_sees_its_thing_elsewhere_contradicts_in_any_recipe():
    owner = lost_red(identifies=False)
    owner.segmenter.aims["it"] = ["blue"]
    (target,) = owner.play(2.1, 2.5, "red", "blue").targets
    assert target.state is State.LOST
    assert shown(owner.play(2.6, 3.5, "red", "blue")) == {2: "blue"}


def test_the_old_token_is_not_asked_after_a_restart():
    owner = aiming("red")
    owner.play(10.0, 10.5, "red", "blue")
    owner.segmenter.aims["it"] = ["blue"]
    result = owner.show(0.0, "red", "blue")  # a bag that starts again
    assert shown(result) == {1: "blue"}
    assert np.array_equal(result.targets[0].mask, (colour_frame(0.0, "blue").image == (0, 0, 255)).all(axis=-1))


def test_a_weak_mask_that_could_still_be_shown_is_compared_too():
    owner = aiming("red")
    owner.play(0.0, 0.9, "red", "blue")
    owner.segmenter.score = lambda pixels: 0.45 if pixels else 0.02  # enough to stay PRESENT, too little to become it
    owner.segmenter.aims["it"] = ["blue"]
    assert [shown(owner.show(i / 10, "red", "blue")) for i in range(10, 15)] == [{1: "red"}] * 5


def test_an_answer_that_shows_nothing_on_the_present_frame_moves_no_token():
    owner = aiming("red")
    owner.play(0.0, 0.9, "red")
    owner.segmenter.aims["it"] = ["blue"]
    owner.segmenter.rejection["blue"] = 0.1  # the reasoner means something that cannot be seen yet
    assert shown(owner.show(1.0, "red")) == {1: "red"}
    assert shown(owner.show(1.1, "red", "blue")) == {1: "red"}
