"""Metrics and losses against the published systems' own results."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from instructseg.evaluation.box_precision import box_precision
from instructseg.evaluation.davis_merge import merge_annotators
from instructseg.evaluation.image_iou import image_scores, mask_ious, overlap
from instructseg.evaluation.refusal import refusal_scores, refusals_in_answer
from instructseg.evaluation.region_boundary import dataset_scores, davis_statistics, score_video
from instructseg.evaluation.robustness import mean_defined, pixel_accuracy, robustness
from instructseg.training.mask_losses import batch_mask_losses, dice_loss, sigmoid_ce_loss, text_loss

from .golden import Golden, load_case

EXACT = 1e-12  # frame scores of double precision
FLOAT32 = 1e-6  # figures the published code sums up in single precision

Tensors = dict[str, torch.Tensor]


def numbered(tensors: Tensors, pattern: str) -> list[str]:
    """The numbers that take the place of ``{}`` in the names of a case's tensors, in order."""
    names = re.compile(re.escape(pattern).replace(r"\{\}", r"(\d+)"))
    return sorted((m[1] for name in tensors if (m := names.fullmatch(name))), key=int)


def close(figure: float | torch.Tensor | None, expected: torch.Tensor, tolerance: float) -> None:
    assert figure == pytest.approx(expected.item(), abs=tolerance * max(1.0, abs(expected.item())))


# Video masks: VideoLISA, VISA


@pytest.mark.golden("videolisa", r"video\d+\.J_per_frame", r"video\d+\.F_per_frame", r"video\d+\.pred", "J&F")
def test_videos_as_videolisa_scores_them(case: Path) -> None:
    tensors = load_case(case)
    videos = []
    for n in numbered(tensors, "video{}.J_per_frame"):
        scores = score_video(tensors[f"video{n}.pred"].numpy(), tensors[f"video{n}.gt"].numpy())
        np.testing.assert_allclose(scores.j_per_frame, tensors[f"video{n}.J_per_frame"], atol=EXACT)
        np.testing.assert_allclose(scores.f_per_frame, tensors[f"video{n}.F_per_frame"], atol=EXACT)
        close(scores.j, tensors[f"video{n}.J"], EXACT)
        close(scores.f, tensors[f"video{n}.F"], EXACT)
        videos.append(scores)
    means = dataset_scores(videos)
    close(means.j, tensors["mean_J"], EXACT)
    close(means.f, tensors["mean_F"], EXACT)
    close(means.j_and_f, tensors["J&F"], EXACT)


@pytest.mark.golden("videolisa", r"davis_stats\.per_frame", r"davis_stats\.mean_recall_decay")
def test_davis_statistics(case: Path) -> None:
    tensors = load_case(case)
    found = davis_statistics(tensors["davis_stats.per_frame"].numpy())
    expected = tensors["davis_stats.mean_recall_decay"]
    np.testing.assert_allclose((found.mean, found.recall, found.decay), expected, atol=EXACT)


@pytest.mark.golden("videolisa", "annotator_label_maps", "expression_masks", "num_objects", committed=False)
def test_expressions_of_ref_davis_are_merged(case: Path) -> None:
    tensors = load_case(case)
    masks, expected = tensors["expression_masks"].numpy(), tensors["annotator_label_maps"].numpy()
    labels = merge_annotators(masks)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, expected)
    assert len(masks) == len(expected) * tensors["num_objects"].item()


@pytest.mark.golden("visa", r"metric\.pred", r"metric\.gt", r"metric\.foreground", r"metric\.expect\..+\.R")
@pytest.mark.parametrize(("block", "scale"), [("pred_0_1", 1), ("pred_0_255", 255)])
def test_frames_as_visa_scores_them(case: Path, block: str, scale: int) -> None:
    tensors = load_case(case)
    truth, foreground = tensors["metric.gt"].numpy(), tensors["metric.foreground"].numpy()
    predicted = tensors["metric.pred"].numpy() * np.uint8(scale)
    scores = score_video(predicted, truth)
    found = {
        "J": scores.j_per_frame,
        "F": scores.f_per_frame,
        "A": pixel_accuracy(predicted, truth, "published"),
        "R": robustness(predicted, truth, foreground, "published"),
    }
    for name, per_frame in found.items():
        np.testing.assert_allclose(per_frame, tensors[f"metric.expect.{block}.{name}"], atol=EXACT, err_msg=name)


