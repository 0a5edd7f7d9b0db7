"""Generated scenes and questions: compositions held out, answers exact, phrases where the words are."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from instructseg.data.flat_scenes import sample_flat_episode
from instructseg.data.instructions import (
    HELD_OUT_CARRIERS,
    KINDS,
    NOUNS,
    UNKNOWN,
    QuestionWriter,
    SceneFacts,
    training_words,
)
from instructseg.data.scene import CLUTTER, HELD_OUT_PAIRS, MOTIONS, allowed_pairs, draw_objects

TIMES = (-0.5, 0.0, 0.5)


@pytest.fixture(scope="module")
def facts() -> list[SceneFacts]:
    rng = np.random.default_rng(3)
    return [SceneFacts(sample_flat_episode(rng, "train", TIMES, 1, 128, 96)) for _ in range(12)]


def test_training_never_draws_a_held_out_pair() -> None:
    rng = np.random.default_rng(0)
    drawn = {(o.color, o.shape) for _ in range(400) for o in draw_objects(rng, "train", 6, 1) if o.shape != CLUTTER}
    assert not drawn & HELD_OUT_PAIRS
    assert len(drawn) > 40, "most of the other compositions are there"


def test_every_held_out_scene_shows_a_held_out_pair() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        assert HELD_OUT_PAIRS & {(o.color, o.shape) for o in draw_objects(rng, "held_out", 3)}
    assert set(allowed_pairs("held_out")) >= HELD_OUT_PAIRS


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="split must be one of .*'test'"):
        draw_objects(np.random.default_rng(0), "test", 3)


def test_a_flat_episode_is_the_same_for_the_same_seed_and_moves_as_it_says() -> None:
    first, again = (sample_flat_episode(np.random.default_rng(5), "train", TIMES, 1, 128, 96) for _ in range(2))
    assert np.array_equal(first.images, again.images) and np.array_equal(first.instances, again.instances)
    assert first.images.shape == (3, 96, 128, 3) and first.motions.shape == (3, len(first.objects))
    assert set(np.unique(first.instances)) <= {0, *(o.id for o in first.objects)}
    rng, moved = np.random.default_rng(8), 0
    for _ in range(30):
        episode = sample_flat_episode(rng, "train", (0.0, 1.0), 0, 128, 96)
        for column, o in enumerate(episode.objects):
            motion = MOTIONS[episode.motions[0, column]]
            places = [np.argwhere(ids == o.id) for ids in episode.instances]
            if motion in ("left", "right") and min(map(len, places)) > 30:
                step = places[1].mean(0)[1] - places[0].mean(0)[1]
                moved += 1 if (step < 0) == (motion == "left") else -1
    assert moved >= 5, "objects said to move left or right do (a few are covered or cut off on the way)"


@pytest.mark.parametrize("kind", KINDS)
def test_answers_agree_with_the_scene(facts: list[SceneFacts], kind: str) -> None:
    writer = QuestionWriter(np.random.default_rng(1))
    for scene in facts:
        ids = {o.id for o in scene.objects}
        for _ in range(12):
            question = writer.ask(scene, kind)
            for slot in question.slots:
                assert slot.targets <= ids and slot.anchors <= ids
                assert slot.targets <= slot.candidates, question.text
                assert not slot.targets & slot.anchors, question.text
                for words, named in slot.phrases:
                    assert f" {words} " in f" {question.text} ", "the phrase stands in the text"
                    assert named <= ids


def test_absent_and_present_can_be_asked_for(facts: list[SceneFacts]) -> None:
    writer = QuestionWriter(np.random.default_rng(2))
    for scene in facts:
        assert all(s.targets for s in writer.ask(scene, "attribute", absent=False).slots)
        assert not any(s.targets for s in writer.ask(scene, "attribute", absent=True).slots)


def test_training_texts_stay_in_the_vocabulary_and_held_out_carriers_do_not_leak(facts: list[SceneFacts]) -> None:
    known = {*training_words(), UNKNOWN}
    writer = QuestionWriter(np.random.default_rng(4))
    texts = [writer.ask(scene).text for scene in facts for _ in range(60)]
    assert {word for text in texts for word in text.split()} <= known
    starts = tuple(c.split("{}")[0] for c in HELD_OUT_CARRIERS)
    assert not [text for text in texts if text.startswith(starts)]
    held_out = QuestionWriter(np.random.default_rng(4), "held_out")
    assert [t for t in (held_out.ask(facts[0]).text for _ in range(60)) if t.startswith(starts)]


def test_a_scene_without_named_things_still_gets_a_question(facts: list[SceneFacts]) -> None:
    empty = sample_flat_episode(np.random.default_rng(6), "train", TIMES, 1, 128, 96)
    empty.instances[:] = 0
    for kind in KINDS:
        question = QuestionWriter(np.random.default_rng(7)).ask(SceneFacts(empty), kind)
        assert not any(slot.targets for slot in question.slots)


def test_training_never_names_a_held_out_pair(facts: list[SceneFacts]) -> None:
    """It would always be absent in training, and a model would learn to refuse the words."""
    nouns = {noun: shape for shape, names in NOUNS.items() for name in names for noun in (name, f"{name}s")}
    writer = QuestionWriter(np.random.default_rng(9))
    for scene in facts:
        for _ in range(80):
            words = writer.ask(scene).text.split()
            pairs = {(color, nouns.get(noun)) for color, noun in itertools.pairwise(words)}
            assert not pairs & HELD_OUT_PAIRS, words
