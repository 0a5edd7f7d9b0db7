"""Instructions about scenes of version 2 by type, with their exact answers."""

from __future__ import annotations

import dataclasses

import numpy as np

from ...core import BadInput
from ..instructions import Question, Slot
from . import things
from . import wider_wordings as wide
from . import wordings as w
from .absent import ABSENT_KINDS, IMITATES, AbsentWriter
from .facts import WorldFacts
from .phrases import Phrase
from .world import World, scene_seed

KINDS = (
    "attribute", "superlative", "relation", "ordinal", "use", "motion", "comparison", "several", "negation", "absent",
    "returns",
)  # fmt: skip
ABSENT_EACH = 3  # questions of the benchmark about what a scene does not show
LONGEST = 40  # words of a question with wider wordings: what the default recipe reads
RARE = {  # forms that training asks for more often than chance brings them
    "relation": ("on", "in", "between", "far"), "motion": ("first", "last", "pushed", "stopped"),
    "comparison": ("nearer", "farther", "was_left", "was_right", "was_near"),
}  # fmt: skip
_TRIES = 60
Draft = tuple[str, tuple[Slot, ...], str] | None  # text, slots, detail; None: this draw does not work out


@dataclasses.dataclass(frozen=True)
class Asked(Question):
    """kind: one of :data:`KINDS`; detail: which form of it; about: the type that a negative example belongs to."""

    detail: str = ""
    about: str = ""


