"""MuJoCo pictures of a tabletop as a robot's camera sees it, with exact instance images and depth.

:class:`SceneSpec` says what stands where and when; :class:`Tabletop` renders it. ``tabletop_layout`` draws random specs
and :meth:`Tabletop.sample` turns one into an :class:`~instructseg.data.scene.Episode`. One model and one renderer serve
every scene: a pool of bodies is posed, the unused ones are hidden. Needs the extra ``sim``
(``pip install instructseg[sim]``).
"""

from __future__ import annotations

import importlib
import math
import os
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core import BadInput, InstructSegError
from . import scene, tabletop_assets
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

__all__ = ["CameraKey", "Light", "PlacedObject", "SceneSpec", "Surface", "Tabletop", "Waypoint"]
_HIDDEN_GROUP, _SHOWN_GROUP = 5, 0
_Z_NEAR, _Z_FAR = 0.05, 15.0  # as in the model's <map>


def _load_mujoco() -> Any:
    """Import mujoco with a GL backend that works here."""
    if not os.environ.get("MUJOCO_GL"):
        os.environ["MUJOCO_GL"] = "egl" if _library_loads("libEGL.so.1") else "osmesa"
    try:
        mujoco = importlib.import_module("mujoco")
        if not hasattr(mujoco, "Renderer"):
            raise ImportError("mujoco has no Renderer")
        return mujoco
    except ModuleNotFoundError as error:
        raise InstructSegError(f"tabletop scenes need MuJoCo ({error}); pip install instructseg[sim]") from error
    except (ImportError, AttributeError, RuntimeError, OSError) as error:
        raise InstructSegError(_no_backend(error)) from error


def _no_backend(error: Exception) -> str:
    return (
        f"MuJoCo cannot render off-screen with MUJOCO_GL={os.environ.get('MUJOCO_GL', '')!r}: {error}. "
        "Install one of the software renderers (apt install libegl1 libgl1-mesa-dri, or apt install libosmesa6) "
        "and unset MUJOCO_GL or set it to egl or osmesa"
    )


def _library_loads(name: str) -> bool:
    import ctypes

    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


