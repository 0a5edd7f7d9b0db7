"""Recoloured episodes: both frames alike, shapes and sizes still named, colours not, the rest untouched."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from instructseg.training.labelled import labelled_cross_entropy
from instructseg.training.recolouring import UNNAMED, recolour


def batch(episodes: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    one = torch.rand(episodes, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(episodes * 2 * 4 * 3).view(episodes * 2, 4, 3) % 5
    return one.repeat_interleave(2, 0), labels


def test_all_recoloured() -> None:
    images, labels = batch()
    other, named = recolour(images, labels, np.random.default_rng(1), share=1.0)
    assert (named[..., 0] == UNNAMED).all()
    assert torch.equal(named[..., 1:], labels[..., 1:])
    assert torch.equal(other[0::2], other[1::2])  # the same map for both frames of an episode
    assert other.min() >= 0 and other.max() <= 1
    assert all((a - b).abs().mean() > 0.02 for a, b in zip(other, images, strict=True))
    assert not torch.equal(labels, named)  # the batch that was given is left as it was


def test_none_recoloured() -> None:
    images, labels = batch()
    other, named = recolour(images, labels, np.random.default_rng(1), share=0.0)
    assert torch.equal(other, images) and torch.equal(named, labels)


def test_some_recoloured_and_reproducible() -> None:
    images, labels = batch(40)
    other, named = recolour(images, labels, np.random.default_rng(2))
    changed = (other != images).flatten(1).any(1)
    assert torch.equal(changed, (named[..., 0] == UNNAMED).all(1))
    assert 20 < int(changed.sum()) < 60
    assert torch.equal(other, recolour(images, labels, np.random.default_rng(2))[0])


def test_outlines_survive() -> None:
    """An edge between two colours is still an edge in nearly every draw: the shape can be learned from it."""
    images = torch.full((2, 3, 8, 8), 0.2)
    images[..., 4:] = torch.tensor([0.8, 0.5, 0.3]).view(3, 1, 1)
    labels = torch.zeros(2, 1, 3, dtype=torch.long)
    steps = []
    for seed in range(50):
        other, _ = recolour(images, labels, np.random.default_rng(seed), share=1.0)
        steps.append(float((other[0, :, 0, 0] - other[0, :, 0, 7]).abs().max()))
    assert np.mean(np.array(steps) > 0.05) > 0.9


def test_loss_without_any_name_is_zero_and_harms_nothing() -> None:
    logits = torch.randn(5, 3, requires_grad=True)
    loss = labelled_cross_entropy(logits, torch.full((5,), -1))
    loss.backward()
    assert loss.item() == 0.0 and torch.equal(logits.grad, torch.zeros(5, 3))


def test_loss_is_the_mean_over_what_is_named() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [5.0, 5.0]])
    labels = torch.tensor([0, 1, -1])
    wanted = torch.nn.functional.cross_entropy(logits[:2], labels[:2])
    assert labelled_cross_entropy(logits, labels).item() == pytest.approx(wanted.item())