@pytest.mark.golden("visa", r"metric\.pred", r"metric\.gt", r"metric\.foreground", r"metric\.expect\..+\.R")
def test_corrected_robustness_is_that_of_binary_masks(case: Path) -> None:
    tensors = load_case(case)
    truth, foreground = tensors["metric.gt"].numpy(), tensors["metric.foreground"].numpy()
    predicted = tensors["metric.pred"].numpy() * np.uint8(255)
    defined = foreground.any(axis=(1, 2))
    corrected = robustness(predicted, truth, foreground, "corrected")
    np.testing.assert_array_equal(~np.isnan(corrected), defined)
    # The published form adds 1e-6 pixels to the denominator.
    binary = tensors["metric.expect.pred_0_1.R"].numpy()
    np.testing.assert_allclose(corrected[defined], binary[defined], atol=1e-6)
    assert mean_defined(corrected) == pytest.approx(binary[defined].mean(), abs=1e-6)
    np.testing.assert_allclose(
        pixel_accuracy(predicted, truth, "corrected"), tensors["metric.expect.pred_0_1.A"], atol=EXACT
    )


# Image masks: VideoLISA, GSVA, MLLMSeg


@pytest.mark.golden("videolisa", r"image\d+\.pred_logits", r"image\d+\.gt", "gIoU", "cIoU")
def test_images_as_videolisa_scores_them(case: Path) -> None:
    tensors = load_case(case)
    numbers = numbered(tensors, "image{}.pred_logits")
    found = image_scores(
        ((tensors[f"image{n}.pred_logits"] > 0).numpy(), tensors[f"image{n}.gt"].numpy()) for n in numbers
    )
    close(found.giou, tensors["gIoU"], FLOAT32)
    close(found.ciou, tensors["cIoU"], FLOAT32)
    assert found.masks == sum(len(tensors[f"image{n}.gt"]) for n in numbers)


@pytest.mark.golden("gsva", r"refcoco_pred_\d+", r"refcoco_gt_\d+", "refcoco_giou", "refcoco_ciou")
def test_images_as_gsva_scores_them(case: Path) -> None:
    tensors = load_case(case)
    found = image_scores(
        ((tensors[f"refcoco_pred_{n}"] > 0).numpy(), tensors[f"refcoco_gt_{n}"].numpy())
        for n in numbered(tensors, "refcoco_pred_{}")
    )
    close(found.giou, tensors["refcoco_giou"], FLOAT32)
    close(found.ciou, tensors["refcoco_ciou"], FLOAT32)


@pytest.mark.golden("gsva", r"grefcoco_pred_\d+", r"refzom_pred_\d+", "grefcoco_n_acc", "refzom_n_acc")
@pytest.mark.parametrize("protocol", ["grefcoco", "refzom"])
def test_absent_targets_as_gsva_scores_them(case: Path, protocol: str) -> None:
    tensors = load_case(case)
    seg_id, rej_id = tensors["seg_token_idx"].item(), tensors["rej_token_idx"].item()
    found = refusal_scores(
        (
            (
                (tensors[f"{protocol}_pred_{n}"] >= 0).numpy(),
                tensors[f"{protocol}_gt_{n}"].numpy(),
                refusals_in_answer(tensors[f"{protocol}_ids_{n}"].numpy(), seg_id, rej_id),
            )
            for n in numbered(tensors, protocol + "_pred_{}")
        ),
        protocol,
    )
    close(found.giou, tensors[f"{protocol}_giou"], FLOAT32)
    close(found.ciou, tensors[f"{protocol}_ciou"], FLOAT32)
    close(found.n_acc, tensors[f"{protocol}_n_acc"], FLOAT32)
    close(found.t_acc, tensors[f"{protocol}_t_acc"], FLOAT32)


@pytest.mark.golden("gsva", "metric_giou", "metric_ciou", "metric_n_acc", "metric_t_acc", "pred_masks", "output_ids")
def test_one_image_as_gsva_scores_it(case: Path, golden: Golden) -> None:
    tensors = load_case(case)
    (sizes,) = golden.json_files("seg_token_idx", "rej_token_idx")
    ids = json.loads(sizes.read_text(encoding="utf-8"))
    refused = refusals_in_answer(tensors["output_ids"].numpy(), ids["seg_token_idx"], ids["rej_token_idx"])
    found = refusal_scores([((tensors["pred_masks"] >= 0).numpy(), tensors["gt_masks"].numpy(), refused)])
    for name in ("giou", "ciou", "n_acc", "t_acc"):
        close(getattr(found, name), tensors[f"metric_{name}"], FLOAT32)


@pytest.mark.golden("videolisa", "pred_masks", "gt_masks", "mean_iou_per_class", "area_intersection", "area_union")
def test_overlaps_of_both_classes(case: Path) -> None:
    tensors = load_case(case)
    found = overlap((tensors["pred_masks"] > 0).numpy(), tensors["gt_masks"].numpy())
    np.testing.assert_array_equal(found.intersection.sum(axis=0), tensors["area_intersection"])
    np.testing.assert_array_equal(found.union.sum(axis=0), tensors["area_union"])
    np.testing.assert_allclose(mask_ious(found).mean(axis=0), tensors["mean_iou_per_class"], atol=FLOAT32)


