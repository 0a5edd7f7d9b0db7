"""Mask + depth + camera model -> points in the camera's optical frame (REP 103: x right, y down, z forward; metres).

Colour and depth may have different sizes as long as they show the same field of view (registered depth): everything
happens on the depth image's grid, and the mask and the colours are looked up at the pixel in the same place. So no
point appears twice and none is interpolated between two surfaces.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from ..conversions import BadImage
from .camera_model import CameraModel


@dataclasses.dataclass(frozen=True, eq=False)
class Points:
    """Points of one target, N of them, row by row of the depth image.

    xyz: ``(N, 3)`` float32 metres. rgb: ``(N, 3)`` uint8. rows, columns: ``(N,)`` int, the pixels of the depth image.
    """

    xyz: np.ndarray
    rgb: np.ndarray
    rows: np.ndarray
    columns: np.ndarray

    def __len__(self) -> int:
        return len(self.xyz)

    def keep(self, which: np.ndarray) -> Points:
        """Those for which ``which`` ``(N,)`` bool holds."""
        return Points(self.xyz[which], self.rgb[which], self.rows[which], self.columns[which])


def model_for(info: CameraModel, depth_size: tuple[int, int], colour_size: tuple[int, int]) -> CameraModel:
    """The camera model of the depth image's pixels. Sizes are (height, width).

    Raises BadImage where camera_info is of neither image, or where the images do not show the same field of view.
    """
    sizes = [(width, height) for height, width in (colour_size, depth_size)]
    if (info.width, info.height) not in sizes:
        shown = " and ".join(f"{width} x {height}" for width, height in sizes)
        raise BadImage(
            "camera_info_size",
            f"camera_info is of an image of {info.width} x {info.height} pixels; image and depth have {shown}",
        )
    info.scaled(colour_size[1], colour_size[0])
    return info.scaled(depth_size[1], depth_size[0])


def resample(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """``(h, w, ...)``: the image ``(H, W, ...)`` at another size (h, w), each pixel the one in the same place."""
    if image.shape[:2] == tuple(size):
        return image
    rows, columns = _same_place(size[0], image.shape[0]), _same_place(size[1], image.shape[1])
    return image[rows[:, None], columns]


def shrunk(mask: np.ndarray, margin: int) -> np.ndarray:
    """``(H, W)`` bool without its outermost ``margin`` pixels, where masks leak and depth sensors smear; whole where
    less than half would be left. The image's own edge is no outline."""
    if margin < 1:
        return mask
    side = 2 * margin + 1
    inner = cv2.erode(mask.astype(np.uint8), np.ones((side, side), np.uint8)).astype(bool)
    return inner if 2 * np.count_nonzero(inner) >= np.count_nonzero(mask) else mask


def points_of(mask: np.ndarray, metres: np.ndarray, image: np.ndarray, model: CameraModel) -> Points:
    """The points that a mask covers.

    mask: ``(H, W)`` bool and metres ``(H, W)`` float32 (NaN invalid) on the depth image's grid, model: of that grid.
    image: ``(h, w, 3)`` uint8 RGB of any size with the same field of view.
    """
    left, top, across, down = cv2.boundingRect(np.ascontiguousarray(mask).view(np.uint8))
    window = np.s_[top : top + down, left : left + across]  # most targets are small
    rows, columns = np.nonzero(mask[window] & np.isfinite(metres[window]))
    rows, columns = rows + top, columns + left
    z = metres[rows, columns].astype(np.float64)  # (N,)
    xyz = np.concatenate([model.rays(columns, rows) * z[:, None], z[:, None]], axis=1)  # (N, 3)
    looks = np.isfinite(xyz[:, 0])  # some pixels of a strongly distorted image have no ray
    xyz, rows, columns = xyz[looks], rows[looks], columns[looks]
    height, width = metres.shape
    rgb = image[_same_place(height, image.shape[0])[rows], _same_place(width, image.shape[1])[columns]]
    return Points(xyz.astype(np.float32), np.ascontiguousarray(rgb), rows, columns)


def _same_place(count: int, source: int) -> np.ndarray:
    """For each of ``count`` pixels along a side, the pixel of ``source`` ones in which its centre lies."""
    return (2 * np.arange(count) + 1) * source // (2 * count)  # (count,)
