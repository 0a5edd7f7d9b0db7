"""From targets to the two images a planner reads: pixel = instance id, and pixel = class id of the instruction."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..core import BadInput
from .types import TargetState


def instance_map(targets: Sequence[TargetState], size: tuple[int, int]) -> np.ndarray:
    """``(H, W)`` uint16, pixel = instance id, 0 = nothing. size: (height, width) of the frame.

    Where masks overlap the higher score wins, then the smaller area; values are never summed.
    Raises BadInput for a mask of another size.
    """
    return _paint(targets, size, np.uint16, lambda target: target.instance_id)


def label_map(targets: Sequence[TargetState], size: tuple[int, int]) -> np.ndarray:
    """``(H, W)`` uint8, pixel = class id of the instruction (1..255), 0 = nothing; overlaps as in instance_map."""
    return _paint(targets, size, np.uint8, lambda target: target.instruction.class_id)


def _paint(
    targets: Sequence[TargetState], size: tuple[int, int], dtype: type, value_of: Callable[[TargetState], int]
) -> np.ndarray:
    image = np.zeros(size, dtype)
    highest = np.iinfo(dtype).max
    for target in _weakest_first([t for t in targets if t.mask is not None]):
        value = value_of(target)
        if target.mask.shape != tuple(size):
            raise BadInput(f"mask of instance {target.instance_id} has size {target.mask.shape}; the image has {size}")
        if not 1 <= value <= highest:
            raise BadInput(f"pixel value of instance {target.instance_id} must be in 1..{highest}; got {value}")
        image[target.mask] = value
    return image


def _weakest_first(targets: list[TargetState]) -> list[TargetState]:
    """Painting order: what is painted later wins. The id decides between equals, so that the image is reproducible."""
    if len(targets) < 2:
        return targets
    return sorted(targets, key=lambda t: (t.score, -int(np.count_nonzero(t.mask)), -t.instance_id))
