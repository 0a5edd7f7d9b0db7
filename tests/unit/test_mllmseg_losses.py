"""MLLMSeg's training losses: what a refused slot does, what is refused, and that a step of training helps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from unit.tiny_mllmseg import tiny_checkpoint

from instructseg.core import BadInput
from instructseg.recipes.mllmseg.checkpoint import load_checkpoint
from instructseg.recipes.mllmseg.losses import at_size, dice_loss, focal_loss, losses, soft_iou
from instructseg.recipes.mllmseg.prompts import NOT_SUPERVISED, conversation, training_texts

WORDS = torch.randn(1, 6, 11, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([[NOT_SUPERVISED, NOT_SUPERVISED, 3, 4, 5, 0]])


def maps(count: int, size: int = 8) -> torch.Tensor:
    return torch.rand(count, size, size, generator=torch.Generator().manual_seed(count))


def test_perfect_and_opposite_masks() -> None:
    truth = torch.zeros(1, 4, 4)
    truth[0, :2] = 1
    assert float(dice_loss(truth, truth)) == 0.0 and float(soft_iou(truth, truth)) == 1.0
    assert float(dice_loss(1 - truth, truth)) == pytest.approx(1 - 1 / 17)
    assert float(soft_iou(1 - truth, truth)) < 1e-6
    assert float(focal_loss(truth, truth)) == 0.0
    # alpha 0.25 where there is something, 0.75 elsewhere; the entropy takes the probability for a logit
    wrong = 0.5 * 0.25 * torch.log(torch.tensor(2.0)) + 0.5 * 0.75 * torch.log1p(torch.exp(torch.tensor(1.0)))
    assert float(focal_loss(1 - truth, truth)) == pytest.approx(float(wrong), abs=1e-6)


def test_a_refused_slot_enlarges_the_divisor_alone() -> None:
    truth = (maps(1, 12) > 0.5).float()
    alone = losses(WORDS, LABELS, [maps(1)], [torch.tensor([True])], [truth])
    empty = torch.cat([torch.zeros_like(truth), truth])
    with_refused = losses(WORDS, LABELS, [maps(1)], [torch.tensor([False, True])], [empty])
    assert float(with_refused.dice) == pytest.approx(float(alone.dice) / 2)
    assert float(with_refused.focal) == pytest.approx(float(alone.focal) / 2)
    assert float(with_refused.iou) == pytest.approx((1 + float(alone.iou)) / 2)
    assert float(with_refused.total) == pytest.approx(float(with_refused.text + with_refused.mask))


def test_a_batch_counts_its_targets_together() -> None:
    """Sums over images of different sizes, divided once by all targets."""
    first, second = (maps(1, 9) > 0.5).float(), (maps(3, 5) > 0.5).float()
    both = losses(WORDS, LABELS, [maps(1), maps(3)], [torch.ones(1).bool(), torch.ones(3).bool()], [first, second])
    parts = [
        losses(WORDS, LABELS, [maps(n)], [torch.ones(n).bool()], [truth]) for n, truth in ((1, first), (3, second))
    ]
    assert float(both.dice) == pytest.approx((float(parts[0].dice) + 3 * float(parts[1].dice)) / 4)


def test_refused_slots_keep_their_place() -> None:
    made = at_size(maps(2), torch.tensor([True, False, True]), torch.zeros(3, 16, 16))
    assert made.shape == (3, 16, 16) and not made[1].any() and made[0].any() and made[2].any()
    assert at_size(maps(0), torch.tensor([False]), torch.zeros(1, 4, 6)).shape == (1, 4, 6)


def test_batches_that_do_not_fit_are_refused() -> None:
    with pytest.raises(BadInput, match="2 slots with 1 present"):
        losses(WORDS, LABELS, [maps(2)], [torch.tensor([True, False])], [torch.zeros(2, 4, 4)])
    with pytest.raises(BadInput, match="without a target"):
        losses(WORDS, LABELS, [maps(0)], [torch.zeros(0).bool()], [torch.zeros(0, 4, 4)])


def test_steps_of_training_lower_the_loss(tmp_path: Path) -> None:
    """One conversation with one present and one refused target; the decoder and the output layer learn."""
    loaded = load_checkpoint(tiny_checkpoint(tmp_path / "tiny"))
    model, tokenizer = loaded.model, loaded.tokenizer
    talk = conversation(tokenizer, *training_texts(["the mug", "the dog"], [False, True]), model.config.image_tokens)
    ids, labels = torch.tensor([talk.ids]), torch.tensor([talk.labels])
    assert int((labels == tokenizer.rej).sum()) == 1
    pixels = torch.randn(1, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    truth = torch.zeros(2, 40, 30)
    truth[0, 10:30, 5:20] = 1
    learning = [*model.decoder.parameters(), model.mllm.lm_head.weight]
    optimiser = torch.optim.AdamW(learning, lr=1e-2)
    totals = []
    for _ in range(10):
        reading = model(pixels, ids)
        masks = model.masks(reading, 0, [talk.ids.index(tokenizer.seg)]).sigmoid()
        found = losses(model.logits(reading.states), labels, [masks], [torch.tensor([True, False])], [truth])
        optimiser.zero_grad()
        found.total.backward()
        optimiser.step()
        totals.append((float(found.text.detach()), float(found.mask.detach())))
    (text, mask), (text_after, mask_after) = totals[0], totals[-1]
    assert text_after < 0.8 * text and mask_after < 0.9 * mask, totals
    assert all(torch.isfinite(p.grad).all() for p in learning)
