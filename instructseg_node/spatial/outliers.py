"""Which points of a mask are the target's: masks leak over outlines, and depth sensors smear there."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from .camera_model import CameraModel
from .projection import Points

STEEPEST = 16.0  # slope of a surface that is still seen as one: 86 degrees from facing the camera
LARGEST = 0.03  # step in depth, as a share of the distance, that is never taken for a slope
NOISE = 0.005  # m: a step in depth below this says nothing
STEEP = 8.0  # slope beyond which a pixel does not vouch for its neighbour: 83 degrees
WITNESSES = 3  # of the 8 neighbours that must lie on a point's surface: a corner has no more
SMALLEST = 0.02  # share of the largest patch below which a patch is debris
DEVIATIONS = 3.5  # robust standard deviations (1.4826 MAD) of depth that still belong to the target


def inliers(points: Points, model: CameraModel) -> np.ndarray:
    """``(N,)`` bool. model: of the depth image the points come from.

    Three steps. Patches of pixels without a jump in depth between neighbours: the largest stays, and every other one of
    some size that is near it in depth: a thin thing in front may cut a target in two. Points that most of their
    neighbours do not bear out go: sensors draw them between a thing and what is behind it. So do depths that are far
    from the median, by the median absolute deviation, but never what is nearer to the median than the target
    is wide: the near wall of a bowl is no outlier, however much of its floor is seen.
    """
    if len(points) < 2:
        return np.ones(len(points), bool)
    keep = _near_the_largest(points, patches(points, model))
    keep[keep] = _borne_out(points.keep(keep), model)
    kept = points.xyz[keep]
    middle = np.median(kept[:, 2])
    spread = 1.4826 * np.median(np.abs(kept[:, 2] - middle))
    return keep & (np.abs(points.xyz[:, 2] - middle) <= max(DEVIATIONS * spread, _width(kept)))


def patches(points: Points, model: CameraModel) -> np.ndarray:
    """``(N,)`` int: number of the patch of each point. Neighbours in a row or column are joined unless depth jumps."""
    index = np.full((model.height, model.width), -1)
    index[points.rows, points.columns] = np.arange(len(points))
    top, left = points.rows.min(), points.columns.min()
    index = index[top : points.rows.max() + 1, left : points.columns.max() + 1]
    depth = points.xyz[:, 2]
    largest_step = _step(depth, model, STEEPEST)  # (N,)
    starts, ends = [], []
    for one, other in ((index[:, :-1], index[:, 1:]), (index[:-1], index[1:])):
        both = (one >= 0) & (other >= 0)
        a, b = one[both], other[both]
        joined = np.abs(depth[a] - depth[b]) <= np.minimum(largest_step[a], largest_step[b])
        starts.append(a[joined])
        ends.append(b[joined])
    start, end = np.concatenate(starts), np.concatenate(ends)
    graph = coo_matrix((np.ones(len(start), np.int8), (start, end)), shape=(len(points), len(points)))
    return connected_components(graph, directed=False)[1]


def _near_the_largest(points: Points, labels: np.ndarray) -> np.ndarray:
    sizes = np.bincount(labels)
    largest = int(np.argmax(sizes))
    depth, main = points.xyz[:, 2], points.xyz[labels == largest]
    order = np.lexsort((depth, labels))  # by patch, then by depth
    middles = depth[order][np.cumsum(sizes) - sizes + sizes // 2]  # (patches,): median depth of each
    reach = max(NOISE, 0.5 * _width(main))
    near = (middles >= main[:, 2].min() - reach) & (middles <= main[:, 2].max() + reach)
    chosen = near & (sizes >= max(3.0, SMALLEST * sizes[largest]))
    chosen[largest] = True
    return chosen[labels]


def _borne_out(points: Points, model: CameraModel) -> np.ndarray:
    """``(N,)`` bool: points with enough neighbours on their own surface; all, where that would leave less than half."""
    image = np.full((model.height + 2, model.width + 2), np.nan, np.float32)  # a frame of nothing around it
    rows, columns, depth = points.rows + 1, points.columns + 1, points.xyz[:, 2]
    image[rows, columns] = depth
    limit = _step(depth, model, STEEP)  # (N,)
    witnesses = np.zeros(len(points), int)
    for down, right in ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)):
        witnesses += np.abs(image[rows + down, columns + right] - depth) <= limit  # NaN is near nothing
    enough = witnesses >= WITNESSES
    return enough if 2 * np.count_nonzero(enough) >= len(points) else np.ones(len(points), bool)


def _step(depth: np.ndarray, model: CameraModel, slope: float) -> np.ndarray:
    """``(N,)``: the largest step in depth from a pixel at ``depth`` to the next one, on a surface of this slope."""
    per_metre = min(slope / min(model.fx, model.fy), LARGEST)  # a pixel is z / f wide at distance z
    return np.maximum(NOISE, per_metre * depth)


def _width(xyz: np.ndarray) -> float:
    """The extent of points ``(N, 3)`` across the view in metres, but for the outermost ones."""
    low, high = np.percentile(xyz[:, :2], (5, 95), axis=0)  # (2,) each
    return float(np.linalg.norm(high - low))
