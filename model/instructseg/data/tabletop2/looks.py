"""How a scene of version 2 looks: tones, textures, lights, room and the path of the camera."""

from __future__ import annotations

import colorsys
import math

import numpy as np

from ..tabletop_spec import CameraKey, Light, Surface, Vector
from . import things

PATH_STEP = 0.25  # s between keys of a curved camera path


def draw_tone(rng: np.random.Generator, color: str) -> Vector:
    """A tone of a colour name, 0..1."""
    hue, saturation, value = (float(rng.uniform(*limits)) for limits in things.TONES[color])
    return colorsys.hsv_to_rgb(hue / 360 % 1, saturation, value)


def draw_grey(rng: np.random.Generator, low: float, high: float, tint: float) -> Vector:
    """Nearly grey, its channels ``tint`` apart."""
    return tuple(map(float, np.clip(rng.uniform(low, high) * (1 + rng.uniform(-tint, tint, 3)), 0, 1)))


def draw_surface(rng: np.random.Generator, textures: tuple[str, ...]) -> Surface:
    """A table or floor, never as saturated as an object."""
    texture = textures[rng.integers(len(textures))]
    if texture in ("wood", "planks"):
        tint = rng.uniform(18, 38) / 360, rng.uniform(0.15, 0.4), rng.uniform(0.6, 0.95)
        return Surface(texture, colorsys.hsv_to_rgb(*map(float, tint)))
    tint = rng.random(), rng.uniform(0.0, 0.2) * rng.random(), rng.uniform(0.55, 0.95)
    return Surface(texture, colorsys.hsv_to_rgb(*map(float, tint)))


def draw_lights(rng: np.random.Generator) -> tuple[Light, ...]:
    """One or two lights, mostly from the camera's side, so that colours show."""
    lights = []
    for low, high in ((0.48, 0.72), (0.14, 0.28)):
        side = rng.random() < 0.25
        azimuth = rng.uniform(-1, 1) * math.pi if side else rng.uniform(-0.95, -0.05) * math.pi
        lift = math.radians(rng.uniform(40, 80))
        direction = -math.cos(azimuth) * math.cos(lift), -math.sin(azimuth) * math.cos(lift), -math.sin(lift)
        lights.append(Light(tuple(map(float, direction)), draw_grey(rng, low, high, 0.05)))
    return tuple(lights[: 2 if rng.random() < 0.8 else 1])


def draw_camera(
    rng: np.random.Generator, path: str, start: float, end: float, crowd: int, turn_away: bool
) -> tuple[CameraKey, ...]:
    """Keys from ``start`` to ``end`` seconds; at 0 the camera looks at the middle of the table.

    path: one of ``things.CAMERA_PATHS`` or ``HELD_OUT_CAMERA_PATHS``. crowd: how many things must fit in. turn_away:
    between 0.5 s and 2.8 s the camera looks aside and comes back.
    """
    pitch, yaw = math.radians(rng.uniform(32, 56)), math.radians(rng.uniform(-35, 35))
    distance = rng.uniform(0.58, 0.72) + 0.012 * max(0, crowd - 6)
    target = np.array([rng.uniform(-0.03, 0.03), rng.uniform(-0.03, 0.03), 0.02])
    drift = rng.normal(size=3) * (1, 1, 0.5)
    drift *= rng.uniform(0.01, 0.035) / np.linalg.norm(drift)
    sweep, travel = rng.choice((-1, 1)) * rng.uniform(0.06, 0.12), rng.choice((-1, 1)) * rng.uniform(0.025, 0.05)
    phases, roll = rng.uniform(0, 2 * math.pi, 4), float(rng.normal() * 0.025)
    aside = rng.choice((-1, 1)) * rng.uniform(0.55, 0.7)
    keys = []
    for t in np.arange(start, end + 1e-9, PATH_STEP):
        turned = yaw + (sweep * t if path == "orbit" else 0.0)
        far = distance * (1 + (travel * t if path == "dolly" else 0.0))
        level = far * math.cos(pitch)
        eye = target + (level * math.sin(turned), -level * math.cos(turned), far * math.sin(pitch))
        gaze = target.copy()
        if path == "drift":
            eye = eye + drift * t
        if path == "shake":
            wobble = 0.008 * np.sin(2 * math.pi * np.array([0.9, 1.3, 1.1, 0.7]) * t + phases)
            eye, gaze = eye + wobble[:3], gaze + (wobble[3], wobble[0], 0.0)
        if turn_away:
            part = float(np.interp(t, (0.5, 1.2, 1.9, 2.75), (0, 1, 1, 0)))
            gaze = gaze + aside * part * np.array([math.cos(turned), math.sin(turned), 0.0])
        keys.append(CameraKey(float(t), tuple(map(float, eye)), tuple(map(float, gaze)), roll))
    return tuple(keys[:1] if path == "static" and not turn_away else keys)
