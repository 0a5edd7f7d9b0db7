"""Reasons beside masks: which samples of reasoning are answered in words as well, as LISA's training data has it."""

from __future__ import annotations

import enum
import random

from ..data.samples import Sample

ALONE = 0.1  # of the samples with an explanation, how many are answered by it alone


class Reasons(enum.Enum):
    """What the answer to a question is made of."""

    NONE = "a mask"
    BESIDE = "a mask and why"
    ALONE = "words without a mask"


def asked_text(sample: Sample, draw: random.Random) -> str:
    """One of the texts that a sample has, for most of them the only one."""
    return draw.choice(sample.extra.get("texts") or [sample.instruction])


def draw_reasons(sample: Sample, draw: random.Random) -> Reasons:
    """Of ten samples with an explanation one is answered by it alone, half of the others with it."""
    if not sample.extra.get("explanation"):
        return Reasons.NONE
    if draw.random() < ALONE:
        return Reasons.ALONE
    return Reasons.BESIDE if draw.random() < 0.5 else Reasons.NONE
