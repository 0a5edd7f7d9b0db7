"""Instructions asked about an episode, with their exact answers.

An instruction has one to ``max`` target slots (one a conjunct); each slot answers with a set of objects, empty when
what is named is absent. For the mask head's supervision a slot also knows the *candidates* (what the noun phrase
alone matches) and the *anchors* (what the relation refers to). Held-out phrasings (carrier sentences, relation
wordings, synonyms) are drawn only for the ``held_out`` split; compositions are held out by ``scene.py``.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from .scene import CLUTTER, COLORS, HELD_OUT_PAIRS, MOTIONS, SHAPES, Episode, SceneObject

NOUNS: dict[str, tuple[str, ...]] = {
    "block": ("block", "cube", "brick"), "ball": ("ball", "sphere"), "can": ("can", "cylinder", "tin"),
    "cone": ("cone",),
    "mug": ("mug", "cup"), "bowl": ("bowl", "basin"), "bottle": ("bottle", "flask"), "plate": ("plate", "dish"),
}  # fmt: skip
ANYTHING = ("thing", "object", "item")
SIZE_WORDS = {"small": ("small", "little", "tiny"), "large": ("large", "big")}
FOREIGN_COLORS = (
    "pink",
    "brown",
    "gray",
    "grey",
    "turquoise",
    "cyan",
    "beige",
    "golden",
    "silver",
)  # never on the table
FOREIGN_NOUNS = ("spoon", "fork", "banana", "apple", "phone", "key", "book", "hammer", "shoe", "scissors")
UNKNOWN = "qqq"  # stands for a word outside the vocabulary
USES: dict[str, tuple[str, ...]] = {  # phrase -> shapes that answer it
    "something to drink from": ("mug",), "something i can drink out of": ("mug",),
    "something to pour coffee into": ("mug",),
    "something that can roll away": ("ball",), "something to throw": ("ball",), "a toy to kick": ("ball",),
    "something to eat soup from": ("bowl",), "something to mix a salad in": ("bowl",),
    "something for my cereal": ("bowl",),
    "something to put food on": ("plate",), "something to serve a sandwich on": ("plate",),
    "something to build a tower with": ("block",), "something to stack": ("block",),
    "something that holds wine": ("bottle",), "something with a narrow neck": ("bottle",),
    "something with a handle": ("mug",),
    "something with a pointed tip": ("cone",), "something that looks like a party hat": ("cone",),
    "something that preserves food": ("can",), "something to open with a can opener": ("can",),
}  # fmt: skip
HELD_OUT_USES: dict[str, tuple[str, ...]] = {
    "something i could drink coffee from": ("mug",), "something to eat cereal from": ("bowl",),
    "a thing that can roll": ("ball",),
    "something to put a sandwich on": ("plate",), "something i can stack": ("block",),
    "the object with a handle": ("mug",),
}  # fmt: skip
CARRIERS = (
    "{}", "{}", "{}", "segment {}", "find {}", "show me {}", "track {}", "follow {}", "pick up {}", "grab {}",
    "i need {}",
    "please find {}", "please segment {}", "look for {}", "give me {}", "bring me {}", "can you see {}", "where is {}",
    "get {} for me", "{} please", "now find {}", "i want {}", "take {}",
)  # fmt: skip
HELD_OUT_CARRIERS = (
    "could you find {} for me", "locate {}", "hand me {} please", "keep an eye on {}", "i would like you to track {}",
    "robot , look for {} now", "point at {}",
)  # fmt: skip
RELATIONS: dict[str, tuple[str, ...]] = {
    "left": ("to the left of", "left of", "on the left side of"), "right": ("to the right of", "right of",
    "on the right side of"),
    "front": ("in front of", "closer than"), "behind": ("behind", "further away than"), "near": ("next to",
    "beside", "close to"),
}  # fmt: skip
HELD_OUT_RELATIONS: dict[str, tuple[str, ...]] = {
    "left": ("that is left of", "on the left of"), "right": ("that is right of", "on the right of"),
    "front": ("that is in front of",),
    "behind": ("that is behind",), "near": ("that is next to",),
}  # fmt: skip
SUPERLATIVES: dict[str, tuple[str, ...]] = {
    "left": ("leftmost {}", "{} furthest to the left", "{} on the far left"), "right": ("rightmost {}",
    "{} furthest to the right"),
    "front": ("nearest {}", "closest {}", "{} closest to me"), "behind": ("farthest {}", "most distant {}"),
    "biggest": ("biggest {}", "largest {}"), "smallest": ("smallest {}",),
}  # fmt: skip
MOTION_PHRASES: dict[str, tuple[str, ...]] = {
    "any": ("moving {}", "{} that is moving", "{} that moves", "{} in motion"),
    "left": ("{} moving left", "{} that is moving to the left", "{} going left"),
    "right": ("{} moving right", "{} that is moving to the right", "{} going right"),
    "toward": ("{} coming closer", "{} moving toward me", "{} that is coming closer"),
    "away": ("{} moving away", "{} that is going away"),
    "still": ("{} that is not moving", "{} standing still"),
}  # fmt: skip
_TALK_WORDS = tuple(sorted({word for carrier in CARRIERS for word in carrier.replace("{}", "").split()} | {",", "."}))
_SMALL_WORDS = frozenset(("a", "i", "can", "to", "that", "of", "out", "my", "for", "from", "with", "in", "on", "into"))
KINDS = ("attribute", "plural", "use", "superlative", "relation", "motion", "union")
KIND_SHARE = (0.22, 0.08, 0.14, 0.13, 0.22, 0.13, 0.08)


@dataclasses.dataclass(frozen=True)
class Slot:
    """Answer of one conjunct: object ids (empty = absent), candidates of the noun phrase, anchors of the relation."""

    targets: frozenset[int]
    candidates: frozenset[int]
    anchors: frozenset[int] = frozenset()
    phrases: tuple[tuple[str, frozenset[int]], ...] = ()  # the noun phrases in it and what each matches by itself


@dataclasses.dataclass(frozen=True)
class Question:
    """An instruction's text with its exact answer; ``kind`` is one of :data:`KINDS`."""

    text: str
    slots: tuple[Slot, ...]
    kind: str
    begin: int = dataclasses.field(default=0, kw_only=True)  # words of the text before what is asked: "can you see"


