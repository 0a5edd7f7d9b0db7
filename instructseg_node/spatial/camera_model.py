"""Where a pixel looks: intrinsics from a ``sensor_msgs/CameraInfo``. No rclpy and no message package.

Pixel (0, 0) is the centre of the first pixel, as in OpenCV and ROS; x right, y down, z forward (REP 103).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import cv2
import numpy as np

from ..conversions import BadImage

# distortion_model: numbers of coefficients that OpenCV takes for it
_COEFFICIENTS = {"plumb_bob": (4, 5), "rational_polynomial": (8, 12, 14), "equidistant": (4,), "fisheye": (4,)}
_FISHEYE = ("equidistant", "fisheye")
_ASTRAY = 1.0  # pixels by which a ray may miss its pixel


@dataclasses.dataclass(frozen=True)
class CameraModel:
    """A pinhole with lens distortion, for images of ``width`` x ``height`` pixels.

    fx, fy, cx, cy: pixels. distortion: OpenCV's coefficients, () for none. fisheye: they are of OpenCV's fisheye model.
    frame_id: the optical frame, where it is known.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, ...] = ()
    fisheye: bool = False
    frame_id: str = ""

    @classmethod
    def from_message(cls, info: Any, *, rectified: bool = False) -> CameraModel:
        """The model of the images that come with this CameraInfo.

        rectified: the images went through a rectifier: their pinhole is P, without distortion. Otherwise K and D count.
        Binning and region of interest are taken into account. Raises BadImage naming the field.
        """
        name, matrix = ("p", np.reshape(info.p, (3, 4))[:, :3]) if rectified else ("k", np.reshape(info.k, (3, 3)))
        fx, fy, cx, cy = (float(matrix[place]) for place in ((0, 0), (1, 1), (0, 2), (1, 2)))
        if not np.isfinite(matrix).all() or fx <= 0.0 or fy <= 0.0:
            raise BadImage(
                "camera_info",
                f"camera_info.{name} has fx {fx:g}, fy {fy:g}, cx {cx:g}, cy {cy:g}; finite numbers with fx and fy "
                "above 0 are needed: is the camera calibrated?",
            )
        if abs(matrix[0, 1]) > 1e-3 * fx:
            raise BadImage("camera_info", f"camera_info.{name} has skew {matrix[0, 1]:g}; only 0 is supported")
        left, top, width, height = _window(info)
        across, down = max(1, int(info.binning_x)), max(1, int(info.binning_y))
        whole = cls(width, height, fx, fy, cx - left, cy - top, *_lens(info, rectified), str(info.header.frame_id))
        binned = whole.scaled(width // across, height // down)
        if not (0.0 <= binned.cx + 0.5 <= binned.width and 0.0 <= binned.cy + 0.5 <= binned.height) and not (
            left or top
        ):
            raise BadImage(
                "camera_info",
                f"camera_info.{name} has its centre at ({cx:g}, {cy:g}), outside the image of {width} x {height}",
            )
        return binned

    def scaled(self, width: int, height: int) -> CameraModel:
        """The model of the same view at another size. Raises BadImage where the sides do not shrink alike."""
        if width < 1 or height < 1 or abs(width * self.height / (height * self.width) - 1.0) > 0.01:
            raise BadImage(
                "depth_size",
                f"an image of {width} x {height} pixels does not show the view of camera_info ({self.width} x "
                f"{self.height}): the aspect ratios differ, so one of them is cropped; register the depth to the image",
            )
        a, b = width / self.width, height / self.height
        return dataclasses.replace(
            self,
            width=width,
            height=height,
            fx=self.fx * a,
            fy=self.fy * b,
            cx=(self.cx + 0.5) * a - 0.5,
            cy=(self.cy + 0.5) * b - 0.5,
        )

    @property
    def matrix(self) -> np.ndarray:
        """K, ``(3, 3)``."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    def rays(self, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """``(N, 2)`` float64: x / z and y / z of what the pixels at ``columns``, ``rows`` ``(N,)`` look at. NaN where
        the distortion cannot be undone: outside the view of a fisheye lens, or where a polynomial turns back.
        """
        columns, rows = np.asarray(columns, float), np.asarray(rows, float)
        if not any(self.distortion) or not len(columns):
            return np.stack([(columns - self.cx) / self.fx, (rows - self.cy) / self.fy], axis=-1)  # (N, 2)
        pixels = np.stack([columns, rows], axis=-1)[:, None]  # (N, 1, 2)
        coefficients = np.array(self.distortion)
        undistort = cv2.fisheye.undistortPoints if self.fisheye else cv2.undistortPoints
        rays = undistort(pixels, self.matrix, coefficients).reshape(-1, 2)  # (N, 2)
        # OpenCV does not say where its iteration went astray: such rays lie anywhere, up to millions.
        with np.errstate(all="ignore"):
            again = self.project(np.concatenate([rays, np.ones((len(rays), 1))], axis=1))
            found = np.abs(again - pixels[:, 0]).max(axis=1) <= _ASTRAY  # NaN is not
        return np.where(found[:, None], rays, np.nan)

    def project(self, points: np.ndarray) -> np.ndarray:
        """``(N, 2)`` pixel (column, row) of points ``(N, 3)`` in the optical frame, z above 0."""
        points = np.asarray(points, float)
        if not any(self.distortion):
            flat = points[:, :2] / points[:, 2:]
            return flat * (self.fx, self.fy) + (self.cx, self.cy)
        none, coefficients = np.zeros(3), np.array(self.distortion)
        if self.fisheye:
            found = cv2.fisheye.projectPoints(points[:, None], none, none, self.matrix, coefficients)
        else:
            found = cv2.projectPoints(points[:, None], none, none, self.matrix, coefficients)
        return found[0].reshape(-1, 2)


def _window(info: Any) -> tuple[int, int, int, int]:
    """Left, top, width and height of the region of interest in pixels of the sensor; all of it where none is set."""
    width, height, roi = int(info.width), int(info.height), info.roi
    if width < 1 or height < 1:
        raise BadImage("camera_info", f"camera_info has size {width} x {height}; the size of the calibration is needed")
    if not (roi.width and roi.height):
        return 0, 0, width, height
    if roi.x_offset + roi.width > width or roi.y_offset + roi.height > height:
        raise BadImage(
            "camera_info",
            f"camera_info.roi of {roi.width} x {roi.height} at ({roi.x_offset}, {roi.y_offset}) leaves the image of "
            f"{width} x {height} pixels",
        )
    return int(roi.x_offset), int(roi.y_offset), int(roi.width), int(roi.height)


def _lens(info: Any, rectified: bool) -> tuple[tuple[float, ...], bool]:
    """Distortion coefficients, and whether they are of the fisheye model."""
    coefficients, model = tuple(float(value) for value in info.d), str(info.distortion_model)
    if rectified or not any(coefficients):
        return (), False
    if len(coefficients) not in _COEFFICIENTS.get(model, ()) or not np.isfinite(coefficients).all():
        known = ", ".join(f"{name} ({' or '.join(map(str, counts))})" for name, counts in _COEFFICIENTS.items())
        raise BadImage(
            "camera_info",
            f"camera_info has distortion_model {model[:40]!r} with d = {list(coefficients)[:14]}; allowed: {known}",
        )
    return coefficients, model in _FISHEYE
