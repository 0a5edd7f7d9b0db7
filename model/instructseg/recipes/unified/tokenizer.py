"""Word tokenizer of the default recipe: lower case, punctuation apart, unknown words become one known token.

Built on Hugging Face ``tokenizers`` and saved as its ``tokenizer.json``. The control tokens are words of the
vocabulary but not "added tokens": the pre-tokenizer splits brackets off, so no text can ever produce their ids.
"""

from __future__ import annotations

import bisect
import re
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from ...core import BadInput

CONTROL = ("<pad>", "<TRK>", "[REJ]", "<end>", "<unk>")


def build_tokenizer(words: list[str]) -> Tokenizer:
    vocabulary = {word: i for i, word in enumerate((*CONTROL, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.StripAccents()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation()])
    return tokenizer


def load_tokenizer(path: Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises a bare Exception
        raise BadInput(f"{path} is not a tokenizer.json of Hugging Face tokenizers: {error}") from error
    for i, token in enumerate(CONTROL):
        if tokenizer.token_to_id(token) != i:
            raise BadInput(f"{path}: token {token!r} must have id {i}; got {tokenizer.token_to_id(token)}")
    return tokenizer


def encode_words(tokenizer: Tokenizer, text: str, limit: int) -> list[int]:
    """Token ids of cleaned text; more than ``limit`` words is refused, because cutting could change what is meant."""
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    if len(ids) > limit:
        raise BadInput(f"an instruction for this recipe may have at most {limit} words; got {len(ids)}: say it shorter")
    return ids


def last_pieces(tokenizer: Tokenizer, text: str) -> list[int]:
    """For each word of the text, as white space divides it, the position among :func:`encode_words`'s tokens of its
    last one."""
    starts = [start for start, _ in tokenizer.encode(text, add_special_tokens=False).offsets]
    return [bisect.bisect_left(starts, word.end()) - 1 for word in re.finditer(r"\S+", text)]
