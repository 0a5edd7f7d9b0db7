"""The wider wordings of training: nothing that is held out, and questions whose parts training finds in the text."""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest

from instructseg.core import BadInput
from instructseg.data import instructions as first
from instructseg.data.tabletop2 import things, wider_carriers, wider_wordings, wordings
from instructseg.data.tabletop2.facts import WorldFacts
from instructseg.data.tabletop2.questions import KINDS, LONGEST, Asked, Questioner
from instructseg.data.tabletop2.world import draw_world
from instructseg.recipes.unified.configuration import UnifiedConfig
from instructseg.recipes.unified.tokenizer import build_tokenizer, encode_words
from instructseg.training.concept_labels import UNKNOWN, choice_of

WORLDS, EACH = 20, 150
MARK = re.compile(r"\{\d?\}")


@pytest.fixture(scope="module")
def facts() -> list[WorldFacts]:
    return [WorldFacts(draw_world("train", index)) for index in range(WORLDS)]


class Recording(Questioner):
    """Remembers what the carrier was put around."""

    def carry(self, text: str) -> tuple[str, int]:
        self.body = text
        return super().carry(text)


@dataclasses.dataclass(frozen=True)
class Drawn:
    asked: Asked
    body: str
    facts: WorldFacts


@pytest.fixture(scope="module")
def drawn(facts: list[WorldFacts]) -> list[Drawn]:
    questioner, found = Recording(np.random.default_rng(7), frozenset(), wide=0.5), []
    for about in facts:
        for _ in range(EACH):
            asked = questioner.draw(about, 0.3)
            if asked is not None:
                found.append(Drawn(asked, questioner.body, about))
    return found


def texts_of(table: object) -> Iterator[str]:
    """Of a table, or of what maps phrases to what they mean."""
    if isinstance(table, str):
        yield table
    elif isinstance(table, dict):
        for name, options in table.items():
            yield from [name] if " " in str(name) else texts_of(options)
    else:
        for option in table:
            yield from texts_of(option)


def held_out(module: ModuleType) -> list[str]:
    names = [name for name in vars(module) if name.startswith("HELD_OUT") and name != "HELD_OUT_PAIRS"]
    assert len(names) >= 3
    return [text for name in names for text in texts_of(getattr(module, name))]


def plain(text: str) -> str:
    """Without marks and punctuation."""
    return " ".join(word for word in MARK.sub(" ", text).split() if word not in (",", ".", "?", ":", "'"))


def only_held_out() -> set[str]:
    """Words that no ordinary wording has."""
    words = {word for text in held_out(wordings) for word in plain(text).split()}
    return words - set(wordings.training_words()) - set(first.training_words())


def test_no_entry_has_a_word_that_only_held_out_wordings_have() -> None:
    never = only_held_out()
    assert len(never) > 100
    bad = {entry: words for entry in wider_wordings.entries() if (words := set(plain(entry).split()) & never)}
    assert not bad
    assert not never & set(wider_wordings.training_words())


def test_no_entry_is_a_held_out_wording() -> None:
    never = {plain(text) for module in (wordings, first) for text in held_out(module)} - {""}
    assert not {entry for entry in wider_wordings.entries() if plain(entry) in never}


def test_no_question_says_a_held_out_wording_around_what_it_asks_for(drawn: list[Drawn]) -> None:
    never = {plain(text) for module in (wordings, first) for text in texts_of(module.HELD_OUT_CARRIERS)}
    assert not {plain(d.asked.text.replace(d.body, "{}", 1)) for d in drawn} & never


def test_the_vocabulary_is_that_of_all_training_wordings_and_no_more(drawn: list[Drawn]) -> None:
    words = wider_wordings.training_words()
    assert words == sorted(set(words)) and all(word == word.lower() and word.split() == [word] for word in words)
    assert {*wordings.training_words(), *first.training_words()} < set(words)
    said = {word for d in drawn for word in d.asked.text.split()}
    assert said <= set(words) and len(said) > 600


