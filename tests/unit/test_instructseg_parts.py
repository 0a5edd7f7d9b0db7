"""InstructSeg's prompts, splicing, images, references, ranking of queries and assignment, each by itself."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from unit.fakes import unhurried
from unit.tiny_instructseg import tiny_tokenizer

from instructseg.core import BadInput
from instructseg.recipes.instructseg.history import History, Question, Reference, presence
from instructseg.recipes.instructseg.images import PADDING, frame_pixels, mask_image_size, mask_pixels
from instructseg.recipes.instructseg.mask_decoder import Prediction
from instructseg.recipes.instructseg.prompts import (
    PLACEHOLDERS,
    SEG,
    chat_prompt,
    instruction_text,
    load_prompt_tokens,
    segmentation_prompt,
)  # fmt: skip
from instructseg.recipes.instructseg.query_masks import FrameShape, QueryMasks, all_queries, best_queries, distinct
from instructseg.recipes.instructseg.references import key_and_references, neighbours
from instructseg.recipes.instructseg.splicing import (
    IGNORE_LABEL,
    IMAGE,
    INSTRUCTION,
    QUERIES,
    REFERENCES,
    splice_prompt,
)  # fmt: skip

# Prompts


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "tokenizer.json").write_text(tiny_tokenizer())
    return load_prompt_tokens(folder, 1000)


@pytest.mark.parametrize("video", [True, False])
@pytest.mark.parametrize("task", ["referring", "reasoning"])
def test_a_prompt_holds_every_placeholder_once(tokens, task, video) -> None:
    ids = tokens.prompt(segmentation_prompt(task, video))
    assert sorted(i for i in ids if i < 0) == sorted(PLACEHOLDERS.values())
    assert ids.count(tokens.seg_id) == 1
    assert ids[-1] == tokens.end_id
    assert ids.index(REFERENCES) < ids.index(IMAGE) < ids.index(INSTRUCTION) < ids.index(tokens.seg_id)
    assert ids.index(tokens.seg_id) < ids.index(QUERIES)


def test_the_answer_token_is_the_same_by_text_and_by_id(tokens) -> None:
    """Reasoning on images inserts it by id, the other prompts have it in their text."""
    by_text, by_id = (tokens.prompt(segmentation_prompt(task, False)) for task in ("referring", "reasoning"))
    tail = by_text[by_text.index(INSTRUCTION) :]
    assert by_id[by_id.index(INSTRUCTION) :] == tail


def test_a_question_has_only_the_image(tokens) -> None:
    ids = tokens.prompt(chat_prompt("what is on the left?"))
    assert [i for i in ids if i < 0] == [IMAGE]
    assert tokens.end_id not in ids


@pytest.mark.parametrize("marker", [*PLACEHOLDERS, "<gt>"])
def test_a_question_cannot_bring_placeholders(marker: str) -> None:
    with pytest.raises(BadInput, match=marker):
        chat_prompt(f"what is {marker} here?")


@pytest.mark.parametrize("marker", [*PLACEHOLDERS, "<gt>"])
def test_an_instruction_cannot_bring_placeholders(tokens, marker: str) -> None:
    """Whatever it says, its ids are words until the last one."""
    ids = tokens.instruction(f"the {marker} thing")
    assert all(i >= 0 for i in ids) and ids.count(tokens.seg_id) == 1 and ids[-1] == tokens.seg_id


@pytest.mark.parametrize(
    ("text", "task", "video", "expected"),
    [
        (" the red mug", "referring", True, "the red mug."),
        ("the red mug.", "referring", False, "the red mug."),
        ("which one holds water?", "reasoning", False, "which one holds water?"),
        ("the animal(s) that run", "reasoning", True, "the animal that run"),
        ("the animal(s) that run", "reasoning", False, "the animal(s) that run"),
    ],
)
def test_instructions_take_the_form_of_the_training_data(text, task, video, expected) -> None:
    assert instruction_text(text, task, video) == expected


def test_vocabulary_and_merges_give_the_same_ids(tokens, tmp_path: Path) -> None:
    """The files of a slow tokenizer instead of tokenizer.json."""
    Tokenizer.from_str(tiny_tokenizer()).model.save(str(tmp_path))
    (tmp_path / "added_tokens.json").write_text(json.dumps({SEG: tokens.seg_id}))
    slow = load_prompt_tokens(tmp_path, 1000)
    for task, video in itertools.product(("referring", "reasoning"), (True, False)):
        prompt = segmentation_prompt(task, video)
        assert slow.prompt(prompt) == tokens.prompt(prompt)
    assert slow.instruction("the tall mug.") == tokens.instruction("the tall mug.")
    (tmp_path / "added_tokens.json").write_text(json.dumps({SEG: tokens.seg_id + 1}))
    with pytest.raises(BadInput, match=r"\[SEG\].*must have id"):
        load_prompt_tokens(tmp_path, 1000)


# Splicing


def test_every_placeholder_gives_way_to_its_rows() -> None:
    embed = torch.nn.Embedding(10, 3)
    rows = {kind: torch.full((n, 3), float(n)) for kind, n in ((IMAGE, 4), (QUERIES, 2), (INSTRUCTION, 3))}
    ids = torch.tensor([[1, IMAGE, 2, INSTRUCTION, QUERIES, 3], [1, QUERIES, IMAGE, INSTRUCTION, 0, 0]])
    mask = torch.tensor([[1] * 6, [1, 1, 1, 1, 0, 0]])
    labels = torch.tensor([[-100, -100, 2, -100, QUERIES, 3], [-100] * 6])
    rows_2 = {**rows, INSTRUCTION: torch.ones(1, 3)}
    spliced = splice_prompt(ids, [rows, rows_2], embed, mask, labels)
    assert spliced.embeddings.shape == (2, 12, 3)
    assert spliced.origin[0].tolist() == [0, *[IMAGE] * 4, 0, *[INSTRUCTION] * 3, *[QUERIES] * 2, 0]
    assert spliced.labels[0].tolist() == [-100] * 5 + [2] + [-100] * 5 + [3]
    assert spliced.attention_mask[0].all()
    assert spliced.attention_mask[1].tolist() == [True] * 8 + [False] * 4
    assert torch.equal(spliced.embeddings[1, 8:10], embed(torch.zeros(2, dtype=torch.long)))  # padding ids are rows
    assert not spliced.embeddings[1, 10:].any()
    assert torch.equal(spliced.embeddings[0, 1:5], rows[IMAGE])
    assert (spliced.labels[1] == IGNORE_LABEL).all()


@pytest.mark.parametrize("ids", [[1, 2], [1, IMAGE, IMAGE], [IMAGE, QUERIES]])
def test_placeholders_and_sources_must_agree(ids: list[int]) -> None:
    embed = torch.nn.Embedding(10, 3)
    with pytest.raises(BadInput, match="placeholders"):
        splice_prompt(torch.tensor([ids]), [{IMAGE: torch.ones(2, 3)}], embed)


# Images


@given(height=st.integers(16, 3000), width=st.integers(16, 3000), size=st.sampled_from([128, 1024]))
@unhurried
def test_the_longer_side_fills_the_square(height: int, width: int, size: int) -> None:
    h, w = mask_image_size(height, width, size)
    assert max(h, w) == size
    assert abs(h - height * size / max(height, width)) <= 0.5 + 1e-6
    assert abs(w - width * size / max(height, width)) <= 0.5 + 1e-6


def test_padding_is_grey_and_normalised_with_the_image() -> None:
    image = np.full((20, 40, 3), PADDING, np.uint8)
    pixels, inside = mask_pixels(image, 64)
    assert inside == (32, 64)
    assert torch.equal(pixels[:, 40], pixels[:, 10])  # a grey image cannot be told from its padding
    assert pixels[0, 0, 0].item() == pytest.approx((PADDING - 123.675) / 58.395)


def test_the_whole_frame_is_squeezed_for_the_language_model() -> None:
    image = np.zeros((16, 64, 3), np.uint8)
    image[:, 32:] = 255
    pixels = frame_pixels(image, 32)
    assert (pixels[:, :, :12] == -1).all() and (pixels[:, :, 20:] == 1).all()


# References


def test_neighbours_of_a_short_film() -> None:
    expected = {0: (1, 2, 3, 4), 1: (0, 2, 3, 4), 4: (2, 3, 5, 6), 7: (4, 5, 6, 8), 8: (4, 5, 6, 7)}
    assert {i: neighbours(i, 9) for i in expected} == expected


@given(count=st.integers(1, 40), data=st.data())
@unhurried
def test_neighbours_are_the_nearest_frames(count: int, data) -> None:
    i = data.draw(st.integers(0, count - 1))
    found = neighbours(i, count)
    assert len(found) == min(4, count - 1)
    assert list(found) == sorted(set(found) - {i})
    together = sorted((*found, i))
    assert together == list(range(together[0], together[0] + len(together)))


def test_a_frame_outside_the_film() -> None:
    with pytest.raises(BadInput, match="no frame 3"):
        neighbours(3, 3)


@given(count=st.integers(1, 12))
@unhurried
def test_causal_references_are_older_than_the_key_frame(count: int) -> None:
    key, references = key_and_references(count, published=False)
    assert key == count - 1
    assert all(i < key for i in references)
    assert len(references) == min(4, count - 1)


def test_published_references_lie_on_both_sides() -> None:
    assert key_and_references(5, published=True) == (2, (0, 1, 3, 4))
    assert key_and_references(1, published=True) == (0, ())
    assert key_and_references(2, published=True) == (0, (1,))


def test_a_history_takes_four_frames_at_their_distance() -> None:
    history = History(Question("x", torch.tensor([1])))
    taken = []
    for stamp in range(0, 1000, 10):
        if history.takes(stamp, 100.0):
            taken.append(stamp)
            history = history.with_reference(Reference(stamp, torch.zeros(1)))
    assert taken[:3] == [0, 80, 160]
    assert [r.stamp_ns for r in history.references] == taken[-4:]


# Ranking


def random_prediction(seed: int, queries: int = 20) -> Prediction:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, queries, 3, 4, generator=generator)
    masks = torch.nn.functional.interpolate(coarse * 4, (8, 8), mode="bilinear")
    return Prediction(masks, torch.randn(1, queries, 1, generator=generator) * 2)


SHAPE = FrameShape(32, (24, 32), (30, 40))


@given(seed=st.integers(0, 10_000), floor=st.sampled_from([0.0, 0.3, 0.6, 0.8, 2.0]))
@unhurried
def test_the_best_queries_are_those_of_the_full_ranking(seed: int, floor: float) -> None:
    prediction = random_prediction(seed)
    every = all_queries(prediction, SHAPE)
    order = every.scores.argsort(descending=True, stable=True)
    wanted = order[: max(1, int((every.scores >= floor).sum()))]
    found = best_queries(prediction, SHAPE, floor)
    assert torch.allclose(found.scores, every.scores[wanted], atol=1e-6)
    assert torch.allclose(found.logits[0], every.logits[wanted[0]], atol=1e-5)


def test_what_is_no_number_ranks_last() -> None:
    """Half floats may overflow: other queries are not disturbed, and one is always given."""
    whole = random_prediction(3)
    damaged = Prediction(whole.masks.clone(), whole.scores.clone())
    damaged.masks[:, ::3], damaged.scores[:, 1::3] = np.nan, np.nan
    kept = Prediction(whole.masks[:, 2::3], whole.scores[:, 2::3])
    expected = best_queries(kept, SHAPE, 0.2)
    found = best_queries(damaged, SHAPE, 0.2)
    assert torch.allclose(found.scores, expected.scores, atol=1e-6)
    assert torch.allclose(found.logits, expected.logits, atol=1e-5)
    damaged.scores[:] = np.nan
    assert best_queries(damaged, SHAPE, 0.2).scores.tolist() == [0.0]


def test_an_empty_mask_has_no_quality() -> None:
    found = all_queries(Prediction(torch.full((1, 2, 8, 8), -3.0), torch.full((1, 2, 1), 9.0)), SHAPE)
    assert found.quality.tolist() == [0.0, 0.0] and found.scores.tolist() == [0.0, 0.0]


def squares(*corners: int) -> QueryMasks:
    logits = torch.full((len(corners), 30, 40), -5.0)
    for row, left in zip(logits, corners, strict=True):
        row[5:15, left : left + 10] = 5.0
    n = len(corners)
    return QueryMasks(logits, torch.linspace(0.9, 0.5, n), torch.ones(n))


def test_masks_of_the_same_thing_are_one_target() -> None:
    assert distinct(squares(0, 2, 12, 20), 4, 0.5).class_scores.tolist() == pytest.approx([0.9, 0.6333, 0.5], abs=1e-3)
    assert len(distinct(squares(0, 2, 12, 20), 2, 0.5)) == 2
    assert len(distinct(squares(0, 2, 12, 20), 4, 0.9)) == 4


@given(score=st.floats(0, 1), threshold=st.floats(0, 0.99))
@unhurried
def test_presence_is_half_at_the_threshold(score: float, threshold: float) -> None:
    found = presence(score, threshold)
    assert 0.0 <= found <= 1.0
    assert (found >= 0.5) == (score >= threshold)
    assert presence(1.0, threshold) == 1.0
