"""The loop that both stages of the default recipe share: parts, gradients, a step, numbers for people, states.

Every chance of a step follows from the seed and the step's number, so a state holds no generators, and on a CPU a run
of steps that was killed and resumed is the uninterrupted one bit for bit.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from ..core import BadInput
from .abort import AbortRules
from .journal import Journal
from .plan import AbortRule
from .state import put_state, read_state, save_state
from .stopping import StopRequest, TrainingPaused, TrainingStopped

SAVE_SECONDS = 120.0
SMOOTHING = 0.97  # share of the past in a smoothed loss

Drawn = tuple[dict[str, torch.Tensor], Sequence[int]]  # weighted losses, and the rows of the data they came from


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A cosine over wall-clock minutes of training or, where given, over steps. warm_up: steps of linear rise."""

    minutes: float
    steps: int | None
    learning_rate: float
    warm_up: int
    floor: float

    def progress(self, step: int, seconds: float) -> float:
        """0 at the start, 1 or more at the end."""
        return step / self.steps if self.steps is not None else seconds / (self.minutes * 60)

    def rate(self, step: int, progress: float) -> float:
        """The learning rate of step ``step``, from 0."""
        rise = min(1.0, (step + 1) / self.warm_up)
        return float(self.learning_rate * rise * (0.5 + 0.5 * math.cos(math.pi * progress)) + self.floor)


@dataclasses.dataclass(frozen=True)
class Running:
    """How a stage runs, whatever it learns. out: folder of curves and TensorBoard's files; None: neither."""

    accumulation: int = 1
    out: Path | None = None
    rules: Sequence[AbortRule] = ()
    stop: StopRequest = dataclasses.field(default_factory=StopRequest)
    validate_every: int = 600
    log_every: int = 100


