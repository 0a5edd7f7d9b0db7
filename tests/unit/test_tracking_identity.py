"""Masks of old and new tokens on one frame: which answer belongs to which slot."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.fakes import unhurried

from instructseg.core import TargetMask
from instructseg.tracking import InstanceIds, Sightings
from instructseg.tracking.identity import Finding, SlotIdentities

LIMIT = 0.4


def seen(left: int, right: int, score: float = 0.9) -> TargetMask:
    """A mask of the columns from left to before right."""
    mask = np.zeros((4, 40), bool)
    mask[:, left:right] = True
    return TargetMask(mask, score, "token")


@pytest.mark.parametrize(
    ("new", "old", "identify", "finding"),
    [
        (seen(0, 10), seen(0, 10), False, Finding.MAYBE),
        (seen(0, 10), seen(20, 30), False, Finding.OTHER),
        (seen(0, 10), seen(9, 19), False, Finding.MAYBE),  # they touch: no evidence
        (seen(0, 10), seen(20, 30, score=0.3), False, Finding.MAYBE),  # the old token sees nothing
        (seen(0, 10), seen(20, 30, score=0.3), True, Finding.OTHER),
        (seen(0, 10), seen(20, 20), True, Finding.OTHER),
        (seen(0, 10, score=0.3), seen(20, 30), False, Finding.UNSEEN),
        (seen(0, 0), seen(20, 30), True, Finding.UNSEEN),
        (seen(2, 4), seen(0, 30), False, Finding.MAYBE),  # a part of what was followed
    ],
)
def test_what_two_tokens_say_of_each_other(new, old, identify, finding):
    assert Sightings({0: new}, {0: old}, identify).compare(0, 0, LIMIT) is finding


def test_without_an_old_token_nothing_speaks_against_an_answer():
    assert Sightings({0: seen(0, 10)}, {}, True).compare(0, 0, LIMIT) is Finding.MAYBE


def test_places_are_recognised_and_the_own_slot_comes_before_a_better_fit():
    sightings = Sightings({0: seen(0, 10), 1: seen(20, 30)}, {0: seen(21, 31), 1: seen(0, 11)})
    assert sightings.recognised(LIMIT) == {0: 1, 1: 0}
    same = Sightings({0: seen(0, 10), 1: seen(0, 12)}, {0: seen(0, 12), 1: seen(0, 10)})
    assert same.recognised(LIMIT) == {0: 0, 1: 1}


def test_what_is_new_goes_to_a_free_slot_when_its_own_belongs_to_another():
    sightings = Sightings({0: seen(20, 30), 1: seen(0, 10)}, {0: seen(0, 10)})
    assert sightings.slots(2, kept=set(), most=3, limit=LIMIT) == {1: 0, 0: 1}
    assert sightings.slots(2, kept={0}, most=1, limit=LIMIT) == {1: 0}  # no room for it


def test_an_answer_apart_from_a_target_that_keeps_its_token_is_another_thing():
    sightings = Sightings({0: seen(20, 30)}, {0: seen(0, 10)})
    assert sightings.slots(1, kept={0}, most=3, limit=LIMIT) == {0: 1}
    assert sightings.slots(1, kept=set(), most=3, limit=LIMIT) == {0: 0}  # there the two tokens are compared


masks = st.builds(
    lambda left, width, score: seen(left, min(40, left + width), score),
    st.integers(0, 35),
    st.integers(0, 12),
    st.sampled_from([0.2, 0.45, 0.9]),
)
by_number = st.dictionaries(st.integers(0, 4), masks, max_size=5)


@unhurried
@given(by_number, by_number, st.integers(0, 5), st.sets(st.integers(0, 4)), st.booleans())
def test_every_slot_is_given_once_and_an_answer_never_leaves_a_slot_that_recognises_it(
    new, old, answered, kept, identify
):
    new = {place: mask for place, mask in new.items() if place < answered}
    sightings = Sightings(new, old, identify)
    slots = sightings.slots(answered, kept, 5, LIMIT)
    assert len(set(slots.values())) == len(slots)
    assert set(slots) <= set(range(answered)) and set(slots.values()) <= set(range(5))
    recognised = sightings.recognised(LIMIT)
    assert {place: slots[place] for place in recognised} == recognised
    for place, slot in slots.items():
        assert slot == place or place in recognised or (place in new and slot not in kept)


def test_a_slot_keeps_its_id_until_it_is_renamed():
    ids = InstanceIds()
    slots = SlotIdentities(ids)
    assert slots.of(0) == 0
    for slot in (0, 1, 0):
        slots.name(slot)
    assert slots.all == (1, 2)
    slots.saw(0, "token")
    assert (slots.doubt(0), slots.doubt(0)) == (1, 2)
    slots.trust(0)
    assert slots.doubt(0) == 1
    slots.rename(0)
    assert slots.of(0) == 0 and slots.witnesses == {} and len(ids) == 1
    slots.name(0)
    assert slots.of(0) == 3  # not the old one again
    slots.release()
    assert len(ids) == 0
