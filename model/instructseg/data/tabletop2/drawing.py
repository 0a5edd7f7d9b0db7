"""Pictures of the scenes of version 2 without a simulator: flat-shaded triangles, far ones first. For training only.

A few tens of milliseconds a frame with NumPy and OpenCV. Masks differ from the renderer's by a pixel here and there,
where surfaces cut each other a little more; figures are taken on rendered pictures.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import cv2
import numpy as np

from .. import scene, tabletop_layout
from ..tabletop_assets import Mesh, lathe
from ..tabletop_spec import PlacedObject, SceneSpec, camera_axes, camera_pose, position
from .assets import ROD_HEIGHT, ROD_RADIUS, cuboid, meshes
from .things import ROD, SCALES
from .world import KEY, TIMES, World

_SUPERSAMPLE = 3  # odd: the middle of a pixel is one of its samples
_MIDDLE = _SUPERSAMPLE // 2
_SPHERE = [(math.cos(a), 1 + math.sin(a)) for a in np.linspace(-math.pi / 2, math.pi / 2, 11)]


def draw_episode(
    world: World, width: int = 256, height: int = 192, times: Sequence[float] = TIMES, key: int = KEY
) -> scene.Episode:
    """The same things at the same places as :meth:`WorldRenderer.episode`, drawn instead of rendered."""
    rng = np.random.default_rng(world.index)
    grain = rng.normal(0, rng.uniform(1, 6), (height, width, 3))
    frames = [draw_frame(world.spec, float(t), width, height) for t in times]
    images = np.stack([np.clip(image + grain, 0, 255).astype(np.uint8) for image, _ in frames])
    instances = np.stack([ids for _, ids in frames])
    stamps = np.asarray(times, float)
    return scene.Episode(images, instances, stamps, tabletop_layout.motions(world.spec, stamps), world.objects, key)


def draw_frame(spec: SceneSpec, t: float, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """RGB ``(H, W, 3)`` float and instance ids ``(H, W)`` uint8 at time ``t``."""
    large = np.array([width, height]) * _SUPERSAMPLE
    eye, target, roll = camera_pose(spec, t)
    axes = camera_axes(eye, target, roll)
    focal = large[1] / 2 / math.tan(math.radians(spec.fovy) / 2)
    canvas = _ground(spec, eye, axes, focal, large)
    corners, distances, colours, owners = [], [], [], []
    shadows = np.zeros(large[::-1], np.uint8)
    for item in spec.objects:
        for mesh, rgb in _solids(item):
            points, normals = _posed(mesh, item, t)
            _shade_ground(shadows, spec, points, eye, axes, focal, large)
            triangles = points[mesh.faces]  # (F, 3, 3)
            seen = np.einsum("ij,ij->i", eye - triangles[:, 0], normals) > 0
            corners.append(_project(triangles[seen].reshape(-1, 3), eye, axes, focal, large).reshape(-1, 3, 2))
            distances.append(np.linalg.norm(triangles[seen].mean(axis=1) - eye, axis=1))
            colours.append(np.clip(_light(spec, normals[seen])[:, None] * np.asarray(rgb), 0, 1) * 255)
            owners.append(np.full(int(seen.sum()), item.object.id, np.uint8))
    canvas *= 1 - 0.4 * cv2.GaussianBlur(shadows, (0, 0), 2.0)[..., None].astype(np.float32) / 255
    drawn = np.zeros(large[::-1], np.int32)  # number of the triangle that is seen, 0: the table
    polygons, order = np.concatenate(corners), np.argsort(-np.concatenate(distances))
    for number in order:
        cv2.fillConvexPoly(drawn, polygons[number], int(number) + 1)
    shown = drawn > 0
    canvas[shown] = np.concatenate(colours)[drawn[shown] - 1]
    ids = np.concatenate([np.zeros(1, np.uint8), *owners])[drawn]
    image = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    return image, np.ascontiguousarray(ids[_MIDDLE::_SUPERSAMPLE, _MIDDLE::_SUPERSAMPLE])


@functools.cache
def _solid(thing: str) -> Mesh:
    """Of the large size, for what the renderer makes of its own shapes."""
    if thing == "block":
        return cuboid((0, 0, 0.03), (0.03, 0.03, 0.03))
    if thing == "pen":
        return cuboid((0, 0, 0.0065), (0.0715, 0.0065, 0.0065))
    if thing == ROD:
        return cuboid((0, 0, ROD_HEIGHT / 2), (ROD_RADIUS, ROD_RADIUS, ROD_HEIGHT / 2))
    half = (0.03, 0.03, 0.03) if thing == "ball" else (0.034, 0.026, 0.017)  # or a stone
    unit = lathe(_SPHERE, 20)
    return Mesh(unit.vertices * half, unit.normals, unit.faces)


def _solids(item: PlacedObject) -> list[tuple[Mesh, Sequence[float]]]:
    """The thing's parts with their colours."""
    named = meshes()
    if item.thing not in named:
        return [(_solid(item.thing), item.rgb)]
    top = named.get(f"{item.thing}_top")
    return [(named[item.thing], item.rgb)] + ([(top, item.top_rgb)] if top is not None else [])


