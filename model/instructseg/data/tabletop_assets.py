"""Meshes, textures and the MuJoCo model of the tabletop scenes: one model with a pool of every thing in every size.

Bodies are posed kinematically (mocap), so no physics runs. Lengths are metres; +z is up and the table top is z = 0.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from . import scene

COPIES = 3  # of every shape and size
CLUTTER_KINDS = ("pen", "ring", "stone", "wedge")
SMALL = 1 / 1.6  # scale of the small size
# Largest distance of any point from the upright axis, and the height, of the large size.
FOOTPRINTS = {
    "block": 0.043, "ball": 0.030, "can": 0.031, "cone": 0.040, "mug": 0.073, "bowl": 0.065, "bottle": 0.031,
    "plate": 0.090, "pen": 0.072, "ring": 0.040, "stone": 0.034, "wedge": 0.038,
}  # fmt: skip
HEIGHTS = {
    "block": 0.06, "ball": 0.06, "can": 0.10, "cone": 0.09, "mug": 0.09, "bowl": 0.055, "bottle": 0.20, "plate": 0.018,
    "pen": 0.013, "ring": 0.018, "stone": 0.034, "wedge": 0.03,
}  # fmt: skip
OBJECT_TEXTURES = ("plain", "speckle", "bands", "marble")
GLOSSES = {"matte": (0.05, 0.1), "satin": (0.35, 0.4), "glossy": (0.7, 0.8)}  # specular, shininess
SURFACES = {  # texture repeats per metre
    "wood": 1.2, "planks": 1.5, "speckle_table": 2.0, "checker": 4.0, "stripes": 3.0, "clouds": 1.0, "plain_table": 2.0,
}  # fmt: skip
_OBJECT_PIXELS, _SURFACE_PIXELS = 128, 512


@dataclasses.dataclass(frozen=True)
class Mesh:
    """vertices, normals: ``(V, 3)``; faces: ``(F, 3)`` vertex indices, counter-clockwise seen from outside."""

    vertices: np.ndarray
    normals: np.ndarray
    faces: np.ndarray

    def joined(self, other: Mesh) -> Mesh:
        return Mesh(
            np.concatenate([self.vertices, other.vertices]),
            np.concatenate([self.normals, other.normals]),
            np.concatenate([self.faces, other.faces + len(self.vertices)]),
        )


def lathe(profile: list[tuple[float, float]], segments: int = 36, sharp_degrees: float = 50.0) -> Mesh:
    """Surface of revolution of ``profile``: (radius, z) points, the outside on the right hand of the walk.

    Corners sharper than ``sharp_degrees`` get a crease. A profile whose last point is its first one closes to a ring.
    """
    points = np.asarray(profile, dtype=float)
    steps = np.diff(points, axis=0)
    normals = np.stack([steps[:, 1], -steps[:, 0]], axis=1) / np.linalg.norm(steps, axis=1, keepdims=True)
    closed = np.allclose(points[0], points[-1])
    angles = np.linspace(0, 2 * math.pi, segments, endpoint=False)
    cosines, sines = np.cos(angles), np.sin(angles)
    vertices, vertex_normals, faces = [], [], []
    for i in range(len(steps)):
        around = np.arange(segments)
        for end in (0, 1):
            neighbour = i + (1 if end else -1)
            neighbour = neighbour % len(steps) if closed else neighbour
            normal = normals[i]
            if 0 <= neighbour < len(steps) and normal @ normals[neighbour] > math.cos(math.radians(sharp_degrees)):
                normal = normal + normals[neighbour]
                normal = normal / np.linalg.norm(normal)
            radius, z = points[i + end]
            vertices.append(np.stack([radius * cosines, radius * sines, np.full(segments, z)], axis=1))
            vertex_normals.append(
                np.stack([normal[0] * cosines, normal[0] * sines, np.full(segments, normal[1])], axis=1)
            )
        low = 2 * i * segments + around
        low_next = 2 * i * segments + (around + 1) % segments
        if points[i][0] > 1e-9:
            faces.append(np.stack([low, low_next, low_next + segments], axis=1))
        if points[i + 1][0] > 1e-9:
            faces.append(np.stack([low, low_next + segments, low + segments], axis=1))
    return Mesh(np.concatenate(vertices), np.concatenate(vertex_normals), np.concatenate(faces))


def handle(
    x: float, z: float, reach: float, rise: float, thickness: float, segments: int = 16, sides: int = 10
) -> Mesh:
    """Half a torus in the xz plane, its open ends at ``x`` (inside the wall of the mug)."""
    angles = np.linspace(-math.pi / 2, math.pi / 2, segments)
    around = np.linspace(0, 2 * math.pi, sides, endpoint=False)
    centres = np.stack([x + reach * np.cos(angles), np.zeros(segments), z + rise * np.sin(angles)], axis=1)
    outward = np.stack([np.cos(angles) / reach, np.zeros(segments), np.sin(angles) / rise], axis=1)
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    side = np.array([0.0, 1.0, 0.0])
    normals = outward[:, None] * np.cos(around)[None, :, None] + side * np.sin(around)[None, :, None]
    vertices = centres[:, None] + thickness * normals
    i, j = np.meshgrid(np.arange(segments - 1), np.arange(sides), indexing="ij")
    a, b = i * sides + j, i * sides + (j + 1) % sides
    c, d = a + sides, b + sides
    faces = np.concatenate([np.stack([a, b, d], -1).reshape(-1, 3), np.stack([a, d, c], -1).reshape(-1, 3)])
    return Mesh(vertices.reshape(-1, 3), normals.reshape(-1, 3), faces)


def flat_shaded(corners: np.ndarray, polygons: list[list[int]]) -> Mesh:
    """A solid of flat faces: every polygon gets its own corners and normal."""
    vertices, normals, faces = [], [], []
    for polygon in polygons:
        first, start = corners[polygon], len(vertices)
        normal = np.cross(first[1] - first[0], first[2] - first[0])
        normal /= np.linalg.norm(normal)
        vertices += list(first)
        normals += [normal] * len(polygon)
        faces += [[start, start + k, start + k + 1] for k in range(1, len(polygon) - 1)]
    return Mesh(np.array(vertices), np.array(normals), np.array(faces))


def arc(
    cx: float, cz: float, rx: float, rz: float, start: float, stop: float, count: int
) -> list[tuple[float, float]]:
    return [
        (cx + rx * math.cos(math.radians(a)), cz + rz * math.sin(math.radians(a)))
        for a in np.linspace(start, stop, count)
    ]


def meshes() -> dict[str, Mesh]:
    """Meshes of the large size by name; the second geom of a can or bottle ends in ``_top``."""
    mug = lathe(
        [
            (0, 0),
            (0.036, 0),
            (0.040, 0.004),
            (0.040, 0.089),
            (0.038, 0.090),
            (0.036, 0.089),
            (0.036, 0.010),
            (0.032, 0.006),
            (0, 0.006),
        ]
    )
    bowl = [(0, 0), (0.028, 0), (0.028, 0.004), *arc(0, 0.058, 0.065, 0.055, -58, -3, 10)]
    bowl += [(0.0635, 0.0565), *arc(0, 0.058, 0.061, 0.050, -3, -89.9, 12), (0, 0.008)]
    bottle = [(0, 0), (0.027, 0), (0.030, 0.003), *arc(0.012, 0.115, 0.018, 0.035, 0, 75, 7)]
    bottle += [(0.0125, 0.160), (0.0125, 0.182), (0, 0.182)]
    plate = [(0, 0), (0.050, 0), (0.056, 0.003), (0.088, 0.015), (0.090, 0.0165), (0.0885, 0.018), (0.060, 0.008)]
    plate += [(0.055, 0.0055), (0, 0.0055)]
    corners = np.array(
        [[x, y, 0] for x in (-0.03, 0.03) for y in (-0.022, 0.022)] + [[-0.03, -0.022, 0.03], [-0.03, 0.022, 0.03]]
    )
    return {
        "can": lathe([(0, 0), (0.027, 0), (0.030, 0.004), (0.030, 0.093), (0.0272, 0.0975), (0, 0.0975)]),
        "can_top": lathe([(0.0268, 0.0965), (0.0278, 0.0995), (0.0265, 0.100), (0.0255, 0.0978), (0, 0.0978)]),
        "cone": lathe([(0, 0), (0.040, 0), (0.040, 0.003), (0.0025, 0.0885), (0.001, 0.090), (0, 0.090)]),
        "mug": mug.joined(handle(0.038, 0.047, 0.030, 0.027, 0.0055)),
        "bowl": lathe(bowl),
        "bottle": lathe(bottle),
        "bottle_top": lathe([(0, 0.178), (0.0145, 0.178), (0.0145, 0.199), (0.0135, 0.200), (0, 0.200)]),
        "plate": lathe(plate),
        "ring": lathe(arc(0.031, 0.009, 0.009, 0.009, 0, 360, 17)),
        "wedge": flat_shaded(corners, [[0, 1, 3, 2], [0, 2, 4], [1, 5, 3], [0, 4, 5, 1], [2, 3, 5, 4]]),
    }


def names() -> tuple[str, ...]:
    """Every thing in the pool: the named shapes, then the clutter kinds."""
    return (*scene.SHAPES, *CLUTTER_KINDS)


def limits() -> str:
    """What a scene may hold, for error messages."""
    return f"{COPIES} of {names()} in each of {scene.SIZES}"


def model_xml(width: int, height: int, shadow_pixels: int, samples: int) -> str:
    """MJCF of the pool. Geoms are named ``<thing>:<size>:<copy>[:top]``; every pool body is a mocap body."""
    solids = meshes()
    mesh_text = "".join(
        mesh_xml(f"{name}_{size}", mesh, _scale(size)) for name, mesh in solids.items() for size in scene.SIZES
    )
    bodies = "".join(
        f'<body name="{name}:{size}:{copy}" mocap="true" pos="0 0 -5">{geoms_xml(name, size, copy, solids)}</body>'
        for name in names()
        for size in scene.SIZES
        for copy in range(COPIES)
    )
    return room_xml(width, height, shadow_pixels, samples, mesh_text, bodies)


def room_xml(width: int, height: int, shadow_pixels: int, samples: int, mesh_text: str, bodies: str) -> str:
    """MJCF of table, room, lights and camera around the given meshes and bodies."""
    textures = "".join(
        f'<texture name="{name}" type="cube" builtin="flat" width="{_OBJECT_PIXELS}" height="{6 * _OBJECT_PIXELS}"/>'
        for name in OBJECT_TEXTURES
    ) + "".join(
        f'<texture name="{name}" type="2d" builtin="flat" width="{_SURFACE_PIXELS}" height="{_SURFACE_PIXELS}"/>'
        for name in SURFACES
    )
    materials = "".join(
        f'<material name="{texture}_{gloss}" texture="{texture}" specular="{specular}" shininess="{shininess}"/>'
        for texture in OBJECT_TEXTURES
        for gloss, (specular, shininess) in GLOSSES.items()
    ) + "".join(
        f'<material name="{name}" texture="{name}" texuniform="true" texrepeat="{repeat} {repeat}" specular="0.05"/>'
        for name, repeat in SURFACES.items()
    )
    walls = "".join(
        f'<geom name="wall{i}" type="plane" size="6 6 1" zaxis="{axis}" material="plain_table"/>'
        for i, axis in enumerate(("0 -1 0", "1 0 0", "-1 0 0"))
    )
    return f"""<mujoco model="tabletop">
