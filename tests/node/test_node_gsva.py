"""The real node with GSVA and LISA on random weights: command in, masks or a refusal out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from instructseg_msgs.msg import Target
from node.node_harness import FAILURE, Harness, pixels
from unit.tiny_gsva import tiny_checkpoint, tiny_lisa_checkpoint, tiny_options

from instructseg_node.node import load_segmenter


def sure_checkpoint(folder: Path, name: str) -> Path:
    """Random weights whose masks cover the whole image."""
    folder = tiny_checkpoint(folder) if name == "gsva" else tiny_lisa_checkpoint(folder)
    for file in folder.glob("*.bin"):
        tensors = torch.load(file, weights_only=True)
        for key in tensors:
            if key.endswith(("output_hypernetworks_mlps.0.layers.2.bias", "output_upscaling.3.bias")):
                tensors[key] += 3.0
        torch.save(tensors, file)
    return folder


def node_with(ros, folder: Path, name: str, **options: str) -> Harness:
    given = [f"{key}={value}" for key, value in (tiny_options(folder) | options).items()]
    values = {"recipe": name, "checkpoint": str(folder), "device": "cpu", "recipe_options": given}
    return Harness(ros, factory=load_segmenter, **values)


@pytest.mark.parametrize(("name", "options"), [("gsva", {"reject_threshold": "1"}), ("lisa", {"rejection": "none"})])
def test_two_targets_of_one_command(ros, tmp_path: Path, name: str, options: dict[str, str]) -> None:
    node = node_with(ros, sure_checkpoint(tmp_path / name, name), name, **options)
    node.up("targets", "instance_mask", "grounding")
    node.say("the red block and the green block")
    message = node.show_until_state(Target.PRESENT, "red", "green")
    assert [target.state for target in message.targets] == [Target.PRESENT] * 2
    assert node.heard["grounding"][0].answer == "the red block: [SEG], the green block: [SEG]"
    node.wait(lambda: node.heard["instance_mask"], "a mask")
    assert pixels(node.heard["instance_mask"][-1]).any()
    ours = "forced slots are this project's own" if name == "gsva" else "its rejection score is this project's own"
    assert any(ours in str(value) for value in node.diagnostics().values())


def test_an_absent_target_is_refused_without_a_mask(ros, tmp_path: Path) -> None:
    node = node_with(ros, sure_checkpoint(tmp_path / "gsva", "gsva"), "gsva", reject_threshold="0")
    node.up("targets", "rejection")
    node.say("the red block")
    message = node.show_until_state(Target.NO_TARGET, "red")
    assert [target.state for target in message.targets] == [Target.NO_TARGET]
    assert "[REJ]" in node.heard["rejection"][0].reason


def test_a_base_that_is_missing_fails_configure(ros, tmp_path: Path) -> None:
    folder = sure_checkpoint(tmp_path / "gsva", "gsva")
    (folder / "tokenizer.model").unlink()
    node = node_with(ros, folder, "gsva")
    assert node.configure() == FAILURE
    assert "set option base" in node.node._failure
