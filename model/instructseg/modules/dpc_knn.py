"""Merging visual tokens by density-peak clustering on nearest neighbours (DPC-KNN): no weights, no learning.

A frame's patch tokens are grouped around density peaks and each group is averaged. Chat-UniVi (arXiv 2311.08046,
sec. 3.2) does this several times over, and VISA (arXiv 2407.11325) feeds all levels together to its language model.
All frames of a batch are independent of one another: a batch gives what its frames give one by one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import nn

from ..core import BadInput

NOISE_SCALE = 1e-6  # published: large enough to break ties between equal densities, too small to do anything else


def cluster_dpc_knn(
    tokens: torch.Tensor, count: int, neighbours: int, noise: torch.Tensor | None = None
) -> torch.Tensor:
    """The cluster of each token, ``(B, N)`` int64 in ``0..count-1``, clusters ordered by descending peak score.

    tokens: ``(B, N, C)``; computed in float32 whatever their type, as published. neighbours: how many nearest tokens
    (the token itself is one of them) make up its density; replaced by a small number where it exceeds ``count``.
    noise: ``(B, N)`` in [0, 1), the published tie-breaker; None means none, so that equal frames merge equally.
    """
    batch, length, width = tokens.shape
    if not 1 <= count <= length:
        raise BadInput(f"DPC-KNN cannot form {count} clusters of {length} tokens; the count must be in 1..{length}")
    if neighbours > count:
        neighbours = min(3, max(count // 2, 1))
    points = tokens.float()
    distance = torch.cdist(points, points) / math.sqrt(width)  # (B, N, N)

    nearest = distance.topk(min(neighbours, length), dim=-1, largest=False).values  # (B, N, k)
    density = (-nearest.square().mean(dim=-1)).exp()  # (B, N)
    if noise is not None:
        density = density + noise.to(density) * NOISE_SCALE

    # How far it is to the nearest denser token; the densest of all gets the largest distance of its frame.
    denser = density[:, None, :] > density[:, :, None]  # (B, N, N): column j is denser than row i
    furthest = distance.flatten(1).max(dim=-1).values[:, None, None]  # (B, 1, 1)
    separation = torch.where(denser, distance, furthest).min(dim=-1).values  # (B, N)

    centres = (separation * density).topk(count, dim=-1).indices  # (B, count), best first
    to_centres = distance.gather(1, centres[:, :, None].expand(-1, -1, length))  # (B, count, N)
    index = to_centres.argmin(dim=1)  # (B, N)
    own = torch.arange(count, device=tokens.device).expand(batch, -1)
    return index.scatter(1, centres, own)  # a centre belongs to itself, also among identical tokens


def merge_clusters(tokens: torch.Tensor, index: torch.Tensor, count: int) -> torch.Tensor:
    """The mean of each cluster, ``(B, count, C)`` in the tokens' own type.

    tokens: ``(B, N, C)``, index: ``(B, N)`` from :func:`cluster_dpc_knn`. Every token weighs the same, also one that is
    itself a mean. Weights are formed and sums taken in the tokens' type, which is what makes bfloat16 results equal
    the published ones bit for bit on the CPU; float32 sums or a division at the end would not. (A GPU adds in no fixed
    order, so there the last bit may vary.)
    """
    batch, length, width = tokens.shape
    row = index + count * torch.arange(batch, device=index.device)[:, None]  # (B, N) into all clusters of the batch
    row = row.reshape(-1)  # (B * N,)
    flat = tokens.reshape(-1, width)  # (B * N, C)
    size = flat.new_zeros(batch * count, 1)
    size = size.index_add(0, row, flat.new_ones(batch * length, 1)) + 1e-6  # (B * count, 1)
    weight = 1 / size[row]  # (B * N, 1)
    merged = flat.new_zeros(batch * count, width).index_add(0, row, flat * weight)
    return merged.reshape(batch, count, width)


@dataclasses.dataclass(frozen=True)
class MergeLevel:
    """One merging: ``rate`` above 1 is the number of clusters, up to 1 the share of the tokens that is kept."""

    rate: float
    neighbours: int

    def count(self, length: int) -> int:
        """Clusters made of ``length`` tokens."""
        return int(self.rate) if self.rate > 1 else max(1, math.ceil(length * self.rate))


class TokenMerging(nn.Module):
    """Levels of merging, each on the result of the one before; the results of all levels one after the other.

    Has no parameters and no buffers, hence no keys in a checkpoint.
    """

    def __init__(self, levels: Sequence[MergeLevel]) -> None:
        super().__init__()
        if not levels:
            raise BadInput("TokenMerging needs at least one level; got none")
        self.levels = tuple(levels)

    def lengths(self, tokens: int) -> tuple[int, ...]:
        """How many tokens each level leaves of ``tokens``. Raises BadInput where a level asks for more than it gets."""
        counts = []
        for level in self.levels:
            if level.count(tokens) > tokens:
                raise BadInput(f"merging asks for {level.count(tokens)} clusters of {tokens} tokens")
            tokens = level.count(tokens)
            counts.append(tokens)
        return tuple(counts)

    def draw_noise(self, tokens: int, generator: torch.Generator) -> list[torch.Tensor]:
        """Noise of one frame, level by level ``(1, N)`` uniform in [0, 1), in the order in which the levels use it."""
        lengths = (tokens, *self.lengths(tokens)[:-1])
        return [torch.rand(1, n, generator=generator, device=generator.device) for n in lengths]

    def clusters(self, tokens: torch.Tensor, noise: Sequence[torch.Tensor | None] | None = None) -> list[torch.Tensor]:
        """The cluster of each input token of each level: a ``(B, N_level)`` int64 tensor a level."""
        return [index for index, _ in self._levels(tokens, noise)]

    def forward(self, tokens: torch.Tensor, noise: Sequence[torch.Tensor | None] | None = None) -> torch.Tensor:
        """``(B, N, C)`` -> ``(B, sum of the levels' counts, C)``. noise: a ``(B, N_level)`` tensor a level, or None."""
        return torch.cat([merged for _, merged in self._levels(tokens, noise)], dim=1)

    def _levels(
        self, tokens: torch.Tensor, noise: Sequence[torch.Tensor | None] | None
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        noise = noise or [None] * len(self.levels)
        results = []
        with torch.autocast(tokens.device.type, enabled=False):  # each step in the type that its function names
            for level, jitter in zip(self.levels, noise, strict=True):
                count = level.count(tokens.shape[1])
                index = cluster_dpc_knn(tokens, count, level.neighbours, jitter)
                tokens = merge_clusters(tokens, index, count)
                results.append((index, tokens))
        return results
