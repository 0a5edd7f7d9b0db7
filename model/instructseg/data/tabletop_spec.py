"""What a tabletop picture depends on: things with their paths, camera, lights and surfaces. Plain data, no MuJoCo."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from . import scene

Vector = tuple[float, float, float]


class Waypoint(NamedTuple):
    """Where an object stands at a time; straight lines between waypoints, still before the first and after the last."""

    time: float  # s
    x: float  # m
    y: float
    yaw: float = 0.0  # rad
    z: float = 0.0  # m above the table


class CameraKey(NamedTuple):
    """Where the camera is at a time and the point it looks at (metres); roll in radians."""

    time: float
    eye: Vector
    target: Vector
    roll: float = 0.0


@dataclasses.dataclass(frozen=True)
class PlacedObject:
    """One thing: thing is a name of ``tabletop_assets.names()``; rgb and top_rgb (lid, cap) in 0..1."""

    object: scene.SceneObject
    thing: str
    waypoints: tuple[Waypoint, ...]
    rgb: Vector
    top_rgb: Vector = (0.75, 0.75, 0.77)
    texture: str = "plain"
    gloss: str = "satin"


@dataclasses.dataclass(frozen=True)
class Surface:
    """A texture of ``tabletop_assets.SURFACES`` times a tint in 0..1."""

    texture: str
    tint: Vector


@dataclasses.dataclass(frozen=True)
class Light:
    """A light from far away: direction it shines in, and its colour. Only the first light of a scene casts shadows."""

    direction: Vector
    diffuse: Vector


@dataclasses.dataclass(frozen=True)
class SceneSpec:
    """Everything a picture depends on. fovy: vertical field of view in degrees; table_half: half extents in metres."""

    objects: tuple[PlacedObject, ...]
    camera: tuple[CameraKey, ...]
    lights: tuple[Light, ...]
    fovy: float = 42.0
    ambient: Vector = (0.35, 0.35, 0.35)
    table: Surface = Surface("wood", (0.8, 0.62, 0.45))
    table_half: tuple[float, float] = (0.6, 0.45)
    table_origin: tuple[float, float, float] = (0.0, 0.0, 0.0)  # x, y, yaw
    texture_offset: tuple[float, float] = (0.0, 0.0)
    floor: Surface = Surface("planks", (0.5, 0.45, 0.4))
    floor_z: float = -0.7
    wall: Surface = Surface("plain_table", (0.75, 0.75, 0.72))
    wall_distance: float = 2.0


def position(waypoints: Sequence[Waypoint], t: float) -> tuple[float, float, float, float]:
    """x, y, yaw, z at time ``t``."""
    if len(waypoints) == 1:
        return waypoints[0].x, waypoints[0].y, waypoints[0].yaw, waypoints[0].z
    table = np.asarray(waypoints)
    x, y, yaw, z = (float(np.interp(t, table[:, 0], table[:, column])) for column in (1, 2, 3, 4))
    return x, y, yaw, z


def camera_pose(spec: SceneSpec, t: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Eye, target (metres) and roll at time ``t``."""
    times = [key.time for key in spec.camera]
    table = np.array([(*key.eye, *key.target, key.roll) for key in spec.camera])
    row = np.array([np.interp(t, times, column) for column in table.T])
    return row[:3], row[3:6], float(row[6])


def camera_axes(eye: np.ndarray, target: np.ndarray, roll: float = 0.0) -> np.ndarray:
    """Columns: right, up, backward of the camera in the world (MuJoCo's camera looks along its -z)."""
    backward = np.asarray(eye, float) - target
    backward /= np.linalg.norm(backward)
    right = np.cross((0.0, 0.0, 1.0), backward)
    right /= np.linalg.norm(right)
    up = np.cross(backward, right)
    cosine, sine = math.cos(roll), math.sin(roll)
    return np.stack([cosine * right + sine * up, cosine * up - sine * right, backward], axis=1)
