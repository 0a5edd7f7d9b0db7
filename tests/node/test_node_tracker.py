"""The real node with SAM 2's memory, in miniature: masks in both modes, what a wrong checkpoint says, reset."""

from __future__ import annotations

from pathlib import Path

import pytest
from instructseg_msgs.msg import Target
from node.node_harness import FAILURE, SUCCESS, Harness, pixels
from rclpy.parameter import Parameter
from unit.tiny_sam2 import tiny_sam, transformers_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(transformers_checkpoint(tmp_path_factory.mktemp("sam2"), tiny_sam(presence=6.0)))


def node_with(ros, tracker: str, checkpoint: str, **parameters) -> Harness:
    return Harness(
        ros, tracker=tracker, tracker_checkpoint=checkpoint, warm_up_width=64, warm_up_height=48,
        present_threshold=0.2, **parameters,
    )  # fmt: skip


@pytest.mark.parametrize(("tracker", "looks"), [("memory", 1), ("hybrid", 4)])
def test_masks_flow(ros, checkpoint: str, tracker: str, looks: int) -> None:
    node = node_with(ros, tracker, checkpoint).up("targets", "instance_mask")
    node.say("red")
    first = node.show_until_state(Target.PRESENT, "red")
    assert first.targets[0].area > 0
    masks = node.heard["instance_mask"]
    del masks[:]
    node.show_until(lambda: len(masks) >= 4, "four more masks", "red")
    assert all((pixels(mask) == first.targets[0].instance_id).any() for mask in list(masks)[:4])
    looked = [stamp for stamp, tokens in node.segmenter.segmented if stamp and tokens]  # a stamp of 0: warming up
    assert (len(looked) == 1) if looks == 1 else (len(looked) >= looks)


def test_the_recipe_looks_again_after_the_anchor_period(ros, checkpoint: str) -> None:
    node = node_with(ros, "memory", checkpoint, anchor_period=0.05).up("targets")
    node.say("red")
    node.show_until_state(Target.PRESENT, "red")
    looked = node.segmenter.segmented
    del looked[:]
    node.show_until(lambda: len(looked) >= 3, "three more looks", "red")


def test_reset_forgets_what_was_remembered(ros, checkpoint: str) -> None:
    node = node_with(ros, "memory", checkpoint).up("targets")
    node.say("red")
    node.show_until_state(Target.PRESENT, "red")
    node.show_until_state(Target.PRESENT)  # by memory alone: the square is gone, random weights go on
    node.call(node.node.forget)
    node.show_until_state(Target.NO_TARGET)


@pytest.mark.parametrize(
    ("tracker", "checkpoint", "words"),
    [
        ("memory", "", "tracker 'memory' needs a tracker checkpoint"),
        ("hybrid", "", "tracker 'hybrid' needs a tracker checkpoint"),
        ("memory", "/nowhere/sam2", "'/nowhere/sam2' does not exist"),
    ],
)
def test_a_checkpoint_that_is_missing_fails_configure(ros, tracker: str, checkpoint: str, words: str) -> None:
    node = node_with(ros, tracker, checkpoint)
    assert node.configure() == FAILURE
    assert words in node.node._failure
    assert bool(node.loads) == bool(checkpoint), "without any, nothing is loaded before it is asked for"


def test_a_file_that_is_no_sam2_fails_configure_and_another_one_is_taken(ros, tmp_path: Path, checkpoint: str) -> None:
    broken = tmp_path / "sam2.pt"
    broken.write_bytes(b"no weights")
    node = node_with(ros, "memory", str(broken))
    assert node.configure() == FAILURE
    assert "sam2.pt" in node.node._failure
    node.call(lambda: node.node.set_parameters([Parameter("tracker_checkpoint", value=checkpoint)]))
    assert node.configure() == SUCCESS
