"""Questions about what a scene does not show, each close to something that it does show."""

from __future__ import annotations

from ..instructions import Slot
from . import things, wider_wordings
from . import wordings as w
from .facts import WorldFacts
from .phrases import Phrase, PhraseWriter

ABSENT_KINDS = ("attribute", "class", "relation", "look_alike", "motion")
IMITATES = {"class": "attribute", "look_alike": "attribute"}  # which type such a question looks like
Found = tuple[str, tuple[Slot, ...]] | None


class AbsentWriter(PhraseWriter):
    """Relations and motions as questions need them, and questions whose answer is that there is nothing."""

    def absent(self, facts: WorldFacts, kind: str) -> tuple[str, tuple[Slot, ...], str] | None:
        """One draw of this kind (:data:`ABSENT_KINDS`): text, slots, kind; None where it does not work out."""
        found = getattr(self, f"_no_{kind}")(facts)
        return None if found is None else (*found, kind)

    def related(self, facts: WorldFacts, phrase: Phrase, anchor: Phrase, kind: str) -> frozenset[int] | None:
        """What of the phrase stands so to the anchor; None where it cannot be asked."""
        if len(anchor.ids) != 1 or not phrase.ids - anchor.ids:
            return None
        if not (self.may_name(phrase.shape, phrase.color) and self.may_name(anchor.shape, anchor.color)):
            return None
        (other,) = anchor.ids
        shape = next(o.shape for o in facts.objects if o.id == other)
        held = (kind, shape) in things.HELD_OUT_RELATIONS
        if (held and "relations" not in self.axes) or (not held and "relations" in self.axes and self.chance(0.9)):
            return None
        verdicts = {i: facts.relation(i, other, kind) for i in phrase.ids - anchor.ids}
        if None in verdicts.values():
            return None
        return frozenset(i for i, holds in verdicts.items() if holds)

    def relation_text(self, phrase: Phrase, anchor: Phrase, kind: str) -> str:
        words = self.say(w.RELATIONS, w.HELD_OUT_RELATION_WORDS, wider_wordings.RELATIONS, kind)
        return f"{self.the(phrase.words)} {words} the {anchor.words}"

    @staticmethod
    def doing(facts: WorldFacts, ids: frozenset[int], kind: str) -> frozenset[int] | None:
        """Which of ``ids`` are doing it; None where one could argue. kind: a key of ``wordings.MOTIONS``."""
        events = {i: facts.events[i] for i in ids if i in facts.events}
        if kind in ("first", "last"):
            order = sorted(events.values(), key=lambda event: event.start)
            if len(order) < 2:
                return None
            pair = order[:2] if kind == "first" else order[-2:]
            best = order[0] if kind == "first" else order[-1]
            return frozenset({best.id}) if pair[1].start - pair[0].start > 0.35 else None
        if kind == "pushed":
            return frozenset(i for i, event in events.items() if event.kind == "pushed")
        if kind == "stopped":
            pushed = {i for i, event in events.items() if event.kind == "pushed"}
            return None if pushed else frozenset(i for i, event in events.items() if -1.2 < event.stop < -0.2)
        if kind == "any":
            return frozenset(i for i in ids if facts.motion[i] != "still")
        return frozenset(i for i in ids if facts.motion[i] == kind)

    def _no_attribute(self, facts: WorldFacts) -> Found:
        about, color = self.any_named(facts), self.one_of(things.COLORS)
        phrase = self.write(facts, about.shape, color)
        if phrase.ids or not self.may_name(about.shape, color):
            return None
        return self.the(phrase.words), (phrase.slot(frozenset()),)

    def _no_class(self, facts: WorldFacts) -> Found:
        color = self.any_named(facts).color if self.chance(0.5) else None
        if self.chance(0.4):
            noun = self.say(w.FOREIGN_NOUNS, w.HELD_OUT_FOREIGN_NOUNS, wider_wordings.FOREIGN_NOUNS)
            return self._nothing(self._colored(color, noun))
        shape = self.one_of(things.SHAPES)
        if any(o.shape == shape for o in facts.objects) or not self.may_name(shape, color):
            return None
        return self._nothing(self.words(shape, color))

    def _no_relation(self, facts: WorldFacts) -> Found:
        kind = self.one_of(("left", "right", "front", "behind", "near", "far", "on", "in"))
        phrase, anchor = self.phrase(facts), self.phrase(facts)
        if self.related(facts, phrase, anchor, kind) != frozenset():
            return None
        return self.relation_text(phrase, anchor, kind), (phrase.slot(frozenset(), anchor),)

    def _no_look_alike(self, facts: WorldFacts) -> Found:
        about = self.any_named(facts)
        name = self.one_of((wider_wordings if self.wider() else w).LOOK_ALIKES[about.shape])
        shape = name if name in things.SHAPES else None
        color = about.color if self.chance(0.6) else None
        if shape and (any(o.shape == shape for o in facts.objects) or not self.may_name(shape, color)):
            return None
        return self._nothing(self.words(shape, color) if shape else self._colored(color, name))

    def _no_motion(self, facts: WorldFacts) -> Found:
        phrase, kind = self.phrase(facts), self.one_of(("any", "left", "right", "toward", "away", "pushed"))
        if not phrase.ids or not self.may_name(phrase.shape, phrase.color):
            return None
        if self.doing(facts, phrase.ids, kind) != frozenset():
            return None
        text = self.say(w.MOTIONS, w.HELD_OUT_MOTIONS, wider_wordings.MOTIONS, kind).format(phrase.words)
        return f"the {text}", (phrase.slot(frozenset()),)

    def _colored(self, color: str | None, noun: str) -> str:
        if color and self.wider():
            color = self.one_of(wider_wordings.COLOR_WORDS[color])
        return f"{color} {noun}" if color else noun

    def _nothing(self, words: str) -> tuple[str, tuple[Slot, ...]]:
        slot = Slot(frozenset(), frozenset(), phrases=((words, frozenset()),))
        return self.the(words), (slot,)
