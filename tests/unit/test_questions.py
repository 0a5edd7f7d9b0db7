"""Batches of questions: labels over latents, ends of noun phrases, the word that names an anchor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from unit.tiny_unified import TINY

from instructseg.data.flat_scenes import sample_flat_episode
from instructseg.data.instructions import UNKNOWN, Question, QuestionWriter, SceneFacts, Slot, training_words
from instructseg.data.tabletop2.facts import WorldFacts
from instructseg.data.tabletop2.questions import LONGEST, Asked, Questioner
from instructseg.data.tabletop2.world import draw_world
from instructseg.recipes.unified.modeling import END, REJ, TRK
from instructseg.recipes.unified.tokenizer import build_tokenizer
from instructseg.training.bank import CLIP_TIMES
from instructseg.training.latent_bank import LatentBank
from instructseg.training.questions import collate, with_unknown_words

TOKENIZER = build_tokenizer(training_words())
BOWL, CAN, MUG = frozenset([3]), frozenset([5]), frozenset([6])


def bank_of_one(ids: list[int]) -> LatentBank:
    """One scene, the same latents in every frame; id 0 is a latent on nothing."""
    shape = (1, len(CLIP_TIMES), len(ids))
    return LatentBank(
        torch.zeros(*shape, TINY.appearance), torch.zeros(*shape, 6), torch.ones(shape), torch.ones(shape).bool(),
        torch.tensor(ids).expand(shape).clone(), torch.full((1, 256), -1), [SceneFacts.__new__(SceneFacts)],
    )  # fmt: skip


def test_a_relation_points_at_the_last_word_of_its_anchor() -> None:
    slot = Slot(CAN, CAN | MUG, BOWL, (("can", CAN), ("blue bowl", BOWL)))
    question = Question("find the can left of the blue bowl please", (slot,), "relation")
    batch = collate(bank_of_one([3, 5, 0]), TOKENIZER, TINY, torch.tensor([0]), [(0, question)])
    assert batch.phrases.tolist() == [[0, 2], [0, 7]]
    assert batch.phrase_labels.tolist() == [[0, 1, 0], [1, 0, 0]]
    assert batch.pointer[0].tolist() == [7, batch.words.shape[1]] and (batch.pointer[1:] == -1).all()
    assert batch.anchor[0].tolist() == [1, 0, 0] and batch.target[0].tolist() == [0, 1, 0]
    assert batch.answers[0].tolist() == [TRK] + [END] * (TINY.max_targets - 1)


def test_the_same_phrase_twice_is_found_twice_and_no_anchor_points_nowhere() -> None:
    slots = (Slot(CAN, CAN, phrases=(("can", CAN),)), Slot(frozenset(), frozenset(), phrases=(("can", frozenset()),)))
    question = Question("the can and the can", slots, "union")
    batch = collate(bank_of_one([5]), TOKENIZER, TINY, torch.tensor([0]), [(0, question)])
    assert batch.phrases.tolist() == [[0, 1], [0, 4]]
    assert batch.pointer[:2].tolist() == [[batch.words.shape[1]] * 2] * 2, "none"
    assert batch.answers[0, :2].tolist() == [TRK, REJ]
    assert batch.present[:2].tolist() == [1.0, 0.0] and batch.used[:2].all() and not batch.used[2:].any()


def test_unknown_words_change_what_is_said_and_nothing_of_what_is_meant() -> None:
    facts = [WorldFacts(draw_world("train", index)) for index in range(6)]
    rng = np.random.default_rng(0)
    asker, changed = Questioner(rng, frozenset()), 0
    for number in range(120):
        question = asker.draw(facts[number % len(facts)])
        new = with_unknown_words(question, rng)
        changed += new.text != question.text
        assert [(s.targets, s.candidates, s.anchors) for s in new.slots] == [
            (s.targets, s.candidates, s.anchors) for s in question.slots
        ]
        assert [w for w in new.text.split() if w != UNKNOWN] == question.text.split()
        assert [w for w in new.text.split()[: new.begin] if w != UNKNOWN] == question.text.split()[: question.begin]
        for slot in new.slots:
            assert all(words in new.text for words, _ in slot.phrases)
    assert changed > 60


def test_unknown_words_make_no_question_too_long_to_be_read() -> None:
    rng = np.random.default_rng(0)
    slot = Slot(MUG, MUG, phrases=(("mug", MUG),))
    question = Question(" ".join([*["please"] * (LONGEST - 2), "the", "mug"]), (slot,), "attribute", begin=LONGEST - 2)
    assert all(len(with_unknown_words(question, rng).text.split()) <= LONGEST for _ in range(30))


def test_a_noun_that_is_also_a_word_of_the_carrier_is_found_in_what_is_asked() -> None:
    slot = Slot(CAN, CAN | MUG, BOWL, (("can", CAN), ("blue bowl", BOWL)))
    question = Question("can you see the can left of the blue bowl", (slot,), "relation", begin=3)
    batch = collate(bank_of_one([3, 5, 0]), TOKENIZER, TINY, torch.tensor([0]), [(0, question)])
    assert batch.phrases.tolist() == [[0, 4], [0, 9]] and batch.pointer[0, 0] == 9


def test_an_anchor_may_be_said_before_the_target_and_no_word_is_taken_twice() -> None:
    slots = (
        Slot(CAN, CAN | MUG, BOWL, (("can", CAN), ("bowl", BOWL))),
        Slot(CAN, CAN, phrases=(("can", CAN),)),
    )
    question = Question("left of the bowl the can and the can", slots, "relation")
    batch = collate(bank_of_one([3, 5, 0]), TOKENIZER, TINY, torch.tensor([0]), [(0, question)])
    assert batch.phrases.tolist() == [[0, 5], [0, 3], [0, 8]]
    assert batch.pointer[0].tolist() == [3, batch.words.shape[1]]


def test_of_two_anchors_each_has_its_own_word_and_the_first_its_own_latents() -> None:
    slot = Slot(CAN, CAN, BOWL | MUG, (("can", CAN), ("bowl", BOWL), ("mug", MUG)))
    question = Asked("the can between the bowl and the mug", (slot,), "relation", "between", "relation")
    batch = collate(bank_of_one([3, 5, 6]), TOKENIZER, TINY, torch.tensor([0]), [(0, question)])
    assert batch.pointer[0].tolist() == [4, 7]
    assert batch.anchor[0].tolist() == [1, 0, 0], "what the first word names, not the mug"


def test_positions_are_those_of_tokens_where_a_word_has_several() -> None:
    pieces = Tokenizer(models.BPE({letter: i for i, letter in enumerate("abcdefghijklmnopqrstuvwxyz")}, []))
    pieces.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    slot = Slot(CAN, CAN, BOWL, (("can", CAN), ("bowl", BOWL)))
    question = Question("the can by the bowl", (slot,), "relation")
    batch = collate(bank_of_one([3, 5]), pieces, TINY, torch.tensor([0]), [(0, question)])
    assert batch.phrases.tolist() == [[0, 5], [0, 14]] and batch.pointer[0, 0] == 14


@pytest.mark.parametrize("version", [1, 2])
def test_what_is_asked_begins_where_the_question_says(version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """After talk in version 1, after a carrier in version 2; either may say "can"."""
    writer, written = (QuestionWriter, Questioner)[version - 1], []
    original = writer._asked

    def recorded(self, text: str, *rest) -> Question:
        written.append((original(self, text, *rest), text.split()))
        return written[-1][0]

    monkeypatch.setattr(writer, "_asked", recorded)
    rng = np.random.default_rng(2)
    if version == 1:
        facts = SceneFacts(sample_flat_episode(rng, "train", (0.0,), 0, 128, 96))
        questions = [writer(rng).ask(facts) for _ in range(200)]
    else:
        facts = WorldFacts(draw_world("train", 4))
        questions = [writer(rng, frozenset(), 0.5).draw(facts) for _ in range(200)]
    bodies = {id(question): body for question, body in written}
    for question in questions:
        body = bodies[id(question)]
        assert question.text.split()[question.begin :][: len(body)] == body
    assert any("can" in question.text.split()[: question.begin] for question in questions)


def test_a_target_that_no_latent_covers_is_not_held_against_the_model() -> None:
    question = Question("the mug", (Slot(MUG, MUG, phrases=(("mug", MUG),)),), "attribute")
    batch = collate(bank_of_one([5]), TOKENIZER, TINY, torch.tensor([0]), [(0, question)])
    assert not batch.seen[0]
    assert np.isclose(batch.target[0].sum(), 0)
