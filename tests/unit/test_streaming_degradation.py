"""Too late: the engine does less step by step, says so, and goes back when there is room."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.fakes import SECOND, ColourSegmenter, Owner, colour_frame, eventually, unhurried

import instructseg
from bench.scenes import make_scene
from instructseg.core import Instruction, State
from instructseg.streaming.degradation import STEPS, Degradation


def watch(judge: Degradation, start: float, seconds: float, age: float, rate: float = 20.0) -> list[tuple[float, int]]:
    """Results of one age for a while; (time, level) at each change."""
    changes = []
    for i in range(round(seconds * rate)):
        now = start + i / rate
        if judge.observe(round(now * SECOND), age):
            changes.append((now, judge.level))
    return changes


def test_one_step_at_a_time_down_after_two_seconds_and_back_after_five():
    judge = Degradation(0.5)
    assert watch(judge, 0.0, 10.0, 0.5) == []  # exactly max_age is good
    down = watch(judge, 10.0, 10.0, 0.6)
    assert [level for _, level in down] == [1, 2, 3] and judge.steps == STEPS
    gaps = [later - earlier for (earlier, _), (later, _) in pairwise(down)]
    assert all(2.0 <= gap <= 2.6 for gap in gaps)
    assert watch(judge, 20.0, 20.0, 0.4) == []  # good, but without room for more
    up = watch(judge, 40.0, 30.0, 0.2)
    assert [level for _, level in up] == [2, 1, 0] and judge.steps == ()
    gaps = [later - earlier for (earlier, _), (later, _) in pairwise(up)]
    assert all(5.0 <= gap <= 5.6 for gap in gaps)


def test_a_short_hiccup_changes_nothing():
    judge = Degradation(0.5)
    assert watch(judge, 0.0, 10.0, 0.1) == []
    assert watch(judge, 10.0, 0.08, 5.0) == []
    assert watch(judge, 10.1, 10.0, 0.1) == []


def test_a_step_back_that_does_not_last_is_tried_again_later_each_time():
    judge, now, waits = Degradation(0.5, levels=1), 0.0, []
    for _ in range(7):
        now = watch(judge, now, 200.0, 0.9)[0][0]
        (eased, _), *_ = watch(judge, now, 200.0, 0.1)
        waits.append(eased - now)
        now = eased
    assert [round(wait) for wait in waits] == [5, 10, 20, 40, 80, 80, 80]


def test_steps_that_the_recipe_cannot_take_are_left_out_and_zero_switches_all_off():
    judge = Degradation(0.5, levels=2)
    watch(judge, 0.0, 60.0, 9.0)
    assert judge.steps == STEPS[:2]
    judge = Degradation(0.0)
    assert watch(judge, 0.0, 60.0, 9.0) == [] and not judge.skips("camera")


def test_every_second_frame_of_each_camera_from_the_second_step_on():
    judge = Degradation(0.5)
    assert not any(judge.skips("a") for _ in range(4))
    watch(judge, 0.0, 5.0, 0.9)
    assert judge.level == 2
    assert [judge.skips(camera) for camera in "aabababb"] == [True, False, True, True, False, False, True, False]


def test_a_clock_that_is_set_back_starts_the_observation_anew():
    judge = Degradation(0.5)
    watch(judge, 1000.0, 1.9, 0.9)
    assert [level for _, level in watch(judge, 5.0, 3.0, 0.9)] == [1]


@unhurried
@given(st.lists(st.tuples(st.floats(0.01, 2.0), st.floats(0.0, 2.0)), max_size=200), st.integers(1, 3))
def test_what_always_holds(results, levels):
    judge, now, changed = Degradation(0.5, levels), 0.0, 0.0
    for pause, age in results:
        now += pause
        before = judge.level
        if judge.observe(round(now * SECOND), age):
            assert abs(judge.level - before) == 1
            assert now - changed >= 2.0 - 1e-6  # never two changes in one observation time
            changed = now
        assert 0 <= judge.level <= levels
        assert len(judge.steps) == judge.level


class Scalable(ColourSegmenter):
    resolution_scale = 1.0


def settled(owner: Owner) -> bool:
    seen = owner.engine.statistics()
    return seen.frames_in == seen.frames_out + sum(seen.drops.values())


def late(owner: Owner, start: float, seconds: float, age: float) -> None:
    """Frames whose results are published ``age`` seconds after their stamps."""
    for i in range(round(seconds * 10)):
        stamp = start + i / 10
        owner.clock.ns = round((stamp + age) * SECOND)
        owner.engine.submit_frame(colour_frame(stamp, "red"))
        assert eventually(lambda: settled(owner))


def test_the_engine_does_less_and_goes_back():
    owner = Owner(Scalable(), max_age=0.5, stale_after=60.0, ground_period=0.5)
    with owner:
        owner.engine.set_instruction(Instruction("a", "red"))
        owner.engine.add_instruction(Instruction("b", "green"))
        late(owner, 0.0, 4.0, 0.1)
        assert owner.engine.statistics().degradation == ()
        asked = [clip.key.frame.stamp_ns / SECOND for clip in owner.segmenter.clips]
        assert any(later - earlier < 1.0 for earlier, later in pairwise(asked))
        assert owner.states()[0] is State.PRESENT
        late(owner, 4.0, 12.0, 0.9)
        seen = owner.engine.statistics()
        assert seen.degradation == STEPS and owner.segmenter.resolution_scale == 0.5
        assert 30 <= seen.drops["degraded"] <= 60
        asked = [clip.key.frame.stamp_ns / SECOND for clip in owner.segmenter.clips]
        gaps = [later - earlier for earlier, later in pairwise(asked) if earlier > 8.0]
        assert gaps and min(gaps) >= 1.0  # the period has doubled
        assert owner.states()[0] is State.PRESENT
        late(owner, 16.0, 40.0, 0.1)
        seen = owner.engine.statistics()
        assert seen.degradation == () and owner.segmenter.resolution_scale == 1.0
        dropped = seen.drops["degraded"]
        late(owner, 60.0, 2.0, 0.1)
        assert owner.engine.statistics().drops["degraded"] == dropped
        assert any("lower resolution" in message for message in owner.said)
        assert any("with everything again" in message for message in owner.said)


def test_a_stop_takes_everything_back():
    owner = Owner(Scalable(), max_age=0.5, stale_after=60.0)
    with owner:
        late(owner, 0.0, 10.0, 0.9)
        assert len(owner.engine.statistics().degradation) == 3
    assert owner.segmenter.resolution_scale == 1.0 and owner.engine.statistics().degradation == ()


@pytest.mark.slow
def test_the_shipped_recipe_takes_the_third_step_and_still_finds_its_thing():
    segmenter = instructseg.load("unified", device="cpu")
    segmenter.gates = {}
    scene, owner = make_scene(), Owner(segmenter, max_age=0.5, stale_after=60.0)
    with owner:
        owner.engine.set_instruction(scene.instructions(1)[0])
        for count, frame in enumerate(list(scene.frames(140))[::2], start=1):
            age = 0.1 if count <= 10 else 0.9
            owner.clock.ns = frame.stamp_ns + round(age * SECOND)
            owner.engine.submit_frame(frame)
            assert eventually(lambda: settled(owner))
        assert owner.engine.statistics().degradation == STEPS
        assert owner.segmenter.resolution_scale == owner.segmenter.reduced_scale == 0.75
        late_masks = [t for r in owner.results[-5:] for t in r.targets if t.mask is not None]
        early_masks = [t for r in owner.results[5:10] for t in r.targets if t.mask is not None]
    assert len(early_masks) == len(late_masks) == 5
    assert {t.instance_id for t in early_masks + late_masks} == {1}


def test_a_recipe_of_one_size_is_never_asked_for_another():
    owner = Owner(max_age=0.5, stale_after=60.0)
    with owner:
        late(owner, 0.0, 12.0, 0.9)
        assert owner.engine.statistics().degradation == STEPS[:2]
    assert owner.segmenter.resolution_scale is None


def test_frame_by_frame_nothing_is_ever_left_out():
    owner = Owner(max_age=0.5)
    for i in range(100):
        owner.clock.ns = round((i / 10 + 5.0) * SECOND)
        owner.engine.process(colour_frame(i / 10, "red"))
    seen = owner.engine.statistics()
    assert seen.frames_out == 100 and seen.degradation == () and seen.drops == {}
