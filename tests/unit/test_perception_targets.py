"""What the perception is trained to find."""

from __future__ import annotations

import torch

from instructseg.training.perception import _feet


def test_what_lies_in_a_bowl_stands_elsewhere_than_the_bowl() -> None:
    masks = torch.zeros(1, 3, 60, 80)
    masks[0, 0, 20:45, 20:60] = 1  # a bowl, seen from above
    masks[0, 1, 26:36, 35:46] = 1  # in its middle: a ball, in front of its inside
    masks[0, 0] -= masks[0, 1]
    feet, big_enough = _feet(masks)
    assert abs(feet[0, 0, 0] - 40) < 0.5 and feet[0, 0, 1] == 44.5
    assert feet[0, 1].tolist() == [40.5, 35.5]
    assert (feet[0, 0] - feet[0, 1]).norm() > 8, "a peak of its own"
    assert big_enough.tolist() == [[True, True, False]]


def test_the_foot_of_a_thing_that_the_picture_cuts_off_is_inside_the_picture() -> None:
    masks = torch.zeros(1, 1, 60, 80)
    masks[0, 0, 50:, 70:] = 1
    (foot,) = _feet(masks)[0][0].tolist()
    assert foot == [75.0, 59.5]
