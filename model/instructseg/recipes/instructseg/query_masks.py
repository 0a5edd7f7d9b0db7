"""The decoder's queries as masks of a frame, each with the score that InstructSeg ranks them by."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F

from .mask_decoder import Prediction

_CHUNK = 8  # queries brought to the frame's size at a time
_SURE = 100.0  # a logit that leaves no doubt


@dataclasses.dataclass(frozen=True, eq=False)
class QueryMasks:
    """Some queries on one frame. logits ``(n, H, W)`` at the frame's size; class_scores, quality and their product
    scores ``(n,)`` in 0..1."""

    logits: torch.Tensor
    class_scores: torch.Tensor
    quality: torch.Tensor

    @property
    def scores(self) -> torch.Tensor:
        return self.class_scores * self.quality

    @property
    def hard(self) -> torch.Tensor:
        """``(n, H, W)`` bool."""
        return self.logits > 0

    @property
    def soft(self) -> torch.Tensor:
        """``(n, H, W)`` probabilities."""
        return self.logits.sigmoid()

    def __len__(self) -> int:
        return len(self.logits)

    def __getitem__(self, index: slice | torch.Tensor) -> QueryMasks:
        return QueryMasks(self.logits[index], self.class_scores[index], self.quality[index])


@dataclasses.dataclass(frozen=True)
class FrameShape:
    """inside: (height, width) that the image takes of Swin's square of ``square`` pixels; size: of the frame itself."""

    square: int
    inside: tuple[int, int]
    size: tuple[int, int]

    def upscale(self, masks: torch.Tensor) -> torch.Tensor:
        """Logits ``(n, h, w)`` to ``(n, H, W)``: up to the square, the padding cut off, to the frame."""
        return self.from_square(self.to_square(masks))

    def to_square(self, masks: torch.Tensor) -> torch.Tensor:
        """Logits ``(n, h, w)`` to ``(n, square, square)`` float32."""
        target = (self.square, self.square)
        return F.interpolate(masks[:, None].float(), target, mode="bilinear", align_corners=False)[:, 0]

    def from_square(self, masks: torch.Tensor) -> torch.Tensor:
        """Logits ``(n, square, square)`` to ``(n, H, W)``."""
        cut = masks[:, None, : self.inside[0], : self.inside[1]]
        return F.interpolate(cut, self.size, mode="bilinear", align_corners=False)[:, 0]


def all_queries(prediction: Prediction, shape: FrameShape, sample: int = 0) -> QueryMasks:
    """Every query of one image, in the decoder's order. Needs Q times the frame's size in memory."""
    logits = shape.upscale(prediction.masks[sample])
    return QueryMasks(logits, prediction.scores[sample, :, 0].float().sigmoid(), mask_quality(logits))


def best_queries(prediction: Prediction, shape: FrameShape, floor: float, sample: int = 0) -> QueryMasks:
    """The best query of one image, and all others that score ``floor`` or more, best first.

    The same as :func:`all_queries` sorted and cut, without bringing hopeless queries to the frame's size: no score is
    above its class score, so the search ends at the first class score that can neither win nor reach the floor. Half
    floats may have overflowed: what is no number is a score of 0 and no mask.
    """
    class_scores, order = prediction.scores[sample, :, 0].float().sigmoid().nan_to_num().sort(descending=True)
    found: list[QueryMasks] = []
    best = 0.0
    for begin in range(0, len(order), _CHUNK):
        if begin and float(class_scores[begin]) < min(best, floor):
            break
        rows = order[begin : begin + _CHUNK]
        masks = prediction.masks[sample, rows].float().nan_to_num(-_SURE, _SURE, -_SURE)
        logits = shape.upscale(masks)
        chunk = QueryMasks(logits, class_scores[begin : begin + _CHUNK], mask_quality(logits))
        best = max(best, float(chunk.scores.max()))
        found.append(chunk[chunk.scores >= min(best, floor)])
    joined = QueryMasks(*(torch.cat([getattr(c, f.name) for c in found]) for f in dataclasses.fields(QueryMasks)))
    ranked = joined[joined.scores.argsort(descending=True, stable=True)]
    return ranked[: max(1, int((ranked.scores >= floor).sum()))]


def mask_quality(logits: torch.Tensor) -> torch.Tensor:
    """``(n, H, W)`` to ``(n,)``: the mean probability of a mask's own pixels, 0 for an empty mask."""
    inside = (logits > 0).float()
    return (logits.sigmoid() * inside).sum((1, 2)) / (inside.sum((1, 2)) + 1e-6)


def distinct(masks: QueryMasks, limit: int, overlap: float) -> QueryMasks:
    """At most ``limit`` of the masks, in order, leaving out those of which more than ``overlap`` of the smaller one
    lies in a better one. Ours: the published system keeps one mask."""
    kept: list[int] = []
    hard = masks.hard
    for i in range(len(masks)):
        if len(kept) == limit:
            break
        if all(_shared(hard[i], hard[k]) <= overlap for k in kept):
            kept.append(i)
    return masks[torch.tensor(kept, dtype=torch.long, device=masks.logits.device)]


def _shared(one: torch.Tensor, other: torch.Tensor) -> float:
    smaller = min(int(one.sum()), int(other.sum()))
    return int((one & other).sum()) / smaller if smaller else 1.0
