"""The shipped recipe in the engine, on rendered scenes whose exact masks are known; the clock makes the reasoner slow.

Eight frames a second at 320 x 240: enough to see every state, in a few seconds of computing a scenario.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
from unit.drawn_scenes import Sight, Watcher
from unit.fakes import SECOND

import instructseg
from instructseg.core import Frame, Segmenter, State
from instructseg.data.demo_scene import NAMES, demo_spec
from instructseg.data.tabletop import Tabletop
from instructseg.data.tabletop_spec import SceneSpec, Waypoint
from instructseg.evaluation.tabletop import mask_iou

pytestmark = pytest.mark.slow
RATE = 8.0


@pytest.fixture(scope="module")
def table() -> Iterator[Tabletop]:
    made = Tabletop(320, 240)
    yield made
    made.close()


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return instructseg.load("unified", device="cpu", dtype="float32")


class RenderedScene:
    """A part of a scripted scene, beginning at ``start`` seconds of its script."""

    def __init__(self, table: Tabletop, spec: SceneSpec, start: float = 0.0) -> None:
        self._table, self._spec, self._start = table, spec, start

    def draw(self, seconds: float) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The picture (H, W, 3) uint8 and the visible pixels (H, W) bool of every thing."""
        image, ids, _ = self._table.render(self._spec, self._start + seconds)
        return image, {name: ids == number for name, number in NAMES.items()}

    def frame(self, seconds: float) -> Frame:
        return Frame(self.draw(seconds)[0], round(seconds * SECOND))


def changed(name: str, path: tuple[tuple[float, ...], ...], like: str = "", size: str = "large"):
    """An edit of the demo scene: the thing takes another path, the colour of ``like`` and another size."""

    def edit(spec: SceneSpec) -> SceneSpec:
        placed = list(spec.objects)
        thing, model = placed[NAMES[name] - 1], placed[NAMES[like or name] - 1]
        description = dataclasses.replace(thing.object, color=model.object.color, size=size)
        waypoints = tuple(Waypoint(*point) for point in path)
        placed[NAMES[name] - 1] = dataclasses.replace(thing, object=description, waypoints=waypoints, rgb=model.rgb)
        return dataclasses.replace(spec, objects=tuple(placed))

    return edit


def scripted(*edits) -> SceneSpec:
    spec = demo_spec()
    for edit in edits:
        spec = edit(spec)
    return spec


def masks(watcher: Watcher) -> list[Sight]:
    return [sight for sight in watcher.sights() if sight.target.mask is not None]


def fits(watcher: Watcher, sight: Sight, thing: str) -> float:
    """IoU of a mask with the thing, on the frame of its header."""
    return mask_iou(sight.target.mask, watcher.scene.draw(sight.stamp)[1][thing])


def watch(scene: RenderedScene, segmenter: Segmenter, text: str, until: float, think_s: float = 0.2) -> Watcher:
    watcher = Watcher(scene, segmenter, until, RATE, step_s=0.02, ground_s=think_s)
    watcher.instruct(0.55, text)
    return watcher.run()


@pytest.mark.parametrize("think_s", [0.5, 1.0, 3.0])
def test_the_first_mask_is_on_the_moving_ball_where_it_is_now(table: Tabletop, segmenter, think_s: float) -> None:
    scene = RenderedScene(table, demo_spec(), start=11.5)
    watcher = watch(scene, segmenter, "the blue ball", 1.8 + think_s, think_s)
    first = watcher.first_mask()
    assert first.when - first.stamp < 1 / RATE
    assert first.when < 0.55 + 1.25 * think_s + 0.4  # catching up takes a fifth of the frames' own time
    assert fits(watcher, first, "blue_ball") > 0.8
    asked_at = first.target.grounded_stamp_ns / SECOND
    moved = mask_iou(scene.draw(asked_at)[1]["blue_ball"], scene.draw(first.stamp)[1]["blue_ball"])
    assert moved < 0.6  # the mask of the frame that was reasoned about would not have done


def test_a_cone_that_leaves_and_returns_keeps_its_id(table: Tabletop, segmenter: Segmenter) -> None:
    watcher = watch(RenderedScene(table, demo_spec(), start=22.6), segmenter, "the orange cone", 6.5)
    order = watcher.states()
    assert order[:4] == [State.GROUNDING, State.PRESENT, State.OCCLUDED, State.LOST]
    assert order[-1] is State.PRESENT
    assert {sight.target.instance_id for sight in masks(watcher)} == {1}
    assert min(fits(watcher, sight, "orange_cone") for sight in masks(watcher)) > 0.7
    assert all(not 2.2 < sight.stamp < 4.6 for sight in masks(watcher))  # out of view


