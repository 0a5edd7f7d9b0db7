"""SentencePiece tokenisation as the slow Llama tokenizers did it when the published models were trained.

Around an added token the text is cut, and every piece is encoded as a text of its own, so each begins with the dummy
prefix. Newer tokenizers merge some of these pieces, which changes the token before ``[SEG]``: the one whose state
becomes the mask prompt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from .core import BadInput

IMAGE_MARKER = "<image>"
IMAGE_PLACEHOLDER = -200  # stands for an image among the ids; never reaches an embedding table


class SentencePieces:
    """``tokenizer.model`` with added tokens.

    added: text -> id of every token that is cut out of the text, the model's own ``<s>``, ``</s>``, ``<unk>`` included
    whether named or not. strip_around: those of them beside which white space is dropped (transformers 4.31).
    """

    def __init__(
        self, model_file: str | Path, added: Mapping[str, int], strip_around: frozenset[str] = frozenset()
    ) -> None:
        self._pieces = _open(Path(model_file))
        own = {"<unk>": self._pieces.unk_id(), "<s>": self._pieces.bos_id(), "</s>": self._pieces.eos_id()}
        self.added = {text: index for text, index in own.items() if index >= 0} | dict(added)
        self.strip_around = strip_around
        self.bos_id, self.eos_id = self._pieces.bos_id(), self._pieces.eos_id()
        self.size = max(len(self._pieces), max(self.added.values()) + 1)  # ids are below this
        longest_first = sorted(self.added, key=len, reverse=True)
        self._cut = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")

    def encode(self, text: str) -> list[int]:
        """Ids of a fragment, without a beginning-of-sequence token."""
        parts = self._cut.split(text)  # text, token, text, token, ..., text
        ids: list[int] = []
        for position, part in enumerate(parts):
            if position % 2:
                ids.append(self.added[part])
                continue
            if position + 1 < len(parts) and parts[position + 1] in self.strip_around:
                part = part.rstrip()
            if position and parts[position - 1] in self.strip_around:
                part = part.lstrip()
            if part:
                ids.extend(self._pieces.encode(part))
        return ids

    def encode_with_images(
        self, text: str, marker: str = IMAGE_MARKER, placeholder: int = IMAGE_PLACEHOLDER
    ) -> list[int]:
        """Ids of a whole prompt: one beginning-of-sequence token, and a placeholder for every marker; the texts
        between markers are encoded one by one."""
        ids = [self.bos_id]
        for position, chunk in enumerate(text.split(marker)):
            ids += [placeholder] * (position > 0) + self.encode(chunk)
        return ids

    def decode(self, ids: list[int]) -> str:
        """The text of ids for people: added tokens by their names, placeholders left out, single spaces."""
        names = {index: text for text, index in self.added.items()}
        words: list[str] = []
        run: list[int] = []
        for index in [*ids, None]:
            if index is not None and index >= 0 and index not in names:
                run.append(index)
                continue
            if run:
                words.append(self._pieces.decode(run))
                run = []
            if index in names:
                words.append(names[index])
        return " ".join(" ".join(words).split())


def _open(path: Path):
    import sentencepiece

    if not path.is_file():
        raise BadInput(f"{path.name} is missing from {path.parent}; the recipe needs the checkpoint's own tokenizer")
    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError) as error:
        raise BadInput(f"{path} is not a SentencePiece model: {error}") from error
