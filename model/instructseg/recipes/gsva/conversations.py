"""How a question becomes the text the language model was trained on, and which of its tokens were supervised.

Two templates exist. The published commands of GSVA and LISA use ``llava_v1`` with every base model; ``llava_llama_2``
is the chat format of Llama-2, which their code offers as well.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence

import torch

from ...modules.splicing import IGNORE_LABEL
from ...sentencepieces import IMAGE_MARKER, SentencePieces

IMAGE_START, IMAGE_END = "<im_start>", "<im_end>"
STOP = "</s>"
_MARKED_IMAGE = IMAGE_START + IMAGE_MARKER + IMAGE_END

Turn = tuple[str, str | None]  # question, answer (None: still to be given)


@dataclasses.dataclass(frozen=True)
class Conversation(abc.ABC):
    """A chat template. marker: what stands between a question and its answer, its trailing space included."""

    system: str
    marker: str

    @abc.abstractmethod
    def render(self, turns: Sequence[Turn]) -> str:
        """The conversation as one text; the last answer may be None, then the text ends where it would begin."""

    def prompt(self, question: str) -> str:
        """One question without its answer, the image marker between the tokens that delimit an image."""
        return self.render([(mark_image(question), None)])


class VicunaConversation(Conversation):
    """``{system} USER: {question} ASSISTANT: {answer}</s>``; further turns follow without a space."""

    def render(self, turns: Sequence[Turn]) -> str:
        text = self.system + " "
        for question, answer in turns:
            text += f"USER: {question} ASSISTANT:" + ("" if answer is None else f" {answer}{STOP}")
        return text


class Llama2Conversation(Conversation):
    """``[INST] {question} [/INST] {answer} </s>``, the system text inside the first question; further turns begin
    with ``<s>`` of their own."""

    def render(self, turns: Sequence[Turn]) -> str:
        texts = []
        for index, (question, answer) in enumerate(turns):
            asked = f"<<SYS>>\n{self.system}\n<</SYS>>\n\n{question}" if index == 0 else question
            texts.append(f"[INST] {asked} [/INST]" + ("" if answer is None else f" {answer} {STOP}"))
        return "<s>".join(texts)


CONVERSATIONS: dict[str, Conversation] = {
    "llava_v1": VicunaConversation(
        "A chat between a curious human and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the human's questions.",
        " ASSISTANT: ",
    ),
    "llava_llama_2": Llama2Conversation(
        "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
        "provides, and assist the user with a variety of tasks using natural language.",
        "[/INST] ",
    ),
}


def mark_image(question: str) -> str:
    """The question with its image marker between ``<im_start>`` and ``<im_end>``."""
    return question.replace(IMAGE_MARKER, _MARKED_IMAGE)


def answer_labels(ids: Sequence[int], text: str, conversation: Conversation, pieces: SentencePieces) -> torch.Tensor:
    """``(T,)`` labels of one rendered conversation: its answers and their ``</s>``, everything else ignored.

    ids: ``pieces.encode_with_images(text)``, image placeholders unspliced. The text is cut at every ``</s>``; a round
    that does not hold exactly one answer ends the supervision, as in training.
    """
    labels = torch.full((len(ids),), IGNORE_LABEL, dtype=torch.long)
    supervised = torch.tensor(ids, dtype=torch.long)
    begin = 1  # after the beginning-of-sequence token
    for turn in text.split(STOP):
        parts = turn.split(conversation.marker)
        if not turn or len(parts) != 2:
            break
        # A tokenised question carries its own beginning-of-sequence token and the lone piece its last space makes.
        asked = len(pieces.encode_with_images(parts[0] + conversation.marker)) - 2
        # Here the same extra token stands for the ``</s>`` that the cut removed.
        length = len(pieces.encode_with_images(turn))
        labels[begin + asked : begin + length] = supervised[begin + asked : begin + length]
        begin += length
    return labels


def truncate(ids: torch.Tensor, limit: int, visual_length: int) -> torch.Tensor:
    """The first tokens ``(..., T)`` that leave room for the image's rows in a sequence of ``limit`` (training only).

    Published GSVA counts an image as three rows here and so keeps 1022 tokens of 1024, which can exceed the limit.
    """
    return ids[..., : limit - (visual_length - 1)]
