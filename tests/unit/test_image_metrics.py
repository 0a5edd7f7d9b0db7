"""Metrics of still images, of absent targets, of boxes, and the ReVOS table; with input that makes no sense."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from unit.fakes import unhurried

from instructseg.core import BadInput
from instructseg.evaluation.box_precision import box_iou, box_precision, tight_box
from instructseg.evaluation.image_iou import image_scores, mask_ious, overlap
from instructseg.evaluation.refusal import refusal_scores, refusals_in_answer
from instructseg.evaluation.revos import ExpressionScores, revos_table

SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9))
SAMPLES = SHAPES.flatmap(
    lambda shape: st.tuples(
        arrays.arrays(bool, shape), arrays.arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 255]))
    )
)
NOTHING, LEFT, TOP = (np.array(m)[None] for m in ([[0, 0], [0, 0]], [[1, 0], [1, 0]], [[1, 1], [0, 0]]))


# gIoU and cIoU


def test_scores_of_three_masks_in_two_images():
    images = [(LEFT, TOP), (np.concatenate([LEFT, TOP]), np.concatenate([LEFT, LEFT]))]
    by_mask = image_scores(images)
    assert by_mask.giou == pytest.approx((1 / 3 + 1 + 1 / 3) / 3, abs=1e-5)
    assert by_mask.ciou == pytest.approx((1 + 2 + 1) / (3 + 2 + 3))
    assert by_mask.masks == 3
    by_image = image_scores(images, average="images")
    assert by_image.giou == pytest.approx((1 / 3 + (1 + 1 / 3) / 2) / 2, abs=1e-5)
    assert by_image.ciou == by_mask.ciou


def test_ignored_pixels_count_nowhere():
    truth = np.array([[[1, 255], [0, 255]]], np.uint8)
    found = overlap(np.array([[[1, 1], [1, 0]]]), truth)
    assert found.intersection.tolist() == [[0, 1]]
    assert found.union.tolist() == [[1, 2]]


def test_no_prediction_and_no_target_is_a_full_giou_and_no_ciou():
    found = image_scores([(NOTHING, NOTHING)])
    assert found.giou == pytest.approx(1, abs=1e-4)
    assert found.ciou is None


@unhurried
@given(SAMPLES)
def test_what_always_holds_for_images(sample):
    predicted, truth = sample
    found = overlap(predicted, truth)
    seen = np.count_nonzero(truth != 255, axis=(1, 2))
    assert (found.intersection <= found.union).all()
    # Every pixel that counts is right for one class or wrong for both.
    np.testing.assert_array_equal(found.intersection.sum(axis=1) + (found.union - found.intersection)[:, 0], seen)
    ious = mask_ious(found)
    assert ((ious >= 0) & (ious <= 1)).all()
    changed = np.where(truth == 255, ~predicted, predicted)  # what is drawn on ignored pixels makes no difference
    np.testing.assert_array_equal(mask_ious(overlap(changed, truth)), ious)
    assert image_scores([(truth == 1, truth)]).giou == pytest.approx(1, abs=3e-5)
    if not (truth == 255).any():
        np.testing.assert_array_equal(overlap(truth == 1, predicted).union, found.union)


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        ([], "at least one mask; got none"),
        ([(NOTHING[:0], NOTHING[:0])], "at least one mask; got none"),
        ([(NOTHING * 0.5, NOTHING)], "predicted must be boolean or integer masks; got float64"),
        ([(NOTHING, NOTHING + 2)], "truth must hold 0 .* got 2"),
        ([(NOTHING, NOTHING + np.nan)], "truth must hold 0 .* got nan"),
        ([(NOTHING, NOTHING - 1)], "truth must hold 0 .* got -1"),
        ([(NOTHING, np.zeros((1, 2, 3)))], "must have one shape"),
        ([(NOTHING[0], NOTHING)], "predicted must be an array"),
        ([(NOTHING, [[0]])], "truth must be a NumPy array"),
    ],
)
def test_what_is_no_image_sample_is_refused(samples, said):
    with pytest.raises(BadInput, match=said):
        image_scores(samples)


def test_the_average_is_over_masks_or_images():
    with pytest.raises(BadInput, match="'masks' or 'images'; got 'videos'"):
        image_scores([(LEFT, LEFT)], average="videos")
    with pytest.raises(BadInput, match="image 1 has no mask"):
        image_scores([(LEFT, LEFT), (LEFT[:0], LEFT[:0])], average="images")


# Absent targets

REFUSED, KEPT = np.array([True]), np.array([False])


def test_the_four_outcomes():
    samples = [
        (LEFT, NOTHING, REFUSED),  # absent, refused: IoU 1
        (LEFT, NOTHING, KEPT),  # absent, drawn: IoU 0, 2 pixels more in the union
        (LEFT, TOP, KEPT),  # 1 of 3
        (LEFT, LEFT, REFUSED),  # a present target refused: its mask still counts, 2 of 2
    ]
    found = refusal_scores(samples)
    assert found.giou == pytest.approx((1 + 0 + 1 / 3 + 1) / 4, abs=1e-5)
    assert found.ciou == pytest.approx((1 + 2) / (2 + 3 + 2))
    assert (found.n_acc, found.t_acc) == (0.5, 0.5)
    assert (found.absent, found.present) == (2, 2)

    refzom = refusal_scores(samples, "refzom")
    assert refzom.ciou == pytest.approx((1 + 2) / (3 + 2))
    assert dataclasses.replace(refzom, ciou=found.ciou) == found

    blank = refusal_scores(samples, refused_masks="blank")
    assert blank.giou == pytest.approx((1 + 0 + 1 / 3 + 0) / 4, abs=1e-5)
    assert blank.ciou == pytest.approx(1 / (2 + 3 + 2))
    assert (blank.n_acc, blank.t_acc) == (0.5, 0.5)


def test_figures_without_denominator_are_undefined():
    only_absent = refusal_scores([(NOTHING, NOTHING, REFUSED)])
    assert (only_absent.t_acc, only_absent.ciou, only_absent.n_acc) == (None, None, 1.0)
    only_present = refusal_scores([(LEFT, TOP, KEPT)])
    assert (only_present.n_acc, only_present.t_acc) == (None, 1.0)
    assert refusal_scores([(LEFT, NOTHING, KEPT)], "refzom").ciou is None


def test_a_target_of_ignored_pixels_is_present():
    found = refusal_scores([(LEFT, np.full((1, 2, 2), 255), REFUSED)])
    assert (found.n_acc, found.t_acc, found.ciou) == (None, 0.0, None)


@unhurried
@given(st.lists(SAMPLES, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_what_always_holds_for_refusals(pairs, random):
    samples = [(p, t, np.array([random.random() < 0.5 for _ in p])) for p, t in pairs]
    scored, refzom = refusal_scores(samples), refusal_scores(samples, "refzom")
    blank = refusal_scores(samples, refused_masks="blank")
    for figure in (*dataclasses.astuple(scored)[:4], *dataclasses.astuple(blank)[:4]):
        assert figure is None or 0 <= figure <= 1
    assert blank.giou <= scored.giou
    assert (refzom.giou, refzom.n_acc, refzom.t_acc) == (scored.giou, scored.n_acc, scored.t_acc)
    if scored.ciou is not None and refzom.ciou is not None:
        assert refzom.ciou >= scored.ciou
    perfect = refusal_scores([(t == 1, np.where(t == 255, 0, t), ~(t == 1).any(axis=(1, 2))) for _, t in pairs])
    assert perfect.giou == pytest.approx(1, abs=3e-5)
    assert perfect.n_acc in (None, 1.0)
    assert perfect.t_acc in (None, 1.0)


def test_the_answer_names_the_refusals_in_order():
    ids = np.array([5, 90, 7, 91, 91, 90, 2])
    assert refusals_in_answer(ids, seg_id=90, rej_id=91).tolist() == [False, True, True, False]
    assert refusals_in_answer(ids[:1], seg_id=90, rej_id=91).shape == (0,)
    with pytest.raises(BadInput, match="different tokens"):
        refusals_in_answer(ids, 90, 90)
    with pytest.raises(BadInput, match="one row of integer"):
        refusals_in_answer(ids[None], 90, 91)
    with pytest.raises(BadInput, match="one row of integer"):
        refusals_in_answer(ids * 1.0, 90, 91)


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        ([], "at least one target; got none"),
        ([(LEFT, LEFT, np.array([True, False]))], r"one refusal for each of 1 targets; got shape \(2,\)"),
        ([(LEFT, LEFT, True)], r"got shape \(\)"),
        ([(LEFT, LEFT, np.array([0.3]))], "refusals must be booleans"),
        ([(LEFT, LEFT, np.array([2]))], "refusals must be booleans"),
        ([(LEFT, LEFT, ["no"])], "refusals must be booleans"),
        ([(LEFT * 0.5, LEFT, KEPT)], "float64"),
        ([(LEFT, None, KEPT)], "truth must be a NumPy array"),
    ],
)
def test_what_is_no_refusal_sample_is_refused(samples, said):
    for refused_masks in ("scored", "blank"):
        with pytest.raises(BadInput, match=said):
            refusal_scores(samples, refused_masks=refused_masks)


def test_protocols_are_named():
    with pytest.raises(BadInput, match="'grefcoco' or 'refzom'; got 'refcoco'"):
        refusal_scores([(LEFT, LEFT, KEPT)], "refcoco")
    with pytest.raises(BadInput, match="'scored' or 'blank'; got 'kept'"):
        refusal_scores([(LEFT, LEFT, KEPT)], refused_masks="kept")


# Boxes


def rectangle(x_min: int, y_min: int, x_max: int, y_max: int) -> np.ndarray:
    mask = np.zeros((1, 30, 30), bool)
    mask[0, y_min : y_max + 1, x_min : x_max + 1] = True
    return mask


def test_boxes_hit_over_the_threshold_only():
    masks = np.concatenate([rectangle(0, 0, 10, 10), rectangle(0, 0, 10, 10), rectangle(0, 0, 10, 10) & False])
    boxes = np.array([[0, 0, 10, 19], [0, 0, 10, 20], [0, 0, 10, 10]])  # IoU 10/19, 1/2, no mask
    found = box_precision([(masks, boxes)])
    assert (found.precision, found.expressions) == (pytest.approx(1 / 3), 3)
    assert box_precision([(masks, np.zeros((3, 4)))]).precision == 0  # annotations without area are never hit


@unhurried
@given(st.tuples(*[st.integers(0, 29)] * 4))
def test_tight_boxes(corners):
    (x_min, x_max), (y_min, y_max) = sorted(corners[:2]), sorted(corners[2:])
    box = tight_box(rectangle(x_min, y_min, x_max, y_max)[0])
    assert box == (x_min, y_min, x_max, y_max)
    assert box_iou(box, box) == (1 if x_min < x_max and y_min < y_max else 0)
    other = (3, 4, 15, 17)
    assert 0 <= box_iou(box, other) == box_iou(other, box) <= 1


@pytest.mark.parametrize(
    ("boxes", "said"),
    [
        (np.zeros((2, 4)), r"each of 1 masks; got float64 of shape \(2, 4\)"),
        (np.zeros((1, 3)), r"shape \(1, 3\)"),
        (np.array([["a"] * 4]), "boxes must be numbers"),
        (np.full((1, 4), np.nan), "finite"),
        (np.array([[0, 0, -1, 5]]), "at least 0 pixels"),
    ],
)
def test_what_is_no_box_is_refused(boxes, said):
    with pytest.raises(BadInput, match=said):
        box_precision([(rectangle(0, 0, 3, 3), boxes)])


def test_box_precision_needs_expressions_and_a_threshold():
    with pytest.raises(BadInput, match="got none"):
        box_precision([])
    with pytest.raises(BadInput, match="threshold"):
        box_precision([], threshold=1.5)


# ReVOS


def test_both_types_weigh_the_same_and_absent_objects_nothing():
    table = revos_table(
        [ExpressionScores(0, 0.8, 0.6)] * 3 + [ExpressionScores(1, 0.4, 0.2), ExpressionScores(2, 0.0, 0.0)]
    )
    assert (table["referring"].j, table["referring"].expressions) == (pytest.approx(0.8), 3)
    assert table["reasoning"].j_and_f == pytest.approx(0.3)
    assert (table["overall"].j, table["overall"].f) == (pytest.approx(0.6), pytest.approx(0.4))
    assert table["overall"].expressions == 4


def test_scores_are_rounded_before_they_are_averaged():
    row = revos_table([ExpressionScores(0, 0.12344, 0.5), ExpressionScores(0, 0.12344, 0.5)])["referring"]
    assert row.j == pytest.approx(0.1234, abs=1e-12)


def test_a_type_without_expression_is_undefined():
    table = revos_table([ExpressionScores(0, 0.8, 0.6)])
    assert (table["reasoning"].j, table["reasoning"].j_and_f) == (None, None)
    assert (table["overall"].f, table["overall"].j_and_f) == (None, None)


def test_what_is_no_expression_is_refused():
    with pytest.raises(BadInput, match="got none"):
        revos_table([])
    with pytest.raises(BadInput, match=r"type_id must be one of \[0, 1, 2\] .* got 3"):
        ExpressionScores(3, 0.5, 0.5)
    for j, f in ((50.0, 0.5), (0.5, -0.1), (float("nan"), 0.5)):
        with pytest.raises(BadInput, match=r"means in 0\.\.1"):
            ExpressionScores(0, j, f)
