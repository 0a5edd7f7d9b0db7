"""The texts GSVA and LISA were trained and evaluated with: questions, answers, the order of their targets."""

from __future__ import annotations

from collections.abc import Sequence

from ...core import BadInput

SEG, REJ = "[SEG]", "[REJ]"
IMAGE_LINE = "<image>\n"

# One target a question (LISA; GSVA's reasoning data where the query is a phrase).
SINGLE_QUESTIONS = (
    "Can you segment the {name} in this image?",
    "Please segment the {name} in this image.",
    "What is {name} in this image? Please respond with segmentation mask.",
    "What is {name} in this image? Please output segmentation mask.",
)
# Several targets a question (GSVA's referring and semantic data).
MULTI_QUESTIONS = (
    "Can you segment {name} in this image?",
    "Please segment {name} in this image.",
    "What are {name} in this image? Please respond with segmentation masks.",
    "What are {name} in this image? Please output segmentation masks.",
)
SENTENCE_QUESTIONS = (
    "{name} Please respond with segmentation mask.",
    "{name} Please output segmentation mask.",
)
EXPLANATION_REQUESTS = {
    "gsva": (
        "Please output segmentation mask and explain why.",
        "Please output segmentation mask and explain the reason.",
        "Please output segmentation mask and give some explaination.",  # spelt so in the training data
    ),
    "lisa": (
        "Please output segmentation mask and explain why.",
        "Please output segmentation mask and explain the reason.",
        "Please output segmentation mask and give some explanation.",
    ),
}
SINGLE_ANSWERS = (
    "It is [SEG].",
    "Sure, [SEG].",
    "Sure, it is [SEG].",
    "Sure, the segmentation result is [SEG].",
    "[SEG].",
)
# Beginning of the answer, and what is said of each target.
MULTI_ANSWERS = (
    ("The segmentation results are", "{name} [SEG]"),
    ("Sure, they are", "{name}:[SEG]"),
    ("Sure,", "the mask of {name} is [SEG]"),
    ("Sure,", "the segmentation of {name} is [SEG]"),
    ("Sure,", "the referred {name} is [SEG]"),
)


def multi_question(names: Sequence[str], choice: int) -> str:
    """A training question for several targets (GSVA's second list): lower case, joined by commas."""
    listed = ", ".join(name.strip(".") for name in names).lower()
    return IMAGE_LINE + MULTI_QUESTIONS[choice].format(name=listed)


def multi_answer(names: Sequence[str], absent: Sequence[bool], choice: int, joiner: str = ", ") -> str:
    """Its answer: one ``[SEG]`` a target in order, ``[REJ]`` where it is absent; names keep their case.

    joiner: ``", "`` for referring data, ``","`` for semantic classes.
    """
    opening, template = MULTI_ANSWERS[choice]
    said = [template.format(name=name.strip(".")) for name in names]
    said = [text.replace("SEG", "REJ") if gone else text for text, gone in zip(said, absent, strict=True)]
    return f"{opening} {joiner.join(said)}."


def single_question(name: str, choice: int) -> str:
    """A training question for one target (LISA's list), the target in lower case."""
    return IMAGE_LINE + SINGLE_QUESTIONS[choice].format(name=name.strip(".").lower())


def normalised(phrase: str) -> str:
    """A target phrase as the evaluation prompt writes it: lower case, no outer spaces or full stops."""
    name = phrase.lower().strip().strip(".").strip()
    if not name:
        raise BadInput(f"a target phrase must hold a word; got {phrase!r}")
    return name


def phrases_question(phrases: Sequence[str]) -> str:
    """The evaluation question over all phrases of one image (gRefCOCO, Ref-ZOM, RefCOCO).

    The space after the line break, and none before "in", stand in the published evaluation.
    """
    listed = ", ".join(map(normalised, phrases))
    return f"{IMAGE_LINE} What are {listed}in this image? Please output segmentation masks."


def phrases_answer(phrases: Sequence[str], absent: Sequence[bool]) -> str:
    """The evaluation answer that is teacher-forced."""
    said = (f"{normalised(p)}:{REJ if gone else SEG}" for p, gone in zip(phrases, absent, strict=True))
    return "Sure," + ", ".join(said) + "."


def phrase_question(phrase: str) -> str:
    """The evaluation question for one phrase (ReasonSeg; LISA's referring data), in lower case as all questions of
    training are; ReasonSeg's own phrases keep their capitals there."""
    return f"{IMAGE_LINE} What is {normalised(phrase)} in this image? Please output segmentation mask."


def sentence_question(sentence: str) -> str:
    """The evaluation question for a whole sentence (ReasonSeg)."""
    return f"{IMAGE_LINE} {sentence.strip()} Please output segmentation mask."


def slot_fragments(phrases: Sequence[str]) -> tuple[str, ...]:
    """The evaluation answer cut at its slots: what is written before each decision.

    The first has no leading space: the tokenizer's dummy prefix supplies it.
    """
    names = [normalised(phrase) for phrase in phrases]
    return tuple((f"Sure,{name}:" if index == 0 else f", {name}:") for index, name in enumerate(names))