class Questioner(AbsentWriter):
    """Asks about one scene after the other.

    axes: what is held out and may be used (``things.AXES``). wide: how often training hears one of the wordings of
    ``wider_wordings`` instead; 0 for every question of the benchmark.
    """

    def ask(self, facts: WorldFacts, kind: str | None = None, detail: str | None = None) -> Asked | None:
        """One question of this type, or of any; None where the scene answers none without ambiguity.

        detail: which of :data:`ABSENT_KINDS`, by default any; of the type ``absent`` only.
        """
        kinds = [KINDS[i] for i in self.rng.permutation(len(KINDS))] if kind is None else [kind]
        if kinds[0] not in KINDS:
            raise BadInput(f"kind must be one of {', '.join(KINDS)}; got {kind!r}")
        for name in kinds:
            for _ in range(_TRIES if facts.named else 0):
                if name == "absent":
                    found = detail or self.one_of(ABSENT_KINDS)
                    draft = self.absent(facts, found)
                else:
                    draft = getattr(self, f"_{name}")(facts)
                if draft is None:
                    continue
                text, slots, found = draft
                about = IMITATES.get(found, found) if name == "absent" else name
                asked = self._asked(text, slots, name, found, about)
                if not self.wide or len(asked.text.split()) <= LONGEST:
                    return asked
        return None

    def _asked(self, text: str, slots: tuple[Slot, ...], kind: str, detail: str, about: str) -> Asked:
        carried, begin = self.carry(text)
        return Asked(carried, slots, kind, detail, about, begin=begin)

    def draw(self, facts: WorldFacts, absent_share: float = 0.4) -> Asked | None:
        """A question of any type for training, about what is not there with this probability."""
        if self.chance(0.07):
            half_there = self._union_in_part(facts) if self.chance(0.5) else self._no_use(facts)
            if half_there is not None:
                return half_there
        if self.chance(absent_share):
            return self.ask(facts, "absent")
        if self.chance(0.25) and (rare := self._rare(facts)) is not None:
            return rare
        kinds = [KINDS[i] for i in self.rng.permutation(len(KINDS)) if KINDS[i] != "absent"]
        return next((asked for kind in kinds if (asked := self.ask(facts, kind)) is not None), None)

    def _rare(self, facts: WorldFacts) -> Asked | None:
        """A question of a form that few draws work out for."""
        kind = self.one_of(tuple(RARE))
        for _ in range(4):
            asked = self.ask(facts, kind)
            if asked is None or asked.detail in RARE[kind]:
                return asked
        return None

    # --- absent things that the benchmark does not ask for

    def _no_use(self, facts: WorldFacts) -> Asked | None:
        """Something to do what nothing here is for."""
        uses = wide.USES if self.wider() else w.USES
        present = {o.shape for o in facts.objects}
        fitting = [text for text, shapes in uses.items() if not present.intersection(shapes)]
        if not fitting:
            return None
        text = self.one_of(fitting)
        slot = Slot(frozenset(), frozenset(), phrases=((text, frozenset()),))
        return self._asked(text, (slot,), "absent", "class", "use")

    def _union_in_part(self, facts: WorldFacts) -> Asked | None:
        """Two things of which one is not there."""
        phrase, missing = self.phrase(facts), self._no_attribute(facts)
        if missing is None or len(phrase.ids) != 1 or not self.may_name(phrase.shape, phrase.color):
            return None
        text, (slot,) = missing
        parts = [(f"the {phrase.words}", phrase.slot(phrase.ids)), (text, slot)]
        first, second = parts if self.chance(0.5) else parts[::-1]
        return self._asked(f"{first[0]} and {second[0]}", (first[1], second[1]), "several", "union", "several")

    # --- one function a type

    def _attribute(self, facts: WorldFacts) -> Draft:
        phrase = self.phrase(facts)
        if len(phrase.ids) != 1 or not self.may_name(phrase.shape, phrase.color):
            return None
        return self.the(phrase.words), (phrase.slot(phrase.ids),), "size" if phrase.size else "color and shape"

    def _superlative(self, facts: WorldFacts) -> Draft:
        phrase, kind = self.phrase(facts, loose=True), self.one_of(tuple(w.SUPERLATIVES))
        if len(phrase.ids) < 2 or not self.may_name(phrase.shape, phrase.color):
            return None
        target = facts.extreme(phrase.ids, kind)
        if target is None:
            return None
        text = self.say(w.SUPERLATIVES, w.HELD_OUT_SUPERLATIVES, wide.SUPERLATIVES, kind).format(phrase.words)
        return f"the {text}", (phrase.slot(frozenset({target})),), kind

    def _relation(self, facts: WorldFacts) -> Draft:
        if self.chance(0.12):
            return self._between(facts)
        if facts.world.supports and self.chance(0.4):  # on and in are rare unless asked for
            item, (kind, carrier) = self.one_of(sorted(facts.world.supports.items()))
            about = {o.id: o for o in facts.named}
            if item not in about or carrier not in about:
                return None
            phrase, anchor = self.phrase(facts, about[item], loose=True), self.phrase(facts, about[carrier])
        else:
            kind = self.one_of(("left", "right", "front", "behind", "near", "far"))
            phrase, anchor = self.phrase(facts, loose=True), self.phrase(facts)
        targets = self.related(facts, phrase, anchor, kind)
        if targets is None or len(targets) != 1 or (targets == phrase.ids - anchor.ids and self.chance(0.8)):
            return None
        return self.relation_text(phrase, anchor, kind), (phrase.slot(targets, anchor),), kind

    def _between(self, facts: WorldFacts) -> Draft:
        phrase, first, second = self.phrase(facts, loose=True), self.phrase(facts), self.phrase(facts)
        if not len(first.ids) == len(second.ids) == 1 or first.ids == second.ids:
            return None
        if not all(self.may_name(p.shape, p.color) for p in (phrase, first, second)):
            return None
        (b,), (c,) = first.ids, second.ids
        rest = phrase.ids - first.ids - second.ids
        verdicts = {i: facts.between(i, b, c) for i in rest}
        targets = frozenset(i for i, holds in verdicts.items() if holds)
        if None in verdicts.values() or len(targets) != 1 or (targets == rest and self.chance(0.8)):
            return None
        words = self.say(w.BETWEEN, w.HELD_OUT_BETWEEN, wide.BETWEEN).format(
            f"the {first.words}", f"the {second.words}"
        )
        slot = Slot(targets, phrase.ids, first.ids | second.ids,
                    ((phrase.words, phrase.ids), (first.words, first.ids), (second.words, second.ids)))  # fmt: skip
        return f"the {phrase.words} {words}", (slot,), "between"

    def _ordinal(self, facts: WorldFacts) -> Draft:
        phrase, kind = self.phrase(facts, loose=True), self.one_of(tuple(w.ORDINAL_PHRASES))
        if len(phrase.ids) < 3 or not self.may_name(phrase.shape, phrase.color):
            return None
        ranked = facts.ranked(phrase.ids, kind)
        if ranked is None:
            return None
        place = int(self.rng.integers(1, min(4, len(ranked))))
        if self.wider():
            phrase, text = self._wide_ordinal(facts, phrase, kind, place)
        else:
            words = self.say(w.ORDINAL_PHRASES, w.HELD_OUT_ORDINAL_PHRASES, w.ORDINAL_PHRASES, kind)
            text = words.format(w.ORDINALS[place - 1], phrase.words)
        return f"the {text}", (phrase.slot(frozenset({ranked[place]})),), kind

    def _wide_ordinal(self, facts: WorldFacts, phrase: Phrase, kind: str, place: int) -> tuple[Phrase, str]:
        """place: 1 is the second. Some forms name all of them: "the third of the cups from the left"."""
        form, ordinals = self.one_of(wide.ORDINAL_PHRASES[kind]), self.one_of(wide.ORDINALS)
        if "{3}" in form:
            phrase = self.write(facts, phrase.shape, phrase.color, phrase.size, plural=True)
        return phrase, form.format(ordinals[place - 1], phrase.words, wide.NUMBERS[place - 1], phrase.words)

    def _use(self, facts: WorldFacts) -> Draft:
        uses = wide.USES if self.wider() else w.USES
        uses = w.HELD_OUT_USES if "phrasing" in self.axes and self.chance(0.6) else uses
        present = {o.shape for o in facts.named}
        fitting = [text for text, shapes in uses.items() if present.intersection(shapes)]
        if not fitting:
            return None
        text = self.one_of(fitting)
        ids = frozenset(o.id for o in facts.named if o.shape in uses[text])
        if len(ids) > 1:
            return None
        return text, (Slot(ids, ids, phrases=((text, ids),)),), uses[text][0]

    def _motion(self, facts: WorldFacts) -> Draft:
        phrase, kind = self.phrase(facts, loose=self.chance(0.8)), self.one_of(tuple(w.MOTIONS))
        if self.chance(0.3):
            phrase = self.write(facts, None, None)
        targets = self.doing(facts, phrase.ids, kind)
        if targets is None or len(targets) != 1 or not self.may_name(phrase.shape, phrase.color):
            return None
        if targets == phrase.ids and self.chance(0.8):
            return None
        text = self.say(w.MOTIONS, w.HELD_OUT_MOTIONS, wide.MOTIONS, kind).format(phrase.words)
        return f"the {text}", (phrase.slot(targets),), kind

    def _comparison(self, facts: WorldFacts) -> Draft:
        phrase, kind = self.phrase(facts, loose=True), self.one_of(tuple(w.COMPARISONS))
        if not self.may_name(phrase.shape, phrase.color):
            return None
        words = self.say(w.COMPARISONS, w.HELD_OUT_COMPARISONS, wide.COMPARISONS, kind)
        if kind in ("moved_most", "displaced"):
            targets = self.moved(facts, phrase.ids, kind)
            if targets is None or len(targets) != 1 or targets == phrase.ids:
                return None
            return f"the {words.format(phrase.words)}", (phrase.slot(targets),), kind
        anchor = self.phrase(facts)
        if len(anchor.ids) != 1 or not self.may_name(anchor.shape, anchor.color):
            return None
        (other,) = anchor.ids
        rest = phrase.ids - anchor.ids
        verdicts = {i: self.changed(facts, i, other, kind) for i in rest}
        targets = frozenset(i for i, holds in verdicts.items() if holds)
        if other in facts.events or None in verdicts.values() or len(targets) != 1 or (targets == rest):
            return None
        text = words.format(phrase.words, f"the {anchor.words}")
        return f"the {text}", (phrase.slot(targets, anchor),), kind

    @staticmethod
    def moved(facts: WorldFacts, ids: frozenset[int], kind: str) -> frozenset[int] | None:
        """Which of ``ids`` moved the most (``moved_most``) or at all (``displaced``); None where one could argue."""
        ways = {i: facts.travelled(i) for i in ids}
        if kind == "displaced":
            return None if any(0.0 < way < 0.03 for way in ways.values()) else frozenset(i for i in ids if ways[i] > 0)
        order = sorted(ids, key=lambda i: -ways[i])
        clear = len(order) > 1 and ways[order[0]] > 0.03 and ways[order[0]] > 1.5 * ways[order[1]]
        return frozenset(order[:1]) if clear else None

    @staticmethod
    def changed(facts: WorldFacts, a: int, b: int, kind: str) -> bool | None:
        """Did a's place relative to b change in this way? None where one could argue."""
        if kind in ("nearer", "farther"):
            change = facts.distance_change(a, b) * (1 if kind == "farther" else -1)
            return True if change > 0.035 else False if change < 0.008 else None
        name = kind.removeprefix("was_")
        then, now = facts.relation(a, b, name, facts.before), facts.relation(a, b, name)
        return None if then is None or now is None else then and not now

    def _several(self, facts: WorldFacts) -> Draft:
        return self._union(facts) if self.chance(0.5) else self._plural(facts)

    def _plural(self, facts: WorldFacts) -> Draft:
        about = self.any_named(facts)
        noun, color = [(True, False), (False, True), (True, True), (True, False)][self.rng.integers(4)]
        singular = self.wider() and self.chance(0.25)  # "every cup"
        phrase = self.write(facts, about.shape if noun else None, about.color if color else None, plural=not singular)
        if len(phrase.ids) < 2 or not self.may_name(phrase.shape, phrase.color):
            return None
        if singular:
            forms = wide.EVERY
        elif self.wider():
            forms = wide.ALL_OF + wide.COUNTED.get(len(phrase.ids), ())
        else:
            forms = ["all the {}", "all {}", "the {}", "every one of the {}"]
            forms += ["both {}", "the two {}"] if len(phrase.ids) == 2 else []
        return self.one_of(forms).format(phrase.words), (phrase.slot(phrase.ids),), "plural"

    def _union(self, facts: WorldFacts) -> Draft:
        phrases = [self.phrase(facts) for _ in range(3 if self.chance(0.25) else 2)]
        if any(len(p.ids) != 1 or not self.may_name(p.shape, p.color) for p in phrases):
            return None
        if len({p.ids for p in phrases}) < len(phrases):
            return None
        words = [f"the {p.words}" for p in phrases]
        if self.wider():
            text = self.one_of(wide.TWO if len(words) == 2 else wide.THREE).format(*words)
        else:
            text = " and ".join(words) if len(words) == 2 else f"{words[0]} , {words[1]} and {words[2]}"
        return text, tuple(p.slot(p.ids) for p in phrases), "union"

    def _negation(self, facts: WorldFacts) -> Draft:
        about, anything = self.any_named(facts), False
        same_shape = frozenset(o.id for o in facts.named if o.shape == about.shape)
        same_color = self.matching(facts, None, about.color, None)
        if self.chance(0.6):
            others = [o for o in facts.named if o.shape == about.shape and o.color != about.color]
            if not others:
                return None
            color = self.one_of(others).color
            phrase = self.write(facts, about.shape, None)
            excluded = self.matching(facts, None, color, None)
            targets = same_shape - excluded
            forms = wide.NOT_COLOR + (wide.NOT_THE_COLORED if len(excluded & same_shape) == 1 else ())
            form, without = self.say(w.NOT_COLOR, w.HELD_OUT_NOT_COLOR, forms), self.one_of(w.COLOR_WORDS[color])
        else:
            others = [o for o in facts.named if o.color == about.color and o.shape != about.shape]
            if not others:
                return None
            shape = self.one_of(others).shape
            anything = self.wider() and self.chance(0.3)  # "anything blue except the ball"
            phrase = self.write(facts, None, about.color)
            if anything:
                said = self.one_of(wide.OF_COLOR).format(self.one_of(w.COLOR_WORDS[about.color]))
                phrase = dataclasses.replace(phrase, words=said)
            excluded = self.matching(facts, shape, None, None)
            targets = same_color - excluded
            forms = wide.NOT_SHAPE + (wide.NOT_THE_SHAPE if len(excluded & same_color) == 1 else ())
            forms = tuple(form for form in forms if not anything or form.startswith("{}"))
            form = self.one_of(forms) if anything else self.say(w.NOT_SHAPE, w.HELD_OUT_NOT_SHAPE, forms)
            without = self.one_of((wide if self.wider() else w).NOUNS[shape])
        if len(targets) != 1:
            return None
        if self.wide and without[0] in "aeio":
            form = form.replace(" a {}", " an {}")
        slot = phrase.slot(targets, Phrase(without, excluded))  # what it is not is what the text refers to
        text = form.format(phrase.words, without)
        return text if anything else f"the {text}", (slot,), "color" if phrase.shape else "shape"

    def _returns(self, facts: WorldFacts) -> Draft:
        gone = [o for o in facts.named if o.id in facts.returning]
        if not gone:
            return None
        phrase = self.phrase(facts, self.one_of(gone))
        if len(phrase.ids) != 1 or not self.may_name(phrase.shape, phrase.color):
            return None
        return self.the(phrase.words), (phrase.slot(phrase.ids),), "camera" if len(gone) > 1 else "object"


def ask_world(world: World, facts: WorldFacts | None = None) -> list[Asked]:
    """The benchmark's questions about a scene, always the same ones: one of every type that it can answer, and
    :data:`ABSENT_EACH` about what it does not show, each absent in another way."""
    facts = facts or WorldFacts(world)
    rng = np.random.default_rng(scene_seed(world.split, world.index, "questions"))
    questioner = Questioner(rng, things.SPLITS[world.split])
    asked = [questioner.ask(facts, kind) for kind in KINDS if kind != "absent"]
    ways = [ABSENT_KINDS[i] for i in rng.permutation(len(ABSENT_KINDS))]
    absent = [question for way in ways if (question := questioner.ask(facts, "absent", way)) is not None]
    return [question for question in asked if question is not None] + absent[:ABSENT_EACH]
