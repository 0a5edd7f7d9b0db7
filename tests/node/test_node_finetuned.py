"""The real node with checkpoints that were fine-tuned here: their merged weights load and answer."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import numpy as np
import torch
from instructseg_msgs.msg import Target
from node.node_harness import Harness
from node.test_node_mllmseg import sure_checkpoint
from unit.fakes import COLOURS, colour_frame
from unit.test_image_learners import examples

from instructseg.data.samples import Footage, Sample, Truth, Truths
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


class Square(Footage):
    """What the node is shown: one coloured square."""

    def __init__(self, colour: str) -> None:
        self.name, self.frames = colour, ("0",)

    def read(self, index: int) -> np.ndarray:
        return colour_frame(0.0, self.name).image


@dataclasses.dataclass(frozen=True)
class SquareTruth(Truths):
    footage: Square
    named: bool

    def __call__(self, index: int) -> Truth:
        masks = (self.footage.read(index) == COLOURS[self.footage.name]).all(-1)[None]  # (1, H, W)
        return Truth(masks if self.named else masks[:0])


def test_the_default_recipe_learns_a_word_and_the_node_knows_it(ros, tmp_path: Path) -> None:
    cpu, squares = torch.device("cpu"), {colour: Square(colour) for colour in ("red", "blue")}
    samples = [
        Sample(colour, square, "the frobnitz", ("1",) if colour == "red" else (), SquareTruth(square, colour == "red"))
        for colour, square in squares.items()
    ]
    torch.manual_seed(0)
    learner = build_learner("unified", "shipped", cpu, None, {}, LoraSettings())
    learner.meet(samples)
    learner.module.train()
    batch = [learner.example([sample], random.Random(0)) for sample in samples]
    optimiser = torch.optim.AdamW([learner.module.get_parameter(name) for name in learner.trained], 3e-3)
    for _ in range(25):
        learner.losses(batch)["total"].backward()
        optimiser.step()
        optimiser.zero_grad()
    learner.save_merged(tmp_path / "merged")
    node = Harness(ros, factory=load_segmenter, recipe="unified", checkpoint=str(tmp_path / "merged"), device="cpu")
    node.up("targets")
    node.say("the frobnitz")
    message = node.show_until_state(Target.PRESENT, "red")
    assert [target.state for target in message.targets] == [Target.PRESENT]