class SceneFacts:
    """What can be said of the key frame: visible objects, where they are in the image, what they are doing."""

    def __init__(self, episode: Episode, min_area: float = 40.0):
        ids = np.asarray(episode.instances[episode.key])
        height, width = ids.shape
        min_area *= ids.size / (192 * 256)
        area = np.bincount(ids.ravel(), minlength=256)
        self.objects: list[SceneObject] = [o for o in episode.objects if area[o.id] >= min_area]
        self.place: dict[int, np.ndarray] = {}  # id -> centre x, centre y, bottom y, sqrt(area), all relative
        self.motion: dict[int, str] = {}
        for o in self.objects:
            ys, xs = np.nonzero(ids == o.id)
            extent = [xs.mean() / width, ys.mean() / height, ys.max() / height, (len(xs) / ids.size) ** 0.5]
            self.place[o.id] = np.array(extent)
            self.motion[o.id] = MOTIONS[episode.motions[episode.key][[e.id for e in episode.objects].index(o.id)]]

    def relation(self, a: int, b: int, kind: str) -> bool | None:
        """Does a stand in this relation to b? None where a person could argue."""
        d = self.place[a] - self.place[b]
        if kind == "near":
            gap = float(np.hypot(d[0], 1.3 * d[2])) - 0.5 * (self.place[a][3] + self.place[b][3])
            return True if gap < 0.10 else False if gap > 0.17 else None
        value = {"left": -d[0], "right": d[0], "front": d[2] * 0.75, "behind": -d[2] * 0.75}[kind]
        return True if value > 0.05 else False if value < 0.0 else None

    def extreme(self, ids: set[int], kind: str) -> int | None:
        """The one of ``ids`` that is most ``kind``, or None when two are about equal."""
        axis, sign = {
            "left": (0, -1),
            "right": (0, 1),
            "front": (2, 1),
            "behind": (2, -1),
            "biggest": (3, 1),
            "smallest": (3, -1),
        }[kind]
        ranked = sorted(ids, key=lambda i: -sign * self.place[i][axis])
        first, second = (self.place[i][axis] for i in ranked[:2])
        margin = 0.22 * max(first, second) if axis == 3 else 0.04
        return ranked[0] if abs(first - second) > margin else None


