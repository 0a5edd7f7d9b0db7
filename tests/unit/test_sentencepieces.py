"""Legacy Llama tokenisation: cuts at added tokens, dummy prefixes, image placeholders, files that are none."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.tiny_tokenizer import write_tokenizer

from instructseg.core import BadInput
from instructseg.sentencepieces import IMAGE_PLACEHOLDER, SentencePieces


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def pieces(folder: Path) -> SentencePieces:
    return SentencePieces(folder / "tokenizer.model", {"[SEG]": 500, "[SEG2]": 501})


def test_a_text_is_cut_at_added_tokens_and_every_piece_starts_anew(pieces: SentencePieces) -> None:
    it, dot = pieces.encode("it is"), pieces.encode(".")
    assert pieces.encode("it is[SEG].") == [*it, 500, *dot]
    assert pieces.encode("it is [SEG].") == [*pieces.encode("it is "), 500, *dot]
    assert pieces.encode("[SEG2][SEG]") == [501, 500]  # the longer of two that begin alike
    assert pieces.encode("a</s>") == [*pieces.encode("a"), pieces.eos_id]
    assert pieces.encode("") == []


def test_white_space_beside_a_token_can_be_dropped(folder: Path) -> None:
    old = SentencePieces(folder / "tokenizer.model", {"[SEG]": 500}, frozenset({"[SEG]"}))
    assert old.encode("it is [SEG] .") == [*old.encode("it is"), 500, *old.encode(".")]
    assert old.encode("[SEG] [SEG]") == [500, 500]
    assert old.encode("it </s> is") == [*old.encode("it "), old.eos_id, *old.encode(" is")]


def test_images_become_placeholders_between_chunks(pieces: SentencePieces) -> None:
    ids = pieces.encode_with_images("<image> the mug<image>")
    assert ids == [pieces.bos_id, IMAGE_PLACEHOLDER, *pieces.encode(" the mug"), IMAGE_PLACEHOLDER]
    assert pieces.encode_with_images("the mug") == [pieces.bos_id, *pieces.encode("the mug")]


def test_ids_have_a_text_again(pieces: SentencePieces) -> None:
    ids = pieces.encode_with_images("<image>the red mug [SEG] .")
    assert pieces.decode(ids) == "<s> the red mug [SEG] ."
    assert pieces.size == 502


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=40))
def test_any_text_gives_ids_of_the_vocabulary(pieces: SentencePieces, text: str) -> None:
    assert all(0 <= index < pieces.size for index in pieces.encode(text))


def test_files_that_are_no_model(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"tokenizer\.model is missing"):
        SentencePieces(tmp_path / "tokenizer.model", {})
    (tmp_path / "tokenizer.model").write_bytes(b"not a model")
    with pytest.raises(BadInput, match="is not a SentencePiece model"):
        SentencePieces(tmp_path / "tokenizer.model", {})