<compiler boundmass="1e-6" boundinertia="1e-12"/>
<option gravity="0 0 0"/>
<statistic center="0 0 0" extent="1"/>
<visual>
 <global offwidth="{width}" offheight="{height}"/>
 <quality shadowsize="{shadow_pixels}" offsamples="{samples}"/>
 <map znear="0.05" zfar="15" shadowclip="1.0" shadowscale="0.6"/>
</visual>
<default><geom contype="0" conaffinity="0"/></default>
<asset>{textures}{materials}{mesh_text}</asset>
<worldbody>
 <light name="key" type="directional" castshadow="true" pos="0 0 1" dir="0 0 -1"/>
 <light name="fill" type="directional" castshadow="false" pos="0 0 1" dir="0 0 -1"/>
 <camera name="camera" pos="0 -0.5 0.5"/>
 <body name="table" mocap="true">
  <geom name="table" type="plane" size="1 1 1" material="wood"/>
  <geom name="table_side" type="box" size="1 1 0.015" pos="0 0 -0.020" material="plain_satin"/>
 </body>
 <body name="room" mocap="true"><geom name="floor" type="plane" size="6 6 1" material="wood"/>{walls}</body>
 {bodies}
</worldbody>
</mujoco>"""


def fill_textures(model) -> None:
    """Paint the textures of a compiled model; call before the renderer uploads them. The same bytes every time."""
    rng = np.random.default_rng(7)
    for index in range(model.ntex):
        name = model.texture(index).name
        width, height = int(model.tex_width[index]), int(model.tex_height[index])
        channels, start = int(model.tex_nchannel[index]), int(model.tex_adr[index])
        image = _object_texture(name, rng) if name in OBJECT_TEXTURES else _surface_texture(name, rng)
        pixels = np.broadcast_to(image.reshape(*image.shape[:2], -1), (*image.shape[:2], channels))
        pixels = np.tile(pixels, (height // width, 1, 1))
        model.tex_data[start : start + width * height * channels] = (
            np.clip(pixels * 255, 0, 255).astype(np.uint8).ravel()
        )


def _scale(size: str) -> float:
    return SMALL if size == "small" else 1.0


def mesh_xml(name: str, mesh: Mesh, scale: float) -> str:
    def text(array: np.ndarray, form: str) -> str:
        return " ".join(format(value, form) for value in array.ravel())

    return (
        f'<mesh name="{name}" inertia="shell" vertex="{text(mesh.vertices * scale, ".6f")}" '
        f'normal="{text(mesh.normals, ".4f")}" face="{text(mesh.faces, "d")}"/>'
    )


def geoms_xml(name: str, size: str, copy: int, solids: dict[str, Mesh]) -> str:
    s = _scale(size)
    common = f'name="{name}:{size}:{copy}" material="plain_matte" group="5"'
    if name == "block":
        return f'<geom {common} type="box" size="{0.03 * s} {0.03 * s} {0.03 * s}" pos="0 0 {0.03 * s}"/>'
    if name == "ball":  # its body sits in the centre, so that it can roll
        return f'<geom {common} type="sphere" size="{0.03 * s}"/>'
    if name == "pen":
        return f'<geom {common} type="capsule" size="{0.0065 * s} {0.065 * s}" pos="0 0 {0.0065 * s}" euler="0 90 0"/>'
    if name == "stone":
        return f'<geom {common} type="ellipsoid" size="{0.034 * s} {0.026 * s} {0.017 * s}" pos="0 0 {0.017 * s}"/>'
    main = f'<geom {common} type="mesh" mesh="{name}_{size}"/>'
    if f"{name}_top" not in solids:
        return main
    top = f'name="{name}:{size}:{copy}:top" material="plain_satin" group="5"'
    return main + f'<geom {top} type="mesh" mesh="{name}_top_{size}"/>'


def _clouds(rng: np.random.Generator, pixels: int, stretch: tuple[int, int] = (1, 1), octaves: int = 5) -> np.ndarray:
    """Smooth tileable noise in 0..1, ``stretch`` = cells per octave along rows and columns."""
    total, weight = np.zeros((pixels, pixels)), 0.0
    for octave in range(1, octaves + 1):
        rows, columns = min(pixels, stretch[0] * 2**octave), min(pixels, stretch[1] * 2**octave)
        total += _resize(rng.random((rows, columns)), pixels) * 0.6**octave
        weight += 0.6**octave
    total /= weight
    return (total - total.min()) / (total.max() - total.min())


def _resize(grid: np.ndarray, pixels: int) -> np.ndarray:
    for axis in (0, 1):
        count = grid.shape[axis]
        at = (np.arange(pixels) + 0.5) * count / pixels - 0.5
        low = np.floor(at).astype(int)
        part = (at - low).reshape((-1, 1) if axis == 0 else (1, -1))
        part = part * part * (3 - 2 * part)
        grid = np.take(grid, low % count, axis) * (1 - part) + np.take(grid, (low + 1) % count, axis) * part
    return grid


def _object_texture(name: str, rng: np.random.Generator) -> np.ndarray:
    """Brightness factors (near 1: the colour name must stay clear)."""
    pixels = _OBJECT_PIXELS
    if name == "speckle":
        return np.where(rng.random((pixels, pixels)) < 0.12, 0.8, 1.0)
    if name == "bands":
        return np.repeat(0.9 + 0.1 * np.sign(np.sin(np.arange(pixels) * 2 * math.pi * 5 / pixels))[:, None], pixels, 1)
    if name == "marble":
        return 0.78 + 0.22 * _clouds(rng, pixels)
    return np.ones((pixels, pixels))


def _surface_texture(name: str, rng: np.random.Generator) -> np.ndarray:
    pixels = _SURFACE_PIXELS
    rows, columns = np.mgrid[:pixels, :pixels] / pixels
    grain = _clouds(rng, pixels, (16, 1))
    if name == "wood":
        rings = 0.5 + 0.5 * np.sin(2 * math.pi * (9 * rows + 1.6 * _clouds(rng, pixels, (1, 1), 3)))
        value = 0.66 + 0.2 * grain + 0.14 * rings
        return np.stack([value, value**1.25, value**1.6], axis=-1)
    if name == "planks":
        tone = 0.72 + 0.28 * rng.random(5)[(rows * 5).astype(int)]
        gap = np.where((rows * 5) % 1 < 0.03, 0.45, 1.0)
        value = tone * gap * (0.8 + 0.2 * grain)
        return np.stack([value, value**1.15, value**1.35], axis=-1)
    if name == "speckle_table":
        fine = rng.random((pixels, pixels))
        return np.where(fine < 0.06, 0.5, np.where(fine > 0.95, 1.0, 0.82)) * (0.94 + 0.06 * _clouds(rng, pixels))
    if name == "checker":
        weave = ((columns * 4).astype(int) % 2 + (rows * 4).astype(int) % 2) / 2
        return (0.6 + 0.4 * weave) * (0.93 + 0.07 * rng.random((pixels, pixels)))
    if name == "stripes":
        return np.where((columns * 3) % 1 < 0.4, 0.68, 1.0) * (0.93 + 0.07 * rng.random((pixels, pixels)))
    if name == "clouds":
        return 0.62 + 0.38 * _clouds(rng, pixels, (2, 2), 6)
    return 0.95 + 0.05 * rng.random((pixels, pixels))
