"""From an instruction's text to the questions that are put to the model, as ids."""

from __future__ import annotations

import dataclasses

from ...core import BadInput
from .configuration import GsvaOptions, Layout
from .conversations import CONVERSATIONS
from .phrases import is_sentence, split_targets, without_request
from .prompts import phrase_question, phrases_question, sentence_question, slot_fragments
from .vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class Question:
    """One conversation. phrases: what is asked for, one a slot. prompt: ids of the question. fragments: ids of the
    fixed words before each forced slot."""

    phrases: tuple[str, ...]
    prompt: tuple[int, ...]
    fragments: tuple[tuple[int, ...], ...]


def ask(text: str, layout: Layout, options: GsvaOptions, vocabulary: Vocabulary) -> list[Question]:
    """The questions of one instruction.

    A sentence is one question with one slot. Phrases go into one question together in GSVA (``answer_targets`` at
    most), into one each in LISA, as either was trained. Raises BadInput for more than ``max_targets`` phrases.
    """
    phrases = split_targets(text) if options.split == "and" else [without_request(text)]
    if options.prompt == "sentence" or (options.prompt == "auto" and len(phrases) == 1 and is_sentence(text)):
        return [_single(text, sentence_question(text), options, vocabulary)]
    if len(phrases) > options.max_targets:
        raise BadInput(
            f"an instruction may name {options.max_targets} targets (option max_targets); got {len(phrases)}: "
            f"{', '.join(phrases)}"
        )
    if layout == "lisa":
        return [_single(phrase, phrase_question(phrase), options, vocabulary) for phrase in phrases]
    step = options.answer_targets
    return [_several(phrases[i : i + step], options, vocabulary) for i in range(0, len(phrases), step)]


def _single(phrase: str, question: str, options: GsvaOptions, vocabulary: Vocabulary) -> Question:
    """One target; a forced answer is the bare token, before which the space of the rendered text is a piece."""
    prompt = CONVERSATIONS[options.conversation].prompt(question)
    forced = options.decoding == "forced_slot"
    ids = vocabulary.pieces.encode_with_images(prompt + " " * forced)
    return Question((phrase,), tuple(ids), ((),))


def _several(phrases: list[str], options: GsvaOptions, vocabulary: Vocabulary) -> Question:
    """Several targets in one answer, the question and fragments of the published evaluation."""
    prompt = CONVERSATIONS[options.conversation].prompt(phrases_question(phrases))
    pieces = vocabulary.pieces
    fragments = tuple(tuple(pieces.encode(fragment)) for fragment in slot_fragments(phrases))
    return Question(tuple(phrases), tuple(pieces.encode_with_images(prompt)), fragments)
