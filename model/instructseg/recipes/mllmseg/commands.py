"""An instruction as MLLMSeg reads it after an image: a short run of ids, and where in it each target's state is."""

from __future__ import annotations

import dataclasses

import torch

from ...core import BadInput
from ...language import clean_instruction
from .prompts import LONGEST, conversation, evaluation_texts, training_texts
from .tokenizer import ChatTokenizer

SEPARATOR = ";"  # between expressions that are targets of their own; commas and "and" occur inside expressions
WORDINGS = {"evaluation": evaluation_texts, "training": training_texts}


@dataclasses.dataclass(frozen=True, eq=False)
class Command:
    """phrases: the expressions, one a target slot. suffix: ``(L,)`` ids after the image, ended where the last slot is
    predicted. reads: per slot, the position in the suffix whose state predicts ``[SEG]`` or ``[REJ]``."""

    phrases: tuple[str, ...]
    suffix: torch.Tensor
    reads: tuple[int, ...]


class CommandReader:
    """Instructions to :class:`Command`; ``prefix``: ``(T,)`` ids up to the image's end, the same for all of them."""

    def __init__(self, tokenizer: ChatTokenizer, image_tokens: int, wording: str, max_targets: int) -> None:
        self.tokenizer, self.image_tokens = tokenizer, image_tokens
        self.texts, self.max_targets = WORDINGS[wording], max_targets
        ids = self._ids(("anything",))
        self.prefix = torch.tensor(ids[: self._image_end(ids)])

    def read(self, text: str) -> Command:
        """The instruction's expressions, separated by semicolons, every one with a slot. Raises BadInput."""
        line = clean_instruction(text)
        control = self.tokenizer.control_token(line)
        if control:
            raise BadInput(f"an instruction may not contain the model's special tokens; got {control!r}: leave it out")
        phrases = tuple(p.strip() for p in line.split(SEPARATOR) if any(c.isalnum() for c in p))
        if len(phrases) > self.max_targets:
            raise BadInput(
                f"an instruction may name at most {self.max_targets} targets (option max_targets), separated by "
                f"semicolons; got {len(phrases)}: {line[:80]!r}"
            )
        ids = self._ids(phrases)
        if len(ids) > LONGEST:
            raise BadInput(f"an instruction and its answer may take {LONGEST} tokens; this one takes {len(ids)}")
        start = self._image_end(ids)
        slots = [place for place, index in enumerate(ids) if index == self.tokenizer.seg]
        return Command(phrases, torch.tensor(ids[start : slots[-1]]), tuple(place - 1 - start for place in slots))

    def answer(self, phrases: tuple[str, ...], refused: list[bool]) -> str:
        """The answer in words, ``[REJ]`` in the slots of what was refused."""
        return self.texts(phrases, refused)[1]

    def _ids(self, phrases: tuple[str, ...]) -> tuple[int, ...]:
        return conversation(self.tokenizer, *self.texts(phrases), self.image_tokens).ids

    def _image_end(self, ids: tuple[int, ...]) -> int:
        """Number of ids up to and including the image's end."""
        return ids.index(self.tokenizer.image_end) + 1
