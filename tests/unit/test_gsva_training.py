"""Training GSVA and LISA at tiny size: what trains, that it learns, what a batch must hold."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from unit.tiny_gsva import tiny_checkpoint, tiny_lisa_checkpoint, tiny_options
from unit.tiny_unified import noise_frame

from instructseg.core import BadInput
from instructseg.options import parse_options
from instructseg.preprocessing import clip_pixels, sam_pixels
from instructseg.recipes.gsva.checkpoint import Loaded, load_checkpoint
from instructseg.recipes.gsva.configuration import GsvaOptions
from instructseg.recipes.gsva.conversations import CONVERSATIONS, answer_labels, mark_image
from instructseg.recipes.gsva.lora import add_lora
from instructseg.recipes.gsva.prompts import multi_answer, multi_question
from instructseg.recipes.gsva.training import TrainingBatch, freeze_all_but_trained, training_step

NAMES, ABSENT = ["the red mug", "a plate"], [False, True]


@pytest.fixture
def gsva(tmp_path: Path) -> Loaded:
    folder = tiny_checkpoint(tmp_path)
    options = parse_options(GsvaOptions, tiny_options(folder), "recipe gsva")
    return load_checkpoint(folder, options, torch.float32, keep_lora=True)


def batch_for(loaded: Loaded, absent: list[bool], masks: int | None = None) -> TrainingBatch:
    """One image with one conversation over :data:`NAMES`."""
    conversation, pieces = CONVERSATIONS["llava_v1"], loaded.vocabulary.pieces
    text = conversation.render([(mark_image(multi_question(NAMES, 0)), multi_answer(NAMES, absent, 1))])
    ids = pieces.encode_with_images(text)
    image, config = noise_frame(40, 64).image, loaded.model.config
    pixels, resized = sam_pixels(image, config.sam.image_size)
    truth = torch.zeros(len(NAMES) if masks is None else masks, 40, 64)
    truth[:1, 10:30, 20:40] = 1
    return TrainingBatch(
        pixels[None], clip_pixels(image, config.clip.image_size)[None], torch.tensor([ids]),
        answer_labels(ids, text, conversation, pieces)[None], torch.tensor([0, 1]), [truth], [resized],
    )  # fmt: skip


def test_only_the_published_parameters_train(gsva: Loaded) -> None:
    trained = freeze_all_but_trained(gsva.model)
    assert {n for n, p in gsva.model.named_parameters() if p.requires_grad} == set(trained)
    kinds = {"lora_": 8, "embed_tokens": 1, "lm_head": 1, "text_hidden_fcs": 4}
    assert {kind: sum(kind in name for name in trained) for kind in kinds} == kinds
    rest = [name for name in trained if not any(kind in name for kind in kinds)]
    assert rest and all("mask_decoder" in name for name in rest)
    more = freeze_all_but_trained(gsva.model, whole_llm=True)
    assert set(trained) < set(more) and all("llm.model.layers" in name for name in set(more) - set(trained))


def test_a_few_steps_lower_text_and_mask_losses(gsva: Loaded) -> None:
    trained = freeze_all_but_trained(gsva.model)
    frozen = {n: p.clone() for n, p in gsva.model.named_parameters() if n not in trained}
    optimiser = torch.optim.AdamW([gsva.model.get_parameter(n) for n in trained], lr=3e-3, betas=(0.9, 0.95))
    batch, losses = batch_for(gsva, ABSENT), []
    for _ in range(8):
        step = training_step(gsva.model, gsva.vocabulary, batch)
        losses.append([loss.item() for loss in (step.loss, step.ce, step.bce)])
        optimiser.zero_grad()
        step.loss.backward()
        optimiser.step()
    assert all(last < first for first, last in zip(losses[0], losses[-1], strict=True)), losses
    assert all(torch.equal(gsva.model.get_parameter(name), value) for name, value in frozen.items())


def test_a_rejected_target_adds_its_constant(gsva: Loaded) -> None:
    """Two targets, one absent: half of (the present one's loss + ln 2), twice weighted."""
    batch = batch_for(gsva, ABSENT)
    with torch.no_grad():
        step = training_step(gsva.model, gsva.vocabulary, batch)
    assert [len(p) for p in step.predicted] == [1]
    alone = torch.nn.functional.binary_cross_entropy_with_logits(step.predicted[0][0], batch.masks[0][0])
    assert step.bce.item() == pytest.approx(2.0 * (alone.item() + math.log(2)) / 2, rel=1e-5)


@pytest.mark.parametrize("masks", [1, 3])
def test_slots_and_masks_must_agree(gsva: Loaded, masks: int) -> None:
    with pytest.raises(BadInput, match=rf"image 0 has 2 slots in its answers for {masks} mask"):
        training_step(gsva.model, gsva.vocabulary, batch_for(gsva, ABSENT, masks))


def test_fresh_lora_changes_nothing_at_first_and_then_trains(tmp_path: Path) -> None:
    """LISA comes merged; further training starts from a LoRA of its own."""
    folder = tiny_lisa_checkpoint(tmp_path)
    loaded = load_checkpoint(folder, parse_options(GsvaOptions, tiny_options(folder), "recipe lisa"), torch.float32)
    batch = batch_for(loaded, [False, False], masks=2)
    with torch.no_grad():
        before = training_step(loaded.model, loaded.vocabulary, batch).states
        add_lora(loaded.model.llm, rank=4)
        loaded.model.eval()  # no dropout
        after = training_step(loaded.model, loaded.vocabulary, batch).states
    torch.testing.assert_close(before, after)
    trained = freeze_all_but_trained(loaded.model)
    training_step(loaded.model, loaded.vocabulary, batch).loss.backward()
    gradients = [loaded.model.get_parameter(n).grad for n in trained if "lora_B" in n]
    assert len(gradients) == 4 and all(g.abs().max() > 0 for g in gradients)
