"""InstructSeg's training step on a miniature: what learns, what is supervised, which frames make a sample."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from unit.fakes import unhurried
from unit.tiny_instructseg import coloured_frame, tiny_checkpoint

from instructseg.core import BadInput
from instructseg.recipes.instructseg.checkpoint import LoadedInstructSeg, load_checkpoint
from instructseg.recipes.instructseg.criterion import CriterionSettings
from instructseg.recipes.instructseg.images import frame_pixels, mask_pixels
from instructseg.recipes.instructseg.prompts import chat_prompt, joined_instruction, segmentation_prompt
from instructseg.recipes.instructseg.splicing import QUERIES
from instructseg.recipes.instructseg.training import (
    LORA_RANK,
    TrainingBatch,
    prepare_training,
    supervised,
    training_frames,
    training_losses,
)

FEW = CriterionSettings(points=64)


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedInstructSeg:
    return load_checkpoint(tiny_checkpoint(tmp_path / "tiny"))


def sample(loaded: LoadedInstructSeg, with_text: bool) -> TrainingBatch:
    """One image of reasoning, or one video frame with two references."""
    model, tokens = loaded.model, loaded.tokens
    task, video = ("reasoning", False) if with_text else ("referring", True)
    ids, labels = supervised(tokens, segmentation_prompt(task, video))
    image = coloured_frame().image
    pixels, inside = mask_pixels(image, model.sizes.masks.image_size)
    mask = torch.zeros(1, *pixels.shape[1:])
    mask[0, : inside[0] // 2, : inside[1] // 2] = 1
    seen = [coloured_frame(0.2 * i).image for i in range(1 if with_text else 3)]
    return TrainingBatch(
        pixels[None],
        [torch.stack([frame_pixels(i, model.sizes.vision["image_size"]) for i in seen])],
        torch.tensor([ids]),
        torch.tensor([labels]),
        torch.ones(1, len(ids), dtype=torch.bool),
        [torch.tensor(tokens.instruction("the red mug."))],
        [mask],
        with_text,
    )


def test_what_was_trained_learns_and_nothing_else(loaded: LoadedInstructSeg) -> None:
    model, batch = loaded.model, sample(loaded, with_text=True)
    names = set(prepare_training(model))
    layers = model.language.config.num_hidden_layers
    adapters = {name for name in names if ".lora_" in name}
    assert len(adapters) == 2 * 2 * layers and all("q_proj" in name or "v_proj" in name for name in adapters)
    assert all(LORA_RANK in model.get_parameter(name).shape for name in adapters)
    assert {name for name in names - adapters if name.startswith("language.")} == {"language.embed_tokens.weight"}
    assert not any(name.startswith(("frames.", "image.backbone.")) for name in names)
    whole = ("head.", "perceiver.", "queries", "query_projector.", "fusion.", "image.decoder.", "decoder.")
    assert {n for n, _ in model.named_parameters() if n.startswith(whole)} == {n for n in names if n.startswith(whole)}

    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    training_losses(model, batch, FEW).total.backward()
    torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.0).step()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved <= names
    for part in ("head.", "perceiver.latents", "queries", "fusion.", "image.decoder.", "decoder.score.", "language."):
        assert any(name.startswith(part) for name in moved), part


def test_steps_of_training_lower_the_loss(loaded: LoadedInstructSeg) -> None:
    model, batch = loaded.model, sample(loaded, with_text=False)
    prepare_training(model)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    totals = []
    for step in range(8):
        draws = torch.Generator().manual_seed(step)
        found = training_losses(model, batch, FEW, lambda shape, g=draws: torch.rand(shape, generator=g))
        assert found.text is None
        optimiser.zero_grad()
        found.total.backward()
        optimiser.step()
        totals.append(float(found.total.detach()))
    assert totals[-1] < 0.8 * totals[0], totals


@pytest.mark.parametrize("video", [False, True])
@pytest.mark.parametrize("task", ["referring", "reasoning"])
def test_the_answer_is_supervised_from_the_colon_on(loaded: LoadedInstructSeg, task, video: bool) -> None:
    tokens = loaded.tokens
    ids, labels = supervised(tokens, segmentation_prompt(task, video))
    assert ids == tokens.prompt(segmentation_prompt(task, video)) and len(ids) == len(labels)
    learned = [label for label in labels if label != -100]
    assert labels[len(labels) - len(learned) :] == ids[len(ids) - len(learned) :]
    assert learned[-3:] == [tokens.seg_id, QUERIES, tokens.end_id]
    said = tokens.decode([i for i in learned if i >= 0 and i != tokens.seg_id])
    assert said.split() == [":", "Sure,", "the", "segmentation", "result", "is"]


def test_an_explanation_is_said_before_the_answer(loaded: LoadedInstructSeg) -> None:
    tokens, prompt = loaded.tokens, segmentation_prompt("reasoning", False, explain=True)
    (plain, _), (ids, labels) = supervised(tokens, prompt), supervised(tokens, prompt, "It can hold water.")
    words = tokens.encode("It can hold water.")
    place = plain.index(tokens.seg_id)
    assert ids == [*plain[:place], *words, *plain[place:]]
    assert labels[place : place + len(words)] == words


def test_a_prompt_without_an_answer_supervises_nothing_and_is_refused(loaded: LoadedInstructSeg) -> None:
    with pytest.raises(BadInput, match="must hold ' ASSISTANT: '"):
        supervised(loaded.tokens, chat_prompt("What is this?"))


def test_all_sentences_of_an_object_are_one_instruction() -> None:
    assert joined_instruction(["the mug", "red mug on the left"]) == "the mug. red mug on the left."


@given(count=st.integers(5, 60), seed=st.integers(0, 1000))
@unhurried
def test_a_sample_is_a_key_frame_between_its_references(count: int, seed: int) -> None:
    key, references = training_frames(count, random.Random(seed))
    order = [*references[:2], key, *references[2:]]
    assert order in (sorted(set(order)), sorted(set(order), reverse=True))
    assert all(0 <= i < count for i in order)
    assert all(abs(a - b) <= 9 for a, b in itertools.pairwise(order))


def test_time_runs_backwards_now_and_then() -> None:
    rng = random.Random(0)
    drawn = [training_frames(40, rng)[1] for _ in range(2000)]
    assert 0.26 < sum(first > last for first, *_, last in drawn) / len(drawn) < 0.34
    with pytest.raises(BadInput, match="at least 5 frames .* got 4"):
        training_frames(4, rng)
