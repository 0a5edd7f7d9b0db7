"""One instruction's target phrases: "the red mug and the blue plate" asks for two things.

Ours (the published systems get lists of phrases from their datasets), and conservative: where a comma or an "and" may
belong to one description, the text stays whole. A semicolon always separates.
"""

from __future__ import annotations

import re

_REQUEST = re.compile(
    r"^(?:please\s+)?(?:(?:can|could|would|will)\s+you\s+)?(?:please\s+)?"
    r"(?:segment|find|show|track|mark|highlight|locate|detect|select|follow|pick out|point (?:at|to|out)|look for)"
    r"\s+(?:me\s+)?",
    re.IGNORECASE,
)
_COURTESY = re.compile(r"(?:,?\s+please|\s+in (?:this|the) (?:image|picture|scene|view))*[\s?.!,]*$", re.IGNORECASE)
_BOTH = re.compile(r"^both\s+(?=.*\band\b)", re.IGNORECASE)
_DETERMINER = re.compile(
    r"^(?:the|a|an|all|every|each|any|both|some|my|your|his|her|its|our|their|this|that|these|those|"
    r"one|two|three|four|five|six|\d+)\s+\S",
    re.IGNORECASE,
)
# After one of these, a following "and" may well go on with the same description.
_OPEN = re.compile(
    r"\b(?:between|with|without|wearing|holding|carrying|using|that|which|who|whose|where|when|while|because|of|both|"
    r"either|if)\b",
    re.IGNORECASE,
)
_SENTENCE = re.compile(
    r"^(?:what|which|who|whose|where|when|why|how|can|could|would|should|is|are|do|does|if|i|we|there)\b", re.IGNORECASE
)
# "the red and the blue block": the first part names nothing on its own.
_BARE = re.compile(
    r"^\S+\s+(?:red|green|blue|yellow|orange|purple|pink|brown|black|white|gr[ae]y|left|right|upper|lower|top|bottom|"
    r"big|small|large|tall|short|first|second|third|last|other|front|rear|back|near|far)$",
    re.IGNORECASE,
)
_COMMA = re.compile(r"\s*,\s*(?:and\s+)?", re.IGNORECASE)
_AND = re.compile(r"\s+and\s+", re.IGNORECASE)


def without_request(text: str) -> str:
    """The text without "please segment ..." around it."""
    named = _COURTESY.sub("", _REQUEST.sub("", text.strip(), count=1))
    return _BOTH.sub("", named) or text


def is_sentence(text: str) -> bool:
    """True where the text is a question or a statement to reason about rather than the name of a thing."""
    named = without_request(text)
    return bool(_SENTENCE.match(named)) or re.search(r"[.!?]\s+\S", named) is not None


def split_targets(text: str) -> list[str]:
    """The target phrases of one instruction, in order; a single one where the text cannot be cut safely.

    Cut at semicolons; at commas where every part begins with an article, a number or the like; and at "and" under the
    same condition, unless the part before it holds a word that may carry on ("between", "with", "that", ...).
    """
    if ";" in text:
        parts = [without_request(part) for part in text.split(";") if any(c.isalnum() for c in part)]
        return parts or [text]
    if is_sentence(text):
        return [text]
    named = without_request(text)
    parts = _COMMA.split(named)
    if not all(map(_names_something, parts)):
        parts = [named]
    return [phrase for part in parts for phrase in _at_and(part)]


def _at_and(part: str) -> list[str]:
    """ "the mug and the plate" in two; the whole part where one piece does not name something by itself."""
    pieces = _AND.split(part)
    complete = all(map(_names_something, pieces))
    open_ended = any(_OPEN.search(piece) for piece in pieces[:-1])
    return pieces if complete and not open_ended else [part]


def _names_something(part: str) -> bool:
    return bool(_DETERMINER.match(part)) and not _BARE.match(part)
