"""The real node with the InstructSeg recipe on small random weights: masks, refusal, the tracker, a bad folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from instructseg_msgs.msg import Target
from node.node_harness import FAILURE, Harness, pixels
from unit.tiny_instructseg import tiny_checkpoint
from unit.tiny_sam2 import tiny_sam, transformers_checkpoint

from instructseg_node.node import load_segmenter


def node_with(ros, folder: Path, *options: str, **parameters) -> Harness:
    return Harness(
        ros, factory=load_segmenter, recipe="instructseg", checkpoint=str(folder), device="cpu",
        recipe_options=list(options) or [""], **parameters,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_checkpoint(tmp_path / "instructseg")


def test_masks_of_every_frame(ros, folder: Path) -> None:
    node = node_with(ros, folder, "threshold=0.01", "task=reasoning").up("targets", "instance_mask", "grounding")
    node.say("which one can hold water?")
    message = node.show_until_state(Target.PRESENT, "red", "green")
    target = message.targets[0]
    assert target.area > 0 and target.score >= 0.5
    assert "class" in node.heard["grounding"][0].answer
    node.wait(lambda: node.heard["instance_mask"], "a mask")
    assert (pixels(node.heard["instance_mask"][-1]) == target.instance_id).any()
    diagnostics = node.diagnostics()
    assert diagnostics["recipe"] == "instructseg"
    assert any("not calibrated" in str(value) for value in diagnostics.values())


def test_a_target_below_the_threshold_is_absent(ros, folder: Path) -> None:
    node = node_with(ros, folder, "threshold=0.98").up("targets", "instance_mask")
    node.say("the red mug")
    target = node.show_until_state(Target.NO_TARGET, "red").targets[0]
    assert "the limit is 0.98 (not a published one)" in target.reason
    node.settle()
    assert not any(pixels(message).any() for message in node.heard["instance_mask"])


def test_masks_carried_by_the_tracker(ros, folder: Path, tmp_path: Path) -> None:
    """References on both sides, and the answer carried to the present."""
    tracker = transformers_checkpoint(tmp_path / "sam2", tiny_sam())
    node = node_with(
        ros, folder, "threshold=0.01", "references=published", "masks=tracker", f"tracker_checkpoint={tracker}",
        present_threshold=0.01, max_rate=5.0,
    )  # fmt: skip
    node.up("targets", "instance_mask")
    node.say("the red mug")
    assert node.show_until_state(Target.PRESENT, "red").targets[0].area > 0
    assert any("two references before the newest" in str(value) for value in node.diagnostics().values())


def test_a_folder_without_weights_fails_configure(ros, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    node = node_with(ros, folder)
    assert node.configure() == FAILURE
    assert "model.safetensors" in node.node._failure
