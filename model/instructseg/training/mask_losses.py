"""Losses of VideoLISA, GSVA and VISA: next-token cross-entropy, mask BCE and Dice (LISA, arXiv 2308.00692, eq. 4-5).

Mask losses are taken on the logits at the images' own size, in float32. The systems weigh them
1.0 cross-entropy + 2.0 BCE + 0.5 Dice.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from ..core import BadInput

IGNORED_LABEL = -100  # a position without supervision
DICE_SCALE = 1000.0  # keeps sums over an image's pixels small; changes the result by way of DICE_EPSILON only
DICE_EPSILON = 1e-6
COUNT_EPSILON = 1e-8


def sigmoid_ce_loss(logits: torch.Tensor, targets: torch.Tensor, num_masks: float) -> torch.Tensor:
    """Binary cross-entropy: mean over each mask's pixels, summed over masks, divided by ``num_masks`` + 1e-8.

    logits: (n, H, W). targets: (n, H, W) of 0 and 1, any real type. Without masks the result is 0, with a gradient of
    0. num_masks: the number of masks in the whole batch, which may be more than n.
    """
    logits, targets = _pair(logits, targets)
    per_pixel = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")  # (n, P)
    return per_pixel.mean(1).sum() / _divisor(num_masks, logits)


def dice_loss(logits: torch.Tensor, targets: torch.Tensor, num_masks: float) -> torch.Tensor:
    """Dice loss of each mask, summed over masks, divided by ``num_masks`` + 1e-8; arguments as in the one above."""
    logits, targets = _pair(logits, targets)
    probabilities = logits.sigmoid()  # (n, P)
    shared = 2 * (probabilities / DICE_SCALE * targets).sum(-1)  # (n,)
    total = (probabilities / DICE_SCALE).sum(-1) + (targets / DICE_SCALE).sum(-1)
    loss = 1 - (shared + DICE_EPSILON) / (total + DICE_EPSILON)
    return loss.sum() / _divisor(num_masks, logits)


def batch_mask_losses(
    logits: Sequence[torch.Tensor], targets: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Unweighted BCE and Dice of a batch whose images differ in size: (n_b, H_b, W_b) each; means over all masks.

    A target the model refused takes part as logits of 0 with an empty target (GSVA): it adds a constant and so
    weakens the others.
    """
    if len(logits) != len(targets) or not logits:
        raise BadInput(
            f"a batch needs as many predictions as targets, at least one; got {len(logits)} and {len(targets)}"
        )
    masks = sum(len(t) for t in targets)
    bce = [sigmoid_ce_loss(p, t, masks) for p, t in zip(logits, targets, strict=True)]
    dice = [dice_loss(p, t, masks) for p, t in zip(logits, targets, strict=True)]
    return torch.stack(bce).sum(), torch.stack(dice).sum()


def text_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the next token: one mean over all supervised positions of the batch.

    logits: (N, L, V). labels: (N, L) int64 of the same positions, visual ones and padding -100; the state at t
    predicts the label at t + 1, so the first label has no part.
    """
    if logits.ndim != 3 or labels.shape != logits.shape[:2]:
        raise BadInput(
            f"logits must be (N, L, V) and labels (N, L); got {tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    if labels.dtype != torch.int64:
        raise BadInput(f"labels must be int64 token ids; got {labels.dtype}")
    following = labels[:, 1:].reshape(-1)  # (N (L - 1),)
    if not (following != IGNORED_LABEL).any():
        raise BadInput(f"labels supervise no position (all after the first are {IGNORED_LABEL}): no text loss")
    predicted = logits[:, :-1].reshape(-1, logits.shape[-1])  # (N (L - 1), V)
    return F.cross_entropy(_at_least_float(predicted), following, ignore_index=IGNORED_LABEL)


def _pair(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both as (n, P) in at least float32."""
    pixels = logits[0].numel() if logits.ndim == 3 and len(logits) else 1
    if logits.ndim != 3 or logits.shape != targets.shape or not pixels:
        raise BadInput(
            "mask logits and targets must both be (masks, height, width) with at least one pixel; "
            f"got {tuple(logits.shape)} and {tuple(targets.shape)}"
        )
    if not logits.is_floating_point():
        raise BadInput(f"mask logits must be floating point; got {logits.dtype}")
    logits = _at_least_float(logits)
    return logits.flatten(1), targets.to(logits.dtype).flatten(1)


def _at_least_float(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _divisor(num_masks: float, logits: torch.Tensor) -> float:
    if num_masks < len(logits):
        raise BadInput(f"num_masks must count all masks of the batch, here at least {len(logits)}; got {num_masks}")
    return num_masks + COUNT_EPSILON
