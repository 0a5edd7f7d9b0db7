"""Objects of a label map scored whatever their labels are, as the DAVIS unsupervised task does."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from unit.fakes import unhurried

from instructseg.core import BadInput
from instructseg.evaluation.davis_objects import best_assignment, score_objects
from instructseg.evaluation.region_boundary import dataset_scores, score_video

SCORES = st.integers(1, 4).flatmap(
    lambda objects: st.integers(objects, 5).flatmap(
        lambda labels: arrays.arrays(float, (labels, objects), elements=st.integers(-9, 9).map(float))
    )
)


def scene() -> np.ndarray:
    """Three frames with two objects that move apart."""
    labels = np.zeros((3, 40, 60), np.uint8)
    for t in range(3):
        labels[t, 5:15, 10 - 2 * t : 20 - 2 * t] = 1
        labels[t, 20:35, 30 + 2 * t : 45 + 2 * t] = 2
    return labels


def renamed(labels: np.ndarray, names: dict[int, int]) -> np.ndarray:
    return np.vectorize(lambda label: names.get(label, label))(labels)


@unhurried
@given(SCORES)
def test_no_other_assignment_is_better(scores):
    rows = best_assignment(scores)
    columns = range(scores.shape[1])
    assert len(set(rows)) == scores.shape[1]
    best = max(scores[list(order), columns].sum() for order in itertools.permutations(range(len(scores)), len(columns)))
    assert scores[rows, columns].sum() == best


@pytest.mark.parametrize("scores", [np.zeros((1, 2)), np.zeros(3), np.full((2, 2), np.nan)])
def test_what_is_no_table_of_scores_is_refused(scores):
    with pytest.raises(BadInput, match="as many rows as columns"):
        best_assignment(scores)


def test_labels_do_not_matter_and_the_right_ones_are_perfect():
    truth = scene()
    for names in ({}, {1: 2, 2: 1}, {1: 9, 2: 4}):
        assert [(s.j, s.f) for s in score_objects(renamed(truth, names), truth)] == [(1, 1), (1, 1)]


def test_a_label_keeps_its_object_in_all_frames():
    truth = scene()
    swapped = truth.copy()
    swapped[2] = renamed(truth[2], {1: 2, 2: 1})
    for scores in score_objects(swapped, truth):
        assert scores.j_per_frame.tolist() == [1, 1, 0]


def test_a_missed_object_is_scored_against_empty_masks_and_a_further_label_costs_nothing():
    truth = scene()
    truth[1][truth[1] == 2] = 0  # hidden in frame 1
    only_first = np.where(truth == 2, 0, truth)
    first, second = score_objects(only_first, truth)
    assert (first.j, first.f) == (1, 1)
    assert second.j_per_frame.tolist() == [0, 1, 0]
    more = truth.copy()
    more[:, 0:2, 0:3] = 7
    assert dataset_scores(score_objects(more, truth)).j_and_f == 1


def test_void_pixels_count_nowhere():
    truth = scene()
    predicted = truth.copy()
    truth[:, 20:25] = 255
    predicted[:, 20:25] = 1
    expected = score_video(np.where(truth == 255, 0, predicted) == 1, truth == 1)
    found = score_objects(predicted, truth)
    assert (found[0].j, found[0].f) == (expected.j, expected.f) == (1, 1)
    assert len(found) == 2


@unhurried
@given(arrays.arrays(np.uint8, (2, 8, 9), elements=st.integers(0, 3)), st.permutations([1, 2, 3]))
def test_names_of_labels_never_change_the_scores(predicted, names):
    truth = scene()[:2, 3:11, 6:15]
    other = renamed(predicted, dict(zip((1, 2, 3), names, strict=True)))
    first, second = (dataset_scores(score_objects(p, truth)) for p in (predicted, other))
    assert first.j_and_f == pytest.approx(second.j_and_f, abs=1e-12)
    assert 0 <= first.j_and_f <= 1


@pytest.mark.parametrize(
    ("predicted", "truth", "said"),
    [
        (np.zeros((1, 4, 4)), np.ones((1, 4, 4), int), "predicted must be label maps .* float64"),
        (np.zeros((1, 4, 4), bool), np.ones((1, 4, 4), int), "predicted must be label maps .* bool"),
        (np.zeros((1, 4, 4), int) - 1, np.ones((1, 4, 4), int), "predicted must be label maps"),
        (np.zeros((0, 4, 4), int), np.ones((0, 4, 4), int), "at least one frame"),
        (np.zeros((1, 4, 4), int), np.ones((1, 4, 5), int), "one shape"),
        (np.zeros((4, 4), int), np.ones((4, 4), int), r"shape \(4, 4\)"),
        (np.ones((1, 4, 4), int), np.zeros((1, 4, 4), int), "truth shows no object"),
        (np.ones((1, 4, 4), int), np.full((1, 4, 4), 255), "truth shows no object"),
    ],
)
def test_what_are_no_label_maps_is_refused(predicted, truth, said):
    with pytest.raises(BadInput, match=said):
        score_objects(predicted, truth)
