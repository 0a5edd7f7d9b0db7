"""What can be said of a scene of version 2, from its description: places, relations, motions, and what was before."""

from __future__ import annotations

import dataclasses

import numpy as np

from .. import scene, tabletop_layout
from ..tabletop_layout import ground_axes
from ..tabletop_spec import camera_pose, position
from . import things
from .assets import extent
from .view import HEIGHT, WIDTH, View, look
from .world import TIMES, World, leaves_and_returns

BEFORE = TIMES[0]  # s: what "before" means
_SEEN = 12  # pixels from which on a thing counts as seen


@dataclasses.dataclass(frozen=True, eq=False)
class Moment:
    """Where things are at one time. image: centre x, y in 0..1; ground: metres to the right and away from the eye."""

    image: dict[int, np.ndarray]
    ground: dict[int, np.ndarray]


class WorldFacts:
    """objects: what the key frame shows, with the clutter and without the rod."""

    def __init__(self, world: World):
        self.world = world
        view = look(world.spec, 0.0, world.inside)
        placed = {item.object.id: item for item in world.spec.objects}
        self.objects = [o for o in world.objects if view.area(o.id) >= _SEEN and placed[o.id].thing != things.ROD]
        self.named = [o for o in self.objects if o.shape != scene.CLUTTER]
        sizes = {o.id: extent(placed[o.id].thing, o.size) for o in self.objects}
        self.radius = {number: size[0] for number, size in sizes.items()}
        self.height = {number: size[1] for number, size in sizes.items()}
        self.area = {o.id: view.area(o.id) for o in self.objects}
        self.now = self._moment(view, 0.0)
        self.before = self._moment(look(world.spec, BEFORE, world.inside), BEFORE)
        labels = tabletop_layout.motions(world.spec, np.array([0.0]))[0]
        self.motion = {o.id: scene.MOTIONS[label] for o, label in zip(world.objects, labels, strict=True)}
        self.events = {event.id: event for event in world.events if event.start < -0.2 and event.kind != "left"}
        self.returning = leaves_and_returns(world, {o.id: view.area(o.id) for o in self.named})

    def _moment(self, view: View, t: float) -> Moment:
        eye, target, _ = camera_pose(self.world.spec, t)
        right, forward = ground_axes(eye, target)
        image, ground = {}, {}
        for item in self.world.spec.objects:
            x, y, _, _ = position(item.waypoints, t)
            ground[item.object.id] = np.array([np.dot((x, y), right), np.dot((x, y), forward)])
            rows, columns = np.nonzero(view.ids == item.object.id)
            if len(rows):
                image[item.object.id] = np.array([columns.mean() / WIDTH, rows.mean() / HEIGHT])
        return Moment(image, ground)

    def relation(self, a: int, b: int, kind: str, moment: Moment | None = None) -> bool | None:
        """Does a stand in this relation to b? None where a person could argue. moment: now by default."""
        moment = moment or self.now
        if kind in ("on", "in"):
            return self.world.supports.get(a) == (kind, b)
        if self._stacked(a, b) or a not in moment.image or b not in moment.image:
            return None
        step = moment.ground[a] - moment.ground[b]
        if kind in ("near", "far"):
            gap = float(np.hypot(*step)) - self.radius[a] - self.radius[b]
            near, far = gap < 0.05, gap > 0.28
            if kind == "near":
                return True if near else False if gap > 0.1 else None
            return True if far else False if gap < 0.15 else None
        if kind in ("left", "right"):
            value = (moment.image[a][0] - moment.image[b][0]) * (1 if kind == "right" else -1)
            return True if value > 0.06 else False if value < 0 else None
        value = float(step[1]) * (1 if kind == "behind" else -1)
        return True if value > 0.04 else False if value < 0 else None

    def between(self, a: int, b: int, c: int) -> bool | None:
        """Does a stand between b and c?"""
        if any(self._stacked(one, other) for one, other in ((a, b), (a, c), (b, c))):
            return None
        start, end, point = (self.now.ground[number] for number in (b, c, a))
        way = end - start
        length = float(np.hypot(*way))
        part = float((point - start) @ way) / length**2
        aside = abs(float(way[0] * (point - start)[1] - way[1] * (point - start)[0])) / length
        if 0.2 < part < 0.8 and aside < 0.04:
            return True
        return False if part < -0.05 or part > 1.05 or aside > 0.11 else None

    def ranked(self, ids: frozenset[int], kind: str) -> list[int] | None:
        """``ids`` from the most to the least ``left``, ``right``, ``front`` or ``behind``; None where two are level."""
        if kind in ("left", "right"):
            value, margin = {i: self.now.image[i][0] * (1 if kind == "left" else -1) for i in ids}, 0.035
        else:
            value, margin = {i: self.now.ground[i][1] * (1 if kind == "front" else -1) for i in ids}, 0.03
        order = sorted(ids, key=lambda i: value[i])
        steps = np.diff([value[i] for i in order])
        return order if not len(steps) or steps.min() > margin else None

    def extreme(self, ids: frozenset[int], kind: str) -> int | None:
        """The one of ``ids`` that is most ``kind``, None when two are about equal."""
        if kind in ("left", "right", "front", "behind"):
            best = {i: self.now.image[i][0] for i in ids} if kind in ("left", "right") else {
                i: self.now.ground[i][1] for i in ids}  # fmt: skip
            order = sorted(ids, key=lambda i: best[i], reverse=kind in ("right", "behind"))
            return order[0] if abs(best[order[0]] - best[order[1]]) > 0.04 else None
        if kind == "tallest":
            order = sorted(ids, key=lambda i: -self.height[i])
            return order[0] if self.height[order[0]] > 1.25 * self.height[order[1]] else None
        sign = -1 if kind == "biggest" else 1
        bulk = {i: self.radius[i] ** 2 * self.height[i] for i in ids}  # both in space and in the picture
        order = sorted(ids, key=lambda i: sign * bulk[i])
        seen = sorted(ids, key=lambda i: sign * self.area[i])
        clear = max(bulk[order[0]], bulk[order[1]]) > 1.5 * min(bulk[order[0]], bulk[order[1]])
        return order[0] if clear and order[0] == seen[0] else None

    def travelled(self, number: int) -> float:
        """Metres between where it was before and where it is now."""
        items = {item.object.id: item for item in self.world.spec.objects}
        then, now = (np.array(position(items[number].waypoints, t)[:2]) for t in (BEFORE, 0.0))
        return float(np.hypot(*(now - then)))

    def distance_change(self, a: int, b: int) -> float:
        """How many metres farther from b a is than before; negative: nearer."""
        now, then = (np.hypot(*(m.ground[a] - m.ground[b])) for m in (self.now, self.before))
        return float(now - then)

    def _stacked(self, a: int, b: int) -> bool:
        """Does one carry the other?"""
        supports = self.world.supports
        return supports.get(a, ("", 0))[1] == b or supports.get(b, ("", 0))[1] == a