class Tabletop:
    """Renders scenes at one size. Holds a GL context: use it in the thread that made it, one per process and size.

    width, height: pixels (16..1920). shadows: cast by the first light. samples: of multi-sample anti-aliasing;
    0 softens the outlines afterwards instead, which takes a third of the time. assets: the module that describes the
    pool of things (``model_xml``, ``fill_textures``, ``limits``).
    """

    def __init__(
        self,
        width: int = 256,
        height: int = 192,
        shadows: bool = True,
        samples: int = 0,
        assets: Any = tabletop_assets,
    ) -> None:
        if not (16 <= width <= 1920 and 16 <= height <= 1920):
            raise BadInput(f"Tabletop needs width and height in 16..1920 pixels; got {width} x {height}")
        self.width, self.height, self.shadows, self.samples = width, height, shadows, samples
        self._mj = mj = _load_mujoco()
        shadow_pixels = 640 if width * height <= 512 * 384 else 2048
        self._assets = assets
        self._model = mj.MjModel.from_xml_string(assets.model_xml(width, height, shadow_pixels, samples))
        assets.fill_textures(self._model)
        self._data = mj.MjData(self._model)
        mj.mj_forward(self._model, self._data)
        try:
            self._renderer = mj.Renderer(self._model, height, width, max_geom=200)
        except Exception as error:  # each backend raises its own classes
            raise InstructSegError(_no_backend(error)) from error
        self._close = weakref.finalize(self, self._renderer.close)  # at the latest before the interpreter takes GL down
        self._scene = self._renderer.scene
        self._context = self._renderer._mjr_context
        self._scene.flags[mj.mjtRndFlag.mjRND_SHADOW] = shadows
        self._scene.flags[mj.mjtRndFlag.mjRND_REFLECTION] = False
        self._scene.flags[mj.mjtRndFlag.mjRND_SKYBOX] = False
        self._camera = mj.MjvCamera()
        self._camera.type = mj.mjtCamera.mjCAMERA_FIXED
        self._camera.fixedcamid = 0
        self._option = mj.MjvOption()
        self._rect = mj.MjrRect(0, 0, width, height)
        self._rgb = np.empty((height, width, 3), np.uint8)
        self._ids = np.empty((height, width, 3), np.uint8)
        self._z = np.empty((height, width), np.float32)
        self._materials = {self._model.material(i).name: i for i in range(self._model.nmat)}
        self._geoms = {self._model.geom(i).name: i for i in range(self._model.ngeom)}
        self._pool = {self._model.body(i).name: i for i in range(1, self._model.nbody)}
        self._spec: SceneSpec | None = None
        self._placed: list[tuple[PlacedObject, int, float]] = []  # with mocap index and height of the body's origin
        self._instance_of_geom = np.zeros(self._model.ngeom, np.uint8)

    def close(self) -> None:
        """Free the GL context."""
        self._close()

    def intrinsics(self, spec: SceneSpec) -> tuple[float, float, float, float]:
        """fx, fy, cx, cy in pixels; the centre of the first pixel is (0, 0)."""
        focal = self.height / 2 / math.tan(math.radians(spec.fovy) / 2)
        return focal, focal, (self.width - 1) / 2, (self.height - 1) / 2

    def render(self, spec: SceneSpec, t: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The scene at time ``t``.

        RGB ``(H, W, 3)`` uint8, instance ids ``(H, W)`` uint8, depth ``(H, W)`` float32 in metres.
        """
        self._pose(spec, t)
        self._draw(self._rgb, None, segment=False)
        instance, depth = self._segment()
        if self.samples == 0:
            _soften_outlines(self._rgb, self._ids[..., 0])
        return np.ascontiguousarray(self._rgb[::-1]), instance, depth

    def instances(self, spec: SceneSpec, t: float) -> np.ndarray:
        """Only the instance image of :meth:`render`: cheaper, for checking a layout."""
        self._pose(spec, t)
        return self._segment()[0]

    def sample(self, rng: np.random.Generator, split: str, times: Sequence[float], key: int) -> scene.Episode:
        """A random episode; every named object has at least 40 pixels (of 256 x 192) in frame ``key``.

        times: ascending seconds. Raises :class:`BadInput` for a bad split, times or key.
        """
        from . import tabletop_layout

        stamps = np.asarray(times, dtype=float)
        if stamps.ndim != 1 or not len(stamps) or not np.all(np.diff(stamps) > 0) or not np.all(np.isfinite(stamps)):
            raise BadInput(f"Tabletop.sample needs ascending finite times in seconds; got {times!r}")
        if not 0 <= key < len(stamps):
            raise BadInput(f"Tabletop.sample: key must be an index into {len(stamps)} times; got {key}")
        if split not in scene.SPLITS:
            raise BadInput(f"Tabletop.sample: split must be one of {scene.SPLITS}; got {split!r}")
        least = 40 * self.width * self.height / (256 * 192)
        while True:
            spec = tabletop_layout.draw_spec(rng, split, stamps, key, self.width / self.height)
            area = np.bincount(self.instances(spec, stamps[key]).ravel(), minlength=256)
            if all(area[p.object.id] >= least for p in spec.objects if p.object.shape != scene.CLUTTER):
                break
        frames = [self.render(spec, t)[:2] for t in stamps]
        return scene.Episode(
            images=np.stack([rgb for rgb, _ in frames]),
            instances=np.stack([instance for _, instance in frames]),
            times=stamps,
            motions=tabletop_layout.motions(spec, stamps),
            objects=tuple(p.object for p in spec.objects),
            key=key,
        )

    def _apply(self, spec: SceneSpec) -> None:
        """What does not change with time: which bodies are shown and how things look."""
        model = self._model
        used: dict[tuple[str, str], int] = {}
        self._placed, self._instance_of_geom[:] = [], 0
        for name in self._pool:
            if ":" in name:
                self._show(name, False)
        for placed in spec.objects:
            group = (placed.thing, placed.object.size)
            copy = used.get(group, 0)
            used[group] = copy + 1
            name = f"{group[0]}:{group[1]}:{copy}"
            if name not in self._pool:
                raise BadInput(
                    f"a tabletop scene may hold {self._assets.limits()}; got {placed.thing!r} "
                    f"{placed.object.size!r} number {copy + 1}"
                )
            self._show(name, True)
            body = self._pool[name]
            for geom, rgb in ((self._geoms[name], placed.rgb), (self._geoms.get(f"{name}:top"), placed.top_rgb)):
                if geom is not None:
                    model.geom_rgba[geom, :3] = rgb
                    self._instance_of_geom[geom] = placed.object.id
            model.geom_matid[self._geoms[name]] = self._materials[f"{placed.texture}_{placed.gloss}"]
            lift = model.geom_size[self._geoms[name], 0] if placed.thing == "ball" else 0.0
            self._placed.append((placed, int(model.body_mocapid[body]), float(lift)))
        self._apply_room(spec)
        self._spec = spec

    def _apply_room(self, spec: SceneSpec) -> None:
        model, data = self._model, self._data
        table, side, floor = (self._geoms[n] for n in ("table", "table_side", "floor"))
        model.geom_size[table, :2] = spec.table_half
        model.geom_size[side, :2] = spec.table_half
        for geom, surface in (
            (table, spec.table),
            (floor, spec.floor),
            *((self._geoms[f"wall{i}"], spec.wall) for i in range(3)),
        ):
            model.geom_matid[geom] = self._materials[surface.texture]
            model.geom_rgba[geom, :3] = surface.tint
        model.geom_rgba[side, :3] = np.asarray(spec.table.tint) * 0.7
        x, y, yaw = spec.table_origin
        mocap = int(model.body_mocapid[self._pool["table"]])
        data.mocap_pos[mocap] = (x, y, 0)
        data.mocap_quat[mocap] = _yaw_quaternion(yaw)
        room = int(model.body_mocapid[self._pool["room"]])
        data.mocap_pos[room] = (0, 0, spec.floor_z)
        distance = spec.wall_distance
        for i, place in enumerate(((0, distance, 0), (-distance, 0, 0), (distance, 0, 0))):
            model.geom_pos[self._geoms[f"wall{i}"]] = place
        model.cam_fovy[0] = spec.fovy
        model.vis.headlight.ambient[:] = spec.ambient
        model.vis.headlight.diffuse[:] = 0
        model.vis.headlight.specular[:] = 0
        for i in range(2):
            light = spec.lights[i] if i < len(spec.lights) else None
            model.light_active[i] = light is not None
            if light is not None:
                model.light_diffuse[i] = light.diffuse
                model.light_ambient[i] = 0
                model.light_specular[i] = np.asarray(light.diffuse) * 0.6

    def _show(self, name: str, shown: bool) -> None:
        for geom in (self._geoms[name], self._geoms.get(f"{name}:top")):
            if geom is not None:
                self._model.geom_group[geom] = _SHOWN_GROUP if shown else _HIDDEN_GROUP

    def _pose(self, spec: SceneSpec, t: float) -> None:
        mj, data = self._mj, self._data
        if spec is not self._spec:
            self._apply(spec)
        for placed, mocap, lift in self._placed:
            x, y, yaw, z = position(placed.waypoints, t)
            data.mocap_pos[mocap] = (x, y, z + lift)
            data.mocap_quat[mocap] = (
                _yaw_quaternion(yaw) if lift == 0 else _rolled(placed.waypoints[0], x, y, yaw, lift)
            )
        mj.mj_kinematics(self._model, data)
        eye, target, roll = camera_pose(spec, t)
        data.cam_xpos[0] = eye
        data.cam_xmat[0] = camera_axes(eye, target, roll).ravel()
        for i, light in enumerate(spec.lights[:2]):
            direction = np.asarray(light.direction) / np.linalg.norm(light.direction)
            data.light_xpos[i] = np.array([0.0, 0.15, 0.0]) - 2.0 * direction
            data.light_xdir[i] = direction
        mj.mjv_updateScene(
            self._model, data, self._option, None, self._camera, mj.mjtCatBit.mjCAT_ALL.value, self._scene
        )

    def _draw(self, pixels: np.ndarray, depth: np.ndarray | None, segment: bool) -> None:
        mj = self._mj
        self._renderer._gl_context.make_current()
        self._scene.flags[mj.mjtRndFlag.mjRND_SEGMENT] = segment
        self._scene.flags[mj.mjtRndFlag.mjRND_IDCOLOR] = segment
        mj.mjr_render(self._rect, self._scene, self._context)
        mj.mjr_readPixels(pixels, depth, self._rect, self._context)

    def _segment(self) -> tuple[np.ndarray, np.ndarray]:
        self._draw(self._ids, self._z, segment=True)
        lookup = np.zeros(256, np.uint8)  # segmentation ids stay below 256: at most 200 geoms
        for geom in self._scene.geoms[: self._scene.ngeom]:
            if geom.segid >= 0 and geom.objtype == self._mj.mjtObj.mjOBJ_GEOM:
                lookup[geom.segid + 1] = self._instance_of_geom[geom.objid]
        instance = lookup[self._ids[::-1, :, 0]]
        ratio = _Z_NEAR / _Z_FAR
        depth = _Z_NEAR / (
            self._z[::-1] * (1 - ratio) + ratio
        )  # the buffer holds 1 at the near plane, 0 at the far one
        return instance, depth.astype(np.float32)


def _soften_outlines(rgb: np.ndarray, ids: np.ndarray) -> None:
    """Mix the pixels on either side of an outline with their neighbours, in place."""
    outline = np.zeros(ids.shape, bool)
    for axis in (0, 1):
        a, b = (slice(None),) * axis + (slice(1, None),), (slice(None),) * axis + (slice(None, -1),)
        differs = ids[a] != ids[b]
        outline[a] |= differs
        outline[b] |= differs
    outline[[0, -1]], outline[:, [0, -1]] = False, False
    rows, columns = np.nonzero(outline)
    total = rgb[rows, columns].astype(np.uint16) * 4
    for dr, dc in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        total += rgb[rows + dr, columns + dc]
    rgb[rows, columns] = total // 8


def _yaw_quaternion(yaw: float) -> tuple[float, float, float, float]:
    return (math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2))


def _rolled(start: Waypoint, x: float, y: float, yaw: float, radius: float) -> np.ndarray:
    """Orientation of a ball that rolled from ``start`` to (x, y) without slip."""
    dx, dy = x - start.x, y - start.y
    way = math.hypot(dx, dy)
    cosine, sine = math.cos(way / radius / 2), math.sin(way / radius / 2)
    roll = np.array([cosine, *(np.array([-dy, dx, 0.0]) / way * sine)]) if way > 0 else np.array([1.0, 0, 0, 0])
    turn = _yaw_quaternion(yaw)
    (a, b, c, d), (e, f, g, h) = roll, turn
    return np.array(
        [
            a * e - b * f - c * g - d * h,
            a * f + b * e + c * h - d * g,
            a * g - b * h + c * e + d * f,
            a * h + b * g - c * f + d * e,
        ]
    )
