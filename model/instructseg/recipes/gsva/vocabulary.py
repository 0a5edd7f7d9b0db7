"""The tokenizer of a checkpoint: a Llama SentencePiece model, the tokens added to it, and where ``[SEG]`` is.

GSVA ships no tokenizer. It is rebuilt from the LLaVA base model's by adding the tokens in the order of training; which
ids they get depends on the tokens the base has already, so the number of embedding rows decides whether it is right.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ...checkpoints import read_json
from ...core import BadInput
from ...sentencepieces import SentencePieces
from .conversations import IMAGE_END, IMAGE_START
from .prompts import REJ, SEG


@dataclasses.dataclass(frozen=True, eq=False)
class Vocabulary:
    """The pieces with the ids recipes need. rej: None for LISA. pad is the id of ``<unk>``, as in training."""

    pieces: SentencePieces
    seg: int
    rej: int | None
    pad: int

    @property
    def slot_tokens(self) -> tuple[int, ...]:
        """The tokens that answer for a target: ``[SEG]`` and, in GSVA, ``[REJ]``."""
        return (self.seg,) if self.rej is None else (self.seg, self.rej)

    @property
    def eos(self) -> int:
        return self.pieces.eos_id


def added_tokens(folder: Path) -> dict[str, int]:
    """Text to id of every token that a Hugging Face tokenizer folder adds to its SentencePiece model.

    Read from ``added_tokens.json`` and from ``added_tokens_decoder`` of ``tokenizer_config.json``; a folder with
    neither adds nothing.
    """
    added: dict[str, int] = {}
    if (folder / "tokenizer_config.json").is_file():
        config = folder / "tokenizer_config.json"
        decoder = _table(_table(read_json(config), config).get("added_tokens_decoder", {}), config)
        added |= {_content(token, config): _index(index, config) for index, token in decoder.items()}
    if (folder / "added_tokens.json").is_file():
        file = folder / "added_tokens.json"
        added |= {text: _index(index, file) for text, index in _table(read_json(file), file).items()}
    return added


def open_vocabulary(folder: Path, rows: int, with_rejection: bool) -> Vocabulary:
    """The vocabulary of ``folder`` brought to ``rows`` embedding rows.

    Tokens that are not there yet are added in the order of training: ``[SEG]``, ``[REJ]`` (GSVA), ``<im_start>``,
    ``<im_end>``. Raises BadInput where the result has another size than the checkpoint's embedding table.
    """
    model_file = folder / "tokenizer.model"
    if not model_file.is_file():
        raise BadInput(
            f"{folder} holds no tokenizer.model; the recipe needs the SentencePiece model of the base language model"
            + (" (GSVA ships none: set option base to the folder or hub id of its LLaVA base)" * with_rejection)
        )
    added = added_tokens(folder)
    size = SentencePieces(model_file, added).size
    for token in (SEG, *((REJ,) if with_rejection else ()), IMAGE_START, IMAGE_END):
        if token not in added:
            added[token] = size
            size += 1
    if size != rows:
        raise BadInput(
            f"the tokenizer of {folder} has {size} tokens with {SEG} and its companions, the checkpoint's embedding "
            f"table has {rows} rows: it belongs to another base model (published: 32005 rows for LLaVA v1.1 bases, "
            "32004 for Llama-2 with GSVA; 32004 and 32003 with LISA)"
        )
    pieces = SentencePieces(model_file, added)
    return Vocabulary(pieces, added[SEG], added[REJ] if with_rejection else None, pieces.added["<unk>"])


def _table(value: object, source: Path) -> dict:
    if not isinstance(value, dict):
        raise BadInput(f"{source} must hold a JSON table of tokens; got {type(value).__name__}")
    return value


def _content(token: object, source: Path) -> str:
    if not isinstance(token, dict) or not isinstance(token.get("content"), str):
        raise BadInput(f"{source} has an added token without 'content': {token!r}")
    return token["content"]


def _index(value: object, source: Path) -> int:
    try:
        index = int(value)  # a text in one of the files, a number in the other
    except (TypeError, ValueError):
        index = -1
    if index < 0:
        raise BadInput(f"{source}: the id of an added token must be a whole number from 0; got {value!r}")
    return index
