"""VideoLISA's text side: ids as the slow tokenizer of its time gives them, templates, labels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from unit.tiny_videolisa import CONFIG, tiny_checkpoint, write_tokenizer

from instructseg.core import BadInput
from instructseg.modules.splicing import IGNORE_LABEL
from instructseg.recipes.videolisa.prompts import (
    TEMPLATES,
    TRAINING_ANSWERS,
    TRAINING_EXPLANATIONS,
    TRAINING_PHRASES,
    TRAINING_SENTENCES,
    is_sentence,
    pick_template,
)  # fmt: skip
from instructseg.recipes.videolisa.tokens import check_vocabulary, load_tokens
from instructseg.sentencepieces import IMAGE_PLACEHOLDER

RECORDED = Path(__file__).parent / "phi3_tokens"  # ids of transformers 4.41, see the file's first line
TOKENIZERS = json.loads((RECORDED / "ids.json").read_text())["tokenizers"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tokenizer(tmp_path)
    return tmp_path


@pytest.mark.parametrize("recorded", TOKENIZERS, ids=lambda r: f"legacy {r['tokenizer_config']['legacy']}")
def test_ids_are_those_of_the_published_time(tmp_path: Path, recorded: dict) -> None:
    (tmp_path / "tokenizer.model").write_bytes((RECORDED / "tokenizer.model").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(recorded["tokenizer_config"]))
    tokens = load_tokens(tmp_path)
    assert len(recorded["cases"]) > 10
    for case in recorded["cases"]:
        assert tokens.encode_prompt(case["text"]) == case["ids"], case["text"]


def test_text_around_the_video_is_encoded_piece_by_piece(folder: Path) -> None:
    tokens = load_tokens(folder)
    before, after = "<|user|>\n", "\n the red cup"
    ids = tokens.encode_prompt(f"{before}<image>{after}")
    assert ids == [tokens.bos_id, *tokens.encode(before), IMAGE_PLACEHOLDER, *tokens.encode(after)]
    assert tokens.encode_prompt("<image>") == [tokens.bos_id, IMAGE_PLACEHOLDER]


@pytest.mark.parametrize("answer", TRAINING_ANSWERS)
@pytest.mark.parametrize("strips", [True, False])
def test_labels_supervise_the_answer_and_its_end(folder: Path, answer: str, strips: bool) -> None:
    if not strips:  # the line break before the answer then is a token of its own, or one with the answer
        config = json.loads((folder / "tokenizer_config.json").read_text())
        for entry in config["added_tokens_decoder"].values():
            entry["rstrip"] = False
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    tokens = load_tokens(folder)
    prompt = TEMPLATES["mevis"].prompt("the cup")
    prompt = prompt.replace(TEMPLATES["mevis"].answer, answer)
    ids, labels = tokens.encode_labels(prompt, answer)
    supervised = [label for label in labels if label != IGNORE_LABEL]
    assert len(ids) == len(labels) and ids == tokens.encode_prompt(prompt)
    assert labels == [IGNORE_LABEL] * (len(ids) - len(supervised)) + supervised
    assert supervised[-1] == tokens.added["<|end|>"] and tokens.seg_id in supervised
    header = ids[: len(ids) - len(supervised)]
    assert header[-1] == tokens.added["<|assistant|>"] or not strips
    assert tokens.added["<|assistant|>"] in header and IMAGE_PLACEHOLDER in header
    assert tokens.encode_labels(prompt, answer, limit=len(ids) - 1) == (ids[:-1], labels[:-1])


def test_a_long_conversation_is_cut_at_the_published_length(folder: Path) -> None:
    prompt = TEMPLATES["mevis"].prompt("the cup " * 2000)
    ids, labels = load_tokens(folder).encode_labels(prompt, TEMPLATES["mevis"].answer)
    assert len(ids) == len(labels) == 1793 and set(labels) == {IGNORE_LABEL}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("the red cup", False),
        ("a dog that jumps over the fence", False),
        ("All the red blocks", False),
        ("red cup", False),
        ("pick up the red cup", True),
        ("which cup would be used for tea", True),
        ("The cup.", True),
        ("cup?", True),
    ],
)
def test_a_command_is_a_sentence_or_a_phrase(text: str, sentence: bool) -> None:
    assert is_sentence(text) is sentence
    assert pick_template("auto", text) is TEMPLATES["reason_vos_long" if sentence else "reason_vos_short"]
    assert pick_template("chat", text) is TEMPLATES["chat"]


def test_braces_in_a_text_are_plain_characters() -> None:
    prompt = TEMPLATES["mevis"].prompt("the {Cup} {}")
    assert "Please segment the the {cup} {} in this image." in prompt


def test_training_questions_take_the_text_once_and_answers_hold_one_seg() -> None:
    for question in (*TRAINING_PHRASES, *TRAINING_SENTENCES):
        assert question.count("{}") == 1
    assert all("{}" not in suffix for suffix in TRAINING_EXPLANATIONS)
    assert all(answer.count("[SEG]") == 1 for answer in TRAINING_ANSWERS)


# Tokenizer files that do not fit


def test_a_missing_or_damaged_tokenizer_is_named(folder: Path) -> None:
    (folder / "tokenizer.model").write_bytes(b"not a model")
    with pytest.raises(BadInput, match=r"tokenizer\.model is not a SentencePiece model"):
        load_tokens(folder)
    (folder / "tokenizer.model").unlink()
    with pytest.raises(BadInput, match=r"tokenizer\.model is missing .* published"):
        load_tokens(folder)


@pytest.mark.parametrize(
    ("file", "content", "what"),
    [
        ("added_tokens.json", "[1]", r"added_tokens\.json must hold a JSON object"),
        ("added_tokens.json", '{"[SEG]": "x"}', "not tables of texts and ids"),
        ("tokenizer_config.json", "{", "not valid JSON"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"5": 3}}', "not tables of texts and ids"),
        ("tokenizer_config.json", '{"added_tokens_decoder": [1]}', "not tables of texts and ids"),
    ],
)
def test_damaged_token_tables_are_named(folder: Path, file: str, content: str, what: str) -> None:
    (folder / file).write_text(content)
    with pytest.raises(BadInput, match=what):
        load_tokens(folder)


def test_a_tokenizer_of_the_base_model_has_no_seg(folder: Path) -> None:
    (folder / "added_tokens.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(BadInput, match=r"has no token \[SEG\]; use the tokenizer files of the VideoLISA checkpoint"):
        load_tokens(folder)


def test_ids_outside_the_vocabulary_are_refused_and_strange_tokenizers_noted(folder: Path) -> None:
    tokens = load_tokens(folder)
    assert check_vocabulary(tokens, CONFIG.vocab_size, folder) == ()
    with pytest.raises(
        BadInput, match=rf"has {CONFIG.vocab_size - 1} rows.*needs {CONFIG.vocab_size} \(\[SEG\] has id"
    ):
        check_vocabulary(tokens, CONFIG.vocab_size - 1, folder)
    (folder / "tokenizer_config.json").unlink()
    (folder / "added_tokens.json").write_text(json.dumps({"[SEG]": tokens.seg_id}))
    (note,) = check_vocabulary(load_tokens(folder), CONFIG.vocab_size, folder)
    assert "no token <|system|>, <|user|>, <|assistant|>, <|end|>" in note


def test_the_tiny_checkpoint_has_its_tokenizer(tmp_path: Path) -> None:
    assert load_tokens(tiny_checkpoint(tmp_path / "c")).seg_id == CONFIG.vocab_size - 1
