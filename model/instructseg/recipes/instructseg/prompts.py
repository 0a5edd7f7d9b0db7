"""InstructSeg's prompts: their published wording, and how they are cut for the tokenizer.

Every stretch of text between placeholders is encoded by itself, without special tokens; placeholders stand between
as negative ids. The wording, with its slips of English, is part of the trained system.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from ...checkpoints import read_json
from ...core import BadInput
from .splicing import PLACEHOLDERS

SEG = "[SEG]"
END_OF_TEXT = "<|endoftext|>"
_ANSWER_IDS = "<gt>"  # where ids of the answer go in without text around them
_CUT = re.compile("(" + "|".join(map(re.escape, (*PLACEHOLDERS, _ANSWER_IDS))) + ")")
_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
_IMAGE = (
    "This is an image <temporal>\n<image>\n, please doing {kind} Segmentation according to the following instruction"
)
_VIDEO = (
    "There are reference frames and key frame <temporal>\n<image>\n. Please doing {kind} Segmentation according to the "
    "following instruction.\nThis is all the instruction: <refer>\n"
)
ANSWERED = " ASSISTANT: "  # stands before the answer
_ANSWER = "\nSure, the segmentation result is "
Task = Literal["referring", "reasoning"]


def segmentation_prompt(task: Task, video: bool, explain: bool = False) -> str:
    """The whole prompt with its placeholders and the answer, as in training.

    explain: the variant of reasoning on images that asks for reasons as well; published for training only.
    """
    kind = {"referring": "Referring", "reasoning": "Reasoning"}[task]
    if video:
        human = _VIDEO.format(kind=kind)
    else:
        human = _IMAGE.format(kind=kind) + (" and explain why" if explain else "") + ":\n<refer>"
    answer = f"{_ANSWER}{_ANSWER_IDS}<seg>" if task == "reasoning" and not video else f"{_ANSWER}{SEG}<seg>"
    return f"{_SYSTEM} USER: {human}{ANSWERED}{answer}{END_OF_TEXT}"


def chat_prompt(question: str) -> str:
    """A question about one image, up to where the model answers. Raises BadInput for one that holds a placeholder."""
    found = _CUT.search(question)
    if found:
        raise BadInput(f"a question may not contain the model's placeholders; got {found.group()!r}: leave it out")
    return f"{_SYSTEM} USER: <image>\n{question} ASSISTANT:"


def text_pieces(prompt: str) -> list[str]:
    """The prompt cut at its placeholders, which are pieces of their own; nothing empty."""
    return [piece for piece in _CUT.split(prompt) if piece]


def instruction_text(text: str, task: Task, video: bool) -> str:
    """One instruction in the form the data sets gave it: a referring expression ends in a full stop, a question for
    reasoning stays as it is (in videos without its "(s)")."""
    text = text.strip()
    if task == "referring":
        return f"{text.rstrip('.')}."
    return text.replace("(s)", "") if video else text


def joined_instruction(sentences: Sequence[str]) -> str:
    """All sentences about one object as one instruction, as in the data sets of referring expressions."""
    return "".join(f" {sentence}." for sentence in sentences).strip()


@dataclasses.dataclass(frozen=True, eq=False)
class PromptTokens:
    """The checkpoint's own tokenizer with what InstructSeg adds to it. Ids of ``[SEG]`` and of the end of text."""

    tokenizer: Tokenizer
    seg_id: int
    end_id: int

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)

    def prompt(self, prompt: str, explanation: str = "") -> list[int]:
        """Ids of a prompt, placeholders as negative ids, the answer's own ids being the explanation's, which only
        training has, and ``[SEG]``."""
        ids: list[int] = []
        for piece in text_pieces(prompt):
            if piece in PLACEHOLDERS:
                ids.append(PLACEHOLDERS[piece])
            elif piece == _ANSWER_IDS:
                ids.extend([*self.encode(explanation), self.seg_id])
            else:
                ids.extend(self.encode(piece))
        return ids

    def instruction(self, text: str) -> list[int]:
        """Ids of an instruction with the id of ``[SEG]`` behind it."""
        return [*self.encode(text), self.seg_id]


def load_prompt_tokens(folder: Path, rows: int) -> PromptTokens:
    """The tokenizer of a checkpoint folder: ``tokenizer.json``, or ``vocab.json`` with ``merges.txt``.

    rows: of the language model's embeddings. Raises BadInput where there is none, where it lacks ``[SEG]``, or where
    it knows more tokens than the model has embeddings.
    """
    tokenizer = _read(folder)
    found = tokenizer.encode(SEG, add_special_tokens=False).ids
    if len(found) != 1:
        raise BadInput(f"the tokenizer in {folder} has no token {SEG!r}; it is not the one InstructSeg was saved with")
    end = tokenizer.token_to_id(END_OF_TEXT)
    if end is None:
        raise BadInput(f"the tokenizer in {folder} has no token {END_OF_TEXT!r}; it is not that of Phi-2")
    size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1  # ids may leave gaps
    if size > rows:
        raise BadInput(
            f"the tokenizer in {folder} has ids up to {size - 1}, the model {rows} embeddings: they do "
            "not belong together; take both from one checkpoint"
        )
    return PromptTokens(tokenizer, found[0], end)


def _read(folder: Path) -> Tokenizer:
    whole, vocabulary, merges = folder / "tokenizer.json", folder / "vocab.json", folder / "merges.txt"
    try:
        if whole.is_file():
            return Tokenizer.from_file(str(whole))
        if not (vocabulary.is_file() and merges.is_file()):
            raise BadInput(f"{folder} holds no tokenizer; it should hold tokenizer.json, or vocab.json and merges.txt")
        tokenizer = Tokenizer(models.BPE.from_file(str(vocabulary), str(merges)))
    except BadInput:
        raise
    except Exception as error:  # the library raises a bare Exception
        raise BadInput(f"the tokenizer in {folder} cannot be read: {error}") from error
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    added = read_json(folder / "added_tokens.json") if (folder / "added_tokens.json").is_file() else {}
    if not isinstance(added, dict) or not all(isinstance(i, int) for i in added.values()):
        raise BadInput(f"{folder / 'added_tokens.json'} must map tokens to ids")
    tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, special=True)])
    for token, wanted in sorted(added.items(), key=lambda item: item[1]):
        tokenizer.add_tokens([AddedToken(token, normalized=False)])
        if tokenizer.token_to_id(token) != wanted:
            got = tokenizer.token_to_id(token)
            raise BadInput(f"{folder}: token {token!r} must have id {wanted} by added_tokens.json; it has {got}")
    return tokenizer
