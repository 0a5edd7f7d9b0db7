"""Who is believed where the recipe's token and the memory both have a say."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.fakes import unhurried

from instructseg.core import (
    BadInput,
)
from instructseg.tracking.agreement import VISIBLE, Choice, HybridRule, choose, overlap

scores = st.floats(0.0, 1.0)
rules = st.builds(HybridRule, scores, scores, st.floats(0.0, 10.0))


@unhurried
@given(scores, scores, scores, st.floats(-1.0, 20.0), rules)
def test_who_is_shown_sees_the_target(
    token: float, memory: float, both: float, alone_s: float, rule: HybridRule
) -> None:
    choice = choose(token, memory, both, alone_s, rule)
    if choice in (Choice.TOKEN, Choice.AGREED):
        assert token >= VISIBLE
    if choice in (Choice.MEMORY, Choice.AGREED):
        assert memory >= VISIBLE
    if choice is Choice.AGREED:
        assert both >= rule.agreement
    if token >= VISIBLE:
        assert choice is not Choice.NEITHER
    elif memory < VISIBLE or not 0.0 <= alone_s <= rule.alone_s:
        assert choice is Choice.NEITHER, "a memory alone is not believed for ever"


@unhurried
@given(scores, scores, scores, scores, st.floats(0.0, 5.0), rules)
def test_a_surer_token_never_loses_its_say(
    token: float, more: float, memory: float, both: float, alone_s: float, rule: HybridRule
) -> None:
    token, more = sorted((token, more))
    if choose(token, memory, both, alone_s, rule) is Choice.TOKEN:
        assert choose(more, memory, both, alone_s, rule) is Choice.TOKEN


@unhurried
@given(st.floats(VISIBLE, 1.0), st.floats(VISIBLE, 1.0), rules)
def test_where_they_disagree_the_surer_is_shown(token: float, memory: float, rule: HybridRule) -> None:
    rule = dataclasses.replace(rule, agreement=1.0)
    expected = Choice.TOKEN if token > memory + rule.margin else Choice.MEMORY
    assert choose(token, memory, 0.0, 0.0, rule) is expected


def test_a_rule_out_of_range_is_refused() -> None:
    with pytest.raises(BadInput, match="HybridRule.margin must be in 0..1; got nan"):
        HybridRule(margin=math.nan)


def test_overlap() -> None:
    left, wide = np.array([[True, False, False]]), np.array([[True, True, False]])
    assert (overlap(left, wide), overlap(left, ~wide), overlap(left & ~left, left & ~left)) == (0.5, 0.0, 0.0)
