"""Paths over the table: who moves when, how a rod pushes a thing, how a thing leaves the view and comes back."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from ..tabletop_spec import Waypoint

START, END, STEP = -2.0, 3.5, 0.05  # s: paths are known over this time
GRID = np.arange(START, END + 1e-9, STEP)
_CONTACT = {"mug": 0.58, "block": 0.76, "box": 0.72}  # how near a rod comes, as a part of the footprint's radius


@dataclasses.dataclass(frozen=True)
class Event:
    """An object moves over the table from ``start`` to ``stop`` seconds; kind: ``moved``, ``pushed`` or ``left``."""

    kind: str
    id: int
    start: float
    stop: float


def still(spot: np.ndarray) -> np.ndarray:
    """``(G, 2)``"""
    return np.tile(spot, (len(GRID), 1))


def straight(rng: np.random.Generator, spot: np.ndarray, way: np.ndarray, start: float, stop: float) -> np.ndarray:
    """``(G, 2)`` path that is at ``spot`` at 0 s and runs about along ``way`` while it moves."""
    speed = rng.uniform(0.06, 0.14)
    heading = math.atan2(way[1], way[0]) + rng.uniform(-0.2, 0.2)
    moved = speed * (np.clip(GRID, start, stop) - np.clip(0.0, start, stop))
    return spot + moved[:, None] * np.array([math.cos(heading), math.sin(heading)])


def pushed(
    rng: np.random.Generator, spot: np.ndarray, way: np.ndarray, radius: float, thing: str, rod_radius: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Event]:
    """A thing that a rod pushes along ``way`` and that then rests at ``spot``, before 0 s.

    Returns its path and the rod's ``(G, 2)``, the rod's height ``(G,)``, and what happened (with id 0).
    """
    heading = math.atan2(way[1], way[0]) + rng.uniform(-0.25, 0.25)
    along = np.array([math.cos(heading), math.sin(heading)])
    start = float(rng.uniform(-1.3, -1.1))
    stop = start + float(rng.uniform(0.4, 0.6))
    reach = float(rng.uniform(0.07, 0.12))
    slid = reach * (np.interp(GRID, (start, stop), (0, 1)) - 1)
    path = spot + slid[:, None] * along
    touch = radius * _CONTACT.get(thing, 1.0) + rod_radius
    behind = np.interp(GRID, (start - 0.3, start, stop, stop + 0.2), (0.08, 0.0, 0.0, 0.04))
    rod = path - (touch + behind)[:, None] * along
    height = np.interp(GRID, (start - 0.5, start - 0.25, stop + 0.15, stop + 0.4), (0.5, 0.0, 0.0, 0.5))
    return path, rod, height, Event("pushed", 0, start, stop)


def excursion(rng: np.random.Generator, spot: np.ndarray, way: np.ndarray) -> tuple[np.ndarray, Event]:
    """``(G, 2)`` path that leaves along ``way`` after 0.4 s and is back before 3 s."""
    out, back = float(rng.uniform(0.35, 0.45)), float(rng.uniform(2.7, 2.9))
    reach = float(rng.uniform(0.5, 0.62))
    gone = reach * np.interp(GRID, (out, out + 0.75, back - 0.75, back), (0, 1, 1, 0))
    return spot + gone[:, None] * way, Event("left", 0, out, back)


def waypoints(path: np.ndarray, yaw: float, z: float | np.ndarray = 0.0) -> tuple[Waypoint, ...]:
    """A path on the grid as the renderer takes it; one point for what never moves."""
    heights = np.broadcast_to(np.asarray(z, float), len(GRID))
    rows = range(len(GRID)) if np.ptp(path, axis=0).max() > 0 or np.ptp(heights) > 0 else range(1)
    return tuple(Waypoint(float(GRID[i]), float(path[i, 0]), float(path[i, 1]), yaw, float(heights[i])) for i in rows)
