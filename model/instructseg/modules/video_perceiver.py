"""Object-aware video perceiver: the past of each object, condensed into a code on its latent in the key frame.

After InstructSeg's Object-aware Video Perceiver (sec. 3.2), which condenses reference frames into object tokens:
here each latent of the key frame finds itself in every earlier frame of the clip (or nowhere), and what it finds
says how it moved. The same association tells, on later frames, which latent is the one that was meant: it is the
identity part of a target token.
"""

from __future__ import annotations

import torch
from torch import nn

from .object_latents import GEOMETRY, ObjectLatents

_LINK = 8  # features of a pair
WAY = GEOMETRY + 1  # last columns of a motion code: how far the thing came since the oldest frame, and was it found
MOTION_CODE = 32 + WAY


class Association(nn.Module):
    """Soft assignment of latents in one frame to latents in another, with "nowhere" as an answer."""

    def __init__(self, embedding: int, attributes: int, hidden: int = 32):
        super().__init__()
        self.embedding, self.attributes = embedding, attributes
        self.link = nn.Sequential(nn.Linear(_LINK, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.nowhere = nn.Parameter(torch.zeros(1))

    def logits(
        self, appearance: torch.Tensor, place: torch.Tensor, other: ObjectLatents, seconds: torch.Tensor
    ) -> torch.Tensor:
        """``(B, M, A)``, ``(B, M, GEOMETRY)`` against K latents, ``(B,)`` seconds apart: ``(B, M, K + 1)``, last =
        nowhere."""
        a, b = appearance[:, :, None], other.appearance[:, None]  # (B, M, 1, A), (B, 1, K, A)
        alike = (a[..., -self.embedding :] * b[..., -self.embedding :]).sum(-1)
        same = (a[..., : self.attributes] * b[..., : self.attributes]).sum(-1)
        d = other.geometry[:, None] - place[:, :, None]  # (B, M, K, GEOMETRY)
        distance = d[..., :2].square().sum(-1).add(1e-6).sqrt()
        size, other_size = place[:, :, None, 5].clamp(min=0) + 0.02, other.geometry[:, None, :, 5].clamp(min=0) + 0.02
        growth = (other_size / size).log().abs()  # (B, M, K)
        dt = seconds.abs().clamp(max=3.0)[:, None, None].expand_as(distance)
        pair = torch.stack(
            [
                alike,
                same,
                distance * 4,
                distance / (0.05 + 0.3 * dt),
                (distance * 4).square(),
                growth,
                dt,
                alike * same,
            ],
            -1,
        )  # (B, M, K, _LINK)
        link = self.link(pair)[..., 0].masked_fill(~other.valid[:, None], -1e4)
        return torch.cat([link, self.nowhere.expand(*link.shape[:2], 1)], -1)


class VideoPerceiver(nn.Module):
    """Motion codes ``(B, K, MOTION_CODE)`` of the key frame's latents from the S - 1 earlier frames of the clip.

    The last columns are measured, not learned: the key frame's geometry minus that in the oldest frame (as the picture
    shows it, with the camera's motion), and 0..1 whether the thing was found there.
    """

    def __init__(self, embedding: int, attributes: int, motions: int = 5):
        super().__init__()
        self.association = Association(embedding, attributes)
        self.path = nn.Sequential(nn.Linear(9, 48), nn.ReLU(), nn.Linear(48, 48))
        self.code = nn.Sequential(nn.ReLU(), nn.Linear(48, MOTION_CODE - WAY))
        self.motion = nn.Linear(MOTION_CODE, motions)  # auxiliary: what the object is doing

    def forward(self, key: ObjectLatents, past: list[ObjectLatents], seconds: torch.Tensor) -> torch.Tensor:
        """``seconds`` ``(B, S - 1)``: how long before the key frame each past frame was taken, the oldest first; no
        past gives zero paths."""
        b, k = key.valid.shape
        total = key.geometry.new_zeros(b, k, self.path[-1].out_features)
        way = key.geometry.new_zeros(b, k, WAY)
        for s, frame in enumerate(past):
            share = self.association.logits(key.appearance, key.geometry, frame, seconds[:, s]).softmax(-1)
            found = share[..., :-1].sum(-1, keepdim=True)  # (B, K, 1)
            then = (share[..., :-1] @ frame.geometry) / found.clamp(min=1e-3)  # (B, K, GEOMETRY)
            step = (key.geometry - then) * found
            moved = step[..., [0, 1, 5]]  # x, y, size
            seen = found[..., 0] * key.valid
            common = _weighted_median(moved[..., :2], seen)  # what everything shares is the camera's motion
            own = moved[..., :2] - common[:, None]
            speed = seconds[:, s].clamp(min=0.05)[:, None, None]
            features = torch.cat(
                [moved * 10, own * 10, own / speed * 5, found, speed.expand_as(found)], -1
            )  # (B, K, 9)
            total = total + self.path(features) * (found > 0.05)
            if s == 0:
                way = torch.cat([step, found], -1)
        return torch.cat([self.code(total / max(len(past), 1)), way], -1) * key.valid[..., None]


def _weighted_median(values: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """``(B, K, 2)`` and which count ``(B, K)``: the median over those, ``(B, 2)``; zero where none counts."""
    counted = seen > 0.5
    filled = torch.where(counted[..., None], values, torch.nan)
    return torch.nan_to_num(filled.nanmedian(1).values)
