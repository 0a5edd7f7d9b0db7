"""A learner and data sets small enough to train in milliseconds, with every part that a real one has: a frozen layer,
dropout, a batch norm, samples that fail. As a program: one run, to be killed, resumed or started several times.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional

from instructseg.core import BadInput
from instructseg.data.samples import Dataset, Footage, Sample, Truth, Truths
from instructseg.training.adapters import mark_of
from instructseg.training.finetuning.configuration import DataKeys, RunConfig
from instructseg.training.finetuning.loop import Training
from instructseg.training.finetuning.mixture import Source, source_of
from instructseg.training.finetuning.processes import Processes
from instructseg.training.learner import Learner, Published

SIDE = 8


class Picture(Footage):
    """A bright square on noise. broken: cannot be read."""

    def __init__(self, name: str, size: tuple[int, int] = (SIDE, SIDE), broken: bool = False) -> None:
        self.name, self.frames, self.size, self.broken = name, ("0",), size, broken

    def read(self, index: int) -> np.ndarray:
        if self.broken:
            raise BadInput(f"{self.name}.jpg cannot be read")
        image = random.Random(self.name).randbytes(3 * self.size[0] * self.size[1])
        image = np.frombuffer(image, np.uint8).reshape(*self.size, 3) // 4
        image[square(self.name, self.size)] += 180
        return image


def square(name: str, size: tuple[int, int]) -> np.ndarray:
    """``(H, W)`` bool: a quarter of the picture, where the name says."""
    mask, (h, w) = np.zeros(size, bool), size
    chance = random.Random(name)
    y, x = chance.randrange(h // 2), chance.randrange(w // 2)
    mask[y : y + h // 2, x : x + w // 2] = True
    return mask


@dataclasses.dataclass
class SquareTruth(Truths):
    """``(n, H, W)``: the square for every object."""

    name: str
    size: tuple[int, int]
    count: int = 1

    def __call__(self, index: int) -> Truth:
        return Truth(np.repeat(square(self.name, self.size)[None], self.count, 0))


class Squares(Dataset):
    """``count`` pictures with ``each`` samples; those in ``broken`` cannot be read, those in ``absent`` show nothing of
    what they name."""

    split = "train"

    def __init__(
        self,
        count: int,
        broken: Sequence[int] = (),
        absent: Sequence[int] = (),
        each: int = 1,
        size: tuple[int, int] = (SIDE, SIDE),
        name: str = "squares",
    ) -> None:
        self.name, self.size = name, size
        self.samples = [self._sample(i, e, i in broken, i in absent) for i in range(count) for e in range(each)]

    def _sample(self, index: int, turn: int, broken: bool, absent: bool) -> Sample:
        picture = f"{self.name}-{index}"
        objects = () if absent else ("1",)
        truth = SquareTruth(picture, self.size, len(objects))
        words = ("the red mug", "the green ball", "a white plate")[turn % 3]
        return Sample(f"{picture}/{turn}", Picture(picture, self.size, broken), words, objects, truth)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


class Toy(nn.Module):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Dropout(dropout), nn.Conv2d(8, 1, 1))
        self.unused = nn.Linear(2, 2)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """``(B, 3, H, W)`` to ``(B, H, W)``."""
        return self.head(self.norm(self.stem(pixels)))[:, 0]


class ToyLearner(Learner):
    name = "toy"
    published = Published(3e-2, (0.9, 0.95), 0.0, 1.0, 0.1, "linear", 12, 8)

    def __init__(self, dropout: float = 0.1, batch_norm: bool = True) -> None:
        torch.manual_seed(0)
        self.module = Toy(dropout)
        if not batch_norm:
            self.module.norm = nn.Identity()
        self.module.stem.requires_grad_(False)
        self.trained = tuple(name for name, p in self.module.named_parameters() if p.requires_grad)
        self.belongs_to = {"recipe": "toy", "frozen": mark_of(self.module, self.trained)}

    def example(self, samples: Sequence[Sample], draw: random.Random) -> Any:
        image = torch.from_numpy(samples[0].footage.read(0).copy()).permute(2, 0, 1) / 255.0
        return image, torch.from_numpy(samples[0].truth(0).union).float()

    def losses(self, examples: Sequence[Any]) -> dict[str, torch.Tensor]:
        device = next(self.module.parameters()).device
        pixels, masks = (torch.stack(part).to(device) for part in zip(*examples, strict=True))
        mask = functional.binary_cross_entropy_with_logits(self.module(pixels), masks)
        return {"total": mask, "mask": mask}

    layers: tuple[str, ...] = ("BatchNorm2d", "Sequential")

    def sharded_layers(self) -> tuple[str, ...]:
        return self.layers

    def save_merged(self, folder: Path) -> None:
        raise NotImplementedError


def config(**values: Any) -> RunConfig:
    data = (DataKeys("squares", Path("."), "train", 1.0),)
    return RunConfig("toy", "none", data, **{"workers": 0, "device": "cpu"} | values)


def sources(broken: Sequence[int] = ()) -> list[Source]:
    """Two data sets, one drawn three times as often as the other. broken: pictures of the first."""
    return [source_of(Squares(20, broken, name="many"), 3.0), source_of(Squares(5, name="few"), 1.0)]


def training(
    out: Path, learner: ToyLearner | None = None, broken: Sequence[int] = (), resume: bool = False, **values: Any
) -> Training:
    settings = config(**values)
    processes = Processes(settings.distributed, settings.device)
    return Training(learner or ToyLearner(), sources(broken), settings, processes, out, resume)


def before_losses(learner: ToyLearner, number: int, act: Callable[[], None]) -> None:
    """Have something happen before the learner's losses of that number, from 1."""
    losses = learner.losses
    counter = itertools.count(1)

    def watched(examples: Sequence[Any]) -> dict[str, torch.Tensor]:
        if next(counter) == number:
            act()
        return losses(examples)

    learner.losses = watched


