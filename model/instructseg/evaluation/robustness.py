"""Robustness R and accuracy A of ReVOS (VISA, sec. 5), as published and corrected.

The published script reads predictions as 0/255 images and calculates with them in 8 bits without binarising: every
false positive weighs 255 times, and A counts each right object pixel as wrong. The form ``published`` repeats that,
to compare with figures in print; ``corrected`` is what the definition says. Give both, named.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from ..core import BadInput
from .scores import checked_stack, same_shape

Form = Literal["published", "corrected"]


def robustness(predicted: np.ndarray, truth: np.ndarray, foreground: np.ndarray, form: Form) -> np.ndarray:
    """R of each frame (T,): 1 - false positives / pixels of all annotated objects, at least 0.

    predicted, truth, foreground: (T, H, W) uint8 masks (for ``corrected`` also bool; all but 0 is object);
    foreground is the union of the frame's annotated objects. ``published`` adds 1e-6 to the denominator;
    ``corrected`` gives NaN for a frame without any annotated object, where R is not defined: see :func:`mean_defined`.
    """
    predicted, truth = _masks(predicted, truth, form)
    foreground = _one(foreground, "foreground", form)
    same_shape(foreground, truth, "robustness (foreground as prediction)")
    # In 8 bits on purpose: truths of overlapping objects were summed there, and 1 - 2 is 255.
    false_positives = ((np.uint8(1) - truth) * predicted).sum(axis=(1, 2), dtype=np.int64)
    area = foreground.sum(axis=(1, 2), dtype=np.int64)
    if form == "published":
        return np.maximum(1 - false_positives / (area + 1e-6), 0)
    return np.where(area == 0, np.nan, np.maximum(1 - false_positives / np.maximum(area, 1), 0))


def pixel_accuracy(predicted: np.ndarray, truth: np.ndarray, form: Form) -> np.ndarray:
    """A of each frame (T,): share of pixels where prediction and truth (T, H, W) are equal."""
    predicted, truth = _masks(predicted, truth, form)
    return (predicted == truth).mean(axis=(1, 2))


def mean_defined(per_frame: np.ndarray) -> float | None:
    """Mean over the frames whose figure is defined (not NaN); None where no frame's is."""
    per_frame = np.asarray(per_frame, np.float64)
    defined = per_frame[~np.isnan(per_frame)]
    return float(defined.mean()) if defined.size else None


def _masks(predicted: np.ndarray, truth: np.ndarray, form: Form) -> tuple[np.ndarray, np.ndarray]:
    if form not in ("published", "corrected"):
        raise BadInput(f"form must be 'published' or 'corrected'; got {form!r}")
    predicted, truth = _one(predicted, "predicted", form), _one(truth, "truth", form)
    same_shape(predicted, truth, "masks")
    if not len(truth):
        raise BadInput(f"a video needs at least one frame to be scored; got shape {truth.shape}")
    return predicted, truth


def _one(masks: np.ndarray, name: str, form: Form) -> np.ndarray:
    checked_stack(masks, name)
    if masks.dtype != np.uint8 and not (masks.dtype == bool and form == "corrected"):
        raise BadInput(f"{name} must be uint8 masks for the form {form!r}; got {masks.dtype}")
    return masks if form == "published" else (masks != 0).astype(np.uint8)
