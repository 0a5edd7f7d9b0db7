"""Random tabletop scenes: where things stand and move, how they look, and what the camera does."""

from __future__ import annotations

import colorsys
import dataclasses
import math

import numpy as np

from . import scene
from . import tabletop_assets as assets
from .tabletop_spec import (
    CameraKey,
    Light,
    PlacedObject,
    SceneSpec,
    Surface,
    Waypoint,
    camera_axes,
    camera_pose,
    position,
)

GAP = 0.006  # m between footprints
MARGIN = 0.5  # s that paths and camera moves go on before the first and after the last frame
MOTION_WINDOW = 0.3  # s: what an object did in this time up to a frame is its motion in that frame
MOVING_SPEED = 0.02  # m/s
# Hue in degrees, saturation and value ranges that keep each name unambiguous.
_HUES = {
    "red": (-6, 5),
    "green": (112, 148),
    "blue": (212, 236),
    "yellow": (50, 57),
    "orange": (22, 30),
    "purple": (272, 292),
}
_SATURATIONS = {
    "red": (0.8, 0.97),
    "green": (0.62, 0.9),
    "blue": (0.7, 0.95),
    "yellow": (0.8, 0.97),
    "orange": (0.85, 0.98),
    "purple": (0.58, 0.8),
}
_VALUES = {
    "red": (0.68, 0.95),
    "green": (0.45, 0.75),
    "blue": (0.6, 0.95),
    "yellow": (0.88, 1.0),
    "orange": (0.9, 1.0),
    "purple": (0.5, 0.75),
}


class _NoRoom(Exception):
    """The things drawn do not fit; draw again."""


def draw_spec(rng: np.random.Generator, split: str, times: np.ndarray, key: int, aspect: float) -> SceneSpec:
    """A random scene. Movers pass nothing closely; aspect: width / height of the picture."""
    while True:
        count = int(rng.integers(3, 9))
        objects = _fit_pool(scene.draw_objects(rng, split, count, int(rng.integers(0, 4))))
        if objects is None:
            continue
        camera, fovy = _draw_camera(rng, times, key, count)
        half = (float(rng.uniform(0.45, 0.8)), float(rng.uniform(0.36, 0.6)))
        room = SceneSpec(
            (), camera, _draw_lights(rng), fovy, _grey(rng, 0.35, 0.5, 0.03), _draw_table(rng), half,
            (float(rng.uniform(-0.08, 0.08)), float(rng.uniform(-0.05, 0.08)), float(rng.uniform(-0.4, 0.4))),
            floor=_draw_table(rng), floor_z=float(rng.uniform(-0.9, -0.5)),
            wall=Surface(str(rng.choice(["plain_table", "clouds", "stripes"])), _pale(rng)),
            wall_distance=float(rng.uniform(1.2, 3.0)),
        )  # fmt: skip
        try:
            return dataclasses.replace(room, objects=_place(rng, room, objects, times, key, aspect))
        except _NoRoom:
            continue


def motions(spec: SceneSpec, times: np.ndarray) -> np.ndarray:
    """``(T, N)`` index into ``scene.MOTIONS``: the direction over the table, seen along the camera's ground axes."""
    result = np.zeros((len(times), len(spec.objects)), np.int64)
    for row, t in enumerate(times):
        eye, target, _ = camera_pose(spec, t)
        right, forward = ground_axes(eye, target)
        for column, placed in enumerate(spec.objects):
            now, before = position(placed.waypoints, t), position(placed.waypoints, t - MOTION_WINDOW)
            step = np.array([now[0] - before[0], now[1] - before[1]])
            if np.linalg.norm(step) < MOVING_SPEED * MOTION_WINDOW:
                continue
            along, away = float(step @ right), float(step @ forward)
            name = ("right" if along > 0 else "left") if abs(along) > abs(away) else ("away" if away > 0 else "toward")
            result[row, column] = scene.MOTIONS.index(name)
    return result