def without_masks(learner: ToyLearner, number: int) -> None:
    """Have the learner's losses of that number, from 1, come without its head, as from answers without a mask."""
    losses, counter = learner.losses, itertools.count(1)

    def some(examples: Sequence[Any]) -> dict[str, torch.Tensor]:
        if next(counter) != number:
            return losses(examples)
        loss = learner.module.norm(learner.module.stem(torch.stack([image for image, _ in examples]))).square().mean()
        return {"total": loss, "mask": loss}

    learner.losses = some


def stall() -> None:
    print("stalled", flush=True)
    time.sleep(600)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def main(folder: Path, runs: list[dict[str, Any]]) -> None:
    """Runs one after another, each into a folder of ``folder`` by its ``name``; ``stall_at``, ``stop_at``: the
    losses before which every process hangs, or the last one is terminated. Several processes find each other by a file,
    so that nothing but the loopback interface is listened on."""
    torch.set_num_threads(1)
    if "WORLD_SIZE" in os.environ:
        rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        dist.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=count)
    for values in runs:
        learner = ToyLearner(values.pop("dropout", 0.1), values.pop("batch_norm", True))
        if "stall_at" in values:
            before_losses(learner, values.pop("stall_at"), stall)
        learner.layers = tuple(values.pop("layers", learner.layers))
        if "no_masks_at" in values:
            number, last = values.pop("no_masks_at"), int(os.environ["RANK"]) == int(os.environ["WORLD_SIZE"]) - 1
            without_masks(learner, number if last else 0)
        if "stop_at" in values:
            number, last = values.pop("stop_at"), int(os.environ["RANK"]) == int(os.environ["WORLD_SIZE"]) - 1
            before_losses(learner, number if last else 0, terminate)
        training(folder / values.pop("name"), learner, **values).train()
    if dist.is_initialized():  # gloo aborts a process whose peer is gone before it has taken leave
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
