"""The verdict on one target: each transition, and what must hold after any evidence in any order."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.fakes import SECOND, unhurried

from instructseg.core import State, Target
from instructseg.tracking import Policy, TargetStateMachine, Verdict, judge

POLICY = Policy(present_threshold=0.5, reject_threshold=0.5, lost_after_ns=SECOND)


def answer(rejection: float, rejected: bool = False, token: object = "token") -> Target:
    return Target(token, 1.0 - rejection, rejection, rejected)


def present_machine(policy: Policy = POLICY) -> TargetStateMachine:
    machine = TargetStateMachine(policy, 0)
    machine.grounded(answer(0.1), 0)
    machine.segmented(0.9, 50, 0)
    assert machine.state is State.PRESENT
    return machine


@pytest.mark.parametrize(
    ("target", "verdict"),
    [
        (answer(0.10), Verdict.ACCEPTED),
        (answer(0.44), Verdict.ACCEPTED),
        (answer(0.46), Verdict.UNCERTAIN),
        (answer(0.54), Verdict.UNCERTAIN),
        (answer(0.56), Verdict.REJECTED),
        (answer(0.10, rejected=True), Verdict.REJECTED),
        (answer(0.10, token=None), Verdict.REJECTED),
        (answer(math.nan), Verdict.REJECTED),
    ],
)
def test_judge(target, verdict):
    assert judge(target, POLICY)[0] is verdict


def test_present_only_with_the_first_mask_not_with_the_answer():
    machine = TargetStateMachine(POLICY, 0)
    machine.grounded(answer(0.1), 5)
    assert machine.state is State.GROUNDING
    machine.segmented(0.8, 12, 9)
    assert (machine.state, machine.since_ns, machine.score) == (State.PRESENT, 9, 0.8)


@pytest.mark.parametrize(("score", "pixels"), [(0.49, 10), (0.9, 0), (math.nan, 10)])
def test_too_little_evidence_is_occluded(score, pixels):
    machine = TargetStateMachine(POLICY, 0)
    machine.grounded(answer(0.1), 0)
    machine.segmented(score, pixels, 1)
    assert machine.state is State.OCCLUDED


def test_hysteresis_one_weaker_frame_stays_present_but_does_not_come_back():
    machine = present_machine()
    machine.segmented(0.42, 10, 1)
    assert machine.state is State.PRESENT
    machine.segmented(0.39, 10, 2)
    assert machine.state is State.OCCLUDED
    machine.segmented(0.42, 10, 3)
    assert machine.state is State.OCCLUDED
    machine.segmented(0.50, 10, 4)
    assert machine.state is State.PRESENT


def test_occluded_for_too_long_is_lost_and_needs_the_reasoner():
    machine = present_machine()
    machine.segmented(0.1, 0, SECOND)
    machine.segmented(0.1, 0, 2 * SECOND)
    assert machine.state is State.OCCLUDED  # exactly lost_after is not longer
    machine.segmented(0.1, 0, 2 * SECOND + 1)
    assert machine.state is State.LOST and machine.unanswered
    machine.segmented(0.99, 50, 2 * SECOND + 2)
    assert machine.state is State.LOST
    machine.grounded(answer(0.1), 3 * SECOND)
    assert machine.state is State.LOST and not machine.unanswered
    machine.segmented(0.99, 50, 3 * SECOND)
    assert machine.state is State.PRESENT


def test_without_regrounding_a_lost_target_returns_by_its_token():
    machine = present_machine(Policy(lost_after_ns=SECOND, reacquire_by_token=True))
    machine.segmented(0.1, 0, SECOND)
    machine.segmented(0.1, 0, 3 * SECOND)
    assert machine.state is State.LOST and not machine.unanswered
    machine.segmented(0.9, 10, 4 * SECOND)
    assert machine.state is State.PRESENT


def test_rejection_and_uncertainty_carry_reasons():
    machine = TargetStateMachine(POLICY, 0)
    machine.grounded(answer(0.9), 1)
    assert machine.state is State.NO_TARGET and "0.90" in machine.reason
    machine.grounded(answer(0.52), 2)
    assert machine.state is State.UNCERTAIN and "too close" in machine.reason
    machine.segmented(0.99, 100, 3)
    assert machine.state is State.UNCERTAIN


def test_error_needs_a_grounding_and_a_good_frame():
    machine = present_machine()
    machine.failed("segment failed: broken", 1)
    machine.segmented(0.99, 100, 2)
    assert machine.state is State.ERROR and machine.unanswered
    machine.grounded(answer(0.1), 3)
    assert machine.state is State.ERROR
    machine.segmented(0.99, 100, 4)
    assert machine.state is State.PRESENT


def test_a_short_pause_keeps_the_token_a_long_one_does_not():
    machine = present_machine()
    machine.stale("no frame", SECOND)
    machine.resumed(SECOND, SECOND)
    assert machine.state is State.STALE and machine.armed
    machine.segmented(0.9, 5, SECOND)
    assert machine.state is State.PRESENT
    machine.stale("no frame", 2 * SECOND)
    machine.resumed(SECOND + 1, 3 * SECOND)
    assert machine.state is State.LOST and machine.unanswered


def test_frames_back_before_any_answer_means_grounding():
    machine = TargetStateMachine(POLICY, 0)
    machine.stale("no frame", 1)
    machine.resumed(5 * SECOND, 2)
    assert machine.state is State.GROUNDING and machine.unanswered


def test_an_answer_about_stale_frames_does_not_end_stale():
    machine = TargetStateMachine(POLICY, 0)
    machine.stale("no frame", 1)
    machine.grounded(answer(0.9), 2)
    assert machine.state is State.STALE


def test_restart_begins_a_new_time_base():
    machine = present_machine()
    machine.segmented(0.9, 5, 100)
    machine.restart("time jumped back", 7)
    assert (machine.state, machine.since_ns, machine.armed) == (State.GROUNDING, 7, False)


ratios = st.one_of(st.floats(0.0, 1.0), st.just(math.nan))
EVIDENCE = st.one_of(
    st.tuples(st.just("grounded"), ratios, st.booleans(), st.booleans()),
    st.tuples(st.just("segmented"), ratios, st.integers(0, 3)),
    st.tuples(st.just("failed")),
    st.tuples(st.just("stale")),
    st.tuples(st.just("resumed"), st.integers(0, 3 * SECOND)),
    st.tuples(st.just("dropped")),
    st.tuples(st.just("restart")),
)


def give(machine: TargetStateMachine, evidence: tuple, stamp: int) -> None:
    kind, *values = evidence
    if kind == "grounded":
        machine.grounded(answer(values[0], values[1], "token" if values[2] else None), stamp)
    elif kind == "segmented":
        machine.segmented(values[0], values[1], stamp)
    elif kind == "resumed":
        machine.resumed(values[0], stamp)
    else:
        getattr(machine, kind)(f"{kind} on purpose", stamp)


@unhurried
@given(st.lists(st.tuples(st.integers(-SECOND, 2 * SECOND), EVIDENCE), max_size=40), st.booleans())
def test_what_always_holds(history, reacquire):
    machine = TargetStateMachine(Policy(lost_after_ns=SECOND, reacquire_by_token=reacquire), 0)
    stamp = 0
    for step, evidence in history:
        stamp += step
        before, since, armed = machine.state, machine.since_ns, machine.armed
        give(machine, evidence, stamp)
        changes = machine.take_changes()
        restarted = evidence[0] == "restart"
        # A state changes at most once a call, and the record tells exactly what happened.
        assert [(c.before, c.after) for c in changes] == ([(before, machine.state)] if machine.state != before else [])
        assert all(c.stamp_ns == machine.since_ns and c.reason for c in changes)
        # Since moves only with the state, and never back within one time base.
        if machine.state is before and not restarted:
            assert machine.since_ns == since
        assert restarted or machine.since_ns >= since
        # PRESENT is entered by a mask with pixels on a token that was accepted, and by nothing else.
        if machine.state is State.PRESENT and before is not State.PRESENT:
            assert evidence[0] == "segmented" and evidence[1] >= 0.5 and evidence[2] > 0 and armed
        if machine.state is State.PRESENT and evidence[0] == "segmented":
            assert evidence[1] >= 0.4 and evidence[2] > 0
        # Live targets have a token; what was refused or has failed has none.
        assert not machine.live or machine.armed
        assert not (machine.unanswered and machine.armed)
        if evidence[0] in ("failed", "dropped", "restart"):
            assert not machine.armed
        assert machine.reason
