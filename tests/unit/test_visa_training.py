"""VISA's training step at tiny size: what learns, what does not, what is refused."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import pytest
import torch
from unit.tiny_visa import CONFIG, tiny_checkpoint

from instructseg.core import BadInput
from instructseg.recipes.visa import frame_choice, prompts
from instructseg.recipes.visa.checkpoint import Loaded, load_checkpoint
from instructseg.recipes.visa.configuration import VisaOptions
from instructseg.recipes.visa.training import (
    LEARNING_RATE,
    VisaSample,
    learning_rate,
    prepare_training,
    training_losses,
)


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    return load_checkpoint(tiny_checkpoint(tmp_path / "visa"), VisaOptions())


def sample(loaded: Loaded, answer: str = prompts.ANSWERS[0], references: int = 2, seed: int = 0) -> VisaSample:
    text = prompts.conversation([prompts.Turn(prompts.question("the red mug", references), answer)])
    tokenize = loaded.tokenizer.encode_with_images
    draw = torch.Generator().manual_seed(seed)
    masks = (torch.rand(answer.count(prompts.SEG), 48, 64, generator=draw) > 0.5).float()
    return VisaSample(
        torch.tensor([tokenize(text)]),
        torch.tensor([prompts.supervised(text, tokenize)]),
        torch.randn(references + 1, 3, 28, 28, generator=draw),
        torch.randn(3, 64, 64, generator=draw),
        masks,
        (48, 64),
    )


def test_exactly_the_published_parameters_learn(loaded: Loaded) -> None:
    names = prepare_training(loaded.model)
    lora = [name for name in names if ".lora_" in name]
    assert len(lora) == 4 * CONFIG.layers  # A and B of queries and values
    assert all(".self_attn.q_proj." in name or ".self_attn.v_proj." in name for name in lora)
    rest = {name.split(".")[0] for name in names if name not in lora}
    assert rest == {"llm", "text_hidden_fcs", "sam"}
    assert all("mask_decoder" in name for name in names if name.startswith("sam."))
    whole = [name for name in names if name.startswith("llm.") and name not in lora]
    assert whole == ["llm.model.embed_tokens.weight", "llm.lm_head.weight"]


def test_a_step_moves_what_learns_and_nothing_else(loaded: Loaded) -> None:
    model = loaded.model
    learned = set(prepare_training(model))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.0)
    batch = [sample(loaded), sample(loaded, "It is [SEG] and [SEG].", references=3, seed=1)]
    first = training_losses(model, batch, loaded.seg_id)
    for _ in range(4):
        optimiser.zero_grad()
        training_losses(model, batch, loaded.seg_id).total.backward()
        optimiser.step()
    after = training_losses(model, batch, loaded.seg_id)
    assert after.total < first.total and after.text < first.text
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved <= learned
    unread = {name for name in learned - moved if "iou_prediction_head" not in name}  # IoU estimates have no loss
    assert not {name for name in unread if "hypernetworks_mlps" not in name}, "masks 1 to 3 are not read either"


def test_lora_begins_as_no_change(loaded: Loaded) -> None:
    batch = [sample(loaded)]
    with torch.no_grad():
        before = training_losses(loaded.model, batch, loaded.seg_id).total
        prepare_training(loaded.model)
        loaded.model.eval()
        torch.testing.assert_close(training_losses(loaded.model, batch, loaded.seg_id).total, before)


def test_samples_of_words_alone_have_a_text_loss_only(loaded: Loaded) -> None:
    words = sample(loaded, "It is the red mug.")
    assert len(words.masks) == 0
    losses = training_losses(loaded.model, [words], loaded.seg_id)
    assert losses.bce == 0 and losses.dice == 0 and losses.text > 0
    assert losses.total == losses.text


def test_bad_batches_are_refused(loaded: Loaded) -> None:
    good = sample(loaded)
    with pytest.raises(BadInput, match=r"1 supervised \[SEG\] and 0 masks"):
        training_losses(loaded.model, [dataclasses.replace(good, masks=good.masks[:0])], loaded.seg_id)
    with pytest.raises(BadInput, match="at least one sample"):
        training_losses(loaded.model, [], loaded.seg_id)
    blind = good.input_ids.masked_fill(good.input_ids < 0, 5)
    with pytest.raises(BadInput, match="conversation 0 shows no image"):
        loaded.model.read(blind, [[]], loaded.seg_id)


def test_a_seg_in_the_question_counts_at_inference_and_not_in_training(loaded: Loaded) -> None:
    good = sample(loaded)
    ids = good.input_ids.clone()
    ids[0, 20] = loaded.seg_id
    tokens = loaded.model.visual_tokens(loaded.model.clip(good.clip_pixels))
    read = loaded.model.read(ids, [list(tokens)], loaded.seg_id)
    assert len(read.positions[0]) == 2
    assert len(loaded.model.read(ids, [list(tokens)], loaded.seg_id, good.labels).positions[0]) == 1


def test_the_learning_rate_rises_and_falls() -> None:
    assert [learning_rate(step) for step in (0, 50, 100, 15_000)] == [0.0, LEARNING_RATE / 2, LEARNING_RATE, 0.0]
    assert learning_rate(7_550) == pytest.approx(LEARNING_RATE / 2)
    assert learning_rate(20_000) == 0.0


# Frames and words of training


def test_training_frames_lie_one_in_each_stretch() -> None:
    draw = random.Random(3)
    for count, wanted in [(100, 8), (13, 12), (97, 11)]:
        chosen = frame_choice.training_frames(count, wanted, draw)
        assert len(chosen) == wanted and list(chosen) == sorted(set(chosen))
        for i, frame in enumerate(chosen):
            assert int(count * i / wanted) <= frame < -(-count * (i + 1) // wanted)
    assert frame_choice.training_frames(5, 8, draw) == (0, 1, 2, 3, 4)
    with pytest.raises(BadInput, match="at least one frame"):
        frame_choice.training_frames(0, 8, draw)


@pytest.mark.parametrize("weights", [[], [0.0, 0.0], [1.0, -1.0]])
def test_weights_that_choose_nothing_are_refused(weights: list[float]) -> None:
    with pytest.raises(BadInput, match="weights that are not negative and not all zero"):
        next(frame_choice.balanced_choices(weights))


def test_choices_never_fall_on_a_weight_of_zero() -> None:
    choices = frame_choice.balanced_choices([0.0, 0.1, 0.7, 0.0])
    assert {next(choices) for _ in range(300)} == {1, 2}


@pytest.mark.parametrize(("count", "target", "most"), [(5, 5, 12), (5, -1, 12), (0, 0, 12), (5, 0, 0)])
def test_impossible_reference_frames_are_refused(count: int, target: int, most: int) -> None:
    with pytest.raises(BadInput, match="must be at least 1" if most < 1 else "not among"):
        frame_choice.reference_frames(count, target, most)


def test_templates() -> None:
    start = "Reference Video: (0)<image>, (1)<image> \nTarget Image: <image> \n"
    assert (
        prompts.question("a dog", 2, 2)
        == start + "Please find a dog in the Reference Video and segment it in the Target Image."
    )
    assert prompts.question("who runs?", 2, 1).startswith(start + "who runs? Please find it")
    assert prompts.question("why", 2, explain=True).endswith(
        "whyPlease output segmentation mask in the Target Image and explain why."
    )
    with pytest.raises(BadInput, match=r"template must be in 0\.\.1 for 'who\?'; got 2"):
        prompts.question("who?", 2, 2)
    with pytest.raises(BadInput, match="at least one reference frame; got 0"):
        prompts.question("a dog", 0)
    with pytest.raises(BadInput, match="has no 'ASSISTANT: '"):
        prompts.supervised("USER: hello</s>", lambda text: [1, 2, 3])
