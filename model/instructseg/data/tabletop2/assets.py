"""Meshes and the MuJoCo model of version 2: the pool of ``tabletop_assets`` with more shapes, each in its own sizes."""

from __future__ import annotations

import functools
import math

import numpy as np

from .. import tabletop_assets as first
from ..tabletop_assets import Mesh, flat_shaded, lathe
from .things import CLUTTER_KINDS, ROD, SCALES, SHAPES, SIZES

COPIES = 3  # of every shape and size
ROD_RADIUS, ROD_HEIGHT = 0.0125, 0.36
BOX_HALF, BOX_HEIGHT, BOX_WALL = (0.058, 0.044), 0.06, 0.004
fill_textures = first.fill_textures


def names() -> tuple[str, ...]:
    """Every thing in the pool."""
    return (*SHAPES, *CLUTTER_KINDS, ROD)


def limits() -> str:
    """What a scene may hold, for error messages."""
    return f"{COPIES} of {names()} in each of a thing's sizes {dict(SIZES)}"


def cuboid(centre: tuple[float, float, float], half: tuple[float, float, float]) -> Mesh:
    """An upright box with sharp edges."""
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    faces = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
    return flat_shaded(np.asarray(centre) + signs * half, faces)


def open_box() -> Mesh:
    """A carton without a lid: four walls and a floor."""
    (x, y), w, h = BOX_HALF, BOX_WALL / 2, BOX_HEIGHT / 2
    mesh = cuboid((0, 0, w), (x, y, w))
    for sign in (-1, 1):
        mesh = mesh.joined(cuboid((sign * (x - w), 0, h), (w, y, h)))
        mesh = mesh.joined(cuboid((0, sign * (y - w), h), (x - 2 * w, w, h)))
    return mesh


def banana(segments: int = 20, sides: int = 12) -> Mesh:
    """A bent tube lying on the table, thin at both ends."""
    along = np.linspace(-1, 1, segments)
    angle = along * 0.95
    radius = 0.020 * (1 - np.abs(along) ** 3.2) ** 0.6 + 0.0035
    centres = np.stack([0.085 * np.sin(angle), 0.085 * (1 - np.cos(angle)) - 0.02, np.full(segments, 0.0235)], axis=1)
    ahead = np.stack([np.cos(angle), np.sin(angle), np.zeros(segments)], axis=1)
    aside = np.stack([-ahead[:, 1], ahead[:, 0], ahead[:, 2]], axis=1)
    around = np.linspace(0, 2 * math.pi, sides, endpoint=False)
    up = np.array([0.0, 0.0, 1.0])
    normals = aside[:, None] * np.cos(around)[None, :, None] + up * np.sin(around)[None, :, None]  # (S, sides, 3)
    vertices = centres[:, None] + radius[:, None, None] * normals
    i, j = np.meshgrid(np.arange(segments - 1), np.arange(sides), indexing="ij")
    a, b = i * sides + j, i * sides + (j + 1) % sides
    c, d = a + sides, b + sides
    faces = [np.stack([a, b, d], -1).reshape(-1, 3), np.stack([a, d, c], -1).reshape(-1, 3)]
    ends = np.concatenate([vertices.reshape(-1, 3), centres[[0, -1]]])
    tips = segments * sides + np.array([0, 1])
    ring, following = np.arange(sides), (np.arange(sides) + 1) % sides
    last = (segments - 1) * sides
    faces.append(np.stack([np.full(sides, tips[0]), following, ring], -1))
    faces.append(np.stack([np.full(sides, tips[1]), last + ring, last + following], -1))
    all_normals = np.concatenate([normals.reshape(-1, 3), -ahead[:1], ahead[-1:]])
    return Mesh(ends, all_normals, np.concatenate(faces))


def key() -> Mesh:
    """A large toy key lying flat: bow, shaft and two teeth."""
    bow = lathe(first.arc(0.019, 0.005, 0.009, 0.005, 0, 360, 13), 28)
    bow = Mesh(bow.vertices + (-0.036, 0, 0), bow.normals, bow.faces)
    mesh = bow.joined(cuboid((0.025, 0, 0.005), (0.037, 0.005, 0.004)))
    for x, reach in ((0.043, 0.011), (0.057, 0.013)):
        mesh = mesh.joined(cuboid((x, -0.004 - reach / 2, 0.005), (0.004, reach / 2, 0.004)))
    return mesh


