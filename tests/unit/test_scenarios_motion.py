"""Instructions about motion and places become false while their target stays in view: the reasoner is asked again."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from unit.drawn_scenes import DrawnScene, Thing, Watcher
from unit.fakes import COLOURS, SECOND, FollowingSegmenter, Owner, blobs

from instructseg.core import Clip, Frame, Grounding, Instruction, State, Target
from instructseg.streaming.view import ViewWatch


class MovingSegmenter(FollowingSegmenter):
    """Of a red thing it says that it is there while it moves over the clip."""

    def _ground(self, clip: Clip, instruction: Instruction) -> Grounding:
        answer = super()._ground(clip, instruction)
        first, last = (blobs(clip.frames[i].features, COLOURS["red"])[0][0] for i in (0, -1))
        if abs(last[0] - first[0]) > 2.0:
            return answer
        return dataclasses.replace(answer, targets=(Target(None, 0.1, 0.9, True, reason="it stands still"),))


def rolling(stops: float) -> DrawnScene:
    return DrawnScene(ball=Thing("red", lambda t: 40 + 50 * min(t, stops)))


def watch(scene: DrawnScene, **config) -> Watcher:
    watcher = Watcher(scene, MovingSegmenter(), until=5.0, ground_s=0.2, **config)
    watcher.instruct(1.0, "red")
    return watcher.run()


def test_what_moves_is_asked_about_again_when_it_stops() -> None:
    watcher = watch(rolling(stops=2.5), ground_on_motion=True)
    assert watcher.states() == [State.GROUNDING, State.PRESENT, State.NO_TARGET]
    refused = next(sight for sight in watcher.sights() if sight.state is State.NO_TARGET)
    assert 2.5 < refused.when < 4.5  # the clip looks back one second; the reasoner is asked every half
    assert "it stands still" in refused.target.reason
    assert watcher.statistics.asked["motion"] >= 1 and watcher.statistics.asked["new"] == 1


def test_steady_motion_is_no_reason_to_ask() -> None:
    watcher = watch(rolling(stops=9.0), ground_on_motion=True)
    assert watcher.states() == [State.GROUNDING, State.PRESENT]
    assert watcher.statistics.asked == {"new": 1}


def test_without_it_an_answer_about_motion_outlives_the_motion() -> None:
    watcher = watch(rolling(stops=2.5))
    assert watcher.states() == [State.GROUNDING, State.PRESENT]
    assert watcher.statistics.asked == {"new": 1}


def textured(seed: int = 0) -> np.ndarray:
    """``(96, 512, 3)`` uint8: soft patches."""
    coarse = np.random.default_rng(seed).integers(0, 100, (12, 64, 3), np.uint8)
    return np.kron(coarse, np.ones((8, 8, 1), np.uint8))


def window(image: np.ndarray, left: int) -> np.ndarray:
    """What a camera sees there; a red square stays in the middle of it."""
    seen = image[:, left : left + 128].copy()
    seen[40:56, 56:72] = COLOURS["red"]
    return seen


@pytest.mark.parametrize(("step", "times"), [(0, 0), (1, 1), (2, 3)])
def test_a_camera_that_turns_makes_the_reasoner_look_again(step: int, times: int) -> None:
    owner, image = Owner(ground_on_motion=True), textured()
    owner.engine.set_instruction(Instruction("a", "red"))
    for i in range(36):
        result = owner.engine.process(Frame(window(image, step * i), i * SECOND // 10))
    assert [target.state for target in result.targets] == [State.PRESENT]
    assert owner.engine.statistics().asked == ({"new": 1, "view": times} if times else {"new": 1})


def test_the_view_is_another_one_after_a_shift_or_a_cut_not_after_noise_or_a_thing_that_moves() -> None:
    watch, image = ViewWatch(), textured()
    noise = np.random.default_rng(1).integers(0, 12, (96, 128, 3), np.uint8)
    seconds = iter(range(100))

    def changed(picture: np.ndarray) -> bool:
        return watch.changed(picture, next(seconds) * SECOND, 0.15)

    assert not changed(image[:, :128])  # the first one
    assert not changed(image[:, :128] + noise)
    assert not changed(image[:, 10:138])
    assert changed(image[:, 40:168])
    assert not changed(image[:, 40:168])  # that is the view now
    assert changed(255 - image[:, 40:168])
    watch.forget()
    plain = np.full((96, 128, 3), 127, np.uint8)
    assert not changed(plain)
    for left in (0, 40, 80):
        thing = plain.copy()
        thing[10:60, left : left + 30] = 250
        assert not changed(thing)


def test_views_are_compared_at_most_ten_times_a_second() -> None:
    watch, image = ViewWatch(), textured()
    assert not watch.changed(image[:, :128], 0, 0.15)
    assert not watch.changed(image[:, 40:168], SECOND // 20, 0.15)
    assert watch.changed(image[:, 40:168], SECOND // 10, 0.15)
