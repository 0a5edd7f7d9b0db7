"""The real node with the MLLMSeg recipe on random weights: command in, masks out, and its notes in diagnostics."""

from __future__ import annotations

from pathlib import Path

import torch
from instructseg_msgs.msg import Target
from node.node_harness import FAILURE, Harness, pixels
from unit.tiny_mllmseg import tiny_checkpoint

from instructseg_node.node import load_segmenter


def sure_checkpoint(folder: Path) -> Path:
    """Random weights that cannot refuse and are sure of their masks."""
    tiny_checkpoint(folder, "qwen2", can_refuse=False)
    tensors = dict(torch.load(folder / "pytorch_model.bin", weights_only=True))
    tensors["res_decoder.conv2.bias"] += 6.0
    torch.save(tensors, folder / "pytorch_model.bin")
    return folder


def test_two_targets_of_one_command(ros, tmp_path: Path) -> None:
    folder = sure_checkpoint(tmp_path / "mllmseg")
    node = Harness(ros, factory=load_segmenter, recipe="mllmseg", checkpoint=str(folder), device="cpu")
    node.up("targets", "instance_mask", "grounding")
    node.say("the red block; the green block")
    message = node.show_until_state(Target.PRESENT, "red", "green")
    assert [target.state for target in message.targets] == [Target.PRESENT] * 2
    assert node.heard["grounding"][0].answer == "Sure,the red block:[SEG], the green block:[SEG]."
    node.wait(lambda: node.heard["instance_mask"], "a mask")
    assert pixels(node.heard["instance_mask"][-1]).any()
    assert any("cannot refuse" in str(value) for value in node.diagnostics().values())


def test_a_folder_that_is_none_fails_configure(ros, tmp_path: Path) -> None:
    """And says so; the node stays, to be configured again."""
    (tmp_path / "empty").mkdir()
    node = Harness(ros, factory=load_segmenter, recipe="mllmseg", checkpoint=str(tmp_path / "empty"), device="cpu")
    assert node.configure() == FAILURE
    assert "config.json is missing" in node.node._failure
    node.node._segmenter_factory = node._load
    assert node.configure() != FAILURE
