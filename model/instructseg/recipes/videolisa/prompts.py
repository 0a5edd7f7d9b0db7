"""VideoLISA's prompts: every published template as data, and how one becomes a conversation.

Each use has its own wording; the same model reads them all. The answer is given, not generated: the state that
predicts ``[SEG]`` is what the mask decoder is prompted with.
"""

from __future__ import annotations

import dataclasses

IMAGE = "<image>"
SEG = "[SEG]"
SYSTEM = "You are a helpful AI assistant."


@dataclasses.dataclass(frozen=True)
class Template:
    """question: what follows ``<image>`` and a line break; ``{}`` is the user's text, lower-cased where ``lower``."""

    question: str
    answer: str
    lower: bool = False

    def prompt(self, text: str) -> str:
        """The whole conversation, answer included."""
        return conversation(self.question.replace("{}", text.lower() if self.lower else text), self.answer)


def conversation(question: str, answer: str) -> str:
    """One question about the video and its answer, in the form Phi-3 was instructed with."""
    return f"<|system|>\n{SYSTEM}<|end|>\n<|user|>\n{IMAGE}\n{question}<|end|>\n<|assistant|>\n{answer}<|end|>"


SURE = "Sure, [SEG]."
BARE = "[SEG]."

# The benchmark or programme of the publication that uses each; blanks at the beginning are part of them.
TEMPLATES: dict[str, Template] = {
    "chat": Template("{}", SURE),
    "mevis": Template("Please segment the {} in this image.", SURE, lower=True),  # also Ref-YouTube-VOS, Ref-DAVIS
    "reason_vos_long": Template("{}. Please output the segmentation masks.", SURE),
    "reason_vos_short": Template("Please segment the {} in this scene.", SURE, lower=True),
    "reason_seg_sentence": Template(" {} Please output segmentation mask.", BARE),
    "reason_seg_phrase": Template(" What is {} in this video? Please output segmentation mask.", BARE),  # refCOCO too
}

# Training draws a question for a class or phrase (lower-cased) or a sentence (as written), and an answer.
TRAINING_PHRASES = (
    "Can you segment the {} in this image?",
    "Please segment the {} in this image.",
    "What is {} in this image? Please respond with segmentation mask.",
    "What is {} in this image? Please output segmentation mask.",
)
TRAINING_SENTENCES = (
    "{} Please respond with segmentation mask.",
    "{} Please output segmentation mask.",
)
TRAINING_EXPLANATIONS = (
    "Please output segmentation mask and explain why.",
    "Please output segmentation mask and explain the reason.",
    "Please output segmentation mask and give some explanation.",
)
TRAINING_ANSWERS = (
    "It is [SEG].",
    SURE,
    "Sure, it is [SEG].",
    "Sure, the segmentation result is [SEG].",
    BARE,
)

_DETERMINERS = frozenset(
    {
        "a", "an", "the", "this", "that", "these", "those", "all", "both", "each", "every", "any", "some", "my",
        "your", "his", "her", "its", "our", "their", "one", "two", "three",
    }
)  # fmt: skip
_PHRASE_WORDS = 2  # without a determiner: "red cup" names something, "grasp the red cup" is a sentence


def training_template(question: int, answer: int) -> Template:
    """The ``question``-th phrase template of training with the ``answer``-th answer."""
    return Template(TRAINING_PHRASES[question], TRAINING_ANSWERS[answer], lower=True)


def is_sentence(text: str) -> bool:
    """Whether a command is a sentence or only names something (ours; benchmarks carry this with each expression).

    A closing mark makes a sentence. Otherwise what begins with a determiner, or has at most two words, is a phrase.
    """
    words = text.lower().split()
    if text.rstrip().endswith((".", "?", "!")):
        return True
    return words[0] not in _DETERMINERS and len(words) > _PHRASE_WORDS


def pick_template(name: str, text: str) -> Template:
    """The template called ``name``; ``auto`` takes ReasonVOS's pair, long for a sentence and short for a phrase."""
    if name == "auto":
        name = "reason_vos_long" if is_sentence(text) else "reason_vos_short"
    return TEMPLATES[name]
