"""The loop of the default training on a toy: schedules, parts, resuming bit for bit, pauses, early abort."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from instructseg.core import BadInput
from instructseg.training import stage as stages
from instructseg.training.curves import CURVES, read_curves
from instructseg.training.plan import AbortRule
from instructseg.training.stage import Running, Schedule, Stage
from instructseg.training.state import weight_average
from instructseg.training.stopping import StopRequest, TrainingPaused, TrainingStopped

STEPS = 9


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Toy:
    """A stage over a small network with a batch norm and dropout; ``losses`` may be changed before a step."""

    def __init__(self, folder: Path, steps: int | None = STEPS, minutes: float = 1.0, **running: Any) -> None:
        torch.manual_seed(0)
        folder.mkdir(exist_ok=True)
        self.model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.1)
        average = weight_average(self.model, 0.9)
        schedule = Schedule(minutes, steps, 0.1, warm_up=3, floor=1e-6)
        self.stage = Stage(
            "perception", self.model, list(self.model.parameters()), self.optimizer, average, schedule,
            folder / "toy.pt", (7,), 5.0, Running(**{"log_every": 2, "validate_every": 3, **running}),
        )  # fmt: skip
        self.drawn: list[list[int]] = []
        self.at: dict[int, Callable[[dict[str, torch.Tensor]], Any]] = {}

    def draw(self, rng: np.random.Generator) -> tuple[dict[str, torch.Tensor], Sequence[int]]:
        rows = rng.integers(100, size=6)
        self.drawn.append(rows.tolist())
        x = torch.from_numpy(rng.normal(size=(6, 3))).float() + 0.1 * torch.randn(6, 3)
        error = (self.model.train()(x)[:, 0] - x.sum(1)).square().mean()
        losses = {"error": error, "size": 0.01 * self.model[0].weight.square().sum()}
        self.at.get(self.stage.step, lambda _: None)(losses)
        return losses, rows

    def run(self, validate: Callable | None = None) -> Toy:
        self.stage.run(self.draw, lambda row: f"shard-{row // 50} episode {row % 50}", validate)
        return self

    def weights(self) -> dict[str, torch.Tensor]:
        return self.model.state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def interrupt(_: object) -> None:
    raise KeyboardInterrupt


# Schedules


def test_the_rate_rises_and_falls_over_steps_or_minutes() -> None:
    by_steps = Schedule(0.0, 10, 1.0, warm_up=2, floor=0.0)
    assert [by_steps.progress(step, 99.0) for step in (0, 5, 10)] == [0.0, 0.5, 1.0]
    by_time = Schedule(2.0, None, 1.0, warm_up=2, floor=0.0)
    assert by_time.progress(99, 60.0) == 0.5
    rates = [by_steps.rate(step, by_steps.progress(step, 0.0)) for step in range(10)]
    assert rates[0] == 0.5 and max(rates) == rates[1]
    assert rates[1:] == sorted(rates[1:], reverse=True) and 0 < rates[-1] < 0.05


def test_minutes_of_training_end_a_stage_wherever_it_was_interrupted(tmp_path: Path, monkeypatch) -> None:
    clock = SimpleNamespace(now=0.0)

    def monotonic() -> float:  # a look at the clock takes ten seconds
        clock.now += 10.0
        return clock.now

    monkeypatch.setattr(stages, "time", SimpleNamespace(monotonic=monotonic))
    monkeypatch.setattr(stages, "SAVE_SECONDS", 30.0)
    whole = Toy(tmp_path / "whole", None, 2.0).run()
    assert whole.stage.step > 4
    first = Toy(tmp_path, None, 2.0)
    first.at = {4: interrupt}
    with pytest.raises(KeyboardInterrupt):
        first.run()
    second = Toy(tmp_path, None, 2.0)
    assert 0 < second.stage.step <= 4 and second.stage.seconds > 0
    second.run()
    assert abs(second.stage.step - whole.stage.step) <= 1  # the saving takes looks at the clock too
    assert Toy(tmp_path, None, 2.0).run().drawn == []  # finished is finished


# Steps


def test_a_killed_and_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(stages, "SAVE_SECONDS", 0.0)
    whole = Toy(tmp_path / "whole").run()
    for moment in (4, 7):
        killed = Toy(tmp_path)
        killed.at = {moment: interrupt}
        with pytest.raises(KeyboardInterrupt):
            killed.run()
    (tmp_path / "toy.partial").write_bytes(b"half a file that the kill left behind")
    resumed = Toy(tmp_path)
    assert resumed.stage.step == 7
    resumed.run()
    assert resumed.drawn == whole.drawn[7:]
    assert same(resumed.weights(), whole.weights())
    assert resumed.stage.smoothed == whole.stage.smoothed
    assert not same(whole.weights(), Toy(tmp_path / "none").weights())


def test_parts_add_up_to_the_step(tmp_path: Path) -> None:
    """The same gradient from two parts as from both losses at once."""
    toy = Toy(tmp_path, 1, accumulation=2)
    toy.model.eval()
    weight = toy.model[4].weight
    seen = []

    def two_losses(losses: dict[str, torch.Tensor]) -> None:
        losses.clear()
        losses["error"] = (weight * (1.0 + len(seen))).sum()
        seen.append(1)

    toy.at = {0: two_losses}
    toy.run()
    assert len(toy.drawn) == 2 and toy.drawn[0] != toy.drawn[1]
    expected = torch.full_like(weight, 1.5)  # the mean of 1 and 2
    expected *= min(1.0, 5.0 / float(expected.norm()))
    torch.testing.assert_close(weight.grad, expected)


def test_sigterm_and_a_time_limit_pause_with_a_saved_state(tmp_path: Path) -> None:
    whole = Toy(tmp_path / "whole").run()
    stop = StopRequest()
    signalled = Toy(tmp_path, stop=stop)
    signalled.at = {2: lambda _: os.kill(os.getpid(), signal.SIGTERM)}
    before = signal.getsignal(signal.SIGTERM)
    with stop.listening(), pytest.raises(TrainingPaused, match="perception stopped at step 3, which is saved"):
        signalled.run()
    assert signal.getsignal(signal.SIGTERM) is before and stop.signalled.is_set()
    clock = iter([0.0, 30.0, 59.0, 60.0])
    limited = Toy(tmp_path, stop=StopRequest(1.0, lambda: next(clock)))
    with pytest.raises(TrainingPaused, match="step 5"):
        limited.run()
    assert same(Toy(tmp_path).run().weights(), whole.weights())


# Early abort


@pytest.mark.parametrize("spoiled", ["loss", "gradient"])
def test_what_is_not_finite_never_reaches_the_weights(tmp_path: Path, spoiled: str, monkeypatch) -> None:
    monkeypatch.setattr(stages, "SAVE_SECONDS", 0.0)
    toy = Toy(tmp_path)

    def spoil(losses: dict[str, torch.Tensor]) -> None:
        if spoiled == "loss":
            losses["error"] = losses["error"] * math.nan
        else:  # the root of 0 has a finite value and no slope
            losses["error"] = (losses["error"] * 0.0).sqrt()

    toy.at = {5: spoil}
    with pytest.raises(TrainingStopped) as raised:
        toy.run()
    message = str(raised.value)
    assert "perception step 6 is not finite" in message and "holds step 5" in message
    assert all(f"shard-{row // 50} episode {row % 50}" in message for row in toy.drawn[-1])
    assert "lower perception.learning_rate" in message
    assert all(torch.isfinite(parameter).all() for parameter in toy.model.parameters())
    assert same(Toy(tmp_path).run().weights(), Toy(tmp_path / "whole").run().weights())


def test_before_the_first_state_the_message_says_so(tmp_path: Path) -> None:
    toy = Toy(tmp_path)
    toy.at = {0: lambda losses: losses.update(error=losses["error"] * math.inf)}
    with pytest.raises(TrainingStopped, match=r"error (inf|nan).*no state was saved yet"):
        toy.run()


def test_a_loss_that_does_not_fall_aborts_with_a_state(tmp_path: Path) -> None:
    toy = Toy(tmp_path, rules=(AbortRule(4, loss="error", below=1e-9),))
    with pytest.raises(
        TrainingStopped,
        match=r"aborted at step 4 by perception.abort\[0\]: from step 4 on the loss error must be below 1e-09; it is "
        r".*The state is saved. Try another perception.learning_rate",
    ):
        toy.run()
    again = Toy(tmp_path, rules=(AbortRule(4, loss="error", below=1e-9),))
    assert again.stage.step == 4
    with pytest.raises(TrainingStopped, match="aborted at step 5"):
        again.run()
    assert same(Toy(tmp_path, rules=(AbortRule(4, loss="error", below=1e9),)).run().weights(),
                Toy(tmp_path / "whole").run().weights())  # fmt: skip


def test_a_figure_that_stays_low_aborts_and_one_that_is_missing_does_too(tmp_path: Path) -> None:
    rules = (AbortRule(5, validation="recall", at_least=0.5),)
    with pytest.raises(TrainingStopped, match=r"at step 6 by .* recall must be at least 0.5; it is 0.25\."):
        Toy(tmp_path, rules=rules).run(lambda _: {"recall": 0.25})
    with pytest.raises(TrainingStopped, match=r"recall must be at least 0.5; there are color, shape\."):
        Toy(tmp_path, rules=rules).run(lambda _: {"shape": 0.9, "color": 0.9})
    with pytest.raises(TrainingStopped, match="it is nan"):
        Toy(tmp_path / "other", rules=rules).run(lambda _: {"recall": math.nan})
    assert Toy(tmp_path, rules=rules).run(lambda _: {"recall": 0.5}).stage.step == STEPS


def test_a_rule_about_a_loss_that_is_none_is_named_early(tmp_path: Path) -> None:
    toy = Toy(tmp_path, 200, rules=(AbortRule(150, loss="eror", below=1.0),))
    with pytest.raises(BadInput, match=r"perception.abort\[0\].loss must be one of error, size, total; got 'eror'"):
        toy.run()
    assert toy.stage.step == 50


# What is written down


def test_curves_and_tensorboard_hold_every_point_once(tmp_path: Path) -> None:
    def figures(averaged: nn.Module) -> dict[str, float]:
        return {"accuracy": 0.5, "extra": 3.0, "unknown": math.nan}

    toy = Toy(tmp_path, out=tmp_path)
    toy.at = {5: interrupt}  # its state is lost, its points with it
    with pytest.raises(KeyboardInterrupt):
        toy.run(figures)
    Toy(tmp_path, out=tmp_path).run(figures)
    curves = read_curves(tmp_path / CURVES)["perception"]
    assert [point["step"] for point in curves["training"]] == [2, 4, 6, 8]
    assert [point["step"] for point in curves["validation"]] == [3, 6, 9]
    first = curves["validation"][0] | {"minutes": 0.0}
    assert first == {"step": 3, "minutes": 0.0, "accuracy": 0.5, "extra": 3.0, "unknown": None}
    assert {"loss/error", "loss/size", "loss/total", "learning rate", "gradient norm"} <= set(curves["training"][0])
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard" / "perception"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss/error")] == [2, 4, 6, 8]
    assert [event.value for event in events.Scalars("validation/accuracy")] == [0.5] * 3
    shown = [point["loss/error"] for point in curves["training"]]
    assert [event.value for event in events.Scalars("loss/error")] == pytest.approx(shown, rel=1e-6)
    assert math.isfinite(json.loads((tmp_path / CURVES).read_text())["perception"]["training"][0]["loss/total"])


def test_a_paused_run_keeps_the_points_of_what_it_saved(tmp_path: Path) -> None:
    clock = iter([0.0] * 5 + [61.0])
    with pytest.raises(TrainingPaused):
        Toy(tmp_path, out=tmp_path, stop=StopRequest(1.0, lambda: next(clock))).run()
    Toy(tmp_path, out=tmp_path).run()
    points = read_curves(tmp_path / CURVES)["perception"]["training"]
    assert [point["step"] for point in points] == [2, 4, 6, 8]


# States


@pytest.mark.parametrize("content", [b"", b"nothing", b"\x80\x02}q\x00."])
def test_a_damaged_state_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "toy.pt").write_bytes(content)
    with pytest.raises(BadInput, match=r"the state .*toy.pt (cannot be read|lacks 'model').*give another --out"):
        Toy(tmp_path)


def test_a_cut_off_state_and_one_of_another_model_are_named(tmp_path: Path) -> None:
    Toy(tmp_path, 1).run()
    path = tmp_path / "toy.pt"
    state = torch.load(path, weights_only=True)
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(BadInput, match=r"toy.pt cannot be read"):
        Toy(tmp_path)
    state["model"]["0.weight"] = torch.zeros(4, 4)
    torch.save(state, path)
    with pytest.raises(BadInput, match=r"toy.pt belongs to another model: .*size mismatch for 0.weight"):
        Toy(tmp_path)


def test_a_state_from_before_smoothed_losses_were_kept_goes_on(tmp_path: Path) -> None:
    Toy(tmp_path, 3).run()
    state = torch.load(tmp_path / "toy.pt", weights_only=True)
    del state["smoothed"]
    torch.save(state, tmp_path / "toy.pt")
    assert Toy(tmp_path, 5).run().stage.step == 5