def test_a_cone_that_is_not_there_yet_is_present_when_it_comes(table: Tabletop, segmenter: Segmenter) -> None:
    watcher = watch(RenderedScene(table, demo_spec(), start=25.2), segmenter, "the orange cone", 3.5)
    assert watcher.states() == [State.GROUNDING, State.NO_TARGET, State.PRESENT]
    assert fits(watcher, watcher.first_mask(), "orange_cone") > 0.7


def test_a_ball_that_is_covered_is_occluded_then_lost_and_comes_back_with_its_id(table: Tabletop, segmenter) -> None:
    script = scripted(
        changed("purple_ball", ((0.0, 0.5, 0.3),)),
        changed("blue_ball", ((0.0, 0.06, -0.15),), size="small"),
        changed("red_block", ((1.5, -0.09, -0.15), (2.2, 0.06, -0.15), (4.5, 0.06, -0.15), (5.2, -0.09, -0.15))),
    )
    watcher = watch(RenderedScene(table, script), segmenter, "the blue ball", 6.5)
    order = watcher.states()
    assert order[:4] == [State.GROUNDING, State.PRESENT, State.OCCLUDED, State.LOST]
    assert order[-1] is State.PRESENT
    hidden = [sight for sight in watcher.sights() if not watcher.scene.draw(sight.stamp)[1]["blue_ball"].any()]
    assert len(hidden) > 10
    assert all(sight.target.mask is None for sight in hidden)
    assert {sight.target.instance_id for sight in masks(watcher)} == {1}
    assert fits(watcher, masks(watcher)[-1], "blue_ball") > 0.7


def test_a_second_ball_that_rolls_in_is_not_taken_for_the_first(table: Tabletop, segmenter: Segmenter) -> None:
    script = scripted(
        changed("blue_ball", ((0.0, -0.02, -0.1),)),
        changed("purple_ball", ((1.2, 0.6, -0.1), (3.2, 0.12, -0.1)), like="blue_ball"),
    )
    watcher = watch(RenderedScene(table, script), segmenter, "the blue ball", 4.5)
    assert watcher.scene.draw(4.5)[1]["purple_ball"].any()
    assert watcher.states() == [State.GROUNDING, State.PRESENT]
    assert {sight.target.instance_id for sight in masks(watcher)} == {1}
    assert min(fits(watcher, sight, "blue_ball") for sight in masks(watcher)) > 0.7


def after_it_left(like: str, until: float, back: float, side: int = -1) -> SceneSpec:
    """The blue ball leaves over the right edge at 1.5 s and is back from ``back`` on; another one, of the colour of
    ``like``, is in view from 2.6 s to ``until``, on the left, or where the first one left (``side`` 1)."""
    gone = ((0.8, 0.12, -0.03), (1.7, 0.62, -0.03), (back, 0.62, -0.03), (back + 0.9, 0.12, -0.03))
    places = ((2.4, 0.75, -0.03), (2.9, 0.13, -0.02), (until, 0.13, -0.02), (until + 0.4, 0.75, -0.03))
    other = tuple((time, side * x, y) for time, x, y in places)
    return scripted(changed("blue_ball", gone), changed("purple_ball", other, like=like))


def things_by_id(watcher: Watcher) -> dict[int, set[str]]:
    """What the masks of every id showed."""
    found: dict[int, set[str]] = {}
    for sight in masks(watcher):
        best = max(("blue_ball", "purple_ball"), key=lambda name: fits(watcher, sight, name))
        found.setdefault(sight.target.instance_id, set()).add(best)
    return found


@pytest.mark.parametrize(
    ("text", "like", "side", "why"),
    [
        ("the blue ball", "blue_ball", -1, "looks like the thing followed, but is not where that was last seen"),
        ("the ball", "red_block", 1, "does not look like the thing followed"),
    ],
)
def test_a_ball_that_comes_after_the_ball_has_left_gets_an_id_of_its_own(
    table: Tabletop, segmenter: Segmenter, text: str, like: str, side: int, why: str
) -> None:
    watcher = watch(RenderedScene(table, after_it_left(like, 9.0, 9.0, side)), segmenter, text, 5.5)
    assert things_by_id(watcher) == {1: {"blue_ball"}, 2: {"purple_ball"}}
    assert any(event.instance_id == 1 and why in event.reason for event in watcher.events)


def test_a_ball_that_is_back_after_a_look_alike_was_refused_has_its_id(table: Tabletop, segmenter: Segmenter) -> None:
    watcher = watch(RenderedScene(table, after_it_left("blue_ball", 3.2, 4.0)), segmenter, "the blue ball", 6.5)
    assert any("not where that was last seen" in event.reason for event in watcher.events)
    assert things_by_id(watcher) == {1: {"blue_ball"}}
    assert masks(watcher)[-1].stamp > 6.0
