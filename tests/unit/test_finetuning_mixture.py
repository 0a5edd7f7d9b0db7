"""Which samples a step is made of: weights kept, nothing lost, the same wherever one begins, however it is shared."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.toy_learning import Squares, ToyLearner

from instructseg.core import BadInput
from instructseg.data.samples import Sample
from instructseg.training.finetuning.examples import ATTEMPTS, Examples
from instructseg.training.finetuning.mixture import BLOCK, Draw, Mixture, Shares, source_of


def take(mixture: Mixture, begin: int, count: int) -> list[Draw]:
    return list(itertools.islice(mixture.draws(begin), count))


def test_weights_are_kept_and_every_scene_comes_before_one_comes_again() -> None:
    drawn = take(Mixture([3.0, 1.0], [7, 50], seed=5), 0, 4000)
    shares = Counter(draw.source for draw in drawn)
    assert shares[0] / len(drawn) == pytest.approx(0.75, abs=0.03)
    for source, length in ((0, 7), (1, 50)):
        scenes = [draw.scene for draw in drawn if draw.source == source]
        epochs = [scenes[i : i + length] for i in range(0, len(scenes) - length, length)]
        assert all(sorted(epoch) == list(range(length)) for epoch in epochs)
        assert epochs[0] != epochs[1], "a new order every time"


@settings(max_examples=30, deadline=None)
@given(
    begin=st.integers(0, 3 * BLOCK), seed=st.integers(0, 5), lengths=st.lists(st.integers(1, 9), min_size=1, max_size=3)
)
def test_a_sequence_that_begins_later_is_the_rest_of_the_same_one(begin: int, seed: int, lengths: list[int]) -> None:
    mixture = Mixture([1.0 + i for i in range(len(lengths))], lengths, seed)
    assert take(mixture, begin, 9) == take(mixture, 0, begin + 9)[begin:]


@pytest.mark.parametrize(("processes", "parts"), [(1, 1), (1, 4), (2, 2), (4, 1)])
def test_a_step_has_the_same_samples_however_it_is_shared_out(processes: int, parts: int) -> None:
    mixture = Mixture([1.0], [100], seed=1)
    step = []
    for process in range(processes):
        shares = Shares(8, parts, processes, process)
        own = list(itertools.islice(shares.parts_from(mixture, 3), parts))
        assert {len(part) for part in own} == {shares.part}
        step += [draw for part in own for draw in part]
    assert step == take(mixture, 24, 8)


def test_a_batch_that_cannot_be_shared_out_is_refused() -> None:
    with pytest.raises(BadInput, match=r"batch must be a multiple of accumulation x processes \(3 x 2\); got 8"):
        Shares(8, 3, 2, 0)


@pytest.mark.parametrize(("weights", "lengths"), [([], []), ([1.0], [0]), ([0.0], [3]), ([1.0, 2.0], [3])])
def test_a_mixture_of_nothing_is_refused(weights: list[float], lengths: list[int]) -> None:
    with pytest.raises(BadInput, match="a mixture needs"):
        Mixture(weights, lengths, 0)


def test_samples_of_one_picture_belong_together_where_the_learner_takes_several() -> None:
    dataset = Squares(4, absent=[1], each=3)
    assert len(source_of(dataset, 1.0).scenes) == 12
    together = source_of(dataset, 1.0, lambda sample: sample.footage.name, lambda sample: bool(sample.objects))
    assert together.scenes == ((0, 1, 2), (6, 7, 8), (9, 10, 11))
    with pytest.raises(BadInput, match="squares train has no sample that this recipe can be trained on"):
        source_of(dataset, 1.0, takes=lambda sample: False)


def test_an_entry_that_is_broken_is_kept_as_a_fault() -> None:
    class Torn(Squares):
        def __getitem__(self, index: int):
            if index == 2:
                raise BadInput("refs.json: key 'exp' is missing")
            return super().__getitem__(index)

    source = source_of(Torn(4), 1.0)
    assert source.scenes == ((0,), (1,), (3,)) and source.faults == ("squares train: refs.json: key 'exp' is missing",)


def test_an_example_is_shown_what_it_is_not_about_as_often_as_its_learner_says() -> None:
    class Wary(ToyLearner):
        strangers = 0.25

        def example_beside(self, samples: Sequence[Sample], stranger: Sample, draw: random.Random) -> str:
            return stranger.id

    examples = Examples([source_of(Squares(5), 1.0)], Wary(), seed=3)
    made = [examples[Draw(position, 0, position % 5)].example for position in range(200)]
    beside = [example for example in made if isinstance(example, str)]
    assert 30 < len(beside) < 70 and len(set(beside)) == 5
    with pytest.raises(NotImplementedError, match="the learner toy has no use for strangers"):
        ToyLearner().example_beside([], Squares(1).samples[0], random.Random(0))


def test_a_picture_that_fails_is_named_and_replaced_by_the_same_one_each_time() -> None:
    examples = Examples([source_of(Squares(5, broken=[0, 1]), 1.0)], ToyLearner(), seed=3)
    made = [examples[Draw(position, 0, 0)] for position in (4, 4)]
    assert made[0].samples == made[1].samples and made[0].failures == made[1].failures
    assert made[0].failures[0] == "squares train: squares-0.jpg cannot be read"
    nothing = Examples([source_of(Squares(2, broken=[0, 1]), 1.0)], ToyLearner(), seed=3)[Draw(0, 0, 0)]
    assert nothing.samples == () and len(nothing.failures) == ATTEMPTS