def test_entries_are_the_words_that_the_tokenizer_makes_of_them() -> None:
    tokenizer = build_tokenizer(wider_wordings.training_words())
    for entry in wider_wordings.entries():
        text = MARK.sub(" ", entry)
        tokens = tokenizer.encode(text, add_special_tokens=False).tokens
        assert tokens == text.split(), "training counts words between blanks"


def test_there_are_many_ways_to_say_everything() -> None:
    tables = (wider_wordings.NOUNS, wider_wordings.COLOR_WORDS, wider_wordings.RELATIONS, wider_wordings.SUPERLATIVES,
              wider_wordings.MOTIONS, wider_wordings.COMPARISONS, wider_wordings.SIZE_WORDS,
              wider_wordings.ORDINAL_PHRASES, wider_wordings.LOOK_ALIKES)  # fmt: skip
    usual = (wordings.NOUNS, wordings.COLOR_WORDS, wordings.RELATIONS, wordings.SUPERLATIVES, wordings.MOTIONS,
             wordings.COMPARISONS, wordings.SIZE_WORDS, wordings.ORDINAL_PHRASES, wordings.LOOK_ALIKES)  # fmt: skip
    for table, ordinary in zip(tables, usual, strict=True):
        assert set(table) == set(ordinary)
        assert all(len(set(options)) == len(options) >= 5 for options in table.values())
        if table is not wider_wordings.LOOK_ALIKES:
            assert not {o for all_ in table.values() for o in all_} & {o for all_ in ordinary.values() for o in all_}
    assert len(set(wider_wordings.FOREIGN_NOUNS)) >= 100 and len(set(wider_carriers.CARRIERS)) >= 60


def test_a_word_names_one_kind_of_thing_only() -> None:
    for table, ordinary in ((wider_wordings.NOUNS, wordings.NOUNS), (wider_wordings.COLOR_WORDS, wordings.COLOR_WORDS)):
        counted = collections.Counter(word for names in (table, ordinary) for words in names.values() for word in words)
        assert max(counted.values()) == 1, counted.most_common(1)
    nouns = {noun for table in (wider_wordings.NOUNS, wordings.NOUNS) for names in table.values() for noun in names}
    others = {name for names in wider_wordings.LOOK_ALIKES.values() for name in names} - set(things.SHAPES)
    assert not nouns & {*wider_wordings.FOREIGN_NOUNS, *others, *things.CLUTTER_KINDS}
    assert not {*wider_wordings.FOREIGN_NOUNS, *others} & set(things.CLUTTER_KINDS)


def test_every_use_is_answered_by_shapes_and_every_shape_has_many() -> None:
    counted = collections.Counter(shape for shapes in wider_wordings.USES.values() for shape in shapes)
    assert set(counted) == set(things.SHAPES) and min(counted.values()) >= 10
    assert not set(wider_wordings.USES) & set(wordings.USES)


def ends(asked: Asked, words: list[str], begin: int) -> list[int]:
    """Where training finds the last words of the phrases, as it looks for them: one after the other."""
    found, cursor = [], begin
    for slot in asked.slots:
        for said, _ in slot.phrases:
            wanted = said.split()
            start = next(k for k in range(cursor, len(words)) if words[k : k + len(wanted)] == wanted)
            cursor = start + len(wanted)
            found.append(cursor - 1)
    return found


def test_training_finds_every_phrase_in_order_and_inside_what_is_asked_for(drawn: list[Drawn]) -> None:
    assert len(drawn) > 2500
    assert {d.asked.kind for d in drawn} == set(KINDS)
    tokenizer, limit = build_tokenizer(wider_wordings.training_words()), UnifiedConfig().max_words
    unknown = tokenizer.token_to_id("<unk>")
    for d in drawn:
        words = d.asked.text.split()
        ids = encode_words(tokenizer, d.asked.text, limit)
        assert len(ids) == len(words) <= LONGEST == limit and unknown not in ids, d.asked.text
        begin = len(d.asked.text[: d.asked.text.index(d.body)].split())
        assert begin == d.asked.begin
        positions = ends(d.asked, words, begin)
        assert positions == [begin + place for place in ends(d.asked, d.body.split(), 0)], d.asked.text


