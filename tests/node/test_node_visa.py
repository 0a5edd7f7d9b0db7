"""The real node with VISA on small random weights: masks by token and by tracker, a refusal, a bad folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from instructseg_msgs.msg import Target
from node.node_harness import FAILURE, Harness, pixels
from unit.tiny_sam2 import tiny_sam, transformers_checkpoint
from unit.tiny_visa import tiny_checkpoint

from instructseg_node.node import load_segmenter


def shifted(folder: Path, bias: float) -> Path:
    """Random weights whose masks cover the whole image (bias above 0) or nothing of it (below)."""
    for file in tiny_checkpoint(folder).glob("*.bin"):
        tensors = torch.load(file, weights_only=True)
        for key in tensors:
            if key.endswith("output_hypernetworks_mlps.0.layers.2.weight"):
                tensors[key].zero_()
            if key.endswith("output_hypernetworks_mlps.0.layers.2.bias"):
                tensors[key].fill_(bias)
            if key.endswith("output_upscaling.3.bias"):
                tensors[key] += 3.0
        torch.save(tensors, file)
    return folder


def node_with(ros, folder: Path, *options: str, **parameters) -> Harness:
    return Harness(
        ros, factory=load_segmenter, recipe="visa", checkpoint=str(folder), device="cpu",
        recipe_options=list(options) or [""], **parameters,
    )  # fmt: skip


def test_masks_of_every_frame(ros, tmp_path: Path) -> None:
    node = node_with(ros, shifted(tmp_path / "visa", 3.0)).up("targets", "instance_mask", "grounding")
    node.say("which one can hold water?")
    message = node.show_until_state(Target.PRESENT, "red", "green")
    assert message.targets[0].area > 0
    assert node.heard["grounding"][0].answer == "It is [SEG]."
    node.wait(lambda: node.heard["instance_mask"], "a mask")
    assert pixels(node.heard["instance_mask"][-1]).any()
    assert any("no tracker_checkpoint" in str(value) for value in node.diagnostics().values())


def test_an_empty_mask_is_reported_as_no_target(ros, tmp_path: Path) -> None:
    node = node_with(ros, shifted(tmp_path / "visa", -3.0)).up("targets", "rejection")
    node.say("the red mug")
    message = node.show_until_state(Target.NO_TARGET, "red")
    assert [target.state for target in message.targets] == [Target.NO_TARGET]
    assert "the mask on the target frame is empty" in node.heard["rejection"][0].reason


@pytest.mark.parametrize("sampler", ["newest", "uniform"])
def test_masks_carried_by_the_tracker(ros, tmp_path: Path, sampler: str) -> None:
    tracker = transformers_checkpoint(tmp_path / "sam2", tiny_sam())
    node = node_with(
        ros, shifted(tmp_path / "visa", 3.0), f"tracker_checkpoint={tracker}", f"frame_sampler={sampler}",
        present_threshold=0.01, max_rate=5.0,
    )  # fmt: skip
    node.up("targets", "instance_mask")
    node.say("the red mug")
    assert node.show_until_state(Target.PRESENT, "red").targets[0].area > 0
    assert any("SAM 2 memory carries the masks" in str(value) for value in node.diagnostics().values())


def test_a_missing_tokenizer_fails_configure(ros, tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "visa")
    (folder / "tokenizer.model").unlink()
    node = node_with(ros, folder)
    assert node.configure() == FAILURE
    assert "tokenizer.model is missing" in node.node._failure
