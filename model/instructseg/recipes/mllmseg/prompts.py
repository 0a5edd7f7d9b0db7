"""What MLLMSeg is asked, word for word as in its publication, and how a conversation becomes token ids.

The evaluation wording has quirks ("What are the man in redin this image?"): the published figures were measured with
it, so it is kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

SYSTEM = "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
START, END = "<|im_start|>", "<|im_end|>"
IMAGE_START, IMAGE_END, IMAGE_CONTEXT = "<img>", "</img>", "<IMG_CONTEXT>"
SEG, REJ = "[SEG]", "[REJ]"
CONTROL = (START, END, IMAGE_START, IMAGE_END, IMAGE_CONTEXT, SEG, REJ)
IMAGE = "<image>"
NOT_SUPERVISED = -100
LONGEST = 8192  # tokens; the published models were trained up to here

TRAINING_QUESTIONS = (
    "Can you segment {names} in this image?",
    "Please segment {names} in this image.",
    "What are {names} in this image? Please respond with segmentation masks.",
    "What are {names} in this image? Please output segmentation masks.",
)
TRAINING_ANSWERS = (
    ("The segmentation results are", "{name} {slot}"),
    ("Sure, they are", "{name}:{slot}"),
    ("Sure,", "the mask of {name} is {slot}"),
    ("Sure,", "the segmentation of {name} is {slot}"),
    ("Sure,", "the referred {name} is {slot}"),
)


class Encodes(Protocol):
    """A tokenizer: ids of a fragment without a beginning, added tokens cut out; ``bos`` leads a conversation."""

    bos: int | None

    def encode(self, text: str) -> list[int]: ...


@dataclasses.dataclass(frozen=True)
class Conversation:
    """ids and, of equal length, labels: what training supervises, ``NOT_SUPERVISED`` elsewhere."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]


def evaluation_texts(expressions: Sequence[str], absent: Sequence[bool] = ()) -> tuple[str, str]:
    """(question, answer) as in the published evaluation. absent: per expression, ``[REJ]`` in its slot."""
    names = [expression.strip().lower().strip().strip(".") for expression in expressions]
    slots = _slots(names, absent)
    question = f"{IMAGE}\n What are " + ", ".join(names) + "in this image? Please output segmentation masks."
    answer = "Sure," + ", ".join(f"{name}:{slot}" for name, slot in zip(names, slots, strict=True)) + "."
    return question, answer


def training_texts(
    expressions: Sequence[str], absent: Sequence[bool] = (), question: int = 3, answer: int = 1
) -> tuple[str, str]:
    """(question, answer) in one of the 4 x 5 wordings seen in training."""
    names = [expression.strip().rstrip(".") for expression in expressions]
    start, item = TRAINING_ANSWERS[answer]
    asked = TRAINING_QUESTIONS[question].format(names=", ".join(name.lower() for name in names))
    items = [item.format(name=name, slot=slot) for name, slot in zip(names, _slots(names, absent), strict=True)]
    return f"{IMAGE}\n{asked}", f"{start} {', '.join(items)}."


def conversation(tokenizer: Encodes, question: str, answer: str, image_tokens: int) -> Conversation:
    """System, user and assistant turns as ids, each turn encoded by itself as the published code did."""
    image = IMAGE_START + IMAGE_CONTEXT * image_tokens + IMAGE_END
    asked = [
        f"{START}system\n{SYSTEM}{END}\n",
        f"{START}user\n{question.replace(IMAGE, image)}{END}\n",
    ]
    lead = f"{START}assistant\n"
    ids = [tokenizer.bos] if tokenizer.bos is not None else []
    for text in asked:
        ids += tokenizer.encode(text)
    before = len(ids) + len(tokenizer.encode(lead))
    ids += tokenizer.encode(f"{lead}{answer}{END}\n")
    labels = [NOT_SUPERVISED] * before + ids[before:-1] + [NOT_SUPERVISED]  # the last line break is not supervised
    return Conversation(tuple(ids), tuple(labels))


def _slots(names: Sequence[str], absent: Sequence[bool]) -> list[str]:
    return [REJ if gone else SEG for gone in absent] if absent else [SEG] * len(names)