@functools.cache
def meshes() -> dict[str, Mesh]:
    """Meshes of the large size by name; the second geom of a can or bottle ends in ``_top``."""
    return {**first.meshes(), "box": open_box(), "banana": banana(), "key": key()}


@functools.cache
def outline_points(thing: str, size: str) -> np.ndarray:
    """Points ``(P, 3)`` whose convex hull is about that of the thing, in metres, standing at the origin."""
    scale = np.asarray(SCALES[size])
    if thing in ("block", "ball", "pen", "stone", ROD):
        half = {"block": (0.03, 0.03, 0.03), "ball": (0.03, 0.03, 0.03), "pen": (0.0715, 0.0065, 0.0065),
                "stone": (0.034, 0.026, 0.017), ROD: (ROD_RADIUS, ROD_RADIUS, ROD_HEIGHT / 2)}[thing]  # fmt: skip
        if thing in ("ball", "stone"):
            turns = np.linspace(0, 2 * math.pi, 16, endpoint=False)
            lifts = np.linspace(-math.pi / 2, math.pi / 2, 9)[:, None]
            unit = np.stack([np.cos(lifts) * np.cos(turns), np.cos(lifts) * np.sin(turns),
                             np.sin(lifts) * np.ones_like(turns)], axis=-1).reshape(-1, 3)  # fmt: skip
            return (unit + (0, 0, 1)) * half * scale
        corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (0, 2)], float)
        return corners * half * scale
    parts = [mesh.vertices for name, mesh in meshes().items() if name in (thing, f"{thing}_top")]
    points = np.concatenate(parts)
    return points[:: max(1, len(points) // 400)] * scale


@functools.cache
def extent(thing: str, size: str) -> tuple[float, float]:
    """Largest distance of any point from the upright axis, and the height, in metres."""
    points = outline_points(thing, size)
    return float(np.hypot(points[:, 0], points[:, 1]).max()), float(points[:, 2].max())


def model_xml(width: int, height: int, shadow_pixels: int, samples: int) -> str:
    """MJCF of the pool: the one of version 1 around other bodies. Geoms are ``<thing>:<size>:<copy>[:top]``."""
    solids = meshes()
    mesh_xml = "".join(
        _mesh_xml(f"{name}_{size}", mesh, np.asarray(SCALES[size]))
        for name, mesh in solids.items()
        for size in SIZES[name.removesuffix("_top")]
    )
    bodies = "".join(
        f'<body name="{name}:{size}:{copy}" mocap="true" pos="0 0 -5">{_geoms(name, size, copy, solids)}</body>'
        for name in names()
        for size in SIZES[name]
        for copy in range(COPIES)
    )
    return first.room_xml(width, height, shadow_pixels, samples, mesh_xml, bodies)


def _mesh_xml(name: str, mesh: Mesh, scale: np.ndarray) -> str:
    normals = mesh.normals / scale
    normals = normals / np.linalg.norm(normals, axis=1, keepdims=True)
    return first.mesh_xml(name, Mesh(mesh.vertices * scale, normals, mesh.faces), 1.0)


def _geoms(name: str, size: str, copy: int, solids: dict[str, Mesh]) -> str:
    x, y, z = SCALES[size]
    if name == "block":
        common = f'name="{name}:{size}:{copy}" material="plain_matte" group="5"'
        return f'<geom {common} type="box" size="{0.03 * x} {0.03 * y} {0.03 * z}" pos="0 0 {0.03 * z}"/>'
    if name == ROD:
        common = f'name="{name}:{size}:{copy}" material="plain_satin" group="5"'
        half = ROD_HEIGHT * z / 2
        return f'<geom {common} type="cylinder" size="{ROD_RADIUS * x} {half}" pos="0 0 {half}"/>'
    return first.geoms_xml(name, size, copy, solids)
