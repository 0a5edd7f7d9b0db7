"""The real node with a checkpoint that was fine-tuned here: its merged weights load and answer."""

from __future__ import annotations

from pathlib import Path

import torch
from instructseg_msgs.msg import Target
from node.node_harness import Harness
from node.test_node_mllmseg import sure_checkpoint
from unit.test_image_learners import examples

from instructseg.training.learner import LoraSettings, build_learner
from instructseg_node.node import load_segmenter


def test_a_merged_checkpoint_runs_in_the_node(ros, tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    learner = build_learner("mllmseg", sure_checkpoint(tmp_path / "base"), cpu, None, {}, LoraSettings(rank=2))
    learner.module.train()
    learner.losses(examples(learner))["total"].backward()
    torch.optim.AdamW([learner.module.get_parameter(name) for name in learner.trained], 1e-4).step()
    learner.module.eval()
    learner.save_merged(tmp_path / "merged")
    node = Harness(ros, factory=load_segmenter, recipe="mllmseg", checkpoint=str(tmp_path / "merged"), device="cpu")
    node.up("targets")
    node.say("the red block")
    message = node.show_until_state(Target.PRESENT, "red")
    assert [target.state for target in message.targets] == [Target.PRESENT]
