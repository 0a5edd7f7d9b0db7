"""Several processes on one computer: averaged gradients and shared-out weights give what one process gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from unit.test_finetuning_loop import files
from unit.toy_learning import ToyLearner, training

from instructseg.core import BadInput
from instructseg.training.finetuning.processes import Processes

SAME: dict[str, Any] = {"steps": 5, "accumulation": 2, "ema_decay": 0.9, "save_every": 2}


@pytest.mark.process
def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    """Both ways, each terminated in its third step, in one process only, and resumed; without dropout and batch norm,
    which see their own share."""
    fixed = {"dropout": 0.0, "batch_norm": False}
    runs = [SAME | fixed | {"name": way, "distributed": way} for way in ("ddp", "fsdp")]
    run_together(tmp_path, [part for run in runs for part in (run | {"stop_at": 5}, run | {"resume": True})], 2)
    training(tmp_path / "alone", ToyLearner(0.0, batch_norm=False), **SAME).train()
    alone = files(tmp_path / "alone")
    for way in ("ddp", "fsdp"):
        together = files(tmp_path / way)
        # FSDP gives gradients of 0 where others give none, so that its optimiser knows weights that nothing uses.
        assert {name for name in together.keys() ^ alone.keys() if way == "ddp" or "unused" not in name} == set()
        for name, tensor in alone.items():
            torch.testing.assert_close(together[name], tensor, rtol=1e-4, atol=1e-6)


@pytest.mark.process
def test_weights_that_one_process_has_no_use_for_in_a_step(tmp_path: Path) -> None:
    """Answers without a mask leave the mask decoder out; what the others learned of it arrives all the same."""
    same = SAME | {"accumulation": 1, "dropout": 0.0, "layers": ["BatchNorm2d"], "no_masks_at": 3}
    run_together(tmp_path, [same | {"name": way, "distributed": way} for way in ("ddp", "fsdp")], 2)
    together, apart = files(tmp_path / "ddp"), files(tmp_path / "fsdp")
    for name, tensor in together.items():
        if "norm.running" not in name:  # each process's own
            torch.testing.assert_close(apart[name], tensor, rtol=1e-4, atol=1e-6)


def run_together(folder: Path, runs: list[dict[str, Any]], count: int) -> None:
    """The toy in ``count`` processes over gloo on the loopback interface."""
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    shared = {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths, "WORLD_SIZE": str(count), "GLOO_SOCKET_IFNAME": "lo"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}  # asked for, not used: see toy_learning.main
    command = [sys.executable, "-m", "unit.toy_learning", str(folder), json.dumps(runs)]
    started = [
        subprocess.Popen(
            command,
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    errors = [process.communicate(timeout=900)[1] for process in started]
    assert [process.returncode for process in started] == [0] * count, "\n".join(errors)


def test_processes_that_nobody_asked_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(BadInput, match="distributed is none, but 2 processes were started"):
        Processes("none", "cpu")
    with pytest.raises(BadInput, match="with 2 processes device must be auto, cpu or cuda; got 'cuda:1'"):
        Processes("ddp", "cuda:1")


def test_one_process_needs_no_way_of_sharing() -> None:
    alone = Processes("fsdp", "cpu")
    assert (alone.way, alone.count, alone.is_main, alone.device.type) == ("none", 1, True, "cpu")
