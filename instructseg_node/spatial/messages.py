"""Geometry as messages: cloud, pose, markers. Message packages, no rclpy."""

from __future__ import annotations

import array
import colorsys
from collections.abc import Sequence

import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point, Pose, PoseStamped, Quaternion, Vector3
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from .located import Located
from .target_geometry import Box

# rgb as PCL packs it: bytes blue, green, red, 0, called a float.
_POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "u1", 4), ("instance_id", "<u4")])
_FIELDS = (
    ("x", 0, PointField.FLOAT32),
    ("y", 4, PointField.FLOAT32),
    ("z", 8, PointField.FLOAT32),
    ("rgb", 12, PointField.FLOAT32),
    ("instance_id", 16, PointField.UINT32),
)
_TEXT_HEIGHT = 0.03  # m


def cloud(located: Sequence[Located], header: Header) -> PointCloud2:
    """All targets' points as one unorganised cloud: x, y, z in metres, rgb, the instance_id of ``~/instance_mask``."""
    points = np.zeros(sum(len(one.geometry.points) for one in located), _POINT)
    start = 0
    for one in located:
        mine = points[start : start + len(one.geometry.points)]
        start += len(mine)
        for axis, name in enumerate("xyz"):
            mine[name] = one.geometry.points.xyz[:, axis]
        mine["rgb"][:, :3] = one.geometry.points.rgb[:, ::-1]
        mine["instance_id"] = one.target.instance_id
    data = array.array("B")
    data.frombytes(points.tobytes())
    return PointCloud2(
        header=header,
        height=1,
        width=len(points),
        fields=[PointField(name=name, offset=at, datatype=kind, count=1) for name, at, kind in _FIELDS],
        is_bigendian=False,
        point_step=_POINT.itemsize,
        row_step=points.nbytes,
        data=data,
        is_dense=True,
    )


def pose(one: Located, header: Header) -> PoseStamped:
    """Centroid of the visible surface, axes of the box."""
    geometry = one.geometry
    return PoseStamped(header=header, pose=_pose(geometry.centroid, geometry.box))


def box_pose(box: Box) -> Pose:
    return _pose(box.center, box)


def vector(values: np.ndarray) -> Vector3:
    x, y, z = (float(value) for value in values)
    return Vector3(x=x, y=y, z=z)


class MarkerBoard:
    """The markers that are shown: a box and a line of text per target, which vanish with it.

    They also have a life of their own, ``lifetime_s``: a viewer forgets them when nothing comes any more.
    """

    def __init__(self, lifetime_s: float) -> None:
        self.lifetime_s = lifetime_s
        self._shown: dict[str, set[int]] = {}  # camera -> instance ids

    @property
    def empty(self) -> bool:
        return not any(self._shown.values())

    def show(self, camera: str, located: Sequence[Located], header: Header) -> MarkerArray | None:
        """What is to be drawn and deleted now that these are the targets of a camera; None: nothing to say."""
        before, now = self._shown.get(camera, set()), {one.target.instance_id for one in located}
        self._shown[camera] = now
        if self.empty:
            return self.wipe(header) if before else None
        gone = [
            Marker(header=header, ns=f"{camera}/{kind}", id=identity, action=Marker.DELETE)
            for identity in sorted(before - now)
            for kind in ("box", "text")
        ]
        drawn = [marker for one in located for marker in self._draw(camera, one, header)]
        return MarkerArray(markers=gone + drawn) if gone or drawn else None

    def wipe(self, header: Header) -> MarkerArray:
        """Delete everything, of every camera."""
        self._shown.clear()
        return MarkerArray(markers=[Marker(header=header, action=Marker.DELETEALL)])

    def _draw(self, camera: str, one: Located, header: Header) -> list[Marker]:
        target, box = one.target, one.geometry.box
        seconds, rest = divmod(round(self.lifetime_s * 1e9), 1_000_000_000)
        lifetime = Duration(sec=seconds, nanosec=rest)
        # Steps of the golden ratio around the colour wheel: ids that follow each other look different.
        red, green, blue = colorsys.hsv_to_rgb(target.instance_id * 0.618034 % 1.0, 0.9, 1.0)
        shape = Marker(
            header=header, ns=f"{camera}/box", id=target.instance_id, type=Marker.CUBE, action=Marker.ADD,
            pose=box_pose(box), scale=vector(np.maximum(box.size, 1e-3)), lifetime=lifetime,
            color=ColorRGBA(r=red, g=green, b=blue, a=0.35),
        )  # fmt: skip
        above = box.center - (0.0, 0.5 * float(np.abs(box.rotation[1]) @ box.size) + _TEXT_HEIGHT, 0.0)
        words = f"{target.phrase or target.instruction.text}  {target.score:.2f}"
        text = Marker(
            header=header, ns=f"{camera}/text", id=target.instance_id, type=Marker.TEXT_VIEW_FACING, action=Marker.ADD,
            pose=Pose(position=_point(above)), scale=Vector3(z=_TEXT_HEIGHT), lifetime=lifetime,
            color=ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0), text=words,
        )  # fmt: skip
        return [shape, text]


def _pose(position: np.ndarray, box: Box) -> Pose:
    x, y, z, w = box.quaternion
    return Pose(position=_point(position), orientation=Quaternion(x=x, y=y, z=z, w=w))


def _point(values: np.ndarray) -> Point:
    x, y, z = (float(value) for value in values)
    return Point(x=x, y=y, z=z)
