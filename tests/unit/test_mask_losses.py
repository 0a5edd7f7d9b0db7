"""Losses of the LISA family against their formulas, and input that makes no sense."""

from __future__ import annotations

import math

import pytest
import torch

from instructseg.core import BadInput
from instructseg.training.mask_losses import batch_mask_losses, dice_loss, sigmoid_ce_loss, text_loss


def masks(count: int, height: int = 7, width: int = 5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, height, width, generator=generator, dtype=torch.float64)
    return logits, torch.rand(count, height, width, generator=generator) > 0.5


def test_bce_is_the_mean_over_pixels_summed_over_masks():
    logits, targets = masks(3)
    total = 0.0
    for mask, truth in zip(logits, targets, strict=True):
        terms = [
            -math.log(1 / (1 + math.exp(-x if t else x)))
            for x, t in zip(mask.flatten().tolist(), truth.flatten().tolist(), strict=True)
        ]
        total += sum(terms) / len(terms)
    assert sigmoid_ce_loss(logits, targets, 3).item() == pytest.approx(total / 3, rel=1e-6)
    assert sigmoid_ce_loss(logits, targets, 6).item() == pytest.approx(total / 6, rel=1e-6)


def test_dice_is_that_of_each_mask():
    logits, targets = masks(2)
    p, t = logits.sigmoid(), targets.double()
    expected = [
        1 - (2 * (p[i] * t[i]).sum() / 1000 + 1e-6) / ((p[i].sum() + t[i].sum()) / 1000 + 1e-6) for i in range(2)
    ]
    assert dice_loss(logits, targets, 2).item() == pytest.approx(sum(expected).item() / 2, rel=1e-6)


def test_perfect_masks_cost_nothing_and_a_refused_target_a_constant():
    _, targets = masks(2)
    logits = (targets.float() - 0.5) * 200
    assert sigmoid_ce_loss(logits, targets, 2).item() == pytest.approx(0, abs=1e-6)
    assert dice_loss(logits, targets, 2).item() == pytest.approx(0, abs=1e-6)
    blank = torch.zeros(1, 200, 200)
    assert sigmoid_ce_loss(blank, blank, 1).item() == pytest.approx(math.log(2))
    assert dice_loss(blank, blank, 1).item() == pytest.approx(1, abs=1e-6)


def test_a_batch_is_averaged_over_all_its_masks():
    (a, a_true), (b, b_true) = masks(1), masks(3, 4, 6, seed=1)
    none, none_true = masks(0)
    bce, dice = batch_mask_losses([a, none, b], [a_true, none_true, b_true])
    for loss, found in ((sigmoid_ce_loss, bce), (dice_loss, dice)):
        expected = (loss(a, a_true, 1) + 3 * loss(b, b_true, 3)) / 4
        assert found.item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("loss", [sigmoid_ce_loss, dice_loss])
def test_no_mask_costs_nothing_and_moves_nothing(loss):
    logits = torch.zeros(0, 7, 5, requires_grad=True)
    result = loss(logits, torch.zeros(0, 7, 5), 0)
    result.backward()
    assert result.item() == 0
    assert logits.grad is not None and logits.grad.shape == (0, 7, 5)


@pytest.mark.parametrize("loss", [sigmoid_ce_loss, dice_loss])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(loss, dtype):
    logits = torch.full((1, 512, 512), 9.0, dtype=dtype)
    targets = torch.ones(1, 512, 512)
    result = loss(logits, targets, 1)
    assert result.dtype == torch.float32
    assert result.item() == pytest.approx(loss(logits.double(), targets, 1).item(), rel=1e-2, abs=1e-7)


@pytest.mark.parametrize("loss", [sigmoid_ce_loss, dice_loss])
def test_gradients_point_to_the_target(loss):
    logits, targets = masks(2)
    logits.requires_grad_()
    loss(logits, targets, 2).backward()
    assert (logits.grad[targets] < 0).all()
    assert (logits.grad[~targets] > 0).all()


@pytest.mark.parametrize(
    ("logits", "targets", "num_masks", "said"),
    [
        (torch.zeros(2, 4, 4), torch.zeros(2, 4, 5), 2, r"got \(2, 4, 4\) and \(2, 4, 5\)"),
        (torch.zeros(4, 4), torch.zeros(4, 4), 1, r"must both be \(masks, height, width\)"),
        (torch.zeros(2, 0, 4), torch.zeros(2, 0, 4), 2, "at least one pixel"),
        (torch.zeros(2, 4, 4, dtype=torch.int64), torch.zeros(2, 4, 4), 2, "floating point; got torch.int64"),
        (torch.zeros(2, 4, 4), torch.zeros(2, 4, 4), 1, "here at least 2; got 1"),
    ],
)
def test_what_is_no_pair_of_masks_is_refused(logits, targets, num_masks, said):
    for loss in (sigmoid_ce_loss, dice_loss):
        with pytest.raises(BadInput, match=said):
            loss(logits, targets, num_masks)


def test_a_batch_has_as_many_targets_as_predictions():
    logits, targets = masks(1)
    for predicted, truth in (([logits], []), ([], []), ([logits], [targets, targets])):
        with pytest.raises(BadInput, match="as many predictions as targets, at least one"):
            batch_mask_losses(predicted, truth)


# Text


def test_the_state_at_a_position_answers_for_the_next_label():
    logits = torch.zeros(1, 4, 6)
    labels = torch.tensor([[5, 2, -100, 3]])
    logits[0, 0, 2] = logits[0, 2, 3] = 30.0  # right before the labels 2 and 3
    assert text_loss(logits, labels).item() == pytest.approx(0, abs=1e-6)
    assert text_loss(logits.roll(1, dims=1), labels).item() > 1


def test_the_mean_is_over_all_supervised_positions_of_the_batch():
    logits = torch.zeros(2, 3, 4)
    logits[0, 0, 1] = 50.0  # the one supervised position of row 0 costs nothing
    labels = torch.tensor([[-100, 1, -100], [-100, 2, 3]])
    assert text_loss(logits, labels).item() == pytest.approx(2 * math.log(4) / 3, rel=1e-6)


@pytest.mark.parametrize(
    ("shape", "labels", "said"),
    [
        ((1, 3, 4), torch.full((1, 3), -100), "supervise no position"),
        ((1, 3, 4), torch.tensor([[2, -100, -100]]), "supervise no position"),
        ((1, 3, 4), torch.tensor([[1, 2]]), r"got \(1, 3, 4\) and \(1, 2\)"),
        ((3, 4), torch.tensor([1, 2, 3]), r"logits must be \(N, L, V\)"),
        ((1, 3, 4), torch.tensor([[1.0, 2.0, 3.0]]), "int64 token ids; got torch.float32"),
    ],
)
def test_what_gives_no_text_loss_is_refused(shape, labels, said):
    with pytest.raises(BadInput, match=said):
        text_loss(torch.zeros(shape), labels)
