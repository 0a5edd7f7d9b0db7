"""Merging of visual tokens: against loops that follow the definition, and what must hold for any input."""

from __future__ import annotations

import math

import pytest
import torch

from instructseg.core import BadInput
from instructseg.modules.dpc_knn import MergeLevel, TokenMerging, cluster_dpc_knn, merge_clusters

LEVELS = (MergeLevel(8, 5), MergeLevel(4, 3), MergeLevel(2, 3))


def tokens(batch: int, length: int, width: int = 12, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, length, width, generator=torch.Generator().manual_seed(seed))


def by_definition(points: torch.Tensor, count: int, neighbours: int) -> list[int]:
    """One frame's clusters, token by token in Python numbers. (Two neighbours would leave mutual pairs tied.)"""
    length, width = points.shape
    rows = points.double().tolist()
    distance = [[math.dist(a, b) / math.sqrt(width) for b in rows] for a in rows]
    density = [math.exp(-sum(d * d for d in sorted(row)[:neighbours]) / neighbours) for row in distance]
    furthest = max(map(max, distance))
    separation = [
        min((distance[i][j] for j in range(length) if density[j] > density[i]), default=furthest) for i in range(length)
    ]
    order = sorted(range(length), key=lambda i: -separation[i] * density[i])
    centres = order[:count]
    nearest = [min(range(count), key=lambda c: distance[i][centres[c]]) for i in range(length)]
    for cluster, centre in enumerate(centres):
        nearest[centre] = cluster
    return nearest


@pytest.mark.parametrize("length, count, neighbours", [(40, 9, 5), (17, 4, 3), (7, 7, 3), (5, 1, 1)])
def test_clusters_follow_the_definition(length: int, count: int, neighbours: int):
    points = tokens(3, length, seed=length)
    found = cluster_dpc_knn(points, count, neighbours)
    assert found.tolist() == [by_definition(p, count, neighbours) for p in points]


def test_more_neighbours_than_clusters_fall_back_to_a_few():
    points = tokens(1, 30)
    assert torch.equal(cluster_dpc_knn(points, 4, 9), cluster_dpc_knn(points, 4, 2))
    assert cluster_dpc_knn(points, 12, 20).tolist() == [by_definition(points[0], 12, 3)]
    assert cluster_dpc_knn(points, 1, 5).tolist() == [by_definition(points[0], 1, 1)]


def test_a_batch_gives_what_its_frames_give():
    frames = tokens(4, 32)
    merging = TokenMerging(LEVELS)
    alone = torch.cat([merging(frame[None]) for frame in frames])
    assert torch.equal(merging(frames), alone)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_merged_tokens_are_means_of_their_members(dtype: torch.dtype, tolerance: float):
    points = tokens(2, 24).to(dtype)
    index = cluster_dpc_knn(points, 5, 3)
    merged = merge_clusters(points, index, 5)
    assert merged.dtype == dtype
    for frame in range(2):
        for cluster in range(5):
            mean = points[frame][index[frame] == cluster].float().mean(0)
            torch.testing.assert_close(merged[frame, cluster].float(), mean, atol=tolerance, rtol=0)


def test_levels_stand_one_after_the_other_and_each_merges_the_one_before():
    frames, merging = tokens(2, 32), TokenMerging(LEVELS)
    together = merging(frames)
    assert together.shape == (2, 8 + 4 + 2, 12)
    first = merge_clusters(frames, cluster_dpc_knn(frames, 8, 5), 8)
    second = merge_clusters(first, cluster_dpc_knn(first, 4, 3), 4)
    assert torch.equal(together[:, :8], first) and torch.equal(together[:, 8:12], second)
    assert [c.shape[1] for c in merging.clusters(frames)] == [32, 8, 4]


def test_only_noise_tells_equal_tokens_apart():
    twins = tokens(1, 6).repeat(1, 2, 1)  # (1, 12, C): every token twice
    still = cluster_dpc_knn(twins, 4, 3)
    assert torch.equal(still, cluster_dpc_knn(twins, 4, 3, torch.zeros(1, 12)))
    shaken = {tuple(cluster_dpc_knn(twins, 4, 3, torch.rand(1, 12)).flatten().tolist()) for _ in range(20)}
    assert len(shaken) > 1


def test_noise_is_reproducible_and_fits_the_levels():
    merging = TokenMerging(LEVELS)
    first, again = (merging.draw_noise(32, torch.Generator().manual_seed(5)) for _ in range(2))
    assert [tuple(n.shape) for n in first] == [(1, 32), (1, 8), (1, 4)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert merging(tokens(1, 32), first).shape == (1, 14, 12)


def test_a_rate_is_a_share_or_a_number():
    assert MergeLevel(0.25, 5).count(30) == 8
    assert MergeLevel(64, 5).count(256) == 64
    assert TokenMerging((MergeLevel(0.5, 3), MergeLevel(0.5, 3))).lengths(9) == (5, 3)


def test_holds_no_weights():
    assert not TokenMerging(LEVELS).state_dict()


@pytest.mark.parametrize("count", [0, 11])
def test_impossible_counts_are_refused(count: int):
    with pytest.raises(BadInput, match="1..10"):
        cluster_dpc_knn(tokens(1, 10), count, 3)


def test_no_level_is_refused():
    with pytest.raises(BadInput, match="at least one level"):
        TokenMerging(())
