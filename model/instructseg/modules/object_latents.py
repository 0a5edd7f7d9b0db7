"""Object latents: from the encoder's maps to at most K things, each with a soft mask, a place and an appearance.

The object-aware view of a frame (InstructSeg's Object-aware Video Perceiver, sec. 3.2, condenses frames into object
tokens with learned queries; here the tokens are found by voting, which a small model learns in minutes). A
latent is what the language model reads and what the mask head chooses from.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import nn

from .visual_encoder import VisualMaps

GEOMETRY = 6  # centre x, centre y, bottom y, width, height, sqrt(area); all relative to the image, 0..1


@dataclasses.dataclass
class ObjectLatents:
    """B frames, K slots each; ``valid`` tells which slots hold something."""

    masks: torch.Tensor  # (B, K, h/2, w/2) soft masks in 0..1, disjoint by construction
    geometry: torch.Tensor  # (B, K, GEOMETRY)
    appearance: torch.Tensor  # (B, K, A) colour, shape and size probabilities, then the appearance embedding
    score: torch.Tensor  # (B, K) probability that the peak is a thing
    valid: torch.Tensor  # (B, K) bool

    def frame(self, index: int) -> ObjectLatents:
        """The latents of one frame, batch dimension kept."""
        return ObjectLatents(*(getattr(self, f.name)[index : index + 1] for f in dataclasses.fields(self)))

    def expand(self, count: int) -> ObjectLatents:
        """The latents of a batch of one as a batch of ``count``, without copying."""
        parts = (getattr(self, f.name) for f in dataclasses.fields(self))
        return ObjectLatents(*(part.expand(count, *part.shape[1:]) for part in parts))


class ObjectFinder(nn.Module):
    """Peaks of the heat map become slots; every pixel goes to the slot its vote points at. No learned weights."""

    def __init__(
        self, slots: int, min_score: float = 0.3, min_area: float = 4.0, sigma: float = 4.0, reach: float = 16.0
    ):
        super().__init__()
        self.slots, self.min_score, self.min_area, self.sigma, self.reach = slots, min_score, min_area, sigma, reach

    def forward(self, maps: VisualMaps) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Masks ``(B, K', h/2, w/2)``, scores ``(B, K)``, valid ``(B, K)``.

        K' is K with gradients. Without, the slots that are empty in every frame of the batch are left out but for one,
        which :func:`fill_slots` repeats: they cost as much as filled ones.
        """
        feet, score = self._peaks(maps.heat)
        valid = score > self.min_score
        used = self.slots
        if not torch.is_grad_enabled():
            used = min(used, int(valid.sum(1).max()) + 1)  # peaks come in descending order: filled slots first
        filled, feet = valid[:, :used], feet[:, :used]
        votes = F.interpolate(maps.votes, scale_factor=2, mode="bilinear", align_corners=False)  # (B, 2, h/2, w/2)
        grid = pixel_grid(votes.shape[-2:], 2, votes.device)  # (2, h/2, w/2)
        pointed = (votes + grid).flatten(2)  # (B, 2, P) where each pixel believes its object to stand
        distance2 = torch.cdist(feet, pointed.transpose(1, 2)).square()  # (B, K, P)
        distance2 = distance2.masked_fill(~filled[..., None], 1e6)
        share = torch.softmax(-distance2 / (2 * self.sigma**2), dim=1) * torch.sigmoid(
            (self.reach - distance2.sqrt()) / 2
        )
        masks = share * torch.sigmoid(maps.objectness).flatten(1)[:, None]
        filled = filled & (masks.sum(-1) > self.min_area)
        masks = masks * filled[..., None]
        empty = filled.new_zeros(len(filled), self.slots - used)
        return masks.unflatten(-1, votes.shape[-2:]), score, torch.cat([filled, empty], 1)

    def _peaks(self, heat: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Feet ``(B, K, 2)`` as (x, y) in input pixels and their scores ``(B, K)``."""
        heat = torch.sigmoid(heat)
        peaks = heat * (heat == F.max_pool2d(heat[:, None], 3, 1, 1)[:, 0])
        score, index = peaks.flatten(1).topk(self.slots, dim=1)
        width = heat.shape[-1]
        feet = torch.stack([index % width, index // width], -1).to(heat.dtype) * 4 + 2
        return feet, score


def fill_slots(values: torch.Tensor, slots: int) -> torch.Tensor:
    """``(B, K', …)`` to ``(B, slots, …)``: the last slot, an empty one wherever K' is less than slots, repeated."""
    missing = slots - values.shape[1]
    return torch.cat([values, values[:, -1:].expand(-1, missing, *values.shape[2:])], 1) if missing else values


def pixel_grid(size: tuple[int, int] | torch.Size, stride: int, device: torch.device) -> torch.Tensor:
    """(2, h, w) positions (x, y) of the cells' centres, in input pixels."""
    y, x = torch.meshgrid(torch.arange(size[0], device=device), torch.arange(size[1], device=device), indexing="ij")
    return torch.stack([x, y]).float() * stride + stride / 2


def pool(features: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Mean of ``(B, C, h', w')`` features over each of ``(B, K, h, w)`` masks: ``(B, K, C)``."""
    if features.shape[-2:] != masks.shape[-2:]:
        masks = F.adaptive_avg_pool2d(masks, features.shape[-2:])
    weights = masks.flatten(2)  # (B, K, P)
    weights = weights / weights.sum(-1, keepdim=True).clamp(min=1e-3)
    return weights @ features.flatten(2).transpose(1, 2).to(weights.dtype)


def geometry(masks: torch.Tensor) -> torch.Tensor:
    """``(B, K, h, w)`` soft masks to ``(B, K, GEOMETRY)``; extents are those of the mask's part above one half."""
    height, width = masks.shape[-2:]
    total = masks.sum((-1, -2)).clamp(min=1e-3)
    xs = (torch.arange(width, device=masks.device) + 0.5) / width
    ys = (torch.arange(height, device=masks.device) + 0.5) / height
    cx, cy = (masks.sum(-2) * xs).sum(-1) / total, (masks.sum(-1) * ys).sum(-1) / total
    columns, rows = (masks > 0.5).any(-2), (masks > 0.5).any(-1)  # (B, K, w), (B, K, h)
    right, left = (columns * xs).amax(-1), 1 - (columns * (1 - xs)).amax(-1)
    bottom, top = (rows * ys).amax(-1), 1 - (rows * (1 - ys)).amax(-1)
    empty = ~columns.any(-1)
    bottom = torch.where(empty, cy, bottom)
    w, h = (right - left).clamp(min=0), (bottom - top).clamp(min=0)
    return torch.stack([cx, cy, bottom, w, h, (total / (height * width)).sqrt()], -1)


class AppearanceHead(nn.Module):
    """What a latent looks like: named attributes and an embedding that tells it from its neighbours.

    Colour is read from the first stage and the raw pixels only: a deeper path learns "bottles are never red" from
    the training compositions and then misnames held-out ones.
    """

    def __init__(self, fine: int, shape: int, context: int, colors: int, shapes: int, sizes: int, embedding: int):
        super().__init__()
        self.colors, self.shapes, self.sizes = colors, shapes, sizes
        self.color = nn.Sequential(nn.Linear(fine + 6, 64), nn.ReLU(), nn.Linear(64, colors))
        hidden = 96
        self.form = nn.Sequential(
            nn.Linear(shape + context + GEOMETRY, hidden), nn.ReLU(), nn.Linear(hidden, shapes + sizes)
        )
        self.embedding = nn.Sequential(nn.Linear(fine + 6 + shape, hidden), nn.ReLU(), nn.Linear(hidden, embedding))

    @property
    def width(self) -> int:
        return self.colors + self.shapes + self.sizes + self.embedding[-1].out_features

    def logits(self, images: torch.Tensor, maps: VisualMaps, masks: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Colour, shape and size logits and the unit-length embedding, each ``(B, K, ·)``; masks at half resolution."""
        half = F.avg_pool2d(images, 2)
        mean = pool(half, masks)
        spread = (pool(half.square(), masks) - mean.square()).clamp(min=0).add(1e-6).sqrt()
        fine = torch.cat([pool(F.relu(maps.fine), masks), mean * 4 - 2, spread * 4], -1)
        shape = pool(maps.shape, masks)
        color = self.color(fine)
        form = self.form(torch.cat([shape, pool(maps.context, masks), geometry(masks)], -1))
        embedding = F.normalize(self.embedding(torch.cat([fine, shape], -1)), dim=-1)
        return color, form[..., : self.shapes], form[..., self.shapes :], embedding

    def forward(self, images: torch.Tensor, maps: VisualMaps, masks: torch.Tensor) -> torch.Tensor:
        """``(B, K, width)`` appearance codes."""
        color, shape, size, embedding = self.logits(images, maps, masks)
        return torch.cat([color.softmax(-1), shape.softmax(-1), size.softmax(-1), embedding], -1)
