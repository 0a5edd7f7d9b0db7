"""The scripted scene of the demo recording: always the same things, moving along the same paths.

Written for the commands in ``config/demo_commands.yaml``; objects are addressed there by the names in :data:`NAMES`.
x points to the right of the camera, y away from it; metres and seconds.
"""

from __future__ import annotations

import math

import numpy as np

from . import scene, tabletop_layout
from .tabletop_spec import CameraKey, Light, PlacedObject, SceneSpec, Surface, Waypoint

DURATION = 30.0  # s
# name: (shape, colour, size, clutter kind, waypoints (time, x, y, yaw)). The purple ball is a held-out composition.
_SCRIPT: dict[str, tuple[str, str, str, str, tuple[tuple[float, float, float, float], ...]]] = {
    "red_block": ("block", "red", "large", "", ((0, -0.09, -0.15, 0.5),)),
    "blue_ball": ("ball", "blue", "large", "", ((11.2, 0.12, -0.035, 0), (15.4, -0.19, -0.04, 0))),
    "purple_ball": ("ball", "purple", "large", "", ((0, 0.06, -0.15, 0),)),
    "yellow_bottle": ("bottle", "yellow", "large", "", ((0, -0.22, 0.10, 0),)),
    "white_mug": ("mug", "white", "large", "", ((0, 0.19, -0.13, -0.6),)),
    "orange_cone": (
        "cone", "orange", "large", "",
        ((23.6, 0.22, 0.04, 0), (25.6, 0.56, 0.04, 0), (26.4, 0.56, 0.04, 0), (28.2, 0.22, 0.04, 0)),
    ),
    "green_can": ("can", "green", "large", "", ((0, -0.12, 0.07, 0),)),
    "red_can": ("can", "red", "large", "", ((11.8, 0.11, 0.13, 0), (15.0, 0.13, 0.25, 0))),
    "blue_bowl": ("bowl", "blue", "large", "", ((0, 0.0, 0.09, 0),)),
    "pen": (scene.CLUTTER, "black", "small", "pen", ((0, -0.23, -0.13, 0.9),)),
    "ring": (scene.CLUTTER, "green", "small", "ring", ((0, 0.0, 0.24, 0),)),
}  # fmt: skip
NAMES: dict[str, int] = {name: index + 1 for index, name in enumerate(_SCRIPT)}  # name -> instance id


def demo_spec(seed: int = 0) -> SceneSpec:
    """The scene; ``seed`` only varies the tones of the colours and the gloss of the things."""
    rng = np.random.default_rng(seed)
    objects = []
    for name, (shape, color, size, kind, waypoints) in _SCRIPT.items():
        objects.append(
            PlacedObject(
                scene.SceneObject(NAMES[name], shape, color, size),
                kind or shape,
                tuple(Waypoint(*point) for point in waypoints),
                tabletop_layout.draw_rgb(rng, color),
                texture="bands" if shape == "ball" else "plain",  # bands show that a ball rolls
                gloss=str(rng.choice(["matte", "satin", "glossy"])),
            )
        )
    return SceneSpec(
        objects=tuple(objects),
        camera=_camera(),
        lights=(Light((0.45, 0.35, -0.9), (0.62, 0.6, 0.57)), Light((-0.6, 0.3, -0.7), (0.2, 0.2, 0.22))),
        fovy=44.0,
        ambient=(0.38, 0.38, 0.39),
        table=Surface("clouds", (0.86, 0.76, 0.64)),
        table_half=(0.75, 0.5),
        table_origin=(0.0, 0.12, 0.05),
        floor=Surface("clouds", (0.5, 0.5, 0.5)),
        wall=Surface("plain_table", (0.72, 0.74, 0.74)),
        wall_distance=1.8,
    )


def _camera() -> tuple[CameraKey, ...]:
    """A slow swing around the table with a little bobbing, as on an arm that is never quite still."""
    keys = []
    for t in np.arange(0.0, DURATION + 0.1, 0.1):
        yaw = 0.16 * math.sin(2 * math.pi * t / 21.0)
        pitch = math.radians(42) + 0.05 * math.sin(2 * math.pi * t / 13.0)
        distance = 0.66 + 0.03 * math.sin(2 * math.pi * t / 17.0)
        target = (0.012 * math.sin(2 * math.pi * t / 9.0), 0.005 + 0.01 * math.sin(2 * math.pi * t / 11.0), 0.02)
        level = distance * math.cos(pitch)
        eye = (target[0] + level * math.sin(yaw), target[1] - level * math.cos(yaw), 0.02 + distance * math.sin(pitch))
        keys.append(CameraKey(float(t), eye, target, 0.01 * math.sin(2 * math.pi * t / 8.0)))
    return tuple(keys)