@dataclasses.dataclass(frozen=True)
class _Phrase:
    words: str
    ids: frozenset[int]

    @property
    def pair(self) -> tuple[str, frozenset[int]]:
        return self.words, self.ids

    def slot(self, targets: frozenset[int]) -> Slot:
        return Slot(targets, self.ids, phrases=(self.pair,))


class QuestionWriter:
    """Draws questions about scenes; ``held_out`` adds the phrasings that training never sees."""

    def __init__(self, rng: np.random.Generator, split: str = "train"):
        self.rng, self.held_out = rng, split == "held_out"

    def ask(self, facts: SceneFacts, kind: str | None = None, absent: bool | None = None) -> Question:
        """One question; draws again until the scene answers it without ambiguity."""
        kind = kind or str(self.rng.choice(KINDS, p=KIND_SHARE))
        wanted = bool(self.rng.random() < 0.42) if absent is None else absent
        for _ in range(40):
            slots_and_text = getattr(self, f"_{kind}")(facts, wanted)
            if slots_and_text is not None:
                text, slots = slots_and_text
                return self._asked(text, slots, kind)
        if kind != "attribute":
            return self.ask(facts, "attribute", wanted)
        nothing = Slot(frozenset(), frozenset())  # a scene too plain or too crowded for more: something it never shows
        return self._asked(f"the {self._one_of(FOREIGN_NOUNS)}", (nothing,), "attribute")

    def _asked(self, text: str, slots: tuple[Slot, ...], kind: str) -> Question:
        carrier = self._carrier()
        return Question(carrier.format(text), slots, kind, begin=words_before(carrier))

    # --- kinds: each returns (text, slots) or None where this draw does not work out

    def _attribute(self, facts: SceneFacts, absent: bool):
        phrase = self._phrase(facts, absent)
        if len(phrase.ids) > 1 or absent != (not phrase.ids):
            return None
        return self._the(phrase.words), (phrase.slot(phrase.ids),)

    def _plural(self, facts: SceneFacts, absent: bool):
        phrase = self._phrase(facts, absent, plural=True)
        if absent != (not phrase.ids):
            return None
        return self._one_of(("all {}", "all the {}", "every one of the {}", "the {}")).format(phrase.words), (
            phrase.slot(phrase.ids),
        )

    def _use(self, facts: SceneFacts, absent: bool):
        uses = HELD_OUT_USES if self.held_out and self.rng.random() < 0.5 else USES
        text = self._one_of(tuple(uses))
        ids = frozenset(o.id for o in facts.objects if o.shape in uses[text])
        text = text if self.held_out else self._reword_use(text)
        return None if absent != (not ids) else (text, (Slot(ids, ids, phrases=((text, ids),)),))

    def _superlative(self, facts: SceneFacts, absent: bool):
        phrase = self._phrase(facts, absent, loose=True)
        if absent != (not phrase.ids) or len(phrase.ids) == 1:
            return None
        kind = self._one_of(tuple(SUPERLATIVES))
        target = facts.extreme(set(phrase.ids), kind) if phrase.ids else None
        if phrase.ids and target is None:
            return None
        text = "the " + self._one_of(SUPERLATIVES[kind]).format(phrase.words)
        return text, (phrase.slot(frozenset() if target is None else frozenset([target])),)

    def _relation(self, facts: SceneFacts, absent: bool):
        anchor = self._phrase(facts, absent and self.rng.random() < 0.25)
        phrase = self._phrase(facts, absent and self.rng.random() < 0.25, loose=True)
        kind = self._one_of(tuple(RELATIONS))
        if len(anchor.ids) > 1 or (not absent and not (anchor.ids and phrase.ids)):
            return None
        targets = set()
        for a in anchor.ids:
            verdicts = {i: facts.relation(i, a, kind) for i in phrase.ids - anchor.ids}
            if None in verdicts.values():
                return None
            targets = {i for i, holds in verdicts.items() if holds}
        if len(targets) > 1 or absent != (not targets):
            return None
        if targets == phrase.ids - anchor.ids and self.rng.random() < 0.7:
            return None  # the noun phrase alone would answer it: keep those rare, or the relation is never learned
        wording = HELD_OUT_RELATIONS if self.held_out and self.rng.random() < 0.5 else RELATIONS
        text = f"{self._the(phrase.words)} {self._one_of(wording[kind])} {self._the(anchor.words)}"
        return text, (Slot(frozenset(targets), phrase.ids, anchor.ids, (phrase.pair, anchor.pair)),)

    def _motion(self, facts: SceneFacts, absent: bool):
        phrase = self._phrase(facts, absent and self.rng.random() < 0.15, loose=True)
        kind = self._one_of(("any", "any", "left", "right", "toward", "away", "still"))
        if kind == "any":
            targets = {i for i in phrase.ids if facts.motion[i] != "still"}
        else:
            targets = {i for i in phrase.ids if facts.motion[i] == kind}
        if len(targets) > 1 or absent != (not targets):
            return None
        return "the " + self._one_of(MOTION_PHRASES[kind]).format(phrase.words), (phrase.slot(frozenset(targets)),)

    def _union(self, facts: SceneFacts, absent: bool):
        count = 3 if self.rng.random() < 0.2 else 2
        gone = self.rng.random(count) < (0.6 if absent else 0.1)
        phrases = [self._phrase(facts, bool(g)) for g in gone]
        if any(len(p.ids) > 1 for p in phrases) or len({p.ids for p in phrases if p.ids}) < sum(
            bool(p.ids) for p in phrases
        ):
            return None
        if absent == all(p.ids for p in phrases):
            return None
        words = [self._the(p.words) for p in phrases]
        text = (
            " and ".join(words) if self.rng.random() < 0.7 or count == 2 else f"{words[0]} , {words[1]} and {words[2]}"
        )
        return text, tuple(p.slot(p.ids) for p in phrases)

    def _reword_use(self, text: str) -> str:
        """Other words for "something", and small words that a recogniser missed: the use must carry the answer."""
        if self.rng.random() < 0.35:
            text = text.replace("something", self._one_of(("a thing", "the object", "the item", UNKNOWN)))
        if self.rng.random() < 0.3:
            words = [UNKNOWN if w in _SMALL_WORDS and self.rng.random() < 0.25 else w for w in text.split()]
            text = " ".join(words)
        return text

    # --- noun phrases

    def _phrase(self, facts: SceneFacts, absent: bool, plural: bool = False, loose: bool = False) -> _Phrase:
        """A noun phrase and what it matches; ``loose`` prefers phrases that match several things."""
        named = [o for o in facts.objects if o.shape != CLUTTER]
        about = named[self.rng.integers(len(named))] if named else None
        use_noun = self.rng.random() < (0.6 if loose else 0.85)
        use_color = self.rng.random() < (0.35 if loose else 0.75) or not (use_noun or loose)
        use_size = self.rng.random() < 0.15
        color = about.color if about and use_color else None
        shape = about.shape if about and use_noun else None
        size = about.size if about and use_size else None
        if absent:
            color, shape, odd = self._twist(color, shape)
            if odd is not None:
                return _Phrase(
                    self._words(None, odd if odd in FOREIGN_COLORS else color, shape, odd, plural), frozenset()
                )
        if not self.held_out and (color, shape) in HELD_OUT_PAIRS:
            color = None  # never named in training either: it would only ever be absent, and words alone would tell
        ids = frozenset(
            o.id for o in facts.objects
            if (color is None or o.color == color) and (shape is None or o.shape == shape) and (size is None or
            o.size == size)
        )  # fmt: skip
        return _Phrase(self._words(size, color, shape, None, plural), ids)

    def _twist(self, color: str | None, shape: str | None) -> tuple[str | None, str | None, str | None]:
        """Make a phrase probably absent: another colour, another shape, or a word for something never on the table."""
        roll = self.rng.random()
        if roll < 0.4:
            return self._one_of(tuple(COLORS)), shape, None
        if roll < 0.7:
            return color, self._one_of(SHAPES), None
        if roll < 0.78:
            return None, shape, self._one_of(FOREIGN_COLORS)
        if roll < 0.88:
            return color, None, self._one_of(FOREIGN_NOUNS)
        return color, None, UNKNOWN

    def _words(self, size: str | None, color: str | None, shape: str | None, odd: str | None, plural: bool) -> str:
        noun = (
            odd if odd is not None and odd not in FOREIGN_COLORS else self._one_of(NOUNS[shape] if shape else ANYTHING)
        )
        if plural and noun != UNKNOWN:
            noun = {"dish": "dishes", "scissors": "scissors"}.get(noun, noun + "s")
        parts = [self._one_of(SIZE_WORDS[size]) if size else None, color, noun]
        if self.rng.random() < 0.03:
            parts.insert(0, UNKNOWN)  # an adjective outside the vocabulary does not change the answer
        return " ".join(p for p in parts if p)

    def _the(self, words: str) -> str:
        roll = self.rng.random()
        return words if roll < 0.06 else f"a {words}" if roll < 0.12 else f"the {words}"

    def _carrier(self) -> str:
        """What is said around an instruction, with ``{}`` in its place."""
        carriers = HELD_OUT_CARRIERS if self.held_out and self.rng.random() < 0.5 else CARRIERS
        if (
            not self.held_out and self.rng.random() < 0.2
        ):  # any talk around it: what carries the instruction must not matter
            before, after = self._talk(int(self.rng.integers(0, 7))), self._talk(int(self.rng.integers(0, 4)))
            return " ".join((*before, "{}", *after))
        text = self._one_of(carriers)
        if self.rng.random() < 0.08:  # spoken filler, or words that a recogniser got wrong
            text = self._one_of(
                (f"{UNKNOWN} {text}", f"{UNKNOWN} {UNKNOWN} {text}", f"um {text}", f"ok {text}", f"{text} {UNKNOWN}")
            )
        return text

    def _talk(self, count: int) -> list[str]:
        return [UNKNOWN if self.rng.random() < 0.4 else self._one_of(_TALK_WORDS) for _ in range(count)]

    def _one_of(self, options):
        return options[self.rng.integers(len(options))]


def words_before(carrier: str) -> int:
    """How many words a carrier says before the instruction in it."""
    return len(carrier[: carrier.index("{}")].split())


def training_words() -> list[str]:
    """Every word the training phrasings can produce, sorted: the vocabulary of the default recipe."""
    texts = [
        *CARRIERS,
        *USES,
        *ANYTHING,
        *FOREIGN_COLORS,
        *FOREIGN_NOUNS,
        *COLORS,
        "the a and , . ? um ok all every one of",
    ]
    for table in (NOUNS, SIZE_WORDS, RELATIONS, SUPERLATIVES, MOTION_PHRASES):
        texts += [option for options in table.values() for option in options]
    texts += [f"{n}s" for n in (*ANYTHING, *FOREIGN_NOUNS, *(n for names in NOUNS.values() for n in names))] + [
        "dishes"
    ]
    return sorted({word for text in texts for word in text.replace("{}", " ").split()} - {UNKNOWN})
