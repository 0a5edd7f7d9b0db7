"""What VISA's language model is told: templates as data, conversations, and which of their tokens are learned."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from ...core import BadInput

SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
SEG = "[SEG]"
IMAGE = "<image>"
VIDEO = "<video>"
END = "</s>"
IGNORED = -100  # label of a token that is not learned

# The space before each line break belongs to the published text: the model has never seen it without.
PREFIX = f"Reference Video: {VIDEO} \nTarget Image: {IMAGE} \n"
SHORT = (
    "What is {sent} in the Reference Video? Please respond with segmentation mask in the Target Image.",
    "What is {sent} in the Reference Video? Please output segmentation mask in the Target Image.",
    "Please find {sent} in the Reference Video and segment it in the Target Image.",
)
LONG = (
    "{sent} Please find it in the Reference Video and respond with segmentation mask in the Target Image.",
    "{sent} Please find it in the Reference Video and output segmentation mask in the Target Image.",
)
EXPLAIN = (
    "{sent}Please output segmentation mask in the Target Image and explain why.",  # published without the space
    "{sent} Please output segmentation mask in the Target Image and explain the reason.",
    "{sent} Please output segmentation mask in the Target Image and give some explanation.",
)
ANSWERS = (
    f"It is {SEG}.",
    f"Sure, {SEG}.",
    f"Sure, it is {SEG}.",
    f"Sure, the segmentation result is {SEG}.",
)
IMAGE_EVALUATION_ANSWER = ANSWERS[2]  # what evaluation on single images forces; on video it is the first one


@dataclasses.dataclass(frozen=True)
class Turn:
    """One question of the user and the assistant's answer."""

    question: str
    answer: str


def question(expression: str, references: int, template: int = 0, explain: bool = False) -> str:
    """The user's words for one expression, with an image marker for each reference frame and one for the target.

    An expression that ends in a question mark takes the templates that repeat it as a sentence. template: its number
    in that list; evaluation always takes the first. explain: the templates that also ask for a reason.
    """
    templates = EXPLAIN if explain else LONG if expression.endswith("?") else SHORT
    if not 0 <= template < len(templates):
        raise BadInput(f"template must be in 0..{len(templates) - 1} for {expression!r}; got {template}")
    return with_frames(PREFIX + templates[template].format(sent=expression), references)


def with_frames(text: str, references: int) -> str:
    """Replace the video marker by numbered image markers: ``(0)<image>, (1)<image>, ...``."""
    if references < 1:
        raise BadInput(f"a prompt needs at least one reference frame; got {references}")
    return text.replace(VIDEO, ", ".join(f"({i}){IMAGE}" for i in range(references)))


def conversation(turns: Sequence[Turn]) -> str:
    """The whole text the model reads. The system text stands once; each answer ends the model's turn."""
    text = "".join(f"USER: {turn.question} ASSISTANT: {turn.answer}{END}" for turn in turns)
    return f"{SYSTEM} {text}"


def supervised(text: str, tokenize: Callable[[str], list[int]], length: int | None = None) -> list[int]:
    """Labels for a conversation: the answers and their end tokens, all else :data:`IGNORED`.

    tokenize: text to ids with one beginning-of-sequence id in front and one id for each image. length: pad or cut the
    labels to so many. The boundaries are counted turn by turn as published: a turn's beginning is masked up to and
    including ``ASSISTANT:``, and the beginning-of-sequence id counted with each turn pays for its end token.
    """
    labels = tokenize(text)
    masked = [IGNORED] * len(labels)
    start = 1  # the beginning-of-sequence id
    for turn in filter(None, text.split(END)):
        asked, said, _ = turn.partition("ASSISTANT: ")
        if not said:
            raise BadInput(f"a turn of the conversation has no 'ASSISTANT: ' in it: {turn[:60]!r}")
        # Two too many: the beginning-of-sequence id, and the word boundary that the trailing space became.
        first = start + len(tokenize(asked + said)) - 2
        end = start + len(tokenize(turn))
        masked[first:end] = labels[first:end]
        start = end
    if length is not None:
        masked = (masked + [IGNORED] * length)[:length]
    return masked
