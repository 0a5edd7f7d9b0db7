"""What every metric here shares: the checks of its masks, and figures that may be undefined.

Masks of one clip or of one image's expressions stand in one array ``(n, H, W)``. A figure whose denominator is
empty (say, the share of absent targets that were refused, where no target was absent) is ``None``, never 0 or 1.
"""

from __future__ import annotations

import numpy as np

from ..core import BadInput

IGNORE = 255  # value of pixels in a ground truth that count neither as target nor as background


def object_masks(masks: np.ndarray, name: str) -> np.ndarray:
    """``masks`` (n, H, W) of bool or integers as bool: everything but 0 is the object (so 0/255 images will do).

    Floats are refused: whether 0.3 or -1.2 is object depends on the system's own threshold.
    """
    checked_stack(masks, name)
    if masks.dtype != bool and not np.issubdtype(masks.dtype, np.integer):
        raise BadInput(
            f"{name} must be boolean or integer masks; got {masks.dtype}: apply the system's threshold first"
        )
    return masks != 0


def labelled_truth(truth: np.ndarray, name: str) -> np.ndarray:
    """``truth`` (n, H, W) of 0, 1 and 255 (ignore), in any real type, as uint8."""
    checked_stack(truth, name)
    known = (truth == 0) | (truth == 1) | (truth == IGNORE)
    if not known.all():
        raise BadInput(
            f"{name} must hold 0 (background), 1 (target) and {IGNORE} (ignore) only; got {truth[~known].flat[0]}"
        )
    return truth.astype(np.uint8)


def checked_stack(masks: np.ndarray, name: str) -> None:
    """Refuse what is no real-valued array (n, H, W) with H and W of at least 1; n may be 0."""
    shape = getattr(masks, "shape", None)
    if shape is None or not hasattr(masks, "dtype"):
        raise BadInput(f"{name} must be a NumPy array (n, height, width); got {type(masks).__name__}")
    if len(shape) != 3 or min(shape[1:]) < 1:
        raise BadInput(f"{name} must be an array (n, height, width) with at least one pixel; got shape {shape}")
    if masks.dtype.kind not in "biuf":
        raise BadInput(f"{name} must hold numbers or booleans; got {masks.dtype}")


def same_shape(predicted: np.ndarray, truth: np.ndarray, what: str) -> None:
    """Refuse arrays of different shape, which NumPy would stretch to fit or refuse less clearly."""
    if predicted.shape != truth.shape:
        raise BadInput(
            f"{what}: prediction {predicted.shape} and ground truth {truth.shape} must have one shape "
            "(number, height, width); resize predictions to the ground truth's size before thresholding"
        )


def ratio(numerator: float, denominator: float) -> float | None:
    """The quotient, or None where the denominator is 0: the figure is not defined on this data."""
    return float(numerator) / float(denominator) if denominator else None


def percent(figure: float | None, digits: int = 2) -> str:
    """The figure in percent for a table, ``undefined`` for None."""
    return "undefined" if figure is None else f"{100 * figure:.{digits}f}"
