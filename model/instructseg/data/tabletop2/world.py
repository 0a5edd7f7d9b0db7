"""Scenes of version 2 as plain descriptions: what stands where, on what and in what, what happens, how it looks.

``draw_world(split, index)`` gives the same scene on every machine: it depends on nothing but its arguments.
"""

from __future__ import annotations

import dataclasses
import zlib

import numpy as np

from ...core import BadInput
from .. import scene
from ..tabletop_spec import PlacedObject, SceneSpec, Surface
from . import looks, paths, things
from .placement import NoRoom, Placement, Placer
from .view import HEIGHT, WIDTH, look

TIMES = (-1.5, -1.0, -0.5, 0.0, 0.4, 1.2, 2.0, 3.0)  # s; the first six are those of version 1's clips
KEY = 3  # index of the frame that instructions are asked about
THEMES = ("still", "stack", "push", "order", "leave")  # what a scene has for sure, in turn
LEAST_AREA = 0.0009 * WIDTH * HEIGHT  # pixels of every named thing in the key frame
LEAST_SHOWN = 0.4  # part of its outline; of what lies in something 0.25


@dataclasses.dataclass(frozen=True, eq=False)
class World:
    """One scene. supports: id -> ("on" or "in", id of what carries it); events: in the order of their beginnings."""

    split: str
    index: int
    theme: str
    spec: SceneSpec
    supports: dict[int, tuple[str, int]]
    events: tuple[paths.Event, ...]

    @property
    def inside(self) -> dict[int, int]:
        return {item: carrier for item, (relation, carrier) in self.supports.items() if relation == "in"}

    @property
    def objects(self) -> tuple[scene.SceneObject, ...]:
        return tuple(item.object for item in self.spec.objects)


def scene_seed(split: str, index: int, purpose: str) -> list[int]:
    """Seed of one scene's own random numbers for one purpose (``world``, ``questions``)."""
    if split not in things.SPLITS:
        raise BadInput(f"split must be one of {', '.join(things.SPLITS)}; got {split!r}")
    if not isinstance(index, int) or index < 0:
        raise BadInput(f"the index of a scene must be a whole number of at least 0; got {index!r}")
    return [zlib.crc32(f"{purpose} {split}".encode()), index]


def draw_world(split: str, index: int) -> World:
    """Scene ``index`` of a split (``things.SPLITS``). Raises BadInput for another split or a negative index."""
    rng = np.random.default_rng(scene_seed(split, index, "world"))
    held_out, theme = things.SPLITS[split], THEMES[index % len(THEMES)]
    while True:
        try:
            world = _draw(rng, split, index, theme, held_out)
        except NoRoom:
            continue
        if _well_seen(world):
            return world


def _draw(rng: np.random.Generator, split: str, index: int, theme: str, held_out: frozenset[str]) -> World:
    objects = draw_objects(rng, held_out, int(rng.integers(4, 9)))
    fewest, most = things.HELD_OUT_CLUTTER if "clutter" in held_out else things.CLUTTER
    clutter = int(rng.integers(fewest, most + 1))
    camera_paths = things.HELD_OUT_CAMERA_PATHS if "cameras" in held_out else things.CAMERA_PATHS
    turn_away = theme == "leave" and bool(rng.random() < 0.5)
    camera = looks.draw_camera(
        rng, camera_paths[rng.integers(len(camera_paths))], paths.START, paths.END, len(objects) + clutter, turn_away
    )
    textures = things.HELD_OUT_TABLE_TEXTURES if "textures" in held_out else things.TABLE_TEXTURES
    room = SceneSpec(
        (), camera, looks.draw_lights(rng), float(rng.uniform(38, 46)), looks.draw_grey(rng, 0.44, 0.55, 0.03),
        looks.draw_surface(rng, textures), (float(rng.uniform(0.7, 1.1)), float(rng.uniform(0.45, 0.65))),
        (float(rng.uniform(-0.05, 0.05)), float(rng.uniform(0.0, 0.1)), float(rng.uniform(-0.3, 0.3))),
        floor=looks.draw_surface(rng, textures), floor_z=float(rng.uniform(-0.9, -0.5)),
        wall=Surface("plain_table", looks.draw_grey(rng, 0.5, 0.9, 0.05)), wall_distance=float(rng.uniform(1.2, 3.0)),
    )  # fmt: skip
    placer = Placer(rng, room, objects, clutter)
    placed = placer.place(theme, turn_away)
    spec = dataclasses.replace(room, objects=tuple(_dress(rng, item, held_out) for item in placed))
    events = tuple(sorted(placer.events, key=lambda event: event.start))
    return World(split, index, theme, spec, placer.supports, events)


