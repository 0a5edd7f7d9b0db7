"""What a recipe hands back is checked before anything is believed: a wrong mask must become an ERROR, never a mask."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..core import EncodedFrame, Frame, Grounding, Instruction, InstructSegError, Target, TargetMask


class SegmenterFault(InstructSegError):
    """A recipe broke the Segmenter interface; the message says which step, what was expected and what came."""


def checked_encodings(encoded: Sequence[EncodedFrame], frames: Sequence[Frame]) -> Sequence[EncodedFrame]:
    """One encoding for each frame, in order, or SegmenterFault."""
    if len(encoded) != len(frames) or not all(isinstance(item, EncodedFrame) for item in encoded):
        kinds = ", ".join(sorted({type(item).__name__ for item in encoded})) or "nothing"
        raise SegmenterFault(
            f"encode of {len(frames)} frame(s) must give as many EncodedFrame; got {len(encoded)}: {kinds}"
        )
    if any(item.frame is not frame for item, frame in zip(encoded, frames, strict=True)):
        raise SegmenterFault("encode must keep the frames it was given, in order; got other ones")
    return encoded


def checked_count(groundings: Sequence[Grounding], instructions: Sequence[Instruction]) -> Sequence[Grounding]:
    """As many answers as questions, or SegmenterFault."""
    if len(groundings) != len(instructions):
        raise SegmenterFault(
            f"ground of {len(instructions)} instruction(s) must give as many Grounding; got {len(groundings)}"
        )
    return groundings


def checked_grounding(groundings: Sequence[Grounding], instruction: Instruction) -> Grounding:
    """The one grounding of ``instruction``, or SegmenterFault."""
    if len(groundings) != 1 or not isinstance(groundings[0], Grounding):
        raise SegmenterFault(f"ground of one instruction must give one Grounding; got {len(groundings)} items")
    grounding = groundings[0]
    if grounding.instruction_id != instruction.id:
        raise SegmenterFault(f"ground was asked about {instruction.id!r}; it answered {grounding.instruction_id!r}")
    for slot, target in enumerate(grounding.targets):
        if not isinstance(target, Target):
            raise SegmenterFault(f"target {slot} of a grounding must be a Target; got {type(target).__name__}")
        _check_unit(f"rejection_score of target {slot}", target.rejection_score)
        _check_unit(f"score of target {slot}", target.score)
    return grounding


def checked_frames(joined: Sequence[Sequence[TargetMask]], frames: int) -> Sequence[Sequence[TargetMask]]:
    """Masks for as many frames as were asked about, or SegmenterFault."""
    if len(joined) != frames:
        raise SegmenterFault(f"segment_together of {frames} frames must give as many lists of masks; got {len(joined)}")
    return joined


def checked_masks(masks: Sequence[TargetMask], tokens: Sequence[Any], frame: Frame) -> Sequence[TargetMask]:
    """One good mask for each token, at the frame's size, or SegmenterFault."""
    if len(masks) != len(tokens):
        raise SegmenterFault(f"segment of {len(tokens)} tokens must give as many masks; got {len(masks)}")
    for slot, mask in enumerate(masks):
        _check_image(f"mask {slot}", mask.mask, np.bool_, frame.size)
        if mask.confidence is not None:
            _check_image(f"confidence {slot}", mask.confidence, np.uint8, frame.size)
        _check_unit(f"score of mask {slot}", mask.score)
    return masks


def checked_likeness(told: Mapping[tuple[int, int], float]) -> Mapping[tuple[int, int], float]:
    """Numbers in 0..1, or SegmenterFault."""
    for (place, slot), value in told.items():
        _check_unit(f"likeness of answer {place} and target {slot}", value)
    return told


def _check_image(name: str, image: Any, dtype: type, size: tuple[int, int]) -> None:
    got = (getattr(image, "dtype", None), getattr(image, "shape", None))
    if got != (dtype, size):
        raise SegmenterFault(f"{name} must be {np.dtype(dtype).name} of shape {size}; got {got[0]} {got[1]}")


def _check_unit(name: str, value: float) -> None:
    if not (math.isfinite(value) and 0.0 <= value <= 1.0):
        raise SegmenterFault(f"{name} must be a number in 0..1; got {value}")