def mllmseg_images(tensors: Tensors) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Probabilities and truth (n, H, W) at the truth's size, refusals (n,), boxes (n, 4) of each image."""
    for n in numbered(tensors, "img{}.pred_prob"):
        truth = tensors[f"img{n}.gt"]
        small = tensors[f"img{n}.pred_prob"][None]  # (1, n, h, w)
        wide = F.interpolate(small, size=truth.shape[1:], mode="bilinear", align_corners=False)[0]  # (n, H, W)
        yield (
            wide.numpy(),
            (truth > 0).numpy(),
            tensors[f"img{n}.pred_rejected"].numpy(),
            tensors[f"img{n}.gt_bbox_xywh"].numpy(),
        )


def same_percent(figure: float | None, printed: float) -> None:
    """The expected figure is rounded to hundredths of a percent."""
    assert figure is not None and round(100 * figure, 2) == pytest.approx(printed, abs=1e-9)


@pytest.mark.golden("mllmseg", r"img\d+\.pred_prob", r"img\d+\.gt_bbox_xywh", r"img\d+\.pred_rejected")
def test_images_as_mllmseg_scores_them(case: Path, golden: Golden) -> None:
    (figures,) = golden.json_files("gres", "res")
    expected = json.loads(figures.read_text(encoding="utf-8"))
    images = list(mllmseg_images(load_case(case)))

    res = image_scores(((prob >= 0.5, truth) for prob, truth, _, _ in images), average="images")
    same_percent(res.giou, expected["res"]["giou"])
    same_percent(res.ciou, expected["res"]["ciou"])
    boxes = box_precision((prob > 0.5, boxes) for prob, _, _, boxes in images)
    same_percent(boxes.precision, expected["res"]["rec_bbox_iou_0.5"])

    gres = refusal_scores((prob >= 0.5, truth, refused) for prob, truth, refused, _ in images)
    same_percent(gres.giou, expected["gres"]["g_iou"])
    same_percent(gres.ciou, expected["gres"]["c_iou"])
    same_percent(gres.n_acc, expected["gres"]["N_acc"])
    same_percent(gres.t_acc, expected["gres"]["T_acc"])


# Losses


@pytest.mark.golden("videolisa", r"loss\.pred", r"loss\.target", r"loss\.bce", r"loss\.dice")
def test_mask_losses_of_videolisa(case: Path) -> None:
    tensors = load_case(case)
    logits, targets = tensors["loss.pred"], tensors["loss.target"]
    close(sigmoid_ce_loss(logits, targets, len(logits)), tensors["loss.bce"], FLOAT32)
    close(dice_loss(logits, targets, len(logits)), tensors["loss.dice"], FLOAT32)


@pytest.mark.golden("gsva", "loss_logits", "loss_targets", "loss_bce", "loss_dice")
def test_mask_losses_of_gsva(case: Path) -> None:
    tensors = load_case(case)
    logits, targets = tensors["loss_logits"], tensors["loss_targets"]
    close(sigmoid_ce_loss(logits, targets, len(logits)), tensors["loss_bce"], FLOAT32)
    close(dice_loss(logits, targets, len(logits)), tensors["loss_dice"], FLOAT32)


@pytest.mark.golden("gsva", r"pred_masks_\d+", r"gt_masks_\d+", "offset", "mask_bce_loss", "mask_dice_loss")
def test_mask_losses_of_a_batch_with_refused_targets(case: Path) -> None:
    tensors = load_case(case)
    offset = tensors["offset"].tolist()  # the conversations of image i are rows offset[i] to offset[i + 1]
    logits, targets = [], []
    for image, (first, end) in enumerate(itertools.pairwise(offset)):
        truth = tensors[f"gt_masks_{image}"]
        answered = torch.zeros(truth.shape)
        answered[truth.flatten(1).any(1).bool()] = torch.cat([tensors[f"pred_masks_{r}"] for r in range(first, end)])
        logits.append(answered)
        targets.append(truth)
    bce, dice = batch_mask_losses(logits, targets)
    close(2.0 * bce.item(), tensors["mask_bce_loss"], 2 * FLOAT32)
    close(0.5 * dice.item(), tensors["mask_dice_loss"], FLOAT32)


@pytest.mark.golden("visa", r"loss\.pred_logits", r"loss\.gt", r"loss\.expect\.bce", r"loss\.expect\.dice")
def test_mask_losses_of_visa(case: Path) -> None:
    tensors = load_case(case)
    logits, targets = tensors["loss.pred_logits"], tensors["loss.gt"]
    close(sigmoid_ce_loss(logits, targets, len(logits)), tensors["loss.expect.bce"], FLOAT32)
    close(dice_loss(logits, targets, len(logits)), tensors["loss.expect.dice"], FLOAT32)


@pytest.mark.golden("mllmseg", r"out\.llm\.logits", r"in\.labels", r"out\.ce_loss")
def test_text_loss_of_mllmseg(case: Path) -> None:
    tensors = load_case(case)
    close(text_loss(tensors["out.llm.logits"], tensors["in.labels"]), tensors["out.ce_loss"], FLOAT32)
