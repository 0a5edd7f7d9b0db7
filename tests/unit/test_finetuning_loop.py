"""The loop on a toy: it learns, resumes bit for bit, stops where it should, and says why."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from unit.toy_learning import Squares, ToyLearner, before_losses, config, sources, terminate, training

from instructseg.core import BadInput
from instructseg.training.finetuning.average import WeightAverage
from instructseg.training.finetuning.loop import Training, TrainingStopped
from instructseg.training.finetuning.mixture import source_of
from instructseg.training.finetuning.processes import Processes
from instructseg.training.finetuning.state import AVERAGE, OPTIMISER, TRAINED, states_in

DRIVER = Path(__file__).with_name("toy_learning.py")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums of floats depend on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def files(out: Path) -> dict[str, torch.Tensor]:
    """Everything of the newest state, by file and name."""
    state = states_in(out / "states")[-1]
    names = [name for name in (TRAINED, OPTIMISER, AVERAGE) if (state / name).is_file()]
    return {f"{file}:{name}": tensor for file in names for name, tensor in load_file(state / file).items()}


def assert_same(one: Path, other: Path) -> None:
    first, second = files(one), files(other)
    assert first.keys() == second.keys() and states_in(one / "states")[-1].name == states_in(other / "states")[-1].name
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def scalars(out: Path) -> dict[str, list[tuple[int, float]]]:
    # Files of one second are read in the order of their process numbers: nothing may be purged for its place.
    events = EventAccumulator(str(out / "tensorboard"), purge_orphaned_data=False)
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_the_loss_falls_and_only_what_trains_moves(tmp_path: Path) -> None:
    learner = ToyLearner()
    before = {name: p.detach().clone() for name, p in learner.module.named_parameters()}
    assert training(tmp_path, learner, steps=40).train()
    numbers = scalars(tmp_path)
    losses = [value for _, value in numbers["loss/mask"]]
    assert len(losses) == 40 and sum(losses[-5:]) < 0.5 * sum(losses[:5])
    rates = [value for _, value in numbers["learning rate"]]
    assert max(rates) == pytest.approx(learner.published.learning_rate) and rates[-1] < 0.05 * max(rates)
    moved = {name for name, p in learner.module.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name in learner.trained if not name.startswith("unused")}


def test_a_killed_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """Killed in its eighth step, with reading workers; resumed without; compared with a run that nobody disturbed."""
    values: dict[str, Any] = {"save_every": 3, "ema_decay": 0.9, "broken": [2]}
    runs = json.dumps([values | {"name": "killed", "workers": 2, "stall_at": 8}])
    command = [sys.executable, "-m", "unit.toy_learning", str(tmp_path), runs]
    paths = os.pathsep.join([str(DRIVER.parents[1]), *sys.path])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "stalled\n"
        process.send_signal(signal.SIGKILL)
    assert [state.name for state in states_in(tmp_path / "killed" / "states")] == ["step-00000003", "step-00000006"]
    assert training(tmp_path / "killed", resume=True, **values).train()
    assert training(tmp_path / "whole", **values | {"save_every": 12}).train()
    assert_same(tmp_path / "killed", tmp_path / "whole")
    steps = [step for step, _ in scalars(tmp_path / "killed")["loss/total"]]
    assert sorted(set(steps)) == list(range(1, 13))


def test_a_terminated_run_saves_where_it_is(tmp_path: Path) -> None:
    learner, before = ToyLearner(), signal.getsignal(signal.SIGTERM)
    before_losses(learner, 5, terminate)
    assert training(tmp_path / "stopped", learner).train() is False and signal.getsignal(signal.SIGTERM) is before
    assert [state.name for state in states_in(tmp_path / "stopped" / "states")] == ["step-00000005"]
    assert training(tmp_path / "stopped", resume=True).train() and training(tmp_path / "whole").train()
    assert_same(tmp_path / "stopped", tmp_path / "whole")


def test_parts_of_a_batch_add_up_to_the_whole(tmp_path: Path) -> None:
    """Without dropout and batch norm, which see the parts."""
    for name, parts in (("whole", 1), ("parts", 4)):
        training(tmp_path / name, ToyLearner(0.0, batch_norm=False), steps=5, accumulation=parts).train()
    whole, parts = files(tmp_path / "whole"), files(tmp_path / "parts")
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, rtol=1e-4, atol=1e-6)


def test_the_average_is_the_exponential_one() -> None:
    weight = torch.tensor([1.0])
    average = WeightAverage({"w": weight, "count": torch.tensor(3)}, decay=0.5)
    assert [average.rate(step) for step in (0, 8, 100)] == [0.1, 0.5, 0.5]
    average.update({"w": torch.tensor([3.0]), "count": torch.tensor(4)}, step=100)
    average.update({"w": torch.tensor([7.0]), "count": torch.tensor(5)}, step=101)
    assert average.tensors["w"].item() == 0.5 * (0.5 * 1 + 0.5 * 3) + 0.5 * 7 and average.tensors["count"] == 5


def test_failing_samples_are_counted_up_to_the_limit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    allowed = training(tmp_path / "allowed", broken=[1, 2])
    allowed.train()
    count = allowed.run.failures
    assert count > 0 and scalars(tmp_path / "allowed")["failing samples"][-1] == (12, count)
    assert "sample left out: many train: many-1.jpg cannot be read" in caplog.text
    with pytest.raises(
        TrainingStopped, match=rf"{count} samples failed .* failing_samples allows {count - 1} .*no state"
    ):
        training(tmp_path / "stopped", broken=[1, 2], failing_samples=count - 1).train()
    with pytest.raises(TrainingStopped, match="10 samples in a row could not be used at step 1"):
        run = training(tmp_path / "hopeless", broken=range(20))
        run.sources = run.sources[:1]
        run.train()


def test_a_loss_that_is_not_finite_stops_before_it_reaches_the_weights(tmp_path: Path) -> None:
    learner = ToyLearner()
    before_losses(learner, 4, lambda: learner.module.stem.bias.data.fill_(float("inf")))  # a frozen weight
    run = training(tmp_path, learner, save_every=2)
    said = r"step 4 is not finite \(mask nan, total nan, gradient nan; samples .*many-.*step-00000002 is the last state"
    with pytest.raises(TrainingStopped, match=said):
        run.train()
    assert all(bool(torch.isfinite(learner.module.get_parameter(name)).all()) for name in learner.trained)


def test_a_folder_with_a_run_is_not_trained_into_by_chance(tmp_path: Path) -> None:
    training(tmp_path, steps=2).train()
    with pytest.raises(BadInput, match="already holds a run that came to step-00000002: give --resume"):
        training(tmp_path, steps=2)
    with pytest.raises(BadInput, match=r"was made with steps 2; the configuration says 3\. A resumed run may change"):
        training(tmp_path, steps=3, resume=True)
    assert training(tmp_path, steps=2, resume=True, workers=1, log_every=7).run.steps == 2
    assert training(tmp_path / "new", steps=2, resume=True).run.steps == 0, "nothing to resume is a beginning"


def test_data_that_changed_in_between_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    training(tmp_path, steps=2).train()
    changed, processes = [source_of(Squares(21, name="many"), 3.0), *sources()[1:]], Processes("none", "cpu")
    run = Training(ToyLearner(), changed, config(steps=2), processes, tmp_path, resume=True)
    assert run.run.steps == 2
    assert "the data have [21, 5] scenes, [20, 5] before: other samples are drawn from here on" in caplog.text


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        (TRAINED, b"", "trained.safetensors cannot be read"),
        (OPTIMISER, b"junk and more junk", "optimiser.safetensors cannot be read"),
        ("state.json", b"{", "not valid JSON"),
        ("state.json", b'{"steps": "2"}', "must hold steps, failures and config"),
    ],
)
def test_a_damaged_state_is_named(tmp_path: Path, file: str, content: bytes, said: str) -> None:
    training(tmp_path, steps=1).train()
    (states_in(tmp_path / "states")[-1] / file).write_bytes(content)
    with pytest.raises(BadInput, match=said):
        training(tmp_path, steps=1, resume=True)


def test_a_half_written_state_does_not_count(tmp_path: Path) -> None:
    training(tmp_path, steps=2, save_every=1).train()
    states = tmp_path / "states"
    (states / "step-00000002").rename(states / "step-00000002.partial")
    assert training(tmp_path, steps=2, save_every=1, resume=True).run.steps == 1
