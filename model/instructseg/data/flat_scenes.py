"""Fast 2-D tabletop scenes: the eight shapes as shaded polygons on textured ground, a few milliseconds a frame.

They need nothing but NumPy and OpenCV, so training and tests run without the simulator, and they keep the encoder from
trusting one renderer's looks. Ground positions are (u, v): u to the right in -1..1, v from far (0) to near (1).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np

from .scene import CLUTTER, COLORS, MOTIONS, Episode, SceneObject, draw_objects

_SUPERSAMPLE = 2
_SIZE = {"small": 0.72, "large": 1.12}  # relative to 0.17 of the image height for a unit shape
_MOTION_VECTORS = {"left": (-1, 0), "right": (1, 0), "toward": (0, 1), "away": (0, -1)}
# (width, height) of the standing shape in units; used for drawing and for keeping things apart
_EXTENT = {"block": (1.0, 1.0), "ball": (1.0, 1.0), "can": (0.8, 1.25), "cone": (1.0, 1.25), "mug": (0.85, 1.0),
           "bowl": (1.5, 0.75), "bottle": (0.62, 1.9), "plate": (1.9, 0.62), CLUTTER: (1.0, 0.4)}  # fmt: skip


@dataclasses.dataclass
class _Body:
    obj: SceneObject
    start: np.ndarray  # (2,) ground position at time 0
    velocity: np.ndarray  # (2,) ground units a second
    motion: str
    rgb: np.ndarray
    aspect: float
    yaw: float


def sample_flat_episode(
    rng: np.random.Generator, split: str, times: Sequence[float], key: int, width: int = 256, height: int = 192
) -> Episode:
    """One episode; every named object keeps at least 40 visible pixels in the key frame (scaled with the image
    area)."""
    need = 40 * width * height / (256 * 192)
    while True:
        bodies = _draw_bodies(rng, split, times)
        ground = _ground(rng, width * _SUPERSAMPLE, height * _SUPERSAMPLE)
        pan = np.array([rng.normal(0, 0.03), rng.normal(0, 0.02)]) * rng.integers(2)
        light = rng.uniform(-1, 1)
        rendered = [_render(bodies, ground, pan * t, t, light, width, height) for t in times]
        instances = np.stack([ids for _, ids in rendered])
        areas = np.bincount(instances[key].ravel(), minlength=256)
        if all(areas[b.obj.id] >= need for b in bodies if b.obj.shape != CLUTTER):
            break
    noise = rng.normal(0, rng.uniform(1, 7), (height, width, 3))
    images = np.stack([np.clip(image + noise, 0, 255).astype(np.uint8) for image, _ in rendered])
    motions = np.array([[MOTIONS.index(b.motion) for b in bodies]] * len(times), np.int64)
    return Episode(images, instances, np.asarray(times, float), motions, tuple(b.obj for b in bodies), key)


def _draw_bodies(rng: np.random.Generator, split: str, times: Sequence[float]) -> list[_Body]:
    objects = draw_objects(rng, split, int(rng.integers(3, 8)), int(rng.integers(0, 3)))
    movers = set(rng.permutation(len(objects))[: rng.integers(0, 4)])
    bodies: list[_Body] = []
    for index, obj in enumerate(objects):
        for _ in range(60):
            motion = MOTIONS[1 + rng.integers(4)] if index in movers else "still"
            speed = rng.uniform(0.12, 0.34) * (1.0 if motion in ("left", "right") else 0.8)
            velocity = np.array(_MOTION_VECTORS.get(motion, (0, 0)), float) * speed
            velocity += np.abs(velocity).max() * rng.uniform(-0.3, 0.3, 2) * (motion != "still")
            start = rng.uniform([-0.88, 0.1], [0.88, 0.95])
            body = _Body(obj, start, velocity, motion, np.zeros(3), rng.uniform(0.9, 1.1), rng.uniform(0, np.pi))
            if all(_apart(body, other, times) for other in bodies):
                break
        else:
            body.velocity, body.motion = np.zeros(2), "still"
        nominal = np.array(COLORS[obj.color], float)
        body.rgb = np.clip(nominal * rng.uniform(0.85, 1.12) + rng.normal(0, 7, 3), 5, 255)
        bodies.append(body)
    return bodies


def _apart(a: _Body, b: _Body, times: Sequence[float]) -> bool:
    t = np.linspace(min(times), max(times), 7)[:, None]
    delta = (a.start + a.velocity * t) - (b.start + b.velocity * t)
    reach = 0.1 * (_EXTENT[a.obj.shape][0] * _SIZE[a.obj.size] + _EXTENT[b.obj.shape][0] * _SIZE[b.obj.size])
    return bool(np.hypot(delta[:, 0], 1.6 * delta[:, 1]).min() > reach)


def _ground(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """A tinted gradient with wood-like, speckled or checked texture, and a wall above the horizon; float (H, W, 3)."""
    tint = rng.uniform(90, 215) + rng.normal(0, 18, 3)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / height
    kind = rng.integers(4)
    if kind == 0:
        texture = 10 * np.sin(40 * y + 6 * np.sin(5 * x + rng.uniform(0, 6)))
    elif kind == 1:
        texture = cv2.resize(rng.normal(0, 14, (height // 6, width // 6)).astype(np.float32), (width, height))
    elif kind == 2:
        size = rng.uniform(8, 20)
        texture = 12.0 * ((np.floor(x * size) + np.floor((y**1.5) * size * 1.4)) % 2)
    else:
        texture = np.zeros_like(x)
    slope = rng.uniform(-40, 40, 2)
    ground = tint + (texture + slope[0] * (x - 0.6) + slope[1] * (y - 0.5))[..., None]
    horizon = int(height * rng.uniform(0.0, 0.22))
    ground[:horizon] = rng.uniform(60, 220) + rng.normal(0, 12, 3)
    return ground.astype(np.float32)


def _render(
    bodies: list[_Body], ground: np.ndarray, pan: np.ndarray, t: float, light: float, width: int, height: int
) -> tuple[np.ndarray, np.ndarray]:
    canvas = ground.copy()
    ids = np.zeros(canvas.shape[:2], np.uint8)
    h, w = ids.shape
    placed = sorted(((b.start + b.velocity * t + pan, b) for b in bodies), key=lambda item: item[0][1])
    shadow = np.zeros_like(ids)
    for (u, v), body in placed:
        x, y, unit = _project(u, v, body, w, h)
        ex = _EXTENT[body.obj.shape][0] * unit
        cv2.ellipse(
            shadow, (int(x + 0.25 * light * unit), int(y)), (int(0.6 * ex) + 1, int(0.24 * ex) + 1), 0, 0, 360, 90, -1
        )
    canvas *= 1 - cv2.GaussianBlur(shadow, (0, 0), 3)[..., None].astype(np.float32) / 255
    for (u, v), body in placed:
        x, y, unit = _project(u, v, body, w, h)
        for polygon, brightness in _polygons(body, unit):
            points = np.round(polygon * [1, -1] + [x, y]).astype(np.int32)
            side = 1 + 0.18 * light * (brightness < 1)
            cv2.fillPoly(canvas, [points], tuple(float(c) for c in body.rgb * brightness * side), cv2.LINE_AA)
            cv2.fillPoly(ids, [points], body.obj.id)
    image = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    return image, ids[::_SUPERSAMPLE, ::_SUPERSAMPLE]


def _project(u: float, v: float, body: _Body, w: int, h: int) -> tuple[float, float, float]:
    depth = 0.62 + 0.5 * v
    return w * (0.5 + 0.5 * u * (0.75 + 0.25 * v)), h * (0.24 + 0.7 * v), 0.17 * h * _SIZE[body.obj.size] * depth


def _ellipse(cx: float, cy: float, rx: float, ry: float, start: float = 0.0, stop: float = 2 * np.pi) -> np.ndarray:
    angle = np.linspace(start, stop, 28)
    return np.stack([cx + rx * np.cos(angle), cy + ry * np.sin(angle)], 1)


def _polygons(body: _Body, unit: float) -> list[tuple[np.ndarray, float]]:
    """(polygon ``(P, 2)`` with x right and y up from the foot point, brightness) in drawing order."""
    w, h = (np.array(_EXTENT[body.obj.shape]) * [body.aspect, 1.0] * unit).tolist()
    r, flat = w / 2, 0.16 * w
    wall = np.concatenate([_ellipse(0, 0, r, flat, np.pi, 2 * np.pi), [[r, h], [-r, h]]])
    match body.obj.shape:
        case "block":
            c, s = 0.5 + 0.35 * np.cos(body.yaw), 0.3 * h
            left = np.array([[-r, 0.12 * h], [r * (2 * c - 1), 0], [r * (2 * c - 1), 0.75 * h], [-r, 0.87 * h]])
            right = np.array([[r * (2 * c - 1), 0], [r, 0.15 * h], [r, 0.9 * h], [r * (2 * c - 1), 0.75 * h]])
            top = np.array([[-r, 0.87 * h], left[2], right[2], [r * (1 - 2 * c) * 0.6, 0.87 * h + s]])
            return [(left, 0.72), (right, 0.86), (top, 1.08)]
        case "ball":
            return [(_ellipse(0, r, r * k, r * k) + [-0.25 * r * (1 - k), 0.3 * r * (1 - k)], b)
                    for k, b in ((1, 0.7), (0.8, 0.9), (0.5, 1.05), (0.18, 1.35))]  # fmt: skip
        case "can":
            stripe = wall * [0.45, 1.0]
            return [(wall, 0.78), (stripe, 0.95), (_ellipse(0, h, r, flat), 1.12)]
        case "cone":
            side = np.concatenate([_ellipse(0, 0, r, flat, np.pi, 2 * np.pi), [[0, h]]])
            return [(side, 0.78), (side * [0.5, 1.0], 0.97)]
        case "mug":
            turn = 1 if body.yaw < np.pi / 2 else -1
            handle = np.concatenate([_ellipse(0, 0, 0.3 * w, 0.36 * h), _ellipse(0, 0, 0.17 * w, 0.22 * h)[::-1]])
            handle = handle + [turn * 1.02 * r, 0.52 * h]
            return [(handle, 0.8), (wall, 0.8), (wall * [0.5, 1.0], 0.95), (_ellipse(0, h, r, flat), 1.1),
                    (_ellipse(0, h - 0.01 * w, 0.82 * r, 0.8 * flat), 0.42)]  # fmt: skip
        case "bowl":
            cup = np.concatenate([_ellipse(0, h, r, h, np.pi, 2 * np.pi)])
            return [
                (cup, 0.78),
                (_ellipse(0, h, r, 1.7 * flat), 1.08),
                (_ellipse(0, 0.98 * h, 0.88 * r, 1.4 * flat), 0.6),
            ]
        case "bottle":
            neck = 0.4 * r
            outline = np.array([[r, 0], [r, 0.58 * h], [neck, 0.74 * h], [neck, h], [-neck, h], [-neck, 0.74 * h],
            [-r, 0.58 * h],
                                [-r, 0]])  # fmt: skip
            return [(outline, 0.78), (outline * [0.45, 1.0], 0.97), (_ellipse(0, h, neck, 0.4 * neck), 1.15)]
        case "plate":
            return [(_ellipse(0, 0.42 * h, r, 0.46 * h), 0.8), (_ellipse(0, 0.5 * h, r, 0.46 * h), 1.06),
                    (_ellipse(0, 0.52 * h, 0.64 * r, 0.27 * h), 0.9)]  # fmt: skip
        case _:
            rod = np.array([[-r, -0.06 * w], [r, -0.06 * w], [r, 0.1 * w], [-r, 0.1 * w]])
            c, s = np.cos(body.yaw), 0.6 * np.sin(body.yaw)
            return [(rod @ np.array([[c, s], [-s, c]]), 0.8), (rod @ np.array([[c, s], [-s, c]]) * 0.7, 1.0)]
