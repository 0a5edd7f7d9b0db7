"""InstructSeg's training losses: queries matched to targets on sampled points, for every head of the mask decoder.

After Mask2Former (arXiv 2112.01527, sec. 3.3), with a score instead of classes. Points are uniform random; their source
can be given, so that a run can be repeated.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment

from .mask_decoder import Prediction

Draw = Callable[[tuple[int, ...]], torch.Tensor]
Match = tuple[torch.Tensor, torch.Tensor]  # query indices, target indices


@dataclasses.dataclass(frozen=True)
class CriterionSettings:
    """Published values. points: sampled on each mask; oversample: candidates per point; importance: share of points
    taken where the prediction is least certain."""

    points: int = 12544
    oversample: float = 3.0
    importance: float = 0.75
    score_weight: float = 2.0
    mask_weight: float = 5.0
    dice_weight: float = 5.0


@dataclasses.dataclass(frozen=True, eq=False)
class HeadLosses:
    """Unweighted losses of one head, and which query was matched to which target, per image."""

    score: torch.Tensor
    mask: torch.Tensor
    dice: torch.Tensor
    matches: list[Match]


@dataclasses.dataclass(frozen=True, eq=False)
class CriterionLosses:
    """heads: as the decoder gives its predictions, the last one being the result. Weighted sums over all heads."""

    heads: list[HeadLosses]
    score: torch.Tensor
    mask: torch.Tensor
    dice: torch.Tensor

    @property
    def total(self) -> torch.Tensor:
        """To which next-token cross-entropy is added for reasoning on images and for conversation only."""
        return self.score + self.mask + self.dice


def criterion(
    predictions: Sequence[Prediction],
    targets: Sequence[torch.Tensor],
    settings: CriterionSettings | None = None,
    draw: Draw | None = None,
) -> CriterionLosses:
    """predictions: of all heads, B images; targets: per image ``(G, S, S)`` masks of 0 and 1, padded like the image.

    draw: gives uniform numbers in 0..1 of a shape; ``torch.rand`` by default. It is asked for the last head first, then
    for the others in order: per image the matcher's points, then candidates, then the random rest.
    """
    settings = settings or CriterionSettings()
    device = predictions[0].masks.device
    draw = draw or (lambda shape: torch.rand(shape, device=device))
    last, *others = [predictions[-1], *predictions[:-1]]
    # The matcher's sums over thousands of points are products of matrices, which autocast would make in bfloat16.
    with torch.autocast(device.type, enabled=False):
        result = head_losses(last, targets, settings, draw)
        heads = [*(head_losses(p, targets, settings, draw) for p in others), result]
    return CriterionLosses(
        heads,
        settings.score_weight * torch.stack([h.score for h in heads]).sum(),
        settings.mask_weight * torch.stack([h.mask for h in heads]).sum(),
        settings.dice_weight * torch.stack([h.dice for h in heads]).sum(),
    )


def head_losses(
    prediction: Prediction, targets: Sequence[torch.Tensor], settings: CriterionSettings, draw: Draw
) -> HeadLosses:
    """One head: match, then score, mask and Dice losses."""
    masks, scores = prediction.masks.float(), prediction.scores[..., 0].float()  # (B, Q, h, w), (B, Q)
    targets = [t.to(masks) for t in targets]
    matches = [match(masks[b], target, draw((1, settings.points, 2)), settings) for b, target in enumerate(targets)]
    count = mask_count(targets)
    wanted = torch.zeros_like(scores)
    for b, (queries, _) in enumerate(matches):
        wanted[b, queries] = 1.0
    weight = scores.new_tensor((scores.numel() - count) / count)
    score = F.binary_cross_entropy_with_logits(scores, wanted, pos_weight=weight)
    chosen = torch.cat([masks[b, queries] for b, (queries, _) in enumerate(matches)])  # (n, h, w)
    truth = torch.cat([targets[b][indices] for b, (_, indices) in enumerate(matches)])  # (n, S, S)
    with torch.no_grad():
        places = choose_points(chosen, settings, draw)  # (n, P, 2)
        labels = sample_points(truth, places)
    logits = sample_points(chosen, places)  # (n, P)
    bce = F.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(1).sum() / count
    probabilities = logits.sigmoid()
    overlap = 2 * (probabilities * labels).sum(1)
    dice = (1 - (overlap + 1) / (probabilities.sum(1) + labels.sum(1) + 1)).sum() / count
    return HeadLosses(score, bce, dice, matches)


@torch.no_grad()
def match(masks: torch.Tensor, targets: torch.Tensor, places: torch.Tensor, settings: CriterionSettings) -> Match:
    """Queries for targets by their masks alone: ``(Q, h, w)`` logits, ``(G, S, S)``, points ``(1, P, 2)``."""
    logits = sample_points(masks, places.expand(len(masks), -1, -1))  # (Q, P)
    labels = sample_points(targets, places.expand(len(targets), -1, -1))  # (G, P)
    bce = (F.softplus(-logits) @ labels.T + F.softplus(logits) @ (1 - labels).T) / logits.shape[1]  # (Q, G)
    probabilities = logits.sigmoid()
    total = probabilities.sum(1)[:, None] + labels.sum(1)[None]
    dice = 1 - (2 * probabilities @ labels.T + 1) / (total + 1)
    cost = settings.mask_weight * bce + settings.dice_weight * dice
    queries, found = linear_sum_assignment(cost.cpu().double().numpy())
    device = masks.device
    return _indices(queries, device), _indices(found, device)


def choose_points(masks: torch.Tensor, settings: CriterionSettings, draw: Draw) -> torch.Tensor:
    """``(n, h, w)`` logits to ``(n, P, 2)`` places: the least certain of many candidates, and some at random."""
    n, points = len(masks), settings.points
    candidates = draw((n, int(points * settings.oversample), 2))
    uncertain = int(settings.importance * points)
    doubt = -sample_points(masks, candidates).abs()  # (n, 3 P)
    chosen = doubt.topk(uncertain, dim=1).indices[..., None].expand(-1, -1, 2)
    return torch.cat([candidates.gather(1, chosen), draw((n, points - uncertain, 2))], 1)


def sample_points(maps: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """``(n, h, w)`` at ``(n, P, 2)`` places, x and y in 0..1 of the map: ``(n, P)``, bilinear, 0 outside."""
    grid = 2 * places[:, :, None].to(maps) - 1  # (n, P, 1, 2)
    return F.grid_sample(maps[:, None], grid, mode="bilinear", align_corners=False)[:, 0, :, 0]


def mask_count(targets: Sequence[torch.Tensor]) -> float:
    """Targets of the batch, averaged over the processes of a distributed run; at least 1."""
    count = torch.tensor(float(sum(len(t) for t in targets)), device=targets[0].device)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(count)
        count = count / torch.distributed.get_world_size()
    return max(1.0, float(count))


def _indices(values: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.int64)).to(device)
