"""The frames of a training sample: an anchor, its neighbours, and others of the video."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructseg.core import BadInput
from instructseg.recipes.videolisa.training_clips import LOCAL_REACH, training_frames


@given(st.integers(1, 80), st.integers(3, 40), st.data(), st.integers(0, 9))
def test_anchor_neighbours_and_others_in_order(frames: int, sparse: int, data: st.DataObject, seed: int) -> None:
    anchor, dense = data.draw(st.integers(0, frames - 1)), data.draw(st.integers(1, sparse))
    shown, detailed = training_frames(frames, sparse, dense, anchor, random.Random(seed))
    assert len(shown) == sparse and list(shown) == sorted(shown)
    assert shown[0] >= 0 and shown[-1] < frames and anchor in shown
    assert len(set(detailed)) == dense and list(detailed) == sorted(detailed)
    assert set(detailed) <= set(range(sparse))
    if anchor > 0:
        assert any(anchor - LOCAL_REACH <= frame < anchor for frame in shown)
    if anchor < frames - 1:
        assert any(anchor < frame <= anchor + LOCAL_REACH for frame in shown)
    if frames >= sparse + 2 * LOCAL_REACH + 1:  # long enough for others that do not repeat
        neighbours = 3 - (anchor == 0) - (anchor == frames - 1)
        assert len(set(shown)) == sparse - 3 + neighbours


def test_one_frame_is_repeated_and_a_seed_repeats_the_choice() -> None:
    assert training_frames(1, 5, 2, 0, random.Random(0))[0] == (0,) * 5
    draws = [training_frames(90, 32, 4, 40, random.Random(seed)) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((10, 5, 2, 10), r"anchor must be in 0\.\.9 .* got 10"),
        ((10, 2, 2, 0), "3 or more sparse frames .* got 2 and 2"),
        ((10, 5, 6, 0), "got 5 and 6"),
        ((10, 5, 0, 0), "got 5 and 0"),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments: tuple[int, int, int, int], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        training_frames(*arguments, random.Random(0))
