"""What happens to a target while the engine looks: it runs away from a slow reasoner, is covered, leaves, returns.

The segmenter of these tests knows a thing by its place alone, which makes a look-alike in the wrong place dangerous and
every frame that is left out a loss.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from unit.drawn_scenes import WIDTH, DrawnScene, Thing, Watcher
from unit.fakes import SECOND, FollowingSegmenter

from instructseg.core import Instruction, State

SPEED = 60.0  # pixels per second: more than its own width in half a second


def runner(start: float) -> Thing:
    return Thing("red", lambda t: 20 + SPEED * max(0.0, t - start))


def standing(colour: str, left: float, since: float = 0.0, **shape: int) -> Thing:
    return Thing(colour, lambda t: left if t >= since else None, **shape)


@pytest.mark.parametrize(
    ("think_s", "rate"), [(0.5, 20.0), (1.0, 20.0), (3.0, 20.0), (3.0, 30.0), (4.0, 10.0), (4.0, 60.0)]
)
def test_the_first_mask_is_of_the_present_frame_and_of_the_thing_that_ran_away_meanwhile(
    think_s: float, rate: float
) -> None:
    # When the answer comes, a look-alike stands where the thing was when it was asked about. The buffer holds 3 s and
    # 64 frames: the last three cases outlast it.
    scene = DrawnScene(target=runner(1.0), twin=standing("red", 20, since=1.4))
    watcher = Watcher(scene, FollowingSegmenter(), until=1.8 + think_s, rate=rate, ground_s=think_s)
    watcher.instruct(1.0, "red")
    watcher.run()
    assert watcher.states() == [State.GROUNDING, State.PRESENT]
    first = watcher.first_mask()
    assert first.target.grounded_stamp_ns <= 1.0 * SECOND
    assert 1.0 + think_s < first.when < 1.0 + think_s + 0.3  # catching up is faster than the camera
    assert first.when - first.stamp < 1.0 / rate  # within one period of the camera: nothing newer was there
    masks = [sight for sight in watcher.sights() if sight.target.mask is not None]
    assert len(masks) > 5
    assert all(watcher.shows(sight, "target") for sight in masks)
    assert {sight.target.instance_id for sight in masks} == {1}


@pytest.mark.parametrize("step_s", [0.04, 0.06])
@pytest.mark.parametrize("think_s", [1.0, 3.0])
def test_catching_up_ends_at_the_present_even_where_a_replay_is_hardly_faster_than_the_camera(
    step_s: float, think_s: float
) -> None:
    walker = Thing("red", lambda t: 20 + SPEED / 2 * max(0.0, t - 1.0))
    scene = DrawnScene(target=walker, twin=standing("red", 20, since=2.0))
    watcher = Watcher(scene, FollowingSegmenter(), until=3.5 + 1.5 * think_s, step_s=step_s, ground_s=think_s)
    watcher.instruct(1.0, "red")
    watcher.run()
    assert watcher.states() == [State.GROUNDING, State.PRESENT]
    first = watcher.first_mask()
    assert first.when < 1.5 + 1.5 * think_s  # replaying every frame takes 3 s and more, beyond thinking
    assert first.when - first.stamp < 0.05 + 2 * step_s
    assert all(watcher.shows(sight, "target") for sight in watcher.sights() if sight.target.mask is not None)


def test_without_the_hand_over_the_look_alike_would_have_been_taken() -> None:
    # What makes the test above one that can fail.
    segmenter = FollowingSegmenter()
    segmenter.carries_tokens = False
    scene = DrawnScene(target=runner(1.0), twin=standing("red", 20, since=1.5))
    watcher = Watcher(scene, segmenter, until=3.0, ground_s=1.0)
    watcher.instruct(1.0, "red")
    watcher.run()
    assert watcher.shows(watcher.first_mask(), "twin")


def test_masks_of_other_targets_go_on_at_the_cameras_rate_while_the_reasoner_thinks() -> None:
    scene = DrawnScene(target=runner(1.0), other=standing("blue", 200, top=2))
    watcher = Watcher(scene, FollowingSegmenter(), until=6.0, step_s=0.01, ground_s=2.0)
    watcher.instruct(0.0, "blue", "other")
    watcher.instruct(3.0, "red")
    watcher.run()
    live = [sight for sight in watcher.sights("other") if sight.when > 2.5]
    assert all(watcher.shows(sight, "other") for sight in live)
    gaps = [after.when - before.when for before, after in itertools.pairwise(live)]
    assert max(gaps) < 0.08  # the camera's 0.05 s, and the second target to segment once it is there
    assert watcher.shows(watcher.first_mask(), "target")


@pytest.mark.parametrize(("think_s", "rate"), [(0.8, 20.0), (3.0, 30.0)])
def test_asking_again_about_a_moving_thing_leaves_its_mask_and_id_alone(think_s: float, rate: float) -> None:
    walker = Thing("red", lambda t: 40 + 24 * max(0.0, t - 1.0))
    scene = DrawnScene(target=walker, twin=standing("red", 290, since=2.0))
    watcher = Watcher(scene, FollowingSegmenter(), until=8.0, rate=rate, ground_s=think_s, refresh_period=1.0)
    watcher.instruct(0.5, "red")
    watcher.run()
    assert watcher.states() == [State.GROUNDING, State.PRESENT]
    assert watcher.statistics.groundings["done"] >= 2
    masks = [sight for sight in watcher.sights() if sight.target.mask is not None]
    assert all(watcher.shows(sight, "target") for sight in masks)
    assert {sight.target.instance_id for sight in masks} == {1}


def covered(start: float, end: float) -> DrawnScene:
    return DrawnScene(
        target=standing("red", 100),
        cover=Thing("black", lambda t: 96 if start <= t < end else 240, width=24, height=24, top=20),
    )


def test_a_short_cover_is_occluded_and_over_without_asking_again() -> None:
    watcher = Watcher(covered(2.0, 2.6), FollowingSegmenter(), until=4.0, ground_s=0.2)
    watcher.instruct(0.5, "red")
    watcher.run()
    assert watcher.states() == [State.GROUNDING, State.PRESENT, State.OCCLUDED, State.PRESENT]
    assert watcher.statistics.groundings == {"done": 1}
    assert watcher.events == []
    masks = [sight for sight in watcher.sights() if sight.target.mask is not None]
    assert all(watcher.shows(sight, "target") for sight in masks)


def test_a_long_cover_is_occluded_then_lost_and_the_thing_returns_with_its_id() -> None:
    watcher = Watcher(covered(2.0, 5.0), FollowingSegmenter(), until=7.0, ground_s=0.2, lost_after=1.0)
    watcher.instruct(0.5, "red")
    watcher.run()
    wanted = [State.GROUNDING, State.PRESENT, State.OCCLUDED, State.LOST, State.NO_TARGET, State.PRESENT]
    order = watcher.states()
    assert order[:4] == wanted[:4]
    assert order[-1] is State.PRESENT and set(order[4:-1]) <= {State.NO_TARGET, State.LOST}
    hidden = [sight for sight in watcher.sights() if 2.0 <= sight.stamp < 5.0]
    assert all(sight.target.mask is None for sight in hidden)
    occluded = [sight.stamp for sight in hidden if sight.state is State.OCCLUDED]
    assert (occluded[0], occluded[-1]) == (2.0, 3.0)
    back = [sight for sight in watcher.sights() if sight.stamp >= 5.0 and sight.target.mask is not None]
    assert back[0].when < 5.0 + 0.5 + 0.2 + 0.1  # the period of asking, the reasoner, two frames
    assert {sight.target.instance_id for sight in watcher.sights() if sight.target.mask is not None} == {1}
    assert all(watcher.shows(sight, "target") for sight in back)


def leaving(back: Callable[[float], float | None]) -> Thing:
    """Out on the right at 2.8 s; ``back``: its left edge from 5 s on."""

    def left(t: float) -> float | None:
        if t < 3.0:
            return 240 + max(0.0, t - 1.5) * SPEED
        return None if t < 5.0 else back(t - 5.0)

    return Thing("red", left)


def on_the_right(t: float) -> float:
    return max(220.0, WIDTH - t * SPEED)


def on_the_left(t: float) -> float:
    return min(60.0, t * SPEED - 16)


@pytest.mark.parametrize(
    ("back", "reacquire", "ids"),
    [(on_the_right, "place", {1}), (on_the_left, "place", {1, 2}), (on_the_left, "looks", {1})],
)
def test_a_thing_that_leaves_keeps_its_id_where_it_comes_back_in(back, reacquire: str, ids: set[int]) -> None:
    # By its picture alone, what comes in on the other side may be another one of its kind.
    scene = DrawnScene(target=leaving(back))
    watcher = Watcher(scene, FollowingSegmenter(), until=8.0, ground_s=0.3, reacquire=reacquire)
    watcher.instruct(0.5, "red")
    watcher.run()
    gone = [sight for sight in watcher.sights() if 2.9 <= sight.stamp < 5.0]
    assert gone and all(sight.target.mask is None for sight in gone)
    assert State.LOST in {sight.state for sight in gone}
    masks = [sight for sight in watcher.sights() if sight.target.mask is not None]
    assert masks[0].stamp < 1.0 and masks[-1].stamp > 7.9
    assert all(watcher.shows(sight, "target") for sight in masks)
    assert {sight.target.instance_id for sight in masks} == ids
    refused = [event.reason for event in watcher.events if "not where that was last seen" in event.reason]
    assert len(refused) == len(ids) - 1


def test_a_twin_that_stays_does_not_become_the_thing_that_left() -> None:
    scene = DrawnScene(target=leaving(on_the_right), twin=standing("red", 290 - 200, since=1.0, top=44))
    watcher = Watcher(scene, FollowingSegmenter(), until=4.7, ground_s=0.2)
    watcher.instruct(0.5, "red")
    watcher.run()
    by_id: dict[int, set[str]] = {}
    for sight in watcher.sights():
        if sight.target.mask is not None:
            (thing,) = [name for name in ("target", "twin") if watcher.shows(sight, name)]
            by_id.setdefault(sight.target.instance_id, set()).add(thing)
    assert by_id == {1: {"target"}, 2: {"twin"}}
    lost = [event for event in watcher.events if event.after is State.LOST]
    assert {event.instance_id for event in lost} == {1}


def test_what_a_follower_jumps_to_is_not_shown_as_its_thing() -> None:
    # The reach of this token is the whole picture, as a memory's is: without its thing it goes to the twin at once.
    scene = covered(2.0, 5.0)
    scene.things["twin"] = standing("red", 290, since=1.5, top=2)
    watcher = Watcher(scene, FollowingSegmenter(reach=400.0), until=4.0, ground_s=0.2, ground_on_loss=False)
    watcher.instruct(0.5, "red")
    watcher.run()
    assert watcher.states() == [State.GROUNDING, State.PRESENT, State.OCCLUDED, State.LOST]
    masks = [sight for sight in watcher.sights() if sight.target.mask is not None]
    assert all(watcher.shows(sight, "target") for sight in masks)
    reasons = {sight.target.reason for sight in watcher.sights() if sight.state is State.OCCLUDED}
    assert reasons == {"not visible: what looks like it is too far from where it was last seen"}


def test_a_look_alike_that_passes_by_is_not_taken() -> None:
    twin = Thing("red", lambda t: WIDTH - (t - 1.0) * 100 if t > 1.0 else None, top=44)
    watcher = Watcher(DrawnScene(target=standing("red", 100), twin=twin), FollowingSegmenter(), until=4.5)
    watcher.instruct(0.2, "red")
    watcher.run()
    assert watcher.states() == [State.PRESENT]
    assert all(watcher.shows(sight, "target") for sight in watcher.sights())


def test_a_look_alike_that_appears_while_the_thing_is_covered_is_not_taken() -> None:
    scene = covered(2.0, 2.8)
    scene.things["twin"] = standing("red", 20, since=2.3)
    watcher = Watcher(scene, FollowingSegmenter(), until=4.0)
    watcher.instruct(0.2, "red")
    watcher.run()
    assert watcher.states() == [State.PRESENT, State.OCCLUDED, State.PRESENT]
    masks = [sight for sight in watcher.sights() if sight.target.mask is not None]
    assert all(watcher.shows(sight, "target") for sight in masks)


def test_what_was_not_there_is_present_soon_after_it_has_appeared() -> None:
    watcher = Watcher(DrawnScene(target=standing("red", 100, since=3.0)), FollowingSegmenter(), until=5.0, ground_s=0.3)
    watcher.instruct(0.5, "red")
    watcher.run()
    assert watcher.states() == [State.GROUNDING, State.NO_TARGET, State.PRESENT]
    first = watcher.first_mask()
    assert 3.3 < first.when < 3.0 + 0.5 + 0.3 + 0.1
    assert watcher.shows(first, "target")
    assert [(event.before, event.after) for event in watcher.events] == [
        (State.GROUNDING, State.NO_TARGET),
        (State.NO_TARGET, State.PRESENT),
    ]


def both() -> DrawnScene:
    return DrawnScene(red=standing("red", 60), blue=standing("blue", 200))


def test_an_instruction_that_is_changed_while_the_reasoner_thinks_leaves_no_trace() -> None:
    watcher = Watcher(both(), FollowingSegmenter(), until=5.0, ground_s=1.0)
    watcher.instruct(1.0, "red")
    watcher.instruct(1.5, "blue")  # under the same id
    watcher.run()
    masks = [sight for sight in watcher.sights() if sight.target.mask is not None]
    assert all(sight.target.instruction.text == "blue" and watcher.shows(sight, "blue") for sight in masks)
    assert 3.0 < masks[0].when < 3.1  # the reasoner ends the old thought at 2.0 s and begins anew
    assert watcher.statistics.groundings == {"discarded": 1, "done": 1}
    texts = {sight.target.instruction.text for sight in watcher.sights() if sight.stamp > 1.5}
    assert texts == {"blue"}


def test_an_instruction_that_is_cancelled_while_the_reasoner_thinks_never_shows_a_mask() -> None:
    watcher = Watcher(both(), FollowingSegmenter(), until=4.0, ground_s=1.0)
    watcher.instruct(0.0, "blue", "b")
    watcher.instruct(1.5, "red", "a")
    watcher.stream.at(2 * SECOND, lambda: watcher.engine.cancel("a"))
    watcher.run()
    assert all(sight.target.mask is None for sight in watcher.sights("a"))
    assert watcher.sights("a")[-1].when <= 2.01
    other = [sight for sight in watcher.sights("b") if sight.stamp > 1.2]
    assert all(watcher.shows(sight, "blue") for sight in other)  # the one beside it is not disturbed
    assert watcher.statistics.groundings == {"done": 1, "discarded": 1}


def test_everything_is_replaced_while_several_are_being_thought_about() -> None:
    watcher = Watcher(both(), FollowingSegmenter(), until=5.0, ground_s=0.8)
    watcher.instruct(1.0, "red", "a")
    watcher.instruct(1.0, "red and blue", "b")
    watcher.stream.at(round(1.4 * SECOND), lambda: watcher.engine.set_instruction(Instruction("c", "blue")))
    watcher.run()
    for name in ("a", "b"):
        assert all(sight.target.mask is None for sight in watcher.sights(name))
    assert watcher.shows(watcher.first_mask("c"), "blue")
    assert watcher.statistics.groundings == {"discarded": 1, "done": 1}
    assert len(watcher.statistics.instructions) == 1
