"""A language model's own tokenizer, renumbered so that the recipe's control tokens come first.

Everything in the recipe counts on ids 0 to 4 being its control tokens, 0 among them padding. The tokens of the language
model follow in their order, without holes, and its embeddings are put in the same order. Its own control tokens are no
longer found in text: a text that spells one gives ordinary pieces.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from tokenizers import Tokenizer

from ...core import BadInput
from .tokenizer import CONTROL
from .vocabulary import SPREAD


def renumbered(tokenizer: Tokenizer) -> tuple[Tokenizer, list[int]]:
    """The tokenizer with :data:`CONTROL` in front, and the former id of every token after those.

    Only byte-pair encoding, which the language models in question have. Raises BadInput for another one.
    """
    table: dict[str, Any] = json.loads(tokenizer.to_str())
    model = table["model"]
    if model["type"] != "BPE":
        raise BadInput(f"the language backbone's tokenizer must be a byte-pair encoding (BPE); got {model['type']}")
    words = dict(model["vocab"])
    for added in table["added_tokens"]:
        if not added["special"]:
            words.setdefault(added["content"], added["id"])
    ordered = sorted(words, key=words.__getitem__)
    names = {word: _apart(word, words) if word in CONTROL else word for word in ordered}
    model["vocab"] = {word: new for new, word in enumerate((*CONTROL, *(names[word] for word in ordered)))}
    if model.get("unk_token") is not None:
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    kept = [added for added in table["added_tokens"] if not added["special"] and added["content"] not in CONTROL]
    table["added_tokens"] = [{**added, "id": model["vocab"][added["content"]]} for added in kept]
    table["post_processor"] = table["truncation"] = table["padding"] = None  # the recipe adds its own tokens
    ours = Tokenizer.from_str(json.dumps(table))
    if any(i < len(CONTROL) for token in CONTROL for i in ours.encode(token, add_special_tokens=False).ids):
        raise BadInput("the language backbone's tokenizer takes whole words as tokens, ours for control among them")
    return ours, [words[word] for word in ordered]


def _apart(word: str, taken: dict[str, int]) -> str:
    """Another name for a language model's token that is called as one of ours: it can no longer come out of a text."""
    while word in taken or word in CONTROL:
        word = f"own {word}"
    return word


def renumbered_embedding(embedding: torch.Tensor, former: list[int]) -> torch.Tensor:
    """Embeddings ``(V, C)`` in the order of :func:`renumbered`, ``(5 + len(former), C)``. The control tokens begin near
    the mean of the others, padding at zero. Raises BadInput where a token has no row."""
    if max(former) >= len(embedding):
        raise BadInput(
            f"the language backbone has embeddings for {len(embedding)} tokens, and its tokenizer a token "
            f"{max(former)}: they are of different checkpoints"
        )
    known = embedding[torch.tensor(former)]
    drawn = torch.randn(len(CONTROL), known.shape[1], generator=torch.Generator().manual_seed(0)).to(known)
    control = known.mean(0) + SPREAD * known.std(0) * drawn
    control[0] = 0.0
    return torch.cat([control, known])
