"""GSVA's losses and gradients against a recorded training step, LoRA unmerged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from instructseg.recipes.gsva.checkpoint import Loaded
from instructseg.recipes.gsva.training import TrainingBatch, TrainingStep, freeze_all_but_trained, training_step

from .golden import COMMITTED, Golden, load_case
from .gsva_recordings import gsva
from .test_gsva import MASKS, STATES, Tensors, close, numbered

LOSSES = 1e-5
GRADIENTS = 1e-4  # of the largest entry of each tensor
FLOOR = 1e-8  # for gradients that vanish


def step_on(tensors: Tensors, loaded: Loaded) -> TrainingStep:
    batch = TrainingBatch(
        tensors["images"], tensors["images_clip"], tensors["input_ids"], tensors["labels"], tensors["offset"],
        numbered(tensors, "gt_masks"), [tuple(hw) for hw in tensors["resize"].tolist()],
    )  # fmt: skip
    return training_step(loaded.model, loaded.vocabulary, batch)


def published_names(golden: Golden) -> list[list[str]]:
    """The lists of parameter names among the recorded files."""
    contents = (json.loads(path.read_text(encoding="utf-8")) for path in sorted(golden.folder.rglob("*.json")))
    return [names for names in contents if isinstance(names, list) and any("lm_head" in str(name) for name in names)]


@pytest.mark.golden("gsva", "ce_loss", "mask_bce_loss", "mask_dice_loss", r"gt_masks_\d+", "grad_total_norm")
def test_losses_predictions_and_gradients(case: Path, golden: Golden) -> None:
    tensors, loaded = load_case(case), gsva(golden, keep_lora=True)
    trained = freeze_all_but_trained(loaded.model)
    loaded.model.zero_grad(set_to_none=True)
    step = step_on(tensors, loaded)
    close(step.states, tensors["last_hidden_state"], STATES)
    for found, expected in zip(step.prompts, numbered(tensors, "seg_embeddings"), strict=True):
        close(found, expected[:, 0], STATES)
    for found, expected in zip(step.predicted, numbered(tensors, "pred_masks"), strict=True):
        close(found, expected, MASKS)
    for found, name in ((step.loss, "loss"), (step.ce, "ce_loss"), (step.bce, "mask_bce_loss")):
        close(found, tensors[name], LOSSES)
    close(step.dice, tensors["mask_dice_loss"], LOSSES)
    close(step.bce + step.dice, tensors["mask_loss"], LOSSES)

    step.loss.backward()
    gradients = {name: loaded.model.get_parameter(name).grad for name in trained}
    published = loaded.report.converted  # model's name -> checkpoint's name
    compared = 0
    for name, gradient in gradients.items():
        expected = tensors.get("grad." + published[name])
        if expected is not None:
            close(gradient, expected, max(GRADIENTS * expected.abs().max().item(), FLOOR))
            compared += 1
    assert compared == sum(key.startswith("grad.") for key in tensors)
    norm = torch.stack([g.double().norm() for g in gradients.values() if g is not None]).norm()
    assert norm.item() == pytest.approx(tensors["grad_total_norm"].item(), rel=GRADIENTS)


@pytest.mark.golden("gsva", "ce_loss", "grad_total_norm")
def test_the_same_parameters_train(case: Path, golden: Golden) -> None:
    loaded = gsva(golden, keep_lora=True)
    trained = freeze_all_but_trained(loaded.model)
    lists = published_names(golden)
    if not lists and golden.root != COMMITTED:
        pytest.skip(f"{golden.folder} lists no trained parameters")
    (listed,) = lists
    assert {loaded.report.converted[name] for name in trained} == set(listed)
