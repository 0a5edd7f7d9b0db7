"""What a scene shows, worked out from its description alone: outlines of things drawn in order of depth.

Good to a few pixels, which is enough to know what can be asked about. The exact masks are those of the renderer; but
an answer that hung on pixels would differ between graphics drivers, and this does not.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import cv2
import numpy as np

from ..tabletop_spec import PlacedObject, SceneSpec, camera_axes, camera_pose, position
from .assets import extent, outline_points

WIDTH, HEIGHT = 320, 240


@dataclasses.dataclass(frozen=True, eq=False)
class View:
    """ids ``(HEIGHT, WIDTH)`` uint8, 0 = nothing named or unnamed; whole: pixels of each outline if nothing hid it."""

    ids: np.ndarray
    whole: dict[int, float]

    def area(self, number: int) -> int:
        """Pixels that show this object."""
        return int(np.count_nonzero(self.ids == number))

    def shown(self, number: int) -> float:
        """Which part of its outline is seen, 0..1."""
        whole = self.whole.get(number, 0.0)
        return self.area(number) / whole if whole > 0 else 0.0


def look(spec: SceneSpec, t: float, inside: Mapping[int, int]) -> View:
    """The scene at time ``t``. inside: id of a thing and id of the open container that it lies in."""
    eye, target, roll = camera_pose(spec, t)
    axes = camera_axes(eye, target, roll)
    focal = HEIGHT / 2 / math.tan(math.radians(spec.fovy) / 2)
    placed = {item.object.id: item for item in spec.objects}
    depth = {number: _depth(placed[inside.get(number, number)], t, eye, axes) for number in placed}
    heights = {number: position(item.waypoints, t)[3] for number, item in placed.items()}
    # The farthest first; what lies on or in something after that.
    order = sorted(placed, key=lambda n: (-round(depth[n], 3), n in inside, heights[n]))
    ids, whole = np.zeros((HEIGHT, WIDTH), np.uint8), {}
    for number in order:
        outline = _outline(placed[number], t, eye, axes, focal)
        if outline is None:
            continue
        whole[number] = float(cv2.contourArea(outline))
        mask = _filled(outline)
        if number in inside:
            opening = _outline(placed[inside[number]], t, eye, axes, focal, opening=True)
            mask &= _filled(opening) if opening is not None else 0
        ids[mask > 0] = number
    return View(ids, whole)


def _depth(item: PlacedObject, t: float, eye: np.ndarray, axes: np.ndarray) -> float:
    """Distance along the ground in the direction of view: things on one spot share it, whatever their height."""
    x, y, _, _ = position(item.waypoints, t)
    forward = np.array([-axes[1, 0], axes[0, 0]])
    return float((np.array([x, y]) - eye[:2]) @ (forward / np.linalg.norm(forward)))


def _outline(
    item: PlacedObject, t: float, eye: np.ndarray, axes: np.ndarray, focal: float, opening: bool = False
) -> np.ndarray | None:
    """Convex hull ``(P, 1, 2)`` int32 in pixels, None behind the camera. opening: only the upper rim."""
    points = outline_points(item.thing, item.object.size)
    if opening:
        points = points[points[:, 2] > 0.9 * extent(item.thing, item.object.size)[1]]
    x, y, yaw, z = position(item.waypoints, t)
    cosine, sine = math.cos(yaw), math.sin(yaw)
    turned = np.stack([cosine * points[:, 0] - sine * points[:, 1], sine * points[:, 0] + cosine * points[:, 1],
                       points[:, 2]], axis=1)  # fmt: skip
    seen = (turned + (x, y, z) - eye) @ axes  # (P, 3): right, up, backward
    if seen[:, 2].max() > -0.05:
        return None
    pixels = np.stack([WIDTH / 2 - focal * seen[:, 0] / seen[:, 2], HEIGHT / 2 + focal * seen[:, 1] / seen[:, 2]], 1)
    return cv2.convexHull(np.clip(np.round(pixels), -5000, 5000).astype(np.int32))


def _filled(outline: np.ndarray) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.fillConvexPoly(mask, outline, 1)
    return mask
