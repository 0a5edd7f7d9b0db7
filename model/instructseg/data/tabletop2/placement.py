"""Where the things of one scene stand and move: events first, then what carries others, then the rest."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from .. import scene
from ..tabletop_layout import ground_axes
from ..tabletop_spec import SceneSpec, Waypoint, camera_axes, camera_pose
from . import paths, things
from .assets import BOX_HALF, BOX_WALL, COPIES, extent

GAP = 0.008  # m between footprints
_PUSHABLE = ("block", "ball", "can", "cone", "mug", "bowl", "plate", "bottle", "box")
_ASPECT = 4 / 3


class NoRoom(Exception):
    """The things drawn do not fit; draw again."""


@dataclasses.dataclass(frozen=True)
class Placement:
    """A thing and its path, not yet its looks."""

    object: scene.SceneObject
    thing: str
    waypoints: tuple[Waypoint, ...]


def seat(carrier: str, carrier_size: str, thing: str, size: str) -> tuple[str, float] | None:
    """How a thing lies on or in another: ("on" or "in", height of its foot in metres); None: it does not fit."""
    radius, _ = extent(thing, size)
    scale = things.SCALES[carrier_size]
    wide, high = min(scale[:2]), scale[2]
    if carrier == "block" and radius <= 0.031 * wide:
        return "on", 0.06 * high
    if carrier == "can" and radius <= 0.028 * wide:
        return "on", 0.0995 * high
    if carrier == "plate" and radius <= 0.058 * wide:
        return "on", 0.006 * high
    if carrier == "box" and radius <= (BOX_HALF[1] - BOX_WALL) * wide + 0.005:
        return "in", BOX_WALL * high
    if carrier == "bowl" and radius <= 0.045 * wide:
        bottom = 0.058 - 0.05 * math.sqrt(1 - min(1.0, radius / wide / 0.061) ** 2)
        return "in", max(0.008, bottom) * high
    return None


class Placer:
    """Places one scene's things; raises NoRoom where they do not fit. Afterwards: ``supports`` and ``events``."""

    def __init__(self, rng: np.random.Generator, room: SceneSpec, objects: list[scene.SceneObject], clutter: int):
        self._rng, self._room, self._objects, self._clutter = rng, room, list(objects), clutter
        self._eye, self._target, _ = camera_pose(room, 0.0)
        self._right, self._forward = ground_axes(self._eye, self._target)
        self._taken: list[tuple[np.ndarray, float]] = []  # path (G, 2) and footprint
        self._placed: dict[int, Placement] = {}
        self.supports: dict[int, tuple[str, int]] = {}
        self.events: list[paths.Event] = []

    def place(self, theme: str, turn_away: bool) -> list[Placement]:
        """Every thing in the order of its id. turn_away: what leaves does so because the camera turns."""
        rng = self._rng
        stacks = int(rng.integers(1, 3)) if theme == "stack" else int(rng.random() < 0.35)
        self._stack(stacks)
        self._check_pool()
        busy = set(self.supports) | {carrier for _, carrier in self.supports.values()}
        free = [o for o in self._objects if o.id not in busy]
        free = [free[i] for i in rng.permutation(len(free))]
        if theme == "push":
            self._push(free)
        if theme == "leave" and not turn_away:
            self._leave(free)
        movers = {"still": int(rng.integers(2)), "stack": int(rng.integers(2)), "push": int(rng.integers(2)),
                  "order": int(rng.integers(2, 4)), "leave": int(rng.integers(2))}[theme]  # fmt: skip
        self._move(free, movers, staggered=theme == "order")
        rest = [o for o in self._objects if o.id not in self._placed and o.id not in self.supports]
        for item in sorted(rest, key=lambda o: -extent(o.shape, o.size)[0]):
            self._put(item, item.shape, paths.still)
        for number, (_, carrier) in self.supports.items():
            self._lay(number, carrier)
        self._scatter()
        return [self._placed[number] for number in sorted(self._placed)]

    def _stack(self, count: int) -> None:
        """Choose what lies on or in what; sizes are changed so that it fits."""
        for _ in range(count):
            busy = set(self.supports) | {carrier for _, carrier in self.supports.values()}
            free = [o for o in self._objects if o.id not in busy]
            options = []
            for carrier in free:
                for item in free:
                    for size in ("small", "large"):
                        found = seat(carrier.shape, carrier.size, item.shape, size)
                        if item is not carrier and found and size in things.SIZES[item.shape]:
                            options.append((carrier, item, size, found[0]))
            if not options:
                raise NoRoom
            carrier, item, size, relation = options[self._rng.integers(len(options))]
            self._objects[item.id - 1] = dataclasses.replace(item, size=size)
            self.supports[item.id] = (relation, carrier.id)

    def _check_pool(self) -> None:
        kinds = [(o.shape, o.size) for o in self._objects]
        if any(kinds.count(kind) > COPIES for kind in kinds):
            raise NoRoom

    def _push(self, free: list[scene.SceneObject]) -> None:
        item = next((o for o in free if o.shape in _PUSHABLE), None)
        if item is None:
            raise NoRoom
        free.remove(item)
        number = len(self._objects) + self._clutter + 1
        radius, _ = extent(item.shape, item.size)
        rod_radius, _ = extent(things.ROD, "small")
        for _ in range(60):
            way = (self._right, -self._right, self._right, -self._right, self._forward)[self._rng.integers(5)]
            path, rod, height, event = paths.pushed(self._rng, self._spot(), way, radius, item.shape, rod_radius)
            before = event.stop + 0.5 >= paths.GRID  # later the rod hangs above everything
            if self._fits(path, radius) and self._fits(rod[before], rod_radius, before):
                break
        else:
            raise NoRoom
        self._keep(item, item.shape, path, radius)
        self._taken.append((np.where(before[:, None], rod, 9.0), rod_radius))
        pusher = scene.SceneObject(number, scene.CLUTTER, "grey", "small")
        self._placed[number] = Placement(pusher, things.ROD, paths.waypoints(rod, 0.0, height))
        self.events.append(dataclasses.replace(event, id=item.id))

    def _leave(self, free: list[scene.SceneObject]) -> None:
        if not free:
            raise NoRoom
        item = free.pop()
        sign = (-1, 1)[self._rng.integers(2)]
        event = None

        def path(spot: np.ndarray) -> np.ndarray:
            nonlocal event
            found, event = paths.excursion(self._rng, spot, sign * self._right)
            return found

        self._put(item, item.shape, path, side=sign)
        self.events.append(dataclasses.replace(event, id=item.id))

    def _move(self, free: list[scene.SceneObject], count: int, staggered: bool) -> None:
        if staggered and len(free) < 2:
            raise NoRoom
        starts = [(-1.45, -1.25), (-0.85, -0.7), (-2.0, -2.0)]
        for i, item in enumerate(free[:count]):
            low, high = starts[i] if staggered else [(-2.0, -2.0), (-1.2, -0.6)][self._rng.integers(2)]
            start = float(self._rng.uniform(low, high))
            if self._rng.random() < 0.25 and start < -1.0:
                stop = float(self._rng.uniform(-0.75, -0.45))  # it has come to rest before the instruction
            else:
                stop = float(self._rng.uniform(0.3, 1.0))
            ways = (self._right, -self._right, self._forward, -self._forward)
            way = ways[self._rng.integers(4)]
            self._put(item, item.shape, lambda spot, w=way, a=start, b=stop: paths.straight(self._rng, spot, w, a, b))
            self.events.append(paths.Event("moved", item.id, start, stop))

    def _put(self, item: scene.SceneObject, thing: str, make_path, side: int = 0) -> None:
        radius, _ = extent(thing, item.size)
        for _ in range(80):
            path = make_path(self._spot(side))
            if self._fits(path, radius):
                return self._keep(item, thing, path, radius)
        raise NoRoom

    def _lay(self, number: int, carrier: int) -> None:
        item, below = self._objects[number - 1], self._placed[carrier]
        found = seat(below.thing, below.object.size, item.shape, item.size)
        if found is None:
            raise NoRoom
        point = below.waypoints[0]
        offset = self._rng.uniform(-0.004, 0.004, 2)
        spot = np.array([point.x, point.y]) + offset
        yaw = self._yaw(item.shape) if item.shape not in ("banana", "key") or below.thing != "box" else point.yaw
        self._placed[number] = Placement(item, item.shape, paths.waypoints(paths.still(spot), yaw, found[1]))

    def _scatter(self) -> None:
        """Things without a name; a scene with too little room for them has fewer."""
        names = [name for name in things.CLUTTER_KINDS for _ in range(COPIES)]
        chosen = self._rng.permutation(len(names))[: self._clutter]
        for offset, choice in enumerate(chosen):
            color = things.COLORS[self._rng.integers(len(things.COLORS))]
            item = scene.SceneObject(len(self._objects) + offset + 1, scene.CLUTTER, color, "small")
            self._put(item, names[choice], paths.still)

    def _keep(self, item: scene.SceneObject, thing: str, path: np.ndarray, radius: float) -> None:
        self._taken.append((path, radius))
        self._placed[item.id] = Placement(item, thing, paths.waypoints(path, self._yaw(thing)))

    def _yaw(self, thing: str) -> float:
        if thing == "mug":  # the handle does not point away from the camera: without it a mug is not a mug
            away = math.atan2(self._forward[1], self._forward[0])
            return away + float(self._rng.uniform(0.3, 1.7)) * math.pi
        return float(self._rng.uniform(-math.pi, math.pi))

    def _fits(self, path: np.ndarray, radius: float, when: np.ndarray | slice = slice(None)) -> bool:
        return all(np.hypot(*(path - other[when]).T).min() > radius + reach + GAP for other, reach in self._taken)

    def _spot(self, side: int = 0) -> np.ndarray:
        """A point of the table that the camera sees at 0 s; often close to another thing. side: -1 left, 1 right."""
        rng = self._rng
        if self._taken and not side and rng.random() < 0.5:
            path, radius = self._taken[rng.integers(len(self._taken))]
            middle = path[int(np.argmin(np.abs(paths.GRID)))]
            if np.abs(middle).max() < 2:
                angle = rng.uniform(0, 2 * math.pi)
                return middle + (radius + rng.uniform(0.03, 0.09)) * np.array([math.cos(angle), math.sin(angle)])
        tangent = math.tan(math.radians(self._room.fovy) / 2)
        u = rng.uniform(0.45, 0.75) * side if side else rng.uniform(-0.88, 0.88)
        ray = camera_axes(self._eye, self._target) @ np.array(
            [u * tangent * _ASPECT, rng.uniform(-0.8, 0.6) * tangent, -1.0]
        )
        ray[2] = min(ray[2], -0.05)
        return self._eye[:2] - ray[:2] * self._eye[2] / ray[2]
