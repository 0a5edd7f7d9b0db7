"""One label map of several objects' masks, as Ref-DAVIS17 is scored: 0 is the background, o + 1 is object o.

VideoLISA merges hard masks (ties go to the first object), InstructSeg soft ones.
"""

from __future__ import annotations

import numpy as np

from ..core import BadInput
from .scores import checked_stack, object_masks

ANNOTATORS = 4  # sets of expressions in Ref-DAVIS17: two written on the first frame, two on the whole video
MAX_OBJECTS = 254  # 255 means void in DAVIS label maps


def merge_annotators(expression_masks: np.ndarray, annotators: int = ANNOTATORS) -> np.ndarray:
    """Label maps (annotators, T, H, W) uint8 of a video's expression masks (annotators * objects, T, H, W).

    Expression ``annotators * o + a`` is annotator a's for object o. bool, or integers where all but 0 is the object.
    """
    if isinstance(annotators, bool) or not isinstance(annotators, int) or annotators < 1:
        raise BadInput(f"annotators must be a whole number of at least 1; got {annotators!r}")
    shape = getattr(expression_masks, "shape", ())
    if len(shape) != 4 or shape[0] == 0 or shape[0] % annotators:
        raise BadInput(
            f"expression masks must be an array (expressions, frames, height, width) with a multiple of {annotators} "
            f"expressions, one for each annotator and object; got shape {shape}"
        )
    masks = object_masks(expression_masks.reshape(-1, *shape[2:]), "expression masks").reshape(shape)
    by_object = masks.reshape(shape[0] // annotators, annotators, *shape[1:])  # (O, A, T, H, W)
    return first_object(by_object)


def first_object(masks: np.ndarray) -> np.ndarray:
    """Label map (...) uint8 of bool masks (O, ...): where several objects claim a pixel, the first one has it."""
    _object_count(len(masks))
    # The published script takes the arg-max over a background plane of 0.1 and planes of 0 and 1; the lowest index
    # wins a tie, so that is the first object that claims the pixel.
    return np.where(masks.any(axis=0), masks.argmax(axis=0) + 1, 0).astype(np.uint8)


def last_object(masks: np.ndarray) -> np.ndarray:
    """Label map (T, H, W) uint8 of masks (O, T, H, W): later objects overwrite earlier ones (InstructSeg, hard)."""
    masks = np.asarray(masks)
    if masks.ndim != 4:
        raise BadInput(f"masks must be an array (objects, frames, height, width); got shape {masks.shape}")
    _object_count(len(masks))
    labels = np.zeros(masks.shape[1:], np.uint8)
    for number, mask in enumerate(masks, start=1):
        labels[object_masks(mask, f"mask of object {number}")] = number
    return labels


def fuse_soft(probabilities: np.ndarray) -> np.ndarray:
    """Label map (T, H, W) uint8 of mask probabilities (O, T, H, W) in [0, 1] (InstructSeg, soft).

    The background's probability is that no object is there, the product of all 1 - p; the largest one wins.
    """
    probabilities = np.asarray(probabilities)
    if probabilities.ndim != 4 or not np.issubdtype(probabilities.dtype, np.floating):
        raise BadInput(
            "probabilities must be a float array (objects, frames, height, width); "
            f"got {probabilities.dtype} of shape {probabilities.shape}"
        )
    _object_count(len(probabilities))
    checked_stack(probabilities[0], "probabilities of the first object")
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise BadInput("probabilities must lie in 0..1; apply the sigmoid to logits first")
    background = np.prod(1 - probabilities, axis=0, keepdims=True)  # (1, T, H, W)
    return np.concatenate((background, probabilities)).argmax(axis=0).astype(np.uint8)


def _object_count(objects: int) -> None:
    if not 1 <= objects <= MAX_OBJECTS:
        raise BadInput(f"a label map takes 1 to {MAX_OBJECTS} objects; got {objects}")
