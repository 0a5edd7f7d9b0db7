"""Choice of frames by their stamps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.fakes import unhurried

from instructseg.core import BadInput, Sampling
from instructseg.sampling import sparse_dense, uniform


def test_even_stamps_give_an_even_spread_ending_in_the_newest():
    stamps = [i * 100_000_000 for i in range(31)]  # 3 s at 10 Hz
    chosen = sparse_dense(stamps, Sampling(sparse=4, dense=2, horizon_s=1.5))
    assert chosen.indices == (15, 20, 25, 30)
    assert chosen.dense == (2, 3)


def test_fewer_frames_than_wanted_are_all_taken_and_never_repeated():
    chosen = sparse_dense([0, 10, 20], Sampling(sparse=8, dense=4, horizon_s=1.0))
    assert chosen.indices == (0, 1, 2)
    assert chosen.dense == (0, 1, 2)


def test_frames_before_the_horizon_are_left_out():
    stamps = [0, 5_000_000_000, 5_100_000_000]
    assert sparse_dense(stamps, Sampling(sparse=3, dense=1, horizon_s=1.0)).indices == (1, 2)


def test_uneven_stamps_still_give_as_many_frames_as_wanted():
    stamps = [0, 950_000_000, 960_000_000, 970_000_000, 1_000_000_000]
    assert len(sparse_dense(stamps, Sampling(sparse=4, dense=1, horizon_s=1.0)).indices) == 4


@pytest.mark.parametrize("stamps", [[], [5, 5], [5, 4]])
def test_bad_stamps_are_refused(stamps):
    with pytest.raises(BadInput, match="time stamp"):
        sparse_dense(stamps, Sampling())


@unhurried
@given(
    st.lists(st.integers(0, 10**10), min_size=1, max_size=60, unique=True).map(sorted),
    st.integers(1, 16),
    st.integers(1, 16),
    st.floats(0.0, 12.0),
)
def test_what_always_holds(stamps, sparse, dense, horizon_s):
    sampling = Sampling(sparse=sparse, dense=min(sparse, dense), horizon_s=horizon_s)
    chosen = sparse_dense(stamps, sampling)
    inside = [s for s in stamps if stamps[-1] - s <= round(horizon_s * 1e9)]
    assert chosen.indices[-1] == len(stamps) - 1
    assert len(chosen.indices) == min(sparse, len(inside))
    assert list(chosen.indices) == sorted(set(chosen.indices))
    assert all(stamps[i] in inside for i in chosen.indices)
    assert chosen.dense[-1] == len(chosen.indices) - 1
    assert len(chosen.dense) == min(sampling.dense, len(chosen.indices))


def test_uniform_takes_both_ends():
    assert uniform(10, 4) == (0, 3, 6, 9)
    assert uniform(3, 5) == (0, 1, 2)
    assert uniform(9, 1) == (4,)


@pytest.mark.parametrize(("count", "wanted"), [(0, 1), (3, 0), (-1, 2)])
def test_uniform_refuses_nothing(count, wanted):
    with pytest.raises(BadInput, match="uniform sampling"):
        uniform(count, wanted)


@unhurried
@given(st.integers(1, 200), st.integers(1, 200))
def test_uniform_is_ordered_without_repeats(count, wanted):
    indices = uniform(count, wanted)
    assert len(indices) == min(count, wanted)
    assert list(indices) == sorted(set(indices))
    assert set(indices) <= set(range(count))
