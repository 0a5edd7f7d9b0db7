"""The real node with VideoLISA on random weights: one token computed once, masks on every later frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from instructseg_msgs.msg import Target
from node.node_harness import FAILURE, Harness, pixels
from unit.tiny_videolisa import tiny_checkpoint

from instructseg_node.node import load_segmenter


def node_with(ros, folder: Path, *options: str) -> Harness:
    values = {"recipe": "videolisa", "checkpoint": str(folder), "device": "cpu", "recipe_options": [*options, ""]}
    return Harness(ros, factory=load_segmenter, **values)


def test_one_grounding_masks_every_later_frame(ros, tmp_path: Path) -> None:
    few = ("rejection=none", "sparse_frames=4", "dense_frames=2")
    node = node_with(ros, tiny_checkpoint(tmp_path / "videolisa"), *few)
    node.up("targets", "instance_mask", "grounding")
    node.say("the red block")
    first = node.show_until_state(Target.PRESENT, "red", "green")
    grounded = first.targets[0].grounded_stamp
    later = node.show_until_state(Target.PRESENT, "red", "green")
    assert later.header.stamp != first.header.stamp
    assert later.targets[0].grounded_stamp == grounded  # the same token
    assert later.targets[0].instance_id == first.targets[0].instance_id
    node.wait(lambda: node.heard["instance_mask"], "a mask")
    mask = pixels(node.heard["instance_mask"][-1])
    assert set(np.unique(mask)) <= {0, first.targets[0].instance_id}
    assert mask.any()


def test_a_truncated_checkpoint_fails_configure(ros, tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "videolisa")
    shard = sorted(folder.glob("*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:-50])
    node = node_with(ros, folder)
    assert node.configure() == FAILURE
    assert shard.name in node.node._failure
