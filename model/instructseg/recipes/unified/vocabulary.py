"""Words that the tokenizer does not know yet: found in texts, given embeddings that train, written with the tokenizer.

To the shipped model a word outside its vocabulary is ``<unk>``, whatever it says. A robot's own names ("the crate",
"bay two") become words of their own by this.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models
from torch import nn

from ...core import BadInput
from ...language import clean_instruction

SPREAD = 0.5  # of new embeddings, relative to the known ones'


def unknown_words(tokenizer: Tokenizer, texts: Iterable[str]) -> tuple[str, ...]:
    """Sorted words of the texts, as the tokenizer splits them, that it has no token for. Punctuation is no word; texts
    that are no instruction are passed over. A tokenizer of word pieces can spell every word."""
    if not isinstance(tokenizer.model, models.WordLevel):
        return ()
    found = set()
    for text in texts:
        try:
            line = tokenizer.normalizer.normalize_str(clean_instruction(text))
        except BadInput:
            continue
        words = (word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(line))
        found |= {word for word in words if any(c.isalnum() for c in word) and tokenizer.token_to_id(word) is None}
    return tuple(sorted(found))


def with_words(tokenizer: Tokenizer, words: Iterable[str]) -> Tokenizer:
    """The tokenizer with further words, whose ids follow those that it has."""
    table = json.loads(tokenizer.to_str())
    vocabulary = table["model"]["vocab"]
    for word in words:
        vocabulary[word] = len(vocabulary)
    return Tokenizer.from_str(json.dumps(table))


def mark_of_words(words: Iterable[str]) -> str:
    """A short mark of a list of words, the same for the same words only."""
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:12]


class GrownEmbedding(nn.Module):
    """Embeddings ``known`` ``(V, C)``, and after them one for each new word. The parameter of the new ones is named by
    their mark, so that weights that were trained for other words are refused."""

    def __init__(self, known: torch.Tensor, words: tuple[str, ...]) -> None:
        super().__init__()
        self.known = nn.Parameter(known.detach(), requires_grad=False)
        self.fresh_name = f"new_{mark_of_words(words)}" if words else ""
        if words:
            chance = torch.Generator().manual_seed(int(mark_of_words(words), 16))
            drawn = torch.randn(len(words), known.shape[1], generator=chance).to(known)
            self.register_parameter(self.fresh_name, nn.Parameter(known.mean(0) + SPREAD * known.std(0) * drawn))

    @property
    def weight(self) -> torch.Tensor:
        """``(V + N, C)``"""
        return torch.cat([self.known, getattr(self, self.fresh_name)]) if self.fresh_name else self.known

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return F.embedding(ids, self.weight)
