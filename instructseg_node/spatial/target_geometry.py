"""Centroid and oriented box of one target's points, and the pose made of them. Metres, camera's optical frame."""

from __future__ import annotations

import dataclasses
import itertools
import math

import cv2
import numpy as np
from scipy.spatial import ConvexHull, QhullError

from .camera_model import CameraModel
from .outliers import inliers
from .projection import Points

FACES = 12  # faces of the convex hull, by area, that are tried as a side of the box
THINNEST = 0.001  # m: a flat target's box is compared as if it were this thick


@dataclasses.dataclass(frozen=True, eq=False)
class Box:
    """center: ``(3,)``. rotation: ``(3, 3)``, its columns are the box's x, y and z axes; right-handed. size: ``(3,)``,
    whole lengths along these axes."""

    center: np.ndarray
    rotation: np.ndarray
    size: np.ndarray

    @property
    def quaternion(self) -> tuple[float, float, float, float]:
        """(x, y, z, w), w not negative."""
        return quaternion_of(self.rotation)


@dataclasses.dataclass(frozen=True, eq=False)
class TargetGeometry:
    """One target in space.

    points: without outliers. centroid: ``(3,)`` mean of the points: of the visible surface, so it lies nearer to the
    camera than the middle of the thing. box: the smallest one around the points.
    """

    points: Points
    centroid: np.ndarray
    box: Box


def measure(points: Points, model: CameraModel, min_points: int = 50) -> TargetGeometry | None:
    """The target's geometry, or None where fewer than ``min_points`` points are left of it.

    model: of the depth image the points come from.
    """
    if len(points) < max(4, min_points):
        return None
    points = points.keep(inliers(points, model))
    if len(points) < max(4, min_points):
        return None
    return TargetGeometry(points, points.xyz.mean(axis=0, dtype=np.float64), oriented_box(points.xyz))


def oriented_box(xyz: np.ndarray) -> Box:
    """The smallest box around points ``(N, 3)``, N of at least 1.

    A smallest box has a side on a face of the convex hull, nearly always (O'Rourke 1985 has the exact rule): the
    largest faces and the principal axes are tried, in the plane the smallest rectangle is exact. No table is looked
    for. Of the 24 ways to name the axes the one nearest to the camera's own axes is taken: x as far to the right, y
    down and z away from the camera as possible. So signs are always the same, and a thing that turns a little keeps its
    axes.
    """
    centre = xyz.mean(axis=0, dtype=np.float64)
    local = xyz - centre  # (N, 3)
    principal = np.linalg.eigh(local.T @ local)[1].T[::-1]  # rows, longest first
    corners, normals = _hull(local, principal)
    best, smallest = None, np.inf
    for frame in _frames(np.concatenate([normals, principal[::-1]])):
        box = _box_on(frame, corners)
        # One per cent: the orientation must not depend on the last digit.
        if (volume := np.maximum(box.size, THINNEST).prod()) < 0.99 * smallest:
            best, smallest = box, volume
    return _named_axes(Box(best.center + centre, best.rotation, best.size))


def quaternion_of(rotation: np.ndarray) -> tuple[float, float, float, float]:
    """(x, y, z, w) of a rotation matrix ``(3, 3)``, w not negative (Shepperd 1978: no division by a small number)."""
    (a, b, c), (d, e, f), (g, h, i) = np.asarray(rotation, float)
    choices = np.array(
        [
            (1 + a - e - i, b + d, c + g, h - f),
            (b + d, 1 - a + e - i, f + h, c - g),
            (c + g, f + h, 1 - a - e + i, d - b),
            (h - f, c - g, d - b, 1 + a + e + i),
        ]
    )
    row = choices[np.argmax(np.diag(choices))]
    row = row / np.linalg.norm(row)
    x, y, z, w = (-row if row[3] < 0 else row) + 0.0
    return float(x), float(y), float(z), float(w)


def _hull(points: np.ndarray, principal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners ``(M, 3)`` of the convex hull and the directions ``(F, 3)`` of its largest faces; all points and no face
    where they lie in a plane or on a line."""
    if np.ptp(points @ principal[2]) < 1e-4:
        return points, np.empty((0, 3))
    try:
        hull = ConvexHull(points)
    except QhullError:
        return points, np.empty((0, 3))
    normals = hull.equations[:, :3]
    a, b, c = (points[hull.simplices[:, corner]] for corner in range(3))
    areas = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    # Triangles of one face differ in the last digits and opposite faces in sign: they count together.
    normals = normals * np.where(normals[np.arange(len(normals)), np.abs(normals).argmax(1)] < 0, -1.0, 1.0)[:, None]
    group = np.unique(np.round(normals * 20), axis=0, return_inverse=True)[1]
    total = np.bincount(group.ravel(), weights=areas)
    largest = np.argsort(-total, kind="stable")[:FACES]
    members = [group.ravel() == which for which in largest]
    means = np.stack([(normals[m] * areas[m, None]).sum(axis=0) for m in members])  # (F, 3)
    return points[hull.vertices], means / np.linalg.norm(means, axis=1, keepdims=True)


def _frames(normals: np.ndarray) -> np.ndarray:
    """``(C, 3, 3)``: for each unit vector a right-handed frame whose third column it is."""
    x = np.cross(np.eye(3)[np.abs(normals).argmin(axis=1)], normals)  # (C, 3)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return np.stack([x, np.cross(normals, x), normals], axis=2)


def _box_on(frame: np.ndarray, points: np.ndarray) -> Box:
    """The smallest box that has a side perpendicular to the third column of ``frame`` ``(3, 3)``."""
    flat = (points @ frame[:, :2] * 1000.0).astype(np.float32)  # (M, 2) millimetres
    _, _, degrees = cv2.minAreaRect(flat)
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    rotation = frame @ np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
    along = points @ rotation  # (M, 3)
    low, high = along.min(axis=0), along.max(axis=0)
    return Box(rotation @ ((low + high) / 2), rotation, high - low)


def _turns() -> np.ndarray:
    """The 24 rotations ``(24, 3, 3)`` that map axes to axes."""
    turns = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            turn = np.eye(3)[:, order] * signs
            if np.linalg.det(turn) > 0:
                turns.append(turn)
    return np.stack(turns)


_TURNS = _turns()


def _named_axes(box: Box) -> Box:
    rotations = box.rotation @ _TURNS  # (24, 3, 3)
    nearest = int(np.argmax(np.trace(rotations, axis1=1, axis2=2).round(9)))
    size = np.abs(box.size @ _TURNS[nearest])
    return Box(box.center, rotations[nearest], size)