def ground_axes(eye: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit (x, y) directions on the table: to the right in the image, and away from the camera."""
    right = camera_axes(eye, target)[:2, 0]
    return right, np.array([-right[1], right[0]])


def draw_rgb(rng: np.random.Generator, color: str) -> tuple[float, float, float]:
    """A tone of a colour name, 0..1."""
    if color == "white":
        return _grey(rng, 0.9, 1.0, 0.03)
    if color == "black":
        return _grey(rng, 0.07, 0.15, 0.02)
    hue, saturation, value = (float(rng.uniform(*table[color])) for table in (_HUES, _SATURATIONS, _VALUES))
    return colorsys.hsv_to_rgb(hue / 360 % 1, saturation, value)


def footprint(thing: str, size: str) -> float:
    """Radius in metres of the circle around the axis that a thing needs on the table."""
    return assets.FOOTPRINTS[thing] * (assets.SMALL if size == "small" else 1.0)


def _fit_pool(objects: tuple[scene.SceneObject, ...]) -> tuple[scene.SceneObject, ...] | None:
    """Swap sizes where more are drawn than the pool holds (one large plate or bowl of each); None: too many."""
    counts: dict[tuple[str, str], int] = {}
    result = []
    for item in objects:
        flat = item.shape in ("plate", "bowl")
        limits = {"small": assets.COPIES, "large": 1 if flat else assets.COPIES}
        sizes = (item.size, "small" if item.size == "large" else "large")
        free = [size for size in sizes if counts.get((item.shape, size), 0) < limits[size]]
        if not free:
            return None
        counts[item.shape, free[0]] = counts.get((item.shape, free[0]), 0) + 1
        result.append(dataclasses.replace(item, size=free[0]))
    return tuple(result)


def _draw_camera(
    rng: np.random.Generator, times: np.ndarray, key: int, count: int
) -> tuple[tuple[CameraKey, ...], float]:
    pitch, yaw = math.radians(rng.uniform(30, 60)), math.radians(rng.uniform(-35, 35))
    distance = rng.uniform(0.42, 0.55) if count < 5 else rng.uniform(0.48, 0.68)
    target = np.array([rng.uniform(-0.03, 0.03), rng.uniform(-0.03, 0.03), 0.02])
    eye = target + distance * np.array(
        [math.sin(yaw) * math.cos(pitch), -math.cos(yaw) * math.cos(pitch), math.sin(pitch)]
    )
    drift, turn = np.zeros(3), np.zeros(3)
    if rng.random() < 0.5:
        drift = rng.normal(size=3) * (1, 1, 0.5)
        drift *= rng.uniform(0.01, 0.04) / np.linalg.norm(drift)
        turn = np.array([*(rng.normal(size=2) * 0.012), 0.0])
    roll = float(rng.normal() * 0.03)
    ends = (times[0] - MARGIN, times[-1] + MARGIN)
    keys = []
    for t in ends:
        e, g = eye + drift * (t - times[key]), target + turn * (t - times[key])
        keys.append(CameraKey(float(t), tuple(map(float, e)), tuple(map(float, g)), roll))
    return tuple(keys), float(rng.uniform(36, 46))


def _place(
    rng: np.random.Generator,
    room: SceneSpec,
    objects: tuple[scene.SceneObject, ...],
    times: np.ndarray,
    key: int,
    aspect: float,
) -> tuple[PlacedObject, ...]:
    """Movers first, then the rest from the largest to the smallest, each where it is free at all times."""
    named = [item for item in objects if item.shape != scene.CLUTTER]
    movers = set(rng.permutation([item.id for item in named])[: rng.choice(4, p=(0.25, 0.3, 0.3, 0.15))].tolist())
    things = {i.id: i.shape if i.shape != scene.CLUTTER else str(rng.choice(assets.CLUTTER_KINDS)) for i in objects}
    order = sorted(objects, key=lambda i: (i.id not in movers, -footprint(things[i.id], i.size)))
    eye, target, _ = camera_pose(room, times[key])
    right, forward = ground_axes(eye, target)
    grid = np.arange(times[0] - MARGIN, times[-1] + MARGIN + 1e-9, 0.05)
    taken: list[tuple[np.ndarray, float]] = []  # track (G, 2) on the grid and footprint
    result: dict[int, PlacedObject] = {}
    for item in order:
        thing = things[item.id]
        radius = footprint(thing, item.size)
        for attempt in range(60):
            spot = _draw_spot(rng, room, eye, target, aspect, taken)
            moving = item.id in movers and attempt < 45
            track = (
                _draw_track(rng, spot, grid, times, key, right, forward) if moving else np.tile(spot, (len(grid), 1))
            )
            if _on_table(room, track, radius) and all(
                np.min(np.hypot(*(track - other).T)) > radius + other_radius + GAP for other, other_radius in taken
            ):
                break
        else:
            raise _NoRoom
        taken.append((track, radius))
        result[item.id] = _placed(rng, item, thing, grid, track, forward)
    return tuple(result[item.id] for item in objects)


def _placed(
    rng: np.random.Generator,
    item: scene.SceneObject,
    thing: str,
    grid: np.ndarray,
    track: np.ndarray,
    forward: np.ndarray,
) -> PlacedObject:
    yaw = float(rng.uniform(-math.pi, math.pi))
    if thing == "mug":  # the handle does not point away from the camera: without it a mug is not a mug
        yaw = math.atan2(forward[1], forward[0]) + float(rng.uniform(0.3, 1.7)) * math.pi
    rows = range(len(grid)) if np.any(np.ptp(track, axis=0) > 0) else range(1)
    waypoints = tuple(Waypoint(float(grid[i]), float(track[i, 0]), float(track[i, 1]), yaw) for i in rows)
    rgb = draw_rgb(rng, item.color)
    top = tuple(0.55 * c for c in rgb) if thing == "bottle" and rng.random() < 0.5 else _grey(rng, 0.6, 0.85, 0.02)
    texture = str(rng.choice(assets.OBJECT_TEXTURES, p=(0.55, 0.15, 0.1, 0.2)))
    gloss = str(rng.choice(list(assets.GLOSSES), p=(0.45, 0.35, 0.2) if item.color != "black" else (0, 0.5, 0.5)))
    return PlacedObject(item, thing, waypoints, rgb, top, texture, gloss)


def _draw_spot(
    rng: np.random.Generator,
    room: SceneSpec,
    eye: np.ndarray,
    target: np.ndarray,
    aspect: float,
    taken: list[tuple[np.ndarray, float]],
) -> np.ndarray:
    """A point of the table that the camera sees; two times in three just behind or before another thing."""
    if taken and rng.random() < 0.65:
        track, radius = taken[rng.integers(len(taken))]
        right, forward = ground_axes(eye, target)
        sign = 1 if rng.random() < 0.5 else -1
        return (
            track[len(track) // 2] + forward * sign * (radius + rng.uniform(0.015, 0.06)) + right * rng.normal() * 0.02
        )
    axes = camera_axes(eye, target)
    reach = 0.9 if rng.random() < 0.85 else 1.0
    tangent = math.tan(math.radians(room.fovy) / 2)
    u, v = rng.uniform(-reach, reach) * tangent * aspect, rng.uniform(-0.9 * reach, 0.7 * reach) * tangent
    ray = axes @ np.array([u, v, -1.0])
    if ray[2] > -0.05:
        ray[2] = -0.05
    return eye[:2] - ray[:2] * eye[2] / ray[2]


def _draw_track(
    rng: np.random.Generator,
    spot: np.ndarray,
    grid: np.ndarray,
    times: np.ndarray,
    key: int,
    right: np.ndarray,
    forward: np.ndarray,
) -> np.ndarray:
    """``(G, 2)`` path on the grid that is at ``spot`` at the key time, along one of the four directions."""
    axis = (right, -right, forward, -forward)[rng.integers(4)]
    t_key = times[key]
    first, last = grid[0], grid[-1]
    if t_key - times[0] > 0.8:  # it starts or stops well before the key frame, so that the label there is clear
        part = rng.random()
        if part < 0.12:
            first = rng.uniform(times[0], t_key - MOTION_WINDOW - 0.2)
        elif part < 0.3:
            last = rng.uniform(times[0] + 0.3, t_key - MOTION_WINDOW - 0.05)
    speed = rng.uniform(0.04, 0.15)
    heading = math.atan2(axis[1], axis[0]) + rng.uniform(-0.2, 0.2)
    bend = rng.uniform(-0.2, 0.2) / max(last - first, 0.5)
    angle = heading + bend * (grid - (first + last) / 2)
    active = (grid > first) & (grid <= last)
    steps = np.stack([np.cos(angle), np.sin(angle)], axis=1) * (speed * 0.05 * active)[:, None]
    track = np.cumsum(steps, axis=0)
    at_key = np.array([np.interp(t_key, grid, track[:, 0]), np.interp(t_key, grid, track[:, 1])])
    return track - at_key + spot


def _on_table(room: SceneSpec, track: np.ndarray, radius: float) -> bool:
    x, y, yaw = room.table_origin
    moved = track - (x, y)
    local = np.abs(moved @ np.array([[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]]))
    return bool(np.all(local < np.asarray(room.table_half) - radius * 0.8))


def _draw_lights(rng: np.random.Generator) -> tuple[Light, ...]:
    lights = []
    for low, high in ((0.48, 0.72), (0.12, 0.28)):
        azimuth = rng.uniform(-1, 1) * math.pi  # where it comes from: mostly the camera's side, so that colours show
        azimuth = azimuth if rng.random() < 0.3 else rng.uniform(-0.95, -0.05) * math.pi
        elevation = math.radians(rng.uniform(38, 80))
        direction = (
            -math.cos(azimuth) * math.cos(elevation),
            -math.sin(azimuth) * math.cos(elevation),
            -math.sin(elevation),
        )
        lights.append(Light(tuple(map(float, direction)), _grey(rng, low, high, 0.05)))
    return tuple(lights[: 2 if rng.random() < 0.7 else 1])


def _draw_table(rng: np.random.Generator) -> Surface:
    texture = str(rng.choice(list(assets.SURFACES)))
    if texture in ("wood", "planks"):
        hue, saturation, value = rng.uniform(18, 38) / 360, rng.uniform(0.15, 0.42), rng.uniform(0.45, 0.95)
        return Surface(texture, colorsys.hsv_to_rgb(hue, saturation, value))
    return Surface(texture, _pale(rng))


def _pale(rng: np.random.Generator) -> tuple[float, float, float]:
    """Greys and pale tints, never as saturated as an object."""
    return colorsys.hsv_to_rgb(
        rng.random(), float(rng.uniform(0.0, 0.22) * rng.random()), float(rng.uniform(0.35, 0.95))
    )


def _grey(rng: np.random.Generator, low: float, high: float, tint: float) -> tuple[float, float, float]:
    return tuple(map(float, np.clip(rng.uniform(low, high) * (1 + rng.uniform(-tint, tint, 3)), 0, 1)))
