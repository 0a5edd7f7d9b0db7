"""Metrics: small cases by hand, a slow second implementation, what always holds, and input that makes no sense."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from unit.fakes import unhurried

from instructseg.core import BadInput
from instructseg.evaluation.davis_merge import MAX_OBJECTS, first_object, fuse_soft, last_object, merge_annotators
from instructseg.evaluation.region_boundary import (
    VideoScores,
    boundary_map,
    boundary_measure,
    dataset_scores,
    davis_statistics,
    dilate,
    region_similarity,
    score_video,
)
from instructseg.evaluation.robustness import mean_defined, pixel_accuracy, robustness
from instructseg.evaluation.scores import percent, ratio

MASKS = arrays.arrays(bool, st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12)))
PAIRS = st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12)).flatmap(
    lambda shape: st.tuples(arrays.arrays(bool, shape), arrays.arrays(bool, shape))
)


def block(top: int, left: int, bottom: int, right: int, size: tuple[int, int] = (40, 60)) -> np.ndarray:
    """One frame (1, H, W) with a filled rectangle."""
    mask = np.zeros((1, *size), bool)
    mask[0, top:bottom, left:right] = True
    return mask


EMPTY, FULL = np.zeros((1, 40, 60), bool), np.ones((1, 40, 60), bool)


def test_a_figure_without_denominator_is_reported_as_undefined():
    assert ratio(0, 0) is None
    assert ratio(1, 4) == 0.25
    assert percent(ratio(0, 0)) == "undefined"
    assert percent(0.12345) == "12.35"
    assert percent(0.0) == "0.00"


# Region and boundary


def test_j_of_two_rectangles():
    j = region_similarity(block(0, 0, 10, 10), block(0, 5, 10, 15))
    np.testing.assert_allclose(j, [50 / 150])


@pytest.mark.parametrize(
    ("predicted", "truth", "j", "f"),
    [
        (EMPTY, EMPTY, 1, 1),
        (EMPTY, block(5, 5, 20, 20), 0, 0),
        (block(5, 5, 20, 20), EMPTY, 0, 0),
        (FULL, FULL, 1, 1),
        (FULL, EMPTY, 0, 1),  # neither has a boundary
        (FULL, block(5, 5, 20, 20), 225 / 2400, 0),
        (block(2, 2, 8, 8), block(30, 40, 36, 46), 0, 0),
    ],
)
def test_masks_at_the_limits(predicted, truth, j, f):
    scores = score_video(predicted, truth)
    assert (scores.j, scores.f) == (pytest.approx(j), f)


@pytest.mark.parametrize(("size", "tolerance"), [((120, 160), 2), ((300, 400), 4), ((480, 854), 8)])
def test_a_boundary_within_the_tolerance_is_right(size, tolerance):
    """The tolerance is ceil(0.008 * diagonal)."""
    truth = block(20, 20, 60, 60, size)
    within, beyond = (block(20 + t, 20, 60 + t, 60, size) for t in (tolerance, tolerance + 1))
    assert boundary_measure(within, truth) == 1
    assert 0.5 < boundary_measure(beyond, truth) < 1


def test_images_of_0_and_255_are_binarised():
    predicted, truth = block(0, 0, 10, 10), block(0, 5, 10, 15)
    as_image = score_video(predicted.astype(np.uint8) * 255, truth.astype(np.int32) * 3)
    assert as_image.j == score_video(predicted, truth).j
    assert as_image.f == score_video(predicted, truth).f


@unhurried
@given(MASKS)
def test_boundary_pixels_differ_from_a_neighbour(masks):
    found = boundary_map(masks)
    count, height, width = masks.shape
    for t, y, x in np.ndindex(count, height, width):
        below, right = min(y + 1, height - 1), min(x + 1, width - 1)
        neighbours = masks[t, below, x], masks[t, y, right], masks[t, below, right]
        assert found[t, y, x] == any(n != masks[t, y, x] for n in neighbours)


@unhurried
@given(MASKS, st.integers(0, 15))
def test_dilation_is_by_a_disk(maps, radius):
    expected = np.zeros_like(maps)
    rows, columns = np.mgrid[: maps.shape[1], : maps.shape[2]]
    for t, y, x in np.argwhere(maps):
        expected[t] |= (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
    np.testing.assert_array_equal(dilate(maps, radius), expected)


RECTANGLES = st.lists(st.tuples(*[st.integers(0, high) for high in (150, 150, 200, 200)]), max_size=4)


@unhurried
@given(RECTANGLES, RECTANGLES)
def test_what_is_cut_off_changes_no_value(ours, theirs):
    """Masks are compared where they show something; here over the whole frame, as F is defined."""
    predicted, truth = np.zeros((2, 1, 150, 200), bool)
    for masks, rectangles in ((predicted, ours), (truth, theirs)):
        for top, bottom, left, right in rectangles:
            masks[0, top:bottom, left:right] ^= True
    found, wanted = boundary_map(predicted), boundary_map(truth)
    radius = math.ceil(0.008 * math.hypot(150, 200))
    if found.any() and wanted.any():
        precision = (found & dilate(wanted, radius)).sum() / found.sum()
        recall = (wanted & dilate(found, radius)).sum() / wanted.sum()
        f = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    else:
        f = float(found.any() == wanted.any())
    union = (predicted | truth).sum()
    scores = score_video(predicted, truth)
    assert scores.f == f
    assert scores.j == ((predicted & truth).sum() / union if union else 1.0)


@unhurried
@given(PAIRS)
def test_what_always_holds_for_videos(pair):
    first, second = pair
    j, f = region_similarity(first, second), boundary_measure(first, second)
    assert ((j >= 0) & (j <= 1) & (f >= 0) & (f <= 1)).all()
    np.testing.assert_array_equal(j, region_similarity(second, first))
    np.testing.assert_allclose(f, boundary_measure(second, first), atol=1e-12)
    np.testing.assert_array_equal(j == 1, (first == second).all(axis=(1, 2)))
    np.testing.assert_array_equal(region_similarity(first, first), 1)
    np.testing.assert_array_equal(boundary_measure(first, first), 1)
    mirrored = boundary_measure(first[:, :, ::-1], first[:, :, ::-1])
    np.testing.assert_array_equal(mirrored, 1)


@pytest.mark.parametrize(
    ("predicted", "truth", "said"),
    [
        (EMPTY, EMPTY[:, :-1], "resize predictions"),
        (EMPTY[0], EMPTY[0], r"shape \(40, 60\)"),
        (EMPTY[:0], EMPTY[:0], "at least one frame"),
        (EMPTY[:, :0], EMPTY[:, :0], "at least one pixel"),
        (EMPTY.astype(np.float32), EMPTY, "predicted .* float32: apply the system's threshold"),
        (EMPTY, EMPTY.astype(np.float64), "truth .* float64"),
        (EMPTY, EMPTY.astype(object), "truth must hold numbers"),
        (EMPTY.astype(complex), EMPTY, "predicted must hold numbers"),
        (EMPTY.tolist(), EMPTY, "predicted must be a NumPy array.*got list"),
        (None, EMPTY, "predicted must be a NumPy array.*got NoneType"),
    ],
)
def test_what_is_no_pair_of_clips_is_refused(predicted, truth, said):
    for metric in (score_video, region_similarity, boundary_measure):
        with pytest.raises(BadInput, match=said):
            metric(predicted, truth)


def test_every_video_weighs_the_same():
    long = VideoScores(np.full(90, 0.2), np.full(90, 0.4))
    short = VideoScores(np.full(10, 0.8), np.full(10, 0.6))
    means = dataset_scores([long, short])
    assert (means.j, means.f, means.j_and_f) == (pytest.approx(0.5), pytest.approx(0.5), pytest.approx(0.5))
    assert means.count == 2
    with pytest.raises(BadInput, match="got none"):
        dataset_scores([])


def test_davis_statistics_share_a_score_between_bins():
    found = davis_statistics(np.array([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]))
    assert found.mean == pytest.approx(0.6)
    assert found.recall == pytest.approx(5 / 9)  # 0.5 itself is not over 0.5
    assert found.decay == pytest.approx(0.9 - 0.3)  # bins of scores 0..2 and 6..8
    assert davis_statistics(np.array([0.7])).decay == 0


@pytest.mark.parametrize("scores", [[], [[0.5]], [0.5, math.nan], [math.inf]])
def test_davis_statistics_need_finite_scores(scores):
    with pytest.raises(BadInput, match="one finite score a frame"):
        davis_statistics(np.array(scores))


# Robustness


def test_robustness_and_accuracy_of_binary_masks():
    truth, foreground = block(0, 0, 10, 10), block(0, 0, 10, 20)
    predicted = block(0, 5, 10, 15)  # 50 false positives, 50 misses
    assert robustness(predicted, truth, foreground, "corrected") == pytest.approx(1 - 50 / 200)
    assert pixel_accuracy(predicted, truth, "corrected") == pytest.approx(1 - 100 / 2400)
    assert robustness(FULL, truth, foreground, "corrected") == 0


def test_the_published_form_counts_in_8_bits():
    truth, foreground = (m.astype(np.uint8) for m in (block(0, 0, 10, 10), block(0, 0, 10, 20)))
    predicted = block(0, 0, 1, 11).astype(np.uint8) * 255  # one false positive
    assert robustness(predicted, truth, foreground, "published") == 0  # 255 of 200 pixels
    assert robustness(predicted, truth, foreground, "corrected") == pytest.approx(1 - 1 / 200)
    assert pixel_accuracy(predicted, truth, "published") == pytest.approx(1 - 101 / 2400)  # 255 is not 1
    overlapping = truth * np.uint8(2)  # two annotated objects on top of each other: 1 - 2 is 255, times 255 is 1
    assert robustness(predicted, overlapping, foreground, "published") == pytest.approx(max(1 - (255 + 10) / 200, 0))


def test_robustness_without_annotated_object_is_undefined():
    frames = np.concatenate([block(0, 0, 5, 5), EMPTY])
    per_frame = robustness(frames, frames, frames, "corrected")
    assert per_frame[0] == 1
    assert np.isnan(per_frame[1])
    assert mean_defined(per_frame) == 1
    assert mean_defined(per_frame[1:]) is None
    assert percent(mean_defined([])) == "undefined"


@pytest.mark.parametrize(
    ("form", "dtype", "said"),
    [
        ("printed", np.uint8, "'published' or 'corrected'; got 'printed'"),
        ("published", bool, "uint8 masks for the form 'published'; got bool"),
        ("published", np.int64, "got int64"),
        ("corrected", np.float32, "got float32"),
    ],
)
def test_robustness_refuses_other_forms_and_types(form, dtype, said):
    masks = EMPTY.astype(dtype)
    with pytest.raises(BadInput, match=said):
        robustness(masks, masks, masks, form)
    with pytest.raises(BadInput, match=said):
        pixel_accuracy(masks, masks, form)


def test_robustness_refuses_other_shapes():
    masks = EMPTY.astype(np.uint8)
    with pytest.raises(BadInput, match="foreground"):
        robustness(masks, masks, masks[:, 1:], "published")
    with pytest.raises(BadInput, match="one shape"):
        robustness(masks[:, 1:], masks, masks, "published")
    with pytest.raises(BadInput, match="at least one frame"):
        robustness(masks[:0], masks[:0], masks[:0], "corrected")


# Label maps


def test_the_first_object_keeps_a_shared_pixel_and_annotators_stay_apart():
    masks = np.zeros((8, 1, 2, 3), np.uint8)  # expression 4 * object + annotator
    masks[0, 0, 0, :2] = 100  # annotator 0, object 0
    masks[4, 0, 0, 1:] = 100  # annotator 0, object 1
    masks[7, 0, 1] = 100  # annotator 3, object 1
    labels = merge_annotators(masks)
    assert labels.shape == (4, 1, 2, 3)
    assert labels[0, 0].tolist() == [[1, 1, 2], [0, 0, 0]]
    assert labels[3, 0].tolist() == [[0, 0, 0], [2, 2, 2]]
    assert not labels[1:3].any()


@unhurried
@given(arrays.arrays(bool, (4, 2, 3, 5)))
def test_label_maps_agree_where_objects_do_not_overlap(masks):
    alone = masks & (masks.sum(axis=0) == 1)
    labels = first_object(alone)
    np.testing.assert_array_equal(labels, last_object(alone))
    np.testing.assert_array_equal(labels, fuse_soft(alone * 0.9))
    np.testing.assert_array_equal(labels > 0, alone.any(axis=0))
    for number in range(4):
        np.testing.assert_array_equal(labels == number + 1, alone[number])


def test_later_objects_overwrite_and_the_likeliest_wins():
    masks = np.ones((2, 1, 1, 1), bool)
    assert last_object(masks).item() == 2
    assert first_object(masks).item() == 1
    # no object: 0.4 * 0.7 = 0.28 against 0.6 and 0.3; then 0.6 * 0.6 = 0.36 against 0.4 and 0.4; then 0.42
    for probabilities, label in (((0.6, 0.3), 1), ((0.4, 0.4), 1), ((0.3, 0.4), 0)):
        assert fuse_soft(np.array(probabilities).reshape(2, 1, 1, 1)).item() == label


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: merge_annotators(np.zeros((6, 1, 2, 2), bool)), "multiple of 4 expressions"),
        (lambda: merge_annotators(np.zeros((0, 1, 2, 2), bool)), "multiple of 4 expressions"),
        (lambda: merge_annotators(np.zeros((8, 2, 2), bool)), "multiple of 4 expressions"),
        (lambda: merge_annotators([[1]]), r"got shape \(\)"),
        (lambda: merge_annotators(np.zeros((4, 1, 2, 2))), "float64: apply the system's threshold"),
        (lambda: merge_annotators(np.zeros((4, 1, 2, 2), bool), annotators=0), "annotators must be"),
        (lambda: merge_annotators(np.zeros((255, 1, 1, 1), bool), annotators=1), f"1 to {MAX_OBJECTS} objects"),
        (lambda: last_object(np.zeros((0, 1, 2, 2), bool)), f"1 to {MAX_OBJECTS} objects"),
        (lambda: last_object(np.zeros((2, 2, 2), bool)), "objects, frames, height, width"),
        (lambda: fuse_soft(np.zeros((2, 1, 2, 2), bool)), "float array"),
        (lambda: fuse_soft(np.full((2, 1, 2, 2), 1.5)), "sigmoid"),
        (lambda: fuse_soft(np.full((2, 1, 2, 2), np.nan)), "sigmoid"),
    ],
)
def test_what_gives_no_label_map_is_refused(call, said):
    with pytest.raises(BadInput, match=said):
        call()