def _posed(mesh: Mesh, item: PlacedObject, t: float) -> tuple[np.ndarray, np.ndarray]:
    """Vertices ``(V, 3)`` and the normals of the faces ``(F, 3)`` in the world."""
    x, y, yaw, z = position(item.waypoints, t)
    cosine, sine = math.cos(yaw), math.sin(yaw)
    turn = np.array([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]])
    points = (mesh.vertices * SCALES[item.object.size]) @ turn + (x, y, z)
    corners = points[mesh.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return points, normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def _light(spec: SceneSpec, normals: np.ndarray) -> np.ndarray:
    """``(F,)`` brightness of surfaces with these normals."""
    total = np.full(len(normals), float(np.mean(spec.ambient)))
    for light in spec.lights:
        direction = np.asarray(light.direction) / np.linalg.norm(light.direction)
        total += float(np.mean(light.diffuse)) * np.maximum(0, -normals @ direction)
    return total


def _project(points: np.ndarray, eye: np.ndarray, axes: np.ndarray, focal: float, size: np.ndarray) -> np.ndarray:
    """``(P, 2)`` int32 pixels; points behind the camera land far outside."""
    seen = (points - eye) @ axes
    depth = np.maximum(-seen[:, 2], 1e-3)
    pixels = np.stack([size[0] / 2 + focal * seen[:, 0] / depth, size[1] / 2 - focal * seen[:, 1] / depth], axis=1)
    return np.clip(np.round(pixels - 0.5), -20000, 20000).astype(np.int32)


def _shade_ground(
    shadows: np.ndarray, spec: SceneSpec, points: np.ndarray, eye: np.ndarray, axes: np.ndarray, focal: float,
    size: np.ndarray,
) -> None:  # fmt: skip
    """The shadow that the first light casts on the table."""
    direction = np.asarray(spec.lights[0].direction)
    fallen = points - direction * (points[:, 2:] / direction[2])
    cv2.fillConvexPoly(shadows, cv2.convexHull(_project(fallen, eye, axes, focal, size)), 255)


def _ground(spec: SceneSpec, eye: np.ndarray, axes: np.ndarray, focal: float, size: np.ndarray) -> np.ndarray:
    """``(H, W, 3)`` float32: the table with stripes, checks or grain, and a wall beyond it."""
    columns, rows = np.meshgrid(np.arange(size[0]) - size[0] / 2, np.arange(size[1]) - size[1] / 2)
    rays = np.stack([columns, -rows, np.full(columns.shape, -focal)], axis=-1) @ axes.T
    reach = np.where(rays[..., 2] < -1e-6, -eye[2] / np.minimum(rays[..., 2], -1e-6), 0.0)
    x, y = eye[0] + rays[..., 0] * reach, eye[1] + rays[..., 1] * reach
    if spec.table.texture == "checker":
        value = 0.72 + 0.28 * ((np.floor(x * 7) + np.floor(y * 7)) % 2)
    elif spec.table.texture in ("stripes", "planks"):
        value = 0.75 + 0.25 * (np.floor(x * 9) % 2)
    elif spec.table.texture == "wood":
        value = 0.85 + 0.12 * np.sin(60 * y + 3 * np.sin(5 * x))
    else:
        value = np.full(x.shape, 0.95)
    lit = 255 * min(1.0, float(_light(spec, np.array([[0.0, 0.0, 1.0]]))[0]))
    ground = value[..., None] * np.asarray(spec.table.tint) * lit
    off = (reach <= 0) | (np.abs(x - spec.table_origin[0]) > 1.5) | (y > spec.table_half[1] + spec.table_origin[1])
    ground[off] = np.asarray(spec.wall.tint) * 200
    return ground.astype(np.float32)