def test_answers_follow_from_the_parts_of_a_question(drawn: list[Drawn]) -> None:
    for d in drawn:
        ids = {o.id for o in d.facts.objects}
        for slot in d.asked.slots:
            assert slot.targets <= slot.candidates <= ids and not slot.targets & slot.anchors
            assert slot.candidates == slot.phrases[0][1]
            assert slot.anchors == frozenset().union(*(named for _, named in slot.phrases[1:]))
            if d.asked.kind != "several":  # of several, one may be absent
                assert bool(slot.targets) == (d.asked.kind != "absent"), d.asked.text
            if d.asked.kind == "negation":
                assert slot.targets == slot.candidates - slot.anchors


def test_training_knows_which_concept_every_present_target_asks_for(drawn: list[Drawn]) -> None:
    for d in drawn:
        for slot in d.asked.slots:
            assert (choice_of(d.asked, slot, d.facts) != UNKNOWN) or d.asked.kind == "absent", d.asked


def test_wider_attributes_and_negations_answer_as_a_reader_would(drawn: list[Drawn]) -> None:
    nouns = {name: shape for table in (wider_wordings.NOUNS, wordings.NOUNS) for shape, all_ in table.items()
             for noun in all_ for name in (noun, wider_wordings.plural(noun))}  # fmt: skip
    colors = {word: color for table in (wider_wordings.COLOR_WORDS, wordings.COLOR_WORDS)
              for color, words in table.items() for word in words}  # fmt: skip

    def read(said: str, names: dict[str, str]) -> str | None:
        return next((names[n] for n in sorted(names, key=len, reverse=True) if f" {n} " in f" {said} "), None)

    checked = 0
    for d in drawn:
        if d.asked.kind not in ("attribute", "negation", "several") or d.asked.detail == "size":
            continue
        for said, ids in (phrase for slot in d.asked.slots for phrase in slot.phrases):
            shape, color = read(said, nouns), read(said, colors)
            size = any(f" {word} " in f" {said} " for table in (wider_wordings, wordings)
                       for words in table.SIZE_WORDS.values() for word in words)  # fmt: skip
            fits = {o.id for o in d.facts.objects if shape in (None, o.shape) and color in (None, o.color)}
            assert ids == fits or (size and ids <= fits), (said, shape, color)
            checked += 1
    assert checked > 400


def test_a_share_of_wordings_is_wider_and_none_without_it(facts: list[WorldFacts]) -> None:
    def words(wide: float) -> set[str]:
        questioner = Questioner(np.random.default_rng(1), frozenset(), wide=wide)
        drawn = [questioner.draw(about) for about in facts[:5] for _ in range(40)]
        return {word for asked in drawn if asked for word in asked.text.split()}

    usual = set(wordings.training_words())
    assert words(0.0) <= usual
    assert len(words(0.5) - usual) > 150
    assert len(words(1.0) - usual) > len(words(0.1) - usual) > 30


def test_no_number_is_drawn_for_wordings_that_are_not_wanted(facts: list[WorldFacts]) -> None:
    plainly, asked_for = (Questioner(np.random.default_rng(4), frozenset(), **more) for more in ({}, {"wide": 0.0}))
    for about in facts[:4]:
        for kind in KINDS:
            assert plainly.ask(about, kind) == asked_for.ask(about, kind)
    assert plainly.rng.random() == asked_for.rng.random()


@pytest.mark.parametrize(("wide", "axes"), [(-0.1, ()), (1.5, ()), (float("nan"), ()), (0.5, ("phrasing",))])
def test_wider_wordings_are_a_share_and_never_beside_held_out_ones(wide: float, axes: tuple[str, ...]) -> None:
    with pytest.raises(BadInput, match="wide must be a probability"):
        Questioner(np.random.default_rng(0), frozenset(axes), wide=wide)
