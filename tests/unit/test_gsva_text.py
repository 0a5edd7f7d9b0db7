"""GSVA's and LISA's texts: target phrases, templates, conversations of several rounds and what is supervised."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from unit.tiny_tokenizer import write_tokenizer

from instructseg.core import BadInput
from instructseg.recipes.gsva.conversations import CONVERSATIONS, answer_labels, mark_image, truncate
from instructseg.recipes.gsva.modeling import image_of_row, slot_positions
from instructseg.recipes.gsva.phrases import is_sentence, split_targets
from instructseg.recipes.gsva.prompts import (
    MULTI_ANSWERS,
    MULTI_QUESTIONS,
    SINGLE_ANSWERS,
    SINGLE_QUESTIONS,
    multi_answer,
    multi_question,
    normalised,
    phrase_question,
    phrases_answer,
    phrases_question,
    sentence_question,
    single_question,
    slot_fragments,
)
from instructseg.recipes.gsva.training import _with_rejected
from instructseg.sentencepieces import SentencePieces


@pytest.fixture
def pieces(tmp_path: Path) -> SentencePieces:
    size = write_tokenizer(tmp_path)
    added = {token: size + i for i, token in enumerate(("[SEG]", "[REJ]", "<im_start>", "<im_end>"))}
    return SentencePieces(tmp_path / "tokenizer.model", added)


# Target phrases


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("the red mug", ["the red mug"]),
        ("Please segment the red mug.", ["the red mug"]),
        ("can you find me the red mug in the image, please?", ["the red mug"]),
        ("the red mug and the blue plate", ["the red mug", "the blue plate"]),
        ("track both the mug and the plate", ["the mug", "the plate"]),
        ("the mug, the plate, and a fork", ["the mug", "the plate", "a fork"]),
        ("all red blocks and the two balls on the left", ["all red blocks", "the two balls on the left"]),
        ("the mug,", ["the mug"]),
        ("mug; plate on the left; find the fork", ["mug", "plate on the left", "the fork"]),
        # Kept whole: the comma or the "and" may belong to one description.
        ("the red, round mug", ["the red, round mug"]),
        ("the red and the blue block", ["the red and the blue block"]),
        ("salt and pepper", ["salt and pepper"]),
        ("the black and white cat", ["the black and white cat"]),
        ("the ball between the mug and the plate", ["the ball between the mug and the plate"]),
        ("the man with a hat and a beard", ["the man with a hat and a beard"]),
        ("the dog that the man and the woman hold", ["the dog that the man and the woman hold"]),
        ("what do the man and the woman hold?", ["what do the man and the woman hold?"]),
        ("the second cup from the left, next to the plate", ["the second cup from the left, next to the plate"]),
    ],
)
def test_splitting_is_conservative(text: str, phrases: list[str]) -> None:
    assert split_targets(text) == phrases


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("the mug", False),
        ("can you segment the mug?", False),
        ("what can you drink from", True),
        ("Which one is ripe?", True),
        ("It rains. Find what keeps me dry.", True),
        ("find what keeps me dry", True),
    ],
)
def test_a_question_is_told_from_a_name(text: str, sentence: bool) -> None:
    assert is_sentence(text) == sentence


WORDS = "the a red mug plate and with between that please segment what , ; . ? left two both of in image"


@given(st.lists(st.sampled_from(WORDS.split(" ")), min_size=1, max_size=14))
def test_phrases_are_parts_of_the_text_in_order(words: list[str]) -> None:
    text = " ".join(words)
    begin = 0
    for phrase in split_targets(text):
        assert phrase.strip()
        begin = text.index(phrase, begin) + len(phrase)


@pytest.mark.parametrize("text", ["?", ";", "please", "segment", ", and the", "both"])
def test_splitting_never_loses_everything(text: str) -> None:
    phrases = split_targets(text)
    assert phrases and all(phrases)


# Templates


def test_evaluation_prompt_reads_as_published() -> None:
    phrases = ["Blue ball.", " the cat "]
    question = phrases_question(phrases)
    assert question == "<image>\n What are blue ball, the catin this image? Please output segmentation masks."
    assert phrases_answer(phrases, [False, True]) == "Sure,blue ball:[SEG], the cat:[REJ]."
    assert slot_fragments(phrases) == ("Sure,blue ball:", ", the cat:")
    assert phrase_question("The dog.") == "<image>\n What is the dog in this image? Please output segmentation mask."
    assert sentence_question("What barks?") == "<image>\n What barks? Please output segmentation mask."
    with pytest.raises(BadInput, match="must hold a word"):
        normalised(" . ")


@pytest.mark.parametrize("choice", range(5))
def test_training_answers_name_every_target_in_order(choice: int) -> None:
    names = ["a Dog.", "the cat"]
    answer = multi_answer(names, [False, True], choice)
    assert answer.startswith(MULTI_ANSWERS[choice][0] + " ") and answer.endswith(".")
    assert answer.index("a Dog") < answer.index("[SEG]") < answer.index("the cat") < answer.index("[REJ]")
    assert "[SEG]" in SINGLE_ANSWERS[choice]
    joined = multi_answer(names, [False, False], choice, joiner=",")
    assert ", " not in joined.removeprefix(MULTI_ANSWERS[choice][0] + " ")


def test_a_name_that_says_seg_is_changed_too_as_in_training() -> None:
    assert multi_answer(["SEGMENT"], [True], 0) == "The segmentation results are REJMENT [REJ]."


@pytest.mark.parametrize("choice", range(4))
def test_training_questions_are_in_lower_case(choice: int) -> None:
    assert multi_question(["A dog.", "Cat"], choice) == "<image>\n" + MULTI_QUESTIONS[choice].format(name="a dog, cat")
    assert single_question("Dog", choice) == "<image>\n" + SINGLE_QUESTIONS[choice].format(name="dog")


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_slots_one_by_one_rebuild_the_ids_of_the_whole_text(name: str, pieces: SentencePieces) -> None:
    """What is fed to the model at each slot is what it was trained on, whichever way it was put together."""
    phrases, absent = ["the red mug", "Plate.", "a box"], [False, True, False]
    conversation = CONVERSATIONS[name]
    whole = conversation.render([(mark_image(phrases_question(phrases)), phrases_answer(phrases, absent))])
    ids = pieces.encode_with_images(conversation.prompt(phrases_question(phrases)))
    for fragment, gone in zip(slot_fragments(phrases), absent, strict=True):
        ids += [*pieces.encode(fragment), pieces.added["[REJ]" if gone else "[SEG]"]]
    assert pieces.encode_with_images(whole)[: len(ids)] == ids
    single = conversation.render([(mark_image(sentence_question("What is wet?")), "[SEG]")])
    ids = pieces.encode_with_images(conversation.prompt(sentence_question("What is wet?")) + " ")
    assert pieces.encode_with_images(single)[: len(ids) + 1] == [*ids, pieces.added["[SEG]"]]


# Conversations and labels

TURNS = [
    ("<im_start><image><im_end>\nWhat is it?", "It is [SEG]."),
    ("And what else?", "A plate, [REJ]."),
    ("Why?", "So."),
]


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_every_answer_of_several_rounds_is_supervised_with_its_end(name: str, pieces: SentencePieces) -> None:
    conversation = CONVERSATIONS[name]
    text = conversation.render(TURNS)
    ids = pieces.encode_with_images(text)
    labels = answer_labels(ids, text, conversation, pieces).tolist()
    end = pieces.eos_id
    expected = []
    for _, answer in TURNS:
        space = " " if name == "llava_llama_2" else ""  # before </s>
        expected += [*pieces.encode(answer + space), end]
    assert [label for label in labels if label != -100] == expected
    assert all(label in (-100, token) for label, token in zip(labels, ids, strict=True))
    assert labels.count(end) == 3 and labels[0] == -100


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_prompt_is_the_conversation_up_to_its_answer(name: str) -> None:
    conversation = CONVERSATIONS[name]
    prompt = conversation.prompt("<image>\nWhat?")
    whole = conversation.render([("<im_start><image><im_end>\nWhat?", "[SEG]")])
    assert whole.startswith(prompt) and whole[len(prompt) :].strip() in ("[SEG]</s>", "[SEG] </s>")
    assert not prompt.endswith(" ")


def test_a_round_without_answer_ends_the_supervision(pieces: SentencePieces) -> None:
    conversation = CONVERSATIONS["llava_v1"]
    text = conversation.render([*TURNS[:1], ("What ASSISTANT: is this?", "No."), TURNS[2]])
    labels = answer_labels(pieces.encode_with_images(text), text, conversation, pieces)
    assert labels.tolist().count(pieces.eos_id) == 1


def test_truncation_leaves_room_for_the_image() -> None:
    assert truncate(torch.zeros(2, 1500), 1024, 256).shape == (2, 1024 - 255)
    assert truncate(torch.zeros(2, 100), 1024, 256).shape == (2, 100)


# Positions


def test_slots_are_decided_one_position_earlier() -> None:
    row = torch.tensor([1, 5, -200, 6, 90, 7, 91, 8, 90, 0, 0])
    places, kinds = slot_positions(row, [90, 91], 4)
    assert places.tolist() == [6, 8, 10] and kinds.tolist() == [90, 91, 90]
    assert slot_positions(torch.tensor([1, -200, 5]), [90, 91], 4)[0].tolist() == []


def test_rows_belong_to_images_by_offset() -> None:
    assert image_of_row(torch.tensor([0, 1, 3, 4]), 4) == [0, 1, 1, 2]
    assert image_of_row(torch.tensor([0, 2, 2]), 2) == [0, 0]
    for wrong in ([0, 3], [1, 2], [0, 2, 1], [2]):
        with pytest.raises(BadInput, match="offset"):
            image_of_row(torch.tensor(wrong), 2)


def test_a_rejected_target_is_a_constant_without_gradient() -> None:
    predicted = torch.ones(2, 3, 4, requires_grad=True)
    slots = _with_rejected(predicted, torch.tensor([True, False, True]))
    assert slots.shape == (3, 3, 4) and not slots[1].any()
    slots.sum().backward()
    assert torch.equal(predicted.grad, torch.ones(2, 3, 4))