def draw_objects(rng: np.random.Generator, held_out: frozenset[str], count: int) -> list[scene.SceneObject]:
    """``count`` named objects that share colours and shapes, so that words must be combined."""
    new_pairs = "pairs" in held_out
    pairs = [(c, s) for c in things.COLORS for s in things.SHAPES if new_pairs or (c, s) not in things.HELD_OUT_PAIRS]
    drawn = [pairs[rng.integers(len(pairs))] for _ in range(count)]
    for i in range(1, count):
        color, shape = drawn[i]
        other_color, other_shape = drawn[rng.integers(i)]
        wish = [(other_color, shape), (color, other_shape), (color, other_shape), (color, shape)][rng.integers(4)]
        drawn[i] = wish if wish in pairs else drawn[i]
    if new_pairs:
        wanted = sorted(things.HELD_OUT_PAIRS)
        drawn[0] = wanted[rng.integers(len(wanted))]
    objects = []
    for number, (color, shape) in enumerate(drawn, 1):
        sizes = things.SIZES[shape]
        likely = ("small", "large")[rng.integers(2)]
        size = sizes[rng.integers(len(sizes))] if rng.random() < 0.4 else likely
        objects.append(scene.SceneObject(number, shape, color, size))
    return objects


def _dress(rng: np.random.Generator, item: Placement, held_out: frozenset[str]) -> PlacedObject:
    color = item.object.color
    tone = (0.22, 0.22, 0.24) if item.thing == things.ROD else looks.draw_tone(rng, color)
    dark_cap = item.thing == "bottle" and rng.random() < 0.5
    top = tuple(0.55 * c for c in tone) if dark_cap else looks.draw_grey(rng, 0.6, 0.85, 0.02)
    if "textures" in held_out and rng.random() < 0.5:
        texture = things.HELD_OUT_OBJECT_TEXTURES[0]
    else:
        texture = things.OBJECT_TEXTURES[rng.choice(3, p=(0.65, 0.15, 0.2))]
    gloss = ("matte", "satin", "glossy")[rng.choice(3, p=(0.0, 0.5, 0.5) if color == "black" else (0.45, 0.35, 0.2))]
    return PlacedObject(item.object, item.thing, item.waypoints, tone, top, texture, gloss)


def _well_seen(world: World) -> bool:
    """Is every named thing clear enough in the key frame, and does what leaves really leave and return?"""
    named = [o for o in world.objects if o.shape != scene.CLUTTER]
    key = look(world.spec, TIMES[KEY], world.inside)
    for item in named:
        least = 0.25 if item.id in world.inside else LEAST_SHOWN
        if key.area(item.id) < LEAST_AREA or key.shown(item.id) < least:
            return False
    return world.theme != "leave" or bool(leaves_and_returns(world, {o.id: key.area(o.id) for o in named}))


def leaves_and_returns(world: World, key_areas: dict[int, int]) -> frozenset[int]:
    """Which things the later frames lose altogether and show again at the end."""
    later = [look(world.spec, t, world.inside) for t in TIMES[KEY + 1 :]]
    return frozenset(
        number for number, area in key_areas.items()
        if area >= LEAST_AREA and any(not view.whole.get(number) or view.area(number) == 0 for view in later[1:-1])
        and later[-1].area(number) > 0.5 * area and _unseen_for_sure(world, number)
    )  # fmt: skip


def _unseen_for_sure(world: World, number: int) -> bool:
    """The camera or the thing itself went far out of the picture, it is not a matter of a few pixels behind another."""
    left = {event.id for event in world.events if event.kind == "left"}
    return number in left or (world.theme == "leave" and not left)
