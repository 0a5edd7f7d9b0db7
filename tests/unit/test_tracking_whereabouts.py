"""Where a thing may be seen next and still be itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.fakes import SECOND, unhurried

from instructseg.tracking.whereabouts import Place, Whereabouts

HIGH, WIDE = 120, 160
WITHIN = 30 * SECOND


def place(x: float, y: float = 60.0, length: float = 10.0, size: tuple[int, int] = (HIGH, WIDE)) -> Place:
    return Place((x, y), (length, length), size)


def test_the_box_of_a_mask():
    mask = np.zeros((HIGH, WIDE), bool)
    mask[10:20, 100:130] = True
    mask[40, 110] = True
    assert Place.of(mask) == Place((115.0, 25.5), (30, 31), (HIGH, WIDE))
    assert Place.of(np.zeros((HIGH, WIDE), bool)) is None


@pytest.mark.parametrize(
    ("x", "y", "seconds", "same"),
    [
        (80.0, 60.0, 0.1, True),
        (90.0, 60.0, 0.1, True),
        (125.0, 60.0, 0.1, False),
        (80.0, 60.0, 29.0, True),
        (80.0, 60.0, 31.0, False),  # too long ago for a place to say anything
        (80.0, 60.0, -0.1, False),
    ],
)
def test_near_where_it_was(x: float, y: float, seconds: float, same: bool):
    seen = Whereabouts.at(place(80.0), SECOND)
    assert seen.continues(place(x, y), SECOND + round(seconds * SECOND), WITHIN) is same


def test_where_its_motion_led():
    walker = Whereabouts.at(place(20.0), 0)
    for step in range(1, 6):
        walker = walker.moved_to(place(20.0 + 6 * step), step * SECOND // 10)  # 60 pixels a second
    assert walker.settled and walker.velocity == pytest.approx((60.0, 0.0))
    assert walker.continues(place(110.0), SECOND * 3 // 2, WITHIN)
    assert not Whereabouts.at(place(50.0), SECOND // 2).continues(place(110.0), SECOND * 3 // 2, WITHIN)


@pytest.mark.parametrize("rate", [5, 30, 120, 500])
def test_its_speed_is_known_whatever_the_rate_of_the_camera(rate: int):
    walker = Whereabouts.at(place(20.0), 0)
    for step in range(1, rate + 1):
        walker = walker.moved_to(place(20.0 + 60 * step / rate), step * SECOND // rate)  # 60 pixels a second
    assert walker.settled and walker.velocity == pytest.approx((60.0, 0.0), abs=0.1)


@pytest.mark.parametrize(
    ("gone", "back", "same"),
    [
        (place(154.0), place(115.0), True),
        (place(154.0), place(90.0), False),  # too far inside for one that has just come in
        (place(154.0, 20.0), place(150.0, 110.0), False),
        (place(154.0), place(6.0), False),
        (place(80.0, 5.0), place(110.0, 30.0), True),
    ],
)
def test_in_again_over_the_edge_it_left_by(gone: Place, back: Place, same: bool):
    assert Whereabouts.at(gone, 0).continues(back, 2 * SECOND, WITHIN) is same


def test_a_picture_of_another_size_begins_anew():
    seen = Whereabouts.at(place(80.0), 0)
    other = place(80.0, size=(240, 320))
    assert not seen.continues(other, 1, WITHIN)
    assert seen.moved_to(other, 1) == Whereabouts.at(other, 1)


@unhurried
@given(st.lists(st.tuples(st.integers(0, SECOND), st.floats(0.0, 160.0), st.floats(0.0, 120.0)), min_size=1))
def test_whatever_is_seen_the_path_is_short_in_order_and_near_itself(steps: list[tuple[int, float, float]]):
    seen = Whereabouts.at(place(80.0), 0)
    for step_ns, x, y in steps:
        seen = seen.moved_to(place(x, y), seen.seen_ns + step_ns)
    stamps = [stamp for stamp, _ in seen.path]
    assert 1 <= len(stamps) <= 32 and stamps == sorted(set(stamps))
    assert seen.continues(seen.last, seen.seen_ns, WITHIN)
    assert all(np.isfinite(seen.velocity))