class Stage:
    """One stage: ``step`` steps are done. name: as in the plan. seeds: of its chances, the step's number comes last.

    trained: parameters of ``model`` whose gradients count. clip_norm: longest gradient.
    """

    def __init__(
        self, name: str, model: nn.Module, trained: Sequence[nn.Parameter], optimizer: torch.optim.Optimizer,
        average: AveragedModel, schedule: Schedule, checkpoint: Path, seeds: Sequence[int], clip_norm: float,
        running: Running,
    ) -> None:  # fmt: skip
        self.name, self.model, self.trained, self.optimizer, self.average = name, model, trained, optimizer, average
        self.schedule, self.checkpoint, self.seeds, self.clip_norm = schedule, checkpoint, tuple(seeds), clip_norm
        self.running, self.rules = running, AbortRules(name, running.rules)
        self.seconds, self.step, self.saved_step = 0.0, 0, 0
        self.smoothed: dict[str, float] = {}
        if checkpoint.exists():
            state = read_state(checkpoint)
            put_state(state, checkpoint, model, average, optimizer)
            self.seconds, self.step = float(state["seconds"]), state["step"]
            self.saved_step, self.smoothed = self.step, dict(state.get("smoothed", {}))

    def run(
        self,
        draw: Callable[[np.random.Generator], Drawn],
        place: Callable[[int], str] = str,
        validate: Callable[[nn.Module], Mapping[str, float]] | None = None,
        more: Callable[[], str] = lambda: "",
    ) -> None:
        """Do what is left of the schedule, save the state, and leave the averaged weights in the model.

        draw: losses of one part of a step. place: a row of the data in words. validate: figures of the averaged model.
        more: a word or two for the log's lines. Raises TrainingPaused when asked to stop, and TrainingStopped at a loss
        or gradient that is not finite, before it reaches the weights, and at a broken abort rule.
        """
        by_steps = self.schedule.steps is not None
        whole, unit = (self.schedule.steps, "steps") if by_steps else (self.schedule.minutes * 60, "s")
        start = saved = time.monotonic()
        start -= self.seconds
        bar = (whole, unit, self.step if by_steps else self.seconds)
        with Journal(self.name, self.running.out, self.step, *bar) as journal:
            while (progress := self.schedule.progress(self.step, self.seconds)) < 1:
                if self.running.stop.due():
                    self._save(journal)
                    raise TrainingPaused(f"{self.name} stopped at step {self.step}, which is saved")
                numbers = self._one_step(draw, place, progress)
                self.step += 1
                self.seconds = time.monotonic() - start
                journal.advance(self.step if by_steps else self.seconds, self.step, numbers["loss/total"])
                try:
                    self._tell(journal, numbers, validate, more)
                except (TrainingStopped, BadInput):  # of an abort rule
                    self._save(journal)
                    raise
                if time.monotonic() - saved > SAVE_SECONDS:
                    self._save(journal)
                    saved = time.monotonic()
            if self.step != self.saved_step:
                self._save(journal)
        self.model.load_state_dict(self.average.module.state_dict())

    def _one_step(
        self, draw: Callable[[np.random.Generator], Drawn], place: Callable[[int], str], progress: float
    ) -> dict[str, float]:
        """The step's losses, under ``loss/``, its learning rate and the norm of its gradient."""
        rate = self.schedule.rate(self.step, progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        rng = np.random.default_rng([*self.seeds, self.step])
        torch.manual_seed(int(rng.integers(2**63 - 1)))
        self.optimizer.zero_grad(set_to_none=True)
        tally: dict[str, torch.Tensor] = {}
        rows: list[int] = []
        for _ in range(self.running.accumulation):
            losses, drawn = draw(rng)
            total = sum(losses.values()) / self.running.accumulation
            total.backward()
            rows += [int(row) for row in drawn]
            for name, loss in (losses | {"total": total * self.running.accumulation}).items():
                tally[name] = tally.get(name, 0.0) + loss.detach().float() / self.running.accumulation
        norm = nn.utils.clip_grad_norm_(self.trained, self.clip_norm)
        *values, norm = torch.stack([*tally.values(), norm]).tolist()  # one wait for the device
        losses = dict(zip(tally, values, strict=True))
        self._judge(losses, norm, rows, place)
        self.optimizer.step()
        self.average.update_parameters(self.model)
        for name, value in losses.items():
            self.smoothed[name] = SMOOTHING * self.smoothed.get(name, value) + (1 - SMOOTHING) * value
        numbers = {f"loss/{name}": self.smoothed[name] for name in losses}
        return numbers | {"learning rate": rate, "gradient norm": norm}

    def _judge(self, losses: Mapping[str, float], norm: float, rows: Sequence[int], place: Callable) -> None:
        if all(map(math.isfinite, (*losses.values(), norm))):
            return
        shown = ", ".join(f"{name} {value:.4g}" for name, value in losses.items() if not math.isfinite(value))
        places = list(dict.fromkeys(place(row) for row in rows))
        where = ", ".join(places[:8]) + (f" and {len(places) - 8} more" if len(places) > 8 else "")
        kept = f"{self.checkpoint} holds step {self.saved_step}" if self.saved_step else "no state was saved yet"
        raise TrainingStopped(
            f"{self.name} step {self.step + 1} is not finite ({shown or 'the losses are'}, gradient {norm:.4g}); drawn "
            f"were {where}. No weight was changed by it, {kept}: lower {self.name}.learning_rate or set "
            f"{self.name}.precision to fp32, and the same command goes on; delete a shard whose pictures are damaged"
        )

    def _tell(
        self, journal: Journal, numbers: Mapping[str, float], validate: Callable | None, more: Callable[[], str]
    ) -> None:
        minutes = self.seconds / 60
        if self.step % self.running.log_every == 0:
            journal.training(self.step, minutes, numbers, more())
        self.rules.judge_losses(self.step, self.smoothed)
        if validate is not None and self.step % self.running.validate_every == 0:
            figures = validate(self.average.module)
            journal.validation(self.step, minutes, figures)
            self.rules.judge_validation(self.step, figures)

    def _save(self, journal: Journal) -> None:
        save_state(self.checkpoint, self.model, self.average, self.optimizer, self.seconds, self.step, self.smoothed)
        self.saved_step = self.step
        journal.save()
