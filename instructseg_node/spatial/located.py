"""One processed frame in space: the PRESENT targets of a result, the depth image of the same time, and what they give.

Fail closed: only a target that is PRESENT, with valid depth under its mask of this very frame, has a place.
"""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np

from instructseg.core import State
from instructseg.streaming import FrameResult
from instructseg.tracking import TargetState, instance_map

from ..conversions import BadImage
from .camera_model import CameraModel
from .depth import DepthImage
from .projection import model_for, points_of, resample, shrunk
from .target_geometry import TargetGeometry, measure


@dataclasses.dataclass(frozen=True, eq=False)
class Located:
    """A target and where it is."""

    target: TargetState
    geometry: TargetGeometry


def present(result: FrameResult) -> list[TargetState]:
    """The targets that may have a place, best first: by the priority of the instruction, then by score, then by id."""
    targets = [target for target in result.targets if target.state is State.PRESENT and target.mask is not None]
    return sorted(targets, key=lambda t: (-t.instruction.priority, -t.score, t.instance_id))


class Scene:
    """The geometry of one frame, each part computed when it is first asked for, and once.

    min_points: fewer make no geometry. margin: pixels of the depth image inside a mask's outline that are left out.
    unplaced: why PRESENT targets have no place. Raises BadImage where depth and camera_info do not fit the image.
    """

    def __init__(
        self, result: FrameResult, depth: DepthImage, info: CameraModel, min_points: int = 50, margin: int = 1
    ) -> None:
        _check_frames(result.frame.frame_id, depth.frame_id, info.frame_id)
        self.result, self.depth = result, depth
        self.model = model_for(info, depth.size, result.frame.size)
        self.targets = present(result)
        self.unplaced: Counter[str] = Counter()
        self._min_points, self._margin = min_points, margin
        self._located: list[Located] | None = None
        # As in ~/instance_mask: where masks overlap a pixel belongs to one target only. On the depth image's grid.
        self._instances = resample(instance_map(self.targets, result.frame.size), depth.size)  # (H, W) uint16

    def masked_depth(self) -> np.ndarray:
        """``(H, W)`` in the depth image's own unit: invalid but where a PRESENT target is."""
        return self.depth.masked(self._instances > 0)

    @property
    def located(self) -> list[Located]:
        """The targets that have a place, best first."""
        if self._located is None:
            metres = self.depth.metres() if self.targets else None
            self._located = [found for target in self.targets if (found := self._locate(target, metres)) is not None]
        return self._located

    @property
    def best(self) -> Located | None:
        """The best target; None where that one has no place, even if others have: they are not what was meant."""
        first = self.located[0] if self.located else None
        return first if first is not None and first.target is self.targets[0] else None

    def _locate(self, target: TargetState, metres: np.ndarray) -> Located | None:
        mask = shrunk(self._instances == target.instance_id, self._margin)
        points = points_of(mask, metres, self.result.frame.image, self.model)
        geometry = measure(points, self.model, self._min_points)
        if geometry is None:
            self.unplaced["no valid depth" if not len(points) else "too few points"] += 1
            return None
        return Located(target, geometry)


def _check_frames(image: str, depth: str, info: str) -> None:
    """Depth and camera_info must be in the image's own frame; an empty name says nothing."""
    for name, other in (("depth", depth), ("camera_info", info)):
        if image and other and other != image:
            raise BadImage(
                f"{name}_frame",
                f"{name} is in frame '{other[:60]}' and the image in '{image[:60]}': register the depth to the colour "
                "camera (depth_image_proc, or the driver's aligned depth) and remap its topics",
            )
