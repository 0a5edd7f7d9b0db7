"""Instance ids, and the two images a planner reads."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.fakes import unhurried

from instructseg.core import BadInput, Instruction, InstructSegError, State
from instructseg.tracking import InstanceIds, TargetState, instance_map, label_map
from instructseg.tracking.ids import APART, TRACKED

SIZE = (16, 20)


def target(instance_id: int, columns: slice, score: float, class_id: int = 1) -> TargetState:
    mask = np.zeros(SIZE, bool)
    mask[:, columns] = True
    instruction = Instruction(f"i{instance_id}", "red", class_id=class_id)
    return TargetState(instruction, instance_id, State.PRESENT, score, 0.1, "visible", 0, 0, mask=mask)


def test_overlap_goes_to_the_higher_score_then_to_the_smaller_area():
    strong, weak = target(1, slice(0, 10), 0.9), target(2, slice(5, 15), 0.6)
    for order in ([strong, weak], [weak, strong]):
        row = instance_map(order, SIZE)[0]
        assert row.tolist() == [1] * 10 + [2] * 5 + [0] * 5
    big, small = target(1, slice(0, 12), 0.8), target(2, slice(8, 14), 0.8)
    for order in ([big, small], [small, big]):
        assert instance_map(order, SIZE)[0].tolist() == [1] * 8 + [2] * 6 + [0] * 6


def test_maps_have_the_contracts_types_and_values():
    targets = [target(65535, slice(0, 4), 0.9, class_id=255), target(3, slice(10, 12), 0.9, class_id=7)]
    instances, labels = instance_map(targets, SIZE), label_map(targets, SIZE)
    assert (instances.dtype, labels.dtype) == (np.uint16, np.uint8)
    assert instances.shape == labels.shape == SIZE
    assert set(np.unique(instances)) == {0, 3, 65535}
    assert set(np.unique(labels)) == {0, 7, 255}


def test_targets_without_a_mask_leave_no_pixels():
    lost = TargetState(Instruction("a", "red"), 4, State.LOST, 0.9, 0.1, "not seen", 0, 0)
    assert not instance_map([lost], SIZE).any()
    assert not label_map([], SIZE).any()


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(BadInput, match="has size"):
        instance_map([target(1, slice(0, 3), 0.9)], (16, 21))


def test_a_class_that_does_not_fit_is_refused():
    with pytest.raises(BadInput, match=r"1\.\.255"):
        label_map([target(1, slice(0, 3), 0.9, class_id=256)], SIZE)


@unhurried
@given(st.permutations(range(4)), st.lists(st.sampled_from([0.5, 0.7, 0.9]), min_size=4, max_size=4))
def test_the_image_does_not_depend_on_the_order(order, scores):
    targets = [target(i + 1, slice(2 * i, 2 * i + 5 + i % 2), scores[i]) for i in range(4)]
    assert np.array_equal(instance_map(targets, SIZE), instance_map([targets[i] for i in order], SIZE))


@pytest.mark.parametrize("state", [state for state in State if state is not State.PRESENT])
def test_only_present_carries_a_mask(state):
    good = target(1, slice(0, 3), 0.9)
    with pytest.raises(BadInput, match="only a PRESENT target"):
        dataclasses.replace(good, state=state)


@pytest.mark.parametrize("change", [{"mask": None}, {"mask": np.zeros(SIZE, bool)}, {"instance_id": 0}])
def test_present_needs_pixels_and_an_id(change):
    with pytest.raises(BadInput, match="PRESENT target needs"):
        dataclasses.replace(target(1, slice(0, 3), 0.9), **change)


def test_ids_are_not_reused_at_once_and_wrap_around():
    ids = InstanceIds()
    assert [ids.acquire(), ids.acquire()] == [1, 2]
    ids.release(1)
    ids.release(99)
    assert ids.acquire() == 3
    for _ in range(4, 65536):
        ids.acquire()
    assert ids.acquire() == 1
    assert len(ids) == 65535
    with pytest.raises(InstructSegError, match="65535 instance ids"):
        ids.acquire()


def test_what_is_followed_and_what_is_segmented_beside_it_never_share_an_id():
    assert TRACKED[0] == 1 and TRACKED[1] < APART[0] and APART[1] == 65535
    ids = InstanceIds(*APART)
    count = APART[1] - APART[0] + 1
    assert {ids.acquire() for _ in range(count)} == set(range(APART[0], APART[1] + 1))
    with pytest.raises(InstructSegError, match=f"all {count} instance ids"):
        ids.acquire()
    ids.release(APART[0])
    assert ids.acquire() == APART[0]
