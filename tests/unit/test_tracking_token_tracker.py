"""Slots, tokens, ids and events of one instruction on one camera."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from unit.fakes import SECOND, unhurried

from instructseg.core import Grounding, Instruction, State, Target, TargetMask
from instructseg.tracking import InstanceIds, Policy, Schedule, Sightings, TokenTracker

PERIOD = SECOND // 2


def make_tracker(**schedule) -> TokenTracker:
    return TokenTracker(
        Instruction("a", "red and blue"), "left", Policy(), Schedule(PERIOD, **schedule), InstanceIds(), 3, 0
    )


def grounding(*rejections: float) -> Grounding:
    targets = tuple(Target(f"token {i}", 1 - r, r, r >= 0.5, f"thing {i}") for i, r in enumerate(rejections))
    return Grounding("a", 0, (0,), targets)


def ground(tracker: TokenTracker, stamp: int, *rejections: float, refresh: bool = False) -> None:
    tracker.begin_grounding(stamp, refresh)
    answer = grounding(*rejections)
    tokens = {place: target.token for place, target in tracker.accepted(answer).items()}
    tracker.apply_grounding(answer, tokens, stamp, stamp, refresh)


def show(tracker: TokenTracker, stamp: int, *scores: float, same_pixels: bool = False):
    """One frame on which every prompted slot gets the score of its slot number, and pixels of its own from 0.5 on."""
    prompts = tracker.prompts()
    masks = []
    for prompt in prompts:
        pixels = np.zeros((4, 4), bool)
        pixels[0 if same_pixels else prompt.target.slot] = scores[prompt.target.slot] >= 0.5
        masks.append(TargetMask(pixels, scores[prompt.target.slot], prompt.token))
    return tracker.update(stamp, prompts, masks)


def states(tracker: TokenTracker) -> list[State]:
    return [target.machine.state for target in tracker.targets]


def test_a_new_tracker_is_one_target_in_grounding_without_an_id():
    (target,) = make_tracker().update(0)
    assert (target.state, target.instance_id, target.mask) == (State.GROUNDING, 0, None)


def test_two_targets_get_two_ids_and_their_phrases():
    tracker = make_tracker()
    ground(tracker, 1, 0.1, 0.1)
    first, second = show(tracker, 2, 0.9, 0.8)
    assert (first.state, second.state) == (State.PRESENT, State.PRESENT)
    assert (first.instance_id, second.instance_id) == (1, 2)
    assert (first.phrase, second.phrase) == ("thing 0", "thing 1")
    assert first.grounded_stamp_ns == 1 and first.since_ns == 2


def test_a_refused_target_has_no_id_and_is_asked_again():
    tracker = make_tracker()
    ground(tracker, 0, 0.9)
    (target,) = tracker.update(1)
    assert (target.state, target.instance_id) == (State.NO_TARGET, 0)
    assert not tracker.due(PERIOD - 1)
    assert tracker.due(PERIOD)
    (event,) = tracker.take_events()
    assert (event.before, event.after, event.instance_id, event.camera) == (
        State.GROUNDING,
        State.NO_TARGET,
        0,
        "left",
    )
    assert event.rejection_score == 0.9


def test_an_empty_answer_is_no_target():
    tracker = make_tracker()
    ground(tracker, 0)
    assert states(tracker) == [State.NO_TARGET]
    assert tracker.prompts() == []


def test_without_regrounding_on_loss_only_new_and_failed_ones_are_asked():
    tracker = make_tracker(on_loss=False)
    ground(tracker, 0, 0.9)
    assert not tracker.due(100 * SECOND)
    tracker.fail("broken", 100 * SECOND)
    assert tracker.due(101 * SECOND)


def test_a_lost_target_keeps_its_id_and_the_live_one_its_token():
    tracker = make_tracker()
    ground(tracker, 0, 0.1, 0.1)
    show(tracker, 0, 0.9, 0.9)
    show(tracker, SECOND, 0.9, 0.1)
    show(tracker, 3 * SECOND, 0.9, 0.1)
    assert states(tracker) == [State.PRESENT, State.LOST]
    assert [prompt.target.slot for prompt in tracker.prompts()] == [0] and tracker.targets[1].token is None
    assert tracker.due(3 * SECOND)
    ground(tracker, 3 * SECOND, 0.9, 0.1)  # would refuse the live one: it is not asked about
    first, second = show(tracker, 3 * SECOND + 1, 0.9, 0.9)
    assert (first.state, first.instance_id) == (State.PRESENT, 1)
    assert (second.state, second.instance_id) == (State.PRESENT, 2)
    events = [(e.instance_id, e.before, e.after) for e in tracker.take_events()]
    assert events == [(2, State.OCCLUDED, State.LOST), (2, State.LOST, State.PRESENT)]


def test_present_targets_are_left_alone_unless_a_refresh_is_wanted():
    tracker = make_tracker()
    ground(tracker, 0, 0.1)
    show(tracker, 0, 0.9)
    assert tracker.due_about(100 * SECOND) is None
    tracker = make_tracker(refresh_ns=2 * SECOND)
    ground(tracker, 0, 0.1)
    show(tracker, 0, 0.9)
    assert tracker.due_about(2 * SECOND - 1) is None
    assert tracker.due_about(2 * SECOND) == "all"
    ground(tracker, 2 * SECOND, 0.9, refresh=True)
    assert states(tracker) == [State.NO_TARGET]


def test_a_missing_target_does_not_keep_the_others_from_being_refreshed():
    tracker = make_tracker(refresh_ns=2 * SECOND)
    ground(tracker, 0, 0.1, 0.9)
    show(tracker, 0, 0.9)
    for stamp in range(PERIOD, 2 * SECOND, PERIOD):
        assert tracker.due_about(stamp) == "missing"
        ground(tracker, stamp, 0.1, 0.9)
    assert tracker.due_about(2 * SECOND) == "all"


def test_a_score_that_collapses_is_asked_about_once_although_its_target_is_still_in_view():
    tracker = make_tracker()
    ground(tracker, 0, 0.1)
    for stamp in range(0, SECOND, SECOND // 10):
        show(tracker, stamp, 0.9)
    assert tracker.due_about(SECOND) is None
    show(tracker, SECOND, 0.55)
    assert states(tracker) == [State.PRESENT]
    assert tracker.due_about(SECOND) == "all"
    ground(tracker, SECOND, 0.1, refresh=True)
    for stamp in range(SECOND, 10 * SECOND, SECOND // 10):
        show(tracker, stamp, 0.55)
        assert tracker.due_about(stamp) is None  # that is what it scores now
    silent = make_tracker(on_loss=False)
    ground(silent, 0, 0.1)
    show(silent, 0, 0.9)
    show(silent, SECOND, 0.55)
    assert silent.due_about(SECOND) is None


def test_witnesses_that_disagree_are_a_question_but_not_more_often_than_the_period():
    tracker = make_tracker()
    ground(tracker, 0, 0.1)
    (prompt,) = tracker.prompts()
    tracker.update(1, [prompt], [TargetMask(np.ones((4, 4), bool), 0.9, prompt.token, disagrees=True)])
    assert tracker.due_about(PERIOD - 1) is None
    assert tracker.due_about(PERIOD) == "all"


def test_at_a_slower_pace_everything_is_asked_half_as_often():
    tracker = make_tracker(refresh_ns=2 * SECOND)
    tracker.timetable.pace = 2.0
    ground(tracker, 0, 0.9)
    assert not tracker.due(2 * PERIOD - 1) and tracker.due(2 * PERIOD)
    ground(tracker, 2 * PERIOD, 0.1)
    show(tracker, 2 * PERIOD, 0.9)
    assert tracker.due_about(2 * PERIOD + 4 * SECOND - 1) is None
    assert tracker.due_about(2 * PERIOD + 4 * SECOND) == "all"


def test_a_mask_of_the_old_thing_does_not_speak_for_the_new_one():
    tracker = make_tracker(refresh_ns=SECOND)
    ground(tracker, 0, 0.1)
    show(tracker, 0, 0.9)
    old_prompts = tracker.prompts()
    upper, lower = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    upper[0], lower[3] = True, True
    sightings = Sightings({0: TargetMask(lower, 0.9, "new")}, {0: TargetMask(upper, 0.9, "old")})
    for stamp in (SECOND, 2 * SECOND):
        tracker.apply_grounding(grounding(0.1), {0: "new"}, stamp, stamp, True, sightings)
    (target,) = tracker.update(2 * SECOND, old_prompts, [TargetMask(upper, 0.9, "old")])
    assert target.state is State.GROUNDING and target.mask is None
    (target,) = tracker.update(3 * SECOND, tracker.prompts(), [TargetMask(lower, 0.9, "new")])
    assert (target.state, target.instance_id) == (State.PRESENT, 2)


def test_a_slot_that_is_no_longer_named_goes_and_comes_back_with_its_id():
    tracker = make_tracker()
    ground(tracker, 0, 0.1, 0.1)
    show(tracker, 0, 0.1, 0.1)
    show(tracker, 2 * SECOND, 0.1, 0.1)
    assert states(tracker) == [State.LOST, State.LOST]
    ground(tracker, 2 * SECOND, 0.1)
    assert len(tracker.targets) == 1
    assert (2, State.NO_TARGET) in [(e.instance_id, e.after) for e in tracker.take_events()]
    show(tracker, 3 * SECOND, 0.1)
    ground(tracker, 3 * SECOND, 0.1, 0.1)
    assert [t.instance_id for t in show(tracker, 3 * SECOND + 1, 0.9, 0.9)] == [1, 2]


def test_a_lost_target_does_not_come_back_on_the_pixels_of_a_live_one():
    tracker = make_tracker()
    ground(tracker, 0, 0.1, 0.1)
    show(tracker, 0, 0.9, 0.9)
    show(tracker, SECOND, 0.1, 0.9)
    show(tracker, 3 * SECOND, 0.1, 0.9)
    assert states(tracker) == [State.LOST, State.PRESENT]
    ground(tracker, 3 * SECOND, 0.1)  # only one is seen, and it is the one that never left
    first, second = show(tracker, 3 * SECOND + 1, 0.9, 0.9, same_pixels=True)
    assert first.state is State.LOST and "another target" in first.reason
    assert (second.state, second.instance_id) == (State.PRESENT, 2)
    ground(tracker, 4 * SECOND, 0.1, 0.1)
    assert [t.state for t in show(tracker, 4 * SECOND, 0.9, 0.9)] == [State.PRESENT, State.PRESENT]


def test_two_new_targets_may_be_the_same_object():
    tracker = make_tracker()
    ground(tracker, 0, 0.1, 0.1)
    assert [t.state for t in show(tracker, 0, 0.9, 0.9, same_pixels=True)] == [State.PRESENT, State.PRESENT]


def test_no_more_targets_than_allowed():
    tracker = make_tracker()
    ground(tracker, 0, *[0.1] * 9)
    assert len(tracker.targets) == 3


def test_failures_in_a_row_back_off_and_a_good_frame_forgets_them():
    tracker = make_tracker()
    waits, stamp = [], 0
    for _ in range(7):
        tracker.begin_grounding(stamp)
        tracker.fail("ground failed", stamp, only_missing=True)
        step = next(k for k in range(1, 100) if tracker.due(stamp + k * PERIOD))
        waits.append(step)
        stamp += step * PERIOD
    assert waits == [1, 2, 4, 8, 16, 16, 16]
    ground(tracker, stamp, 0.1)
    show(tracker, stamp, 0.9)
    tracker.fail("segment failed", stamp)
    assert tracker.due(stamp + PERIOD)


def test_a_failing_reasoner_leaves_live_targets_alone():
    tracker = make_tracker()
    ground(tracker, 0, 0.1, 0.9)
    show(tracker, 0, 0.9)
    tracker.fail("ground failed", 1, only_missing=True)
    assert states(tracker) == [State.PRESENT, State.ERROR]


def test_present_without_a_mask_on_this_frame_fails_closed():
    tracker = make_tracker()
    ground(tracker, 0, 0.1)
    show(tracker, 0, 0.9)
    (target,) = tracker.update(1)
    assert target.state is State.ERROR and target.mask is None


def test_a_newer_token_is_not_overwritten_by_a_mask_of_the_old_one():
    tracker = make_tracker()
    ground(tracker, 0, 0.1)
    prompts = tracker.prompts()
    tracker.targets[0].token = "newer"
    tracker.update(1, prompts, [TargetMask(np.ones((4, 4), bool), 0.9, "old, renewed")])
    assert tracker.targets[0].token == "newer"


def test_restart_forgets_targets_and_makes_running_work_obsolete_but_keeps_ids():
    tracker = make_tracker()
    ground(tracker, 5 * SECOND, 0.1, 0.1)
    show(tracker, 5 * SECOND, 0.9, 0.9)
    before = tracker.generation
    tracker.restart("time jumped back", 0)
    assert tracker.generation != before
    assert states(tracker) == [State.GROUNDING] and tracker.prompts() == []
    assert tracker.due(0)
    ground(tracker, 0, 0.1, 0.1)
    assert [t.instance_id for t in show(tracker, 1, 0.9, 0.9)] == [1, 2]


def test_closing_gives_the_ids_back():
    ids = InstanceIds()
    tracker = TokenTracker(Instruction("a", "red"), "left", Policy(), Schedule(), ids, 3, 0)
    ground(tracker, 0, 0.1, 0.1)
    assert len(ids) == 2
    tracker.close()
    assert len(ids) == 0


STEPS = st.one_of(
    st.tuples(st.just("ground"), st.lists(st.sampled_from([0.1, 0.48, 0.9]), max_size=4), st.booleans()),
    st.tuples(st.just("show"), st.lists(st.sampled_from([0.0, 0.45, 0.9]), min_size=3, max_size=3)),
    st.tuples(st.sampled_from(["fail", "stale", "resume", "restart", "empty frame"])),
)


@unhurried
@given(st.lists(st.tuples(st.sampled_from([SECOND // 8, 2 * SECOND]), STEPS), max_size=30))
def test_what_always_holds(steps):
    tracker, stamp, ids_of_slot = make_tracker(), 0, {}
    for pause, (kind, *values) in steps:
        stamp += pause
        shown = tracker.update(stamp) if kind == "empty frame" else ()
        if kind == "ground":
            ground(tracker, stamp, *values[0], refresh=values[1])
        elif kind == "show":
            shown = show(tracker, stamp, *values[0])
        elif kind == "fail":
            tracker.fail("on purpose", stamp)
        elif kind == "stale":
            tracker.stale("on purpose", stamp)
        elif kind == "resume":
            tracker.resumed(pause, stamp)
        elif kind == "restart":
            tracker.restart("on purpose", stamp)
        assert 1 <= len(tracker.targets) <= 3
        for target in shown:  # TargetState itself refuses a mask without PRESENT, and PRESENT without a mask
            assert (target.mask is not None) == (target.state is State.PRESENT)
        for target in tracker.targets:
            assert (target.token is not None) == target.machine.armed
        for target, described in zip(tracker.targets, shown, strict=False):
            if described.instance_id:
                assert ids_of_slot.setdefault(target.slot, described.instance_id) == described.instance_id
        assert len(set(ids_of_slot.values())) == len(ids_of_slot)
        for event in tracker.take_events():
            assert event.before is not event.after and event.reason
