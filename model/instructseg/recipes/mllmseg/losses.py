"""MLLMSeg's training losses, as published, with the quirks that its models were trained under.

The focal loss applies a cross-entropy for logits to probabilities, while its modulating factor takes the probability
itself; rejected targets have no mask and count as empty maps, which only enlarges the divisor; padding is supervised.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch.nn import functional

from ...core import BadInput
from ...training.mask_losses import text_loss

FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0
DICE_SMOOTH = 1.0
IOU_EPSILON = 1e-6


@dataclasses.dataclass(frozen=True, eq=False)
class Losses:
    """text: next-token cross-entropy. focal, dice: per target of the batch. iou: mean soft IoU, no gradient's role."""

    text: torch.Tensor
    focal: torch.Tensor
    dice: torch.Tensor
    iou: torch.Tensor

    @property
    def mask(self) -> torch.Tensor:
        return self.focal + self.dice

    @property
    def total(self) -> torch.Tensor:
        """What training minimises; all weights are 1."""
        return self.text + self.mask


def losses(
    logits: torch.Tensor,
    labels: torch.Tensor,
    probabilities: Sequence[torch.Tensor],
    present: Sequence[torch.Tensor],
    truths: Sequence[torch.Tensor],
) -> Losses:
    """logits ``(B, N, V)``, labels ``(B, N)``. Per image: probabilities ``(s, S, S)`` of its ``[SEG]`` slots, present
    ``(n,)`` bool saying which of its slots those are, truths ``(n, H, W)`` of 0 and 1 at the image's own size."""
    resized = [at_size(p, there, t) for p, there, t in zip(probabilities, present, truths, strict=True)]
    count = sum(len(truth) for truth in truths)
    if count == 0:
        raise BadInput("a batch without a target has no mask loss; every conversation names at least one")
    pairs = list(zip(resized, truths, strict=True))
    return Losses(
        text_loss(logits, labels),
        sum(focal_loss(p, t) for p, t in pairs) / count,
        sum(dice_loss(p, t) for p, t in pairs) / count,
        sum(soft_iou(p, t).sum() for p, t in pairs) / count,
    )


def at_size(probabilities: torch.Tensor, present: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """``(s, S, S)`` to ``(n, H, W)``: enlarged to the truth's size, with empty maps for rejected slots."""
    if int(present.sum()) != len(probabilities) or len(present) != len(truth):
        raise BadInput(
            f"{len(present)} slots with {int(present.sum())} present need as many truths and masks; got {len(truth)} "
            f"and {len(probabilities)}"
        )
    maps = probabilities.new_zeros(len(truth), *truth.shape[1:])
    if len(probabilities):
        maps[present] = functional.interpolate(
            probabilities[None], truth.shape[1:], mode="bilinear", align_corners=False
        )[0]
    return maps


def focal_loss(probabilities: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """``(n, H, W)`` each: mean over pixels, summed over masks."""
    p, t = probabilities.float(), truth.float()
    entropy = functional.binary_cross_entropy_with_logits(p, t, reduction="none")
    hit = p * t + (1 - p) * (1 - t)
    weight = FOCAL_ALPHA * t + (1 - FOCAL_ALPHA) * (1 - t)
    return (weight * (1 - hit) ** FOCAL_GAMMA * entropy).flatten(1).mean(1).sum()


def dice_loss(probabilities: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """``(n, H, W)`` each: one minus Dice over a mask's pixels, summed over masks."""
    p, t = probabilities.float().flatten(1), truth.float().flatten(1)
    shared = 2 * (p * t).sum(1) + DICE_SMOOTH
    return (1 - shared / (p.sum(1) + t.sum(1) + DICE_SMOOTH)).sum()


def soft_iou(probabilities: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """``(n,)``: intersection over union of probabilities; 1 where both are empty."""
    p, t = probabilities.float().flatten(1), truth.float().flatten(1)
    shared = (p * t).sum(1)
    return (shared + IOU_EPSILON) / (p.sum(1) + t.sum(1) - shared + IOU_EPSILON)
