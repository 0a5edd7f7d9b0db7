"""The loop: parts, gradients, a step of the optimiser, numbers for people, a state now and then."""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from ...core import BadInput
from ..learner import Learner
from ..stopping import Listening, TrainingStopped
from .average import WeightAverage
from .configuration import RunConfig
from .examples import Made, parts_of
from .mixture import Shares, Source, seed_of
from .optimisation import Optimisation, optimisation_of
from .processes import Processes, nothing_of, whole
from .state import SCENES, RunState, states_in

log = logging.getLogger(__name__)
STATES = "states"


class Forward(nn.Module):
    """A learner's losses as the forward pass of a module, which is what torch shares out among processes.

    touch_all: every weight takes part in every step, if only with a gradient of 0.
    """

    def __init__(self, learner: Learner, touch_all: bool = False) -> None:
        super().__init__()
        self.model = learner.module
        self._losses, self._touch_all = learner.losses, touch_all

    def forward(self, examples: Sequence[Any]) -> dict[str, torch.Tensor]:
        losses = self._losses(examples)
        return losses | {"total": losses["total"] + nothing_of(self.model)} if self._touch_all else losses


class Training:
    """One run. ``run.steps`` of ``plan.steps`` are done; :meth:`train` does the rest."""

    def __init__(
        self,
        learner: Learner,
        sources: Sequence[Source],
        config: RunConfig,
        processes: Processes,
        out: Path,
        resume: bool = False,
    ) -> None:
        self.learner, self.sources, self.config, self.processes, self.out = learner, sources, config, processes, out
        self.plan: Optimisation = optimisation_of(config, learner.published)
        self.shares = Shares(self.plan.batch, config.accumulation, processes.count, processes.index)
        if config.gradient_checkpointing:
            learner.keep_fewer_activations()
        learner.module.train()
        # FSDP joins the gradients of all weights beside the layers at once, and needs the same ones of every process;
        # answers without a mask give none for the mask decoder.
        forward = Forward(learner, touch_all=processes.way == "fsdp")
        self.forward = processes.share(forward, learner.sharded_layers())
        self.optimiser = self.plan.optimiser(self._trained())
        self.run = RunState(learner, self.optimiser, None)
        if config.ema_decay is not None:
            self.run.average = WeightAverage(self.run.weights(), config.ema_decay)
        # What a state belongs to: the sequence of steps also depends on how they are shared out.
        scenes = [len(source.scenes) for source in sources]
        self.identity = config.as_table() | {"processes": processes.count, SCENES: scenes}
        self._stop = threading.Event()
        self._names: tuple[str, ...] = ()  # of the losses
        self._begin(resume)

    def _trained(self) -> list[nn.Parameter]:
        parameters = dict(self.learner.module.named_parameters())
        return [parameters[name] for name in self.learner.trained]

    def _begin(self, resume: bool) -> None:
        states = states_in(self.out / STATES)
        if states and not resume:
            raise BadInput(
                f"{self.out} already holds a run that came to {states[-1].name}: give --resume to go on with it, or "
                "another --out"
            )
        faults = [fault for source in self.sources for fault in source.faults]
        for fault in faults if self.processes.is_main else ():
            log.warning("sample left out: %s", fault)
        self.run.failures = len(faults)
        if states:
            self.run.load(states[-1], self.identity)
            log.info("resumed at step %d of %d", self.run.steps, self.plan.steps)

    def train(self) -> bool:
        """Do the steps that are left. True: all are done; False: a SIGTERM came, and a state was saved.

        Raises TrainingStopped at a loss or gradient that is not finite, before it reaches the weights, and where more
        samples failed than ``failing_samples``.
        """
        parts = parts_of(self.sources, self.learner, self.config.seed, self.shares, self.run.steps, self.config.workers)
        with Listening(self._stop), self._writer() as writer, self._progress() as progress:
            while self.run.steps < self.plan.steps:
                begun = time.perf_counter()
                numbers, stopping = self._step(parts)
                self.run.steps += 1
                numbers["samples per second"] = self.plan.batch / (time.perf_counter() - begun)
                numbers["failing samples"] = self.run.failures
                progress.update()
                progress.set_postfix(loss=f"{numbers['loss/total']:.4g}", failing=self.run.failures)
                if writer is not None and (self.run.steps - 1) % self.config.log_every == 0:
                    for name, value in numbers.items():
                        writer.add_scalar(name, value, self.run.steps)
                if stopping or self.run.steps % self.config.save_every == 0 or self.run.steps == self.plan.steps:
                    self._save()
                if stopping and self.run.steps < self.plan.steps:
                    return False
        return True

    def _step(self, parts: Iterator[list[Made]]) -> tuple[dict[str, float], bool]:
        """One step of the optimiser over all processes: its numbers by name, and whether any was asked to stop."""
        step, rate = self.run.steps, self.plan.rate(self.run.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        tally: dict[str, torch.Tensor] = {}
        samples: list[str] = []
        failures, waited = 0, 0.0
        for part in range(self.shares.parts):
            asked = time.perf_counter()
            made = next(parts)
            waited += time.perf_counter() - asked
            failures += self._report(made)
            samples += [name for one in made for name in one.samples]
            seed_chance(self.config.seed, step, part, self.processes.index)
            with self.processes.gathering(self.forward, part == self.shares.parts - 1):
                with self.processes.precision(self.config.precision):
                    losses = self.forward([one.example for one in made])
                (losses["total"] / self.shares.parts).backward()
            for name, loss in losses.items():
                tally[name] = tally.get(name, 0.0) + loss.detach().double() / self.shares.parts
        means, failures, stops = self._together(tally, failures)
        norm = float(whole(nn.utils.clip_grad_norm_(self._trained(), self.plan.clip_norm)))
        self.run.failures += failures
        self._judge(means, norm, samples)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        if self.run.average is not None:
            self.run.average.update(self.run.weights(), step)
        numbers = {f"loss/{name}": value for name, value in means.items()}
        numbers |= {"learning rate": rate, "gradient norm": norm, "seconds waiting for samples": waited}
        return numbers, stops

    def _together(self, tally: Mapping[str, torch.Tensor], failures: int) -> tuple[dict[str, float], int, bool]:
        """Means of the losses, failures and whether to stop, over all processes."""
        names = tuple(sorted(tally))
        self._names = self._names or names
        if names != self._names:
            raise ValueError(f"the learner {self.learner.name} must always give the losses {self._names}; got {names}")
        own = [float(tally[name]) for name in names] + [float(failures), float(self._stop.is_set())]
        *losses, failed, stops = self.processes.sum(torch.tensor(own, dtype=torch.float64)).tolist()
        means = {name: loss / self.processes.count for name, loss in zip(names, losses, strict=True)}
        return means, round(failed), stops > 0

    def _report(self, made: Sequence[Made]) -> int:
        """Say which samples failed; how many. Raises TrainingStopped where nothing could be put in their place."""
        failures = [failure for one in made for failure in one.failures]
        for failure in failures:
            log.warning("sample left out: %s", failure)
        hopeless = next((one for one in made if not one.samples), None)
        if hopeless is not None:
            raise TrainingStopped(
                f"{len(hopeless.failures)} samples in a row could not be used at step {self.run.steps + 1}, the last: "
                f"{hopeless.failures[-1]}{self._where()}"
            )
        return len(failures)

    def _judge(self, means: Mapping[str, float], norm: float, samples: Sequence[str]) -> None:
        if self.run.failures > self.config.failing_samples:
            raise TrainingStopped(
                f"{self.run.failures} samples failed up to step {self.run.steps + 1}; failing_samples allows "
                f"{self.config.failing_samples} (the log names them): mend the data or allow more{self._where()}"
            )
        if not all(map(math.isfinite, (*means.values(), norm))):
            shown = ", ".join(f"{name} {value:.4g}" for name, value in means.items())
            raise TrainingStopped(
                f"step {self.run.steps + 1} is not finite ({shown}, gradient {norm:.4g}; samples "
                f"{', '.join(samples[:8])}); no weight was changed by it: lower learning_rate, or set precision to fp32"
                f"{self._where()}"
            )

    def _where(self) -> str:
        states = states_in(self.out / STATES)
        return f"; {states[-1]} is the last state, --resume starts from it" if states else "; no state was saved yet"

    def _save(self) -> None:
        saved = self.run.save(self.out / STATES, self.identity, self.processes.is_main)
        self.processes.wait()
        if saved is not None:
            log.info("saved %s", saved)

    def _writer(self) -> Any:
        if not self.processes.is_main:
            return _Nothing()
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self.out / "tensorboard"), purge_step=self.run.steps + 1)

    def _progress(self) -> tqdm:
        return tqdm(
            total=self.plan.steps,
            initial=self.run.steps,
            unit="step",
            desc=f"training {self.learner.name}",
            disable=None if self.processes.is_main else True,  # None: where no person looks on
        )


def seed_chance(seed: int, step: int, part: int, process: int) -> None:
    """Everything random in one part of one step depends on these four numbers alone: dropout, points, masks."""
    number = seed_of(seed, "step", step, part, process)
    random.seed(number)
    torch.manual_seed(number)


class _Nothing:
    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: object) -> None:
        return None
