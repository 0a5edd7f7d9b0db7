"""One process or many: who this one is, what computes, and how gradients and numbers come together.

accelerate starts the processes and joins them (``accelerate launch``, also ``torchrun``); gradients are averaged by
torch's DistributedDataParallel, or weights, gradients and optimiser shared out by its FSDP (``fully_shard``). Both work
on CPUs over gloo and on GPUs over NCCL.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from contextlib import AbstractContextManager

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from ...core import BadInput
from ...registry import pick_device


class Processes:
    """The processes of this run. way: none, ddp or fsdp; one process alone needs neither."""

    def __init__(self, way: str, device: str) -> None:
        started = int(os.environ.get("WORLD_SIZE", "1"))
        if started > 1 and way == "none":
            raise BadInput(
                f"distributed is none, but {started} processes were started; set it to ddp or fsdp, or start one"
            )
        if started > 1 and device not in ("auto", "cpu", "cuda"):
            raise BadInput(f"with {started} processes device must be auto, cpu or cuda; got {device!r}")
        self.way = way if started > 1 else "none"
        picked = pick_device(device)
        self.state = PartialState(cpu=picked.type == "cpu")
        if (self.state.num_processes, started > 1) == (1, True):
            raise BadInput("several processes were started, but they did not find each other; use accelerate launch")
        self.device = picked if started == 1 else self.state.device

    @property
    def count(self) -> int:
        return self.state.num_processes

    @property
    def index(self) -> int:
        return self.state.process_index

    @property
    def is_main(self) -> bool:
        return self.state.is_main_process

    def wait(self) -> None:
        self.state.wait_for_everyone()

    def close(self) -> None:
        self.state.destroy_process_group()

    def share(self, module: nn.Module, layers: Collection[str]) -> nn.Module:
        """The module as this way of sharing needs it. layers: class names that FSDP gathers one at a time."""
        if self.way == "ddp":
            # Some trained weights take no part in some steps: the unused heads of SAM's decoder, masks without targets.
            ids = [self.device.index] if self.device.type == "cuda" else None
            return DistributedDataParallel(module, device_ids=ids, find_unused_parameters=True)
        if self.way == "fsdp":
            mesh = init_device_mesh(self.device.type, (self.count,))
            for part in reversed(list(module.modules())):  # inner ones first
                if type(part).__name__ in layers:
                    fully_shard(part, mesh=mesh)
            fully_shard(module, mesh=mesh)
        return module

    @contextlib.contextmanager
    def gathering(self, module: nn.Module, last: bool):
        """Around a part of a step: gradients are joined in the last part only."""
        if isinstance(module, DistributedDataParallel) and not last:
            with module.no_sync():
                yield
            return
        if isinstance(module, FSDPModule):
            module.set_requires_gradient_sync(last)
        yield

    def precision(self, name: str) -> AbstractContextManager:
        """fp32, or bf16 computed by autocast."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=name == "bf16")

    def sum(self, numbers: torch.Tensor) -> torch.Tensor:
        """The same numbers of all processes added up."""
        if self.count > 1:
            numbers = numbers.to(self.device if self.device.type == "cuda" else "cpu")
            dist.all_reduce(numbers)
        return numbers.cpu()


def nothing_of(module: nn.Module) -> torch.Tensor | float:
    """0, with a gradient of 0 for every trained weight that is whole here at this moment."""
    here = [p for p in module.parameters() if p.requires_grad and not isinstance(p, DTensor)]
    return sum((parameter.sum() * 0.0 for parameter in here), 0.0)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor on the CPU, put together from all processes where it is shared out; all have to ask for it."""
    tensor = tensor.detach()
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).cpu()


def like(tensor: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """A whole tensor as ``place`` is: on its device, in its type, shared out as it is."""
    tensor = tensor.to(place.device, place.dtype)
    if isinstance(place, DTensor):
        return distribute_tensor(tensor, place.device_mesh, place.placements)
    return tensor
