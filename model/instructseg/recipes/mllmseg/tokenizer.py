"""The tokenizer of a published MLLMSeg folder, built from its own files and nothing fetched.

InternLM2: ``tokenizer.model``. Qwen2: ``tokenizer.json``, or ``vocab.json`` and ``merges.txt``. The added tokens, with
``[SEG]`` and ``[REJ]`` last, stand in ``tokenizer_config.json`` or ``added_tokens.json``; ids are taken from there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from ...checkpoints import read_json
from ...core import BadInput
from ...sentencepieces import SentencePieces
from .prompts import CONTROL, IMAGE_CONTEXT, IMAGE_END, REJ, SEG

# How Qwen2 cuts a text into words before byte-pair encoding: part of the tokenizer, but of none of its files.
QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class ChatTokenizer:
    """Text to ids with the added tokens cut out first. bos: id that leads a conversation, None where there is none.

    fragment: ids of a text without added tokens. source: the folder, for messages.
    """

    def __init__(
        self, fragment: Callable[[str], list[int]], added: dict[str, int], bos: int | None, source: Path | str
    ) -> None:
        missing = [token for token in CONTROL if token not in added]
        if missing:
            raise BadInput(
                f"the tokenizer files of {source} do not define {', '.join(missing)}; take tokenizer_config.json and "
                "added_tokens.json from the published MLLMSeg checkpoint, not from its base model"
            )
        self.added, self.bos = added, bos
        self.seg, self.rej = added[SEG], added[REJ]
        self.image_context, self.image_end = added[IMAGE_CONTEXT], added[IMAGE_END]
        self._fragment = fragment
        longest_first = sorted(added, key=len, reverse=True)
        self._cut = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")

    def encode(self, text: str) -> list[int]:
        """Ids of a turn, without a beginning-of-sequence token."""
        ids: list[int] = []
        for position, part in enumerate(self._cut.split(text)):  # text, token, text, ..., text
            if position % 2:
                ids.append(self.added[part])
            elif part:
                ids.extend(self._fragment(part))
        return ids

    def control_token(self, text: str) -> str | None:
        """The first added token that stands literally in a text, None where there is none."""
        found = self._cut.search(text)
        return found.group() if found else None


def load_tokenizer(folder: Path, family: str, vocabulary: int) -> ChatTokenizer:
    """vocabulary: rows of the embedding; a tokenizer with ids beyond them belongs to another checkpoint (BadInput)."""
    added = _added_tokens(folder)
    if family == "internlm2":
        pieces = SentencePieces(folder / "tokenizer.model", added)
        size, tokenizer = pieces.size, ChatTokenizer(pieces.encode, pieces.added, pieces.bos_id, folder)
    else:
        size, tokenizer = _byte_pairs(folder, added)
    if size > vocabulary:
        raise BadInput(
            f"the tokenizer of {folder} has {size} ids, the checkpoint's embedding only {vocabulary} rows; tokenizer "
            "and weights are of different checkpoints"
        )
    return tokenizer


def _added_tokens(folder: Path) -> dict[str, int]:
    """text -> id of every added token the folder's files name."""
    added: dict[str, int] = {}
    listed, described = folder / "added_tokens.json", folder / "tokenizer_config.json"
    if listed.is_file():
        table = read_json(listed)
        if not isinstance(table, dict) or not all(type(index) is int and index >= 0 for index in table.values()):
            raise BadInput(f"{listed} must map tokens to ids; take it from the published checkpoint")
        added |= table
    if described.is_file():
        content = read_json(described)
        try:
            table = content.get("added_tokens_decoder", {})
            added |= {str(entry["content"]): int(index) for index, entry in table.items()}
        except (AttributeError, KeyError, TypeError, ValueError):
            raise BadInput(
                f"{described} has no usable added_tokens_decoder (ids to tokens); take it from the published checkpoint"
            ) from None
    return added


def _byte_pairs(folder: Path, added: dict[str, int]) -> tuple[int, ChatTokenizer]:
    """(number of ids, tokenizer) of a Qwen2 folder."""
    whole, vocab, merges = (folder / name for name in ("tokenizer.json", "vocab.json", "merges.txt"))
    if not (vocab.is_file() and merges.is_file()) and not whole.is_file():
        raise BadInput(
            f"vocab.json and merges.txt, or tokenizer.json, are missing from {folder}; the recipe needs the "
            "checkpoint's own tokenizer"
        )
    try:
        if vocab.is_file() and merges.is_file():
            pieces = Tokenizer(models.BPE.from_file(str(vocab), str(merges)))
            pieces.normalizer = normalizers.NFC()
            words = pre_tokenizers.Split(Regex(QWEN2_WORDS), behavior="isolated")
            letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
            pieces.pre_tokenizer = pre_tokenizers.Sequence([words, letters])
        else:
            pieces = Tokenizer.from_file(str(whole))
            added = {token.content: index for index, token in pieces.get_added_tokens_decoder().items()} | added
    except Exception as error:  # tokenizers raises bare Exceptions on files it cannot read
        raise BadInput(f"the tokenizer files of {folder} cannot be read: {error}") from error
    size = 1 + max([*pieces.get_vocab().values(), *added.values()])  # ids may leave gaps
    return size, ChatTokenizer(lambda text: pieces.encode(text, add_special_tokens=False).ids, added, None, folder)
