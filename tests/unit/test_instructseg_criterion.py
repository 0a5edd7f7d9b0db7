"""InstructSeg's training losses against the same formulas written out in loops."""

from __future__ import annotations

import math

import pytest
import torch

from instructseg.recipes.instructseg.criterion import (
    CriterionSettings,
    choose_points,
    criterion,
    match,
    sample_points,
)  # fmt: skip
from instructseg.recipes.instructseg.mask_decoder import Prediction

SETTINGS = CriterionSettings(points=24)


@pytest.fixture(autouse=True)
def repeatable() -> None:
    torch.manual_seed(1)


def predictions(heads: int = 3, images: int = 2, queries: int = 5) -> list[Prediction]:
    return [
        Prediction(
            (torch.randn(images, queries, 8, 8) * 3).requires_grad_(), torch.randn(images, queries, 1).requires_grad_()
        )
        for _ in range(heads)
    ]


def targets() -> list[torch.Tensor]:
    """One target on the first image, two on the second."""
    masks = [torch.zeros(1, 32, 32), torch.zeros(2, 32, 32)]
    masks[0][0, 4:20, 6:28] = 1
    masks[1][0, :16] = 1
    masks[1][1, 20:, 20:] = 1
    return masks


def test_matches_are_made_in_float32_whatever_the_rest_is_in() -> None:
    """Sums over thousands of points, as products of matrices, would lose their digits in bfloat16."""
    points, chosen = CriterionSettings(points=3000), []
    for level in torch.linspace(0.1, 2.0, 20).tolist():
        near = torch.stack([torch.full((8, 8), level), torch.full((8, 8), level + 0.002)])  # the second is the better
        with torch.autocast("cpu", torch.bfloat16):
            losses = criterion([Prediction(near[None], torch.zeros(1, 2, 1))], [torch.ones(1, 32, 32)], points)
        chosen.append(losses.heads[0].matches[0][0].item())
    assert chosen == [1] * 20


def test_points_are_read_between_pixel_centres() -> None:
    maps = torch.arange(6.0).reshape(1, 2, 3)
    centres = torch.tensor([[[0.5 / 3, 0.25], [2.5 / 3, 0.75], [1.0 / 3, 0.25], [0.0, 0.0]]])  # x, y
    assert sample_points(maps, centres)[0].tolist() == pytest.approx([0.0, 5.0, 0.5, 0.0], abs=1e-6)
    ones = torch.ones(1, 2, 3)
    assert sample_points(ones, torch.zeros(1, 1, 2)).item() == pytest.approx(0.25)  # a corner: three quarters outside


def test_three_quarters_of_the_points_are_the_least_certain() -> None:
    masks = torch.randn(2, 8, 8) * 4
    drawn: list[torch.Tensor] = []

    def draw(shape):
        drawn.append(torch.rand(shape))
        return drawn[-1]

    places = choose_points(masks, SETTINGS, draw)
    assert [tuple(d.shape) for d in drawn] == [(2, 72, 2), (2, 6, 2)]
    assert torch.equal(places[:, 18:], drawn[1])
    for n in range(2):
        doubt = sample_points(masks[n : n + 1], drawn[0][n : n + 1])[0].abs().sort().values
        taken = sample_points(masks[n : n + 1], places[n : n + 1, :18])[0].abs().sort().values
        assert torch.allclose(taken, doubt[:18])


def test_queries_go_to_the_targets_they_cover() -> None:
    truth = targets()[1]
    masks = torch.full((4, 32, 32), -6.0)
    masks[2][truth[0] > 0] = 6.0
    masks[0][truth[1] > 0] = 6.0
    queries, found = match(masks, truth, torch.rand(1, 200, 2), SETTINGS)
    assert dict(zip(found.tolist(), queries.tolist(), strict=True)) == {0: 2, 1: 0}


def test_losses_are_those_of_the_formulas() -> None:
    heads, truth = predictions(), targets()
    draws: list[torch.Tensor] = []

    def draw(shape):
        draws.append(torch.rand(shape))
        return draws[-1]

    with torch.no_grad():
        losses = criterion(heads, truth, SETTINGS, draw)
    order = [heads[-1], *heads[:-1]]
    per_head = [losses.heads[-1], *losses.heads[:-1]]
    assert len(draws) == 4 * len(heads)
    for h, (prediction, found) in enumerate(zip(order, per_head, strict=True)):
        chosen = [(b, *pair) for b, matched in enumerate(found.matches) for pair in torch.stack(matched).T.tolist()]
        assert len(chosen) == 3
        expected_score = score_loss(prediction.scores[..., 0], {(b, q) for b, q, _ in chosen}, 3)
        assert float(found.score) == pytest.approx(expected_score, rel=1e-5)
        masks = torch.stack([prediction.masks[b, q] for b, q, _ in chosen])
        replay = iter(draws[4 * h + 2 : 4 * h + 4])
        places = choose_points(masks, SETTINGS, lambda shape, replay=replay: next(replay))
        logits = sample_points(masks, places)
        labels = sample_points(torch.stack([truth[b][t] for b, _, t in chosen]), places)
        bce, dice = mask_losses(logits, labels)
        assert float(found.mask) == pytest.approx(bce / 3, rel=1e-5)
        assert float(found.dice) == pytest.approx(dice / 3, rel=1e-5)
    total = sum(2 * float(f.score) + 5 * float(f.mask) + 5 * float(f.dice) for f in per_head)
    assert float(losses.total) == pytest.approx(total, rel=1e-5)


def score_loss(scores: torch.Tensor, matched: set[tuple[int, int]], masks: int) -> float:
    weight = (scores.numel() - masks) / masks
    total = 0.0
    for b, row in enumerate(scores.tolist()):
        for q, logit in enumerate(row):
            p = 1 / (1 + math.exp(-logit))
            total -= weight * math.log(p) if (b, q) in matched else math.log(1 - p)
    return total / scores.numel()


def mask_losses(logits: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    bce = dice = 0.0
    for row, truth in zip(logits.tolist(), labels.tolist(), strict=True):
        p = [1 / (1 + math.exp(-x)) for x in row]
        bce -= sum(t * math.log(a) + (1 - t) * math.log(1 - a) for a, t in zip(p, truth, strict=True)) / len(row)
        shared = sum(a * t for a, t in zip(p, truth, strict=True))
        dice += 1 - (2 * shared + 1) / (sum(p) + sum(truth) + 1)
    return bce, dice


def test_every_head_learns_from_its_matched_queries() -> None:
    heads = predictions()
    losses = criterion(heads, targets(), SETTINGS)
    losses.total.backward()
    for prediction, found in zip(heads, losses.heads, strict=True):
        assert bool((prediction.scores.grad != 0).all())
        for b, (queries, _) in enumerate(found.matches):
            moved = prediction.masks.grad[b].abs().sum((1, 2)) > 0
            assert torch.nonzero(moved)[:, 0].tolist() == sorted(queries.tolist())


def test_training_makes_the_losses_smaller() -> None:
    heads, truth = predictions(heads=1), targets()
    optimizer = torch.optim.Adam([heads[0].masks, heads[0].scores], lr=0.2)
    history = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = criterion(heads, truth, CriterionSettings(points=128)).total
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < 0.3 * history[0]
