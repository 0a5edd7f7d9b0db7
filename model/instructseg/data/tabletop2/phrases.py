"""Noun phrases about a scene of version 2, and what each matches by itself."""

from __future__ import annotations

import dataclasses

import numpy as np

from ...core import BadInput
from .. import scene
from ..instructions import Slot, words_before
from . import things, wider_carriers, wider_wordings
from . import wordings as w
from .facts import WorldFacts

Axes = frozenset[str]


@dataclasses.dataclass(frozen=True)
class Phrase:
    """words without article; ids that it matches; the attributes that it names (None: not named)."""

    words: str
    ids: frozenset[int]
    shape: str | None = None
    color: str | None = None
    size: str | None = None

    def slot(self, targets: frozenset[int], anchor: Phrase | None = None) -> Slot:
        """The answer of a target slot that begins with this phrase; anchor: what its relation refers to."""
        phrases = ((self.words, self.ids),) + (((anchor.words, anchor.ids),) if anchor else ())
        return Slot(targets, self.ids, anchor.ids if anchor else frozenset(), phrases)


class PhraseWriter:
    """Draws phrases. axes: what is held out and may be used (``things.AXES``).

    wide: how often a wording is one of ``wider_wordings``, which only training may draw. At 0 nothing is drawn for it:
    questions are those of the benchmark.
    """

    def __init__(self, rng: np.random.Generator, axes: Axes, wide: float = 0.0):
        if not 0.0 <= wide <= 1.0 or (wide and "phrasing" in axes):
            raise BadInput(
                "wide must be a probability, and 0 where phrasing is held out: the wider wordings are for training; "
                f"got {wide!r} with the axes {sorted(axes)}"
            )
        self.rng, self.axes, self.wide = rng, axes, wide

    def one_of(self, options):
        """Any of them."""
        return options[self.rng.integers(len(options))]

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def wider(self) -> bool:
        """Is the next wording one of the wider ones?"""
        return self.wide > 0 and self.chance(self.wide)

    def say(self, table, held_out, wider, name=None):
        """A wording: of ``table[name]``, or of ``held_out[name]`` half of the time where phrasing is held out.

        wider: what takes the place of ``table`` as often as :attr:`wide` says.
        """
        if self.wider():
            return self.one_of(wider if name is None else wider[name])
        usual, new = (table, held_out) if name is None else (table[name], held_out.get(name, ()))
        use_new = "phrasing" in self.axes and new and self.chance(0.5)
        return self.one_of(tuple(new) if use_new else tuple(usual))

    def matching(self, facts: WorldFacts, shape: str | None, color: str | None, size: str | None) -> frozenset[int]:
        """Which objects have these attributes."""
        return frozenset(
            o.id for o in facts.objects
            if shape in (None, o.shape) and color in (None, o.color) and size in (None, o.size)
        )  # fmt: skip

    def phrase(self, facts: WorldFacts, about: scene.SceneObject | None = None, loose: bool = False) -> Phrase:
        """Of one named object, by default any; ``loose`` prefers phrases that match several."""
        about = about or self.any_named(facts)
        noun = self.chance(0.6 if loose else 0.88)
        color = self.chance(0.3 if loose else 0.75) or not (noun or loose)
        return self.describe(facts, about, noun, color, noun and self.chance(0.15))

    def describe(self, facts: WorldFacts, about: scene.SceneObject, noun: bool, color: bool, size: bool) -> Phrase:
        """The phrase that names these attributes of an object."""
        named_size = about.size if size and self._size_is_clear(facts, about) else None
        return self.write(facts, about.shape if noun else None, about.color if color else None, named_size)

    def write(
        self, facts: WorldFacts, shape: str | None, color: str | None, size: str | None = None, plural: bool = False
    ) -> Phrase:
        """The phrase that names exactly these attributes, and whatever it matches."""
        words = self.words(shape, color, size, plural)
        return Phrase(words, self.matching(facts, shape, color, size), shape, color, size)

    def words(self, shape: str | None, color: str | None, size: str | None = None, plural: bool = False) -> str:
        """size, colour, noun; now and then the colour comes after the noun where wider wordings may be drawn."""
        if shape:
            noun = self.say(w.NOUNS, w.HELD_OUT_NOUNS, wider_wordings.NOUNS, shape)
        else:
            noun = self.say(w.ANYTHING, w.HELD_OUT_ANYTHING, wider_wordings.ANYTHING)
        parts = [
            self.say(w.SIZE_WORDS, w.HELD_OUT_SIZE_WORDS, wider_wordings.SIZE_WORDS, size) if size else None,
            self.say(w.COLOR_WORDS, w.HELD_OUT_COLOR_WORDS, wider_wordings.COLOR_WORDS, color) if color else None,
            wider_wordings.plural(noun) if plural else noun,
        ]
        if color and " " not in noun and self.wider() and self.chance(0.25):
            forms = wider_wordings.COLORED if plural else wider_wordings.COLORED + wider_wordings.COLORED_ONE
            parts[1:] = [self.one_of(forms).format(self.one_of(w.COLOR_WORDS[color]), parts[2])]
        return " ".join(part for part in parts if part)

    def may_name(self, shape: str | None, color: str | None) -> bool:
        """Training never names a held-out pair, not even as absent: it would learn to refuse the words."""
        return "pairs" in self.axes or (color, shape) not in things.HELD_OUT_PAIRS

    def any_named(self, facts: WorldFacts) -> scene.SceneObject:
        """Where pairs are held out, half of the time one of those."""
        held = [o for o in facts.named if (o.color, o.shape) in things.HELD_OUT_PAIRS]
        if held and "pairs" in self.axes and self.chance(0.5):
            return self.one_of(held)
        return self.one_of(facts.named)

    def the(self, words: str) -> str:
        """With an article, mostly."""
        if words.startswith(("something", "what ", "a ", "an ")):
            return words
        if self.wider() and self.chance(0.12):
            return f"{self.one_of(wider_wordings.DETERMINERS)} {words}"
        roll = self.rng.random()
        if roll < 0.06:
            return words
        return f"{'an' if words[0] in 'aeio' else 'a'} {words}" if roll < 0.12 else f"the {words}"

    def carry(self, text: str) -> tuple[str, int]:
        """The text with what is said around it, and how many words of that come before it."""
        if self.wider():
            carrier = wider_carriers.draw_carrier(self.one_of)
        else:
            carrier = self.say(w.CARRIERS, w.HELD_OUT_CARRIERS, w.CARRIERS)
        return carrier.format(text), words_before(carrier)

    @staticmethod
    def _size_is_clear(facts: WorldFacts, about: scene.SceneObject) -> bool:
        """Sizes are said of things of one shape, and where these differ plainly: not large beside tall or flat."""
        others = {o.size for o in facts.objects if o.shape == about.shape and o.id != about.id}
        plain = {"small", "large"}
        if about.size in plain:
            return others <= plain - {about.size}
        return bool(others) and others <= plain
