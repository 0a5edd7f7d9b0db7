"""Which samples this process asks: its part of the split, over processes of one machine and over machines."""

from __future__ import annotations

import dataclasses
import datetime
import os

from ...core import BadInput
from ...registry import pick_device


@dataclasses.dataclass(frozen=True)
class Shard:
    """Part ``index`` of ``count`` equal stretches; neighbours stay together, so that a video is read by one process."""

    index: int = 0
    count: int = 1

    def part(self, total: int) -> range:
        return range(total * self.index // self.count, total * (self.index + 1) // self.count)


def parse_shard(text: str) -> Shard:
    """``2/8`` is the third of eight. Raises BadInput."""
    first, _, second = text.partition("/")
    if first.isdecimal() and second.isdecimal() and int(first) < int(second) <= 100_000:
        return Shard(int(first), int(second))
    raise BadInput(f"--shard must be I/N with I from 0 to N - 1, such as 0/4; got {text!r}")


class Together:
    """The processes that ``accelerate launch`` (or torchrun) started; one alone needs nothing.

    device: of this process. A process may take days for its part, so the others wait for it a month.
    """

    def __init__(self, device: str) -> None:
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self.index, self.device, self._state = 0, device, None
        if self.count == 1:
            return
        from accelerate import PartialState

        if device not in ("auto", "cpu", "cuda"):
            raise BadInput(f"with {self.count} processes --device must be auto, cpu or cuda; got {device!r}")
        picked = pick_device(device)
        self._state = PartialState(cpu=picked.type == "cpu", timeout=datetime.timedelta(days=30))
        if self._state.num_processes != self.count:
            raise BadInput("several processes were started, but they did not find each other; use accelerate launch")
        self.index, self.device = self._state.process_index, str(self._state.device)

    @property
    def is_main(self) -> bool:
        return self.index == 0

    def shard(self, machine: Shard) -> Shard:
        """This process's part of what its machine was given."""
        return Shard(machine.index * self.count + self.index, machine.count * self.count)

    def wait(self) -> None:
        if self._state is not None:
            self._state.wait_for_everyone()

    def close(self) -> None:
        if self._state is not None:
            self._state.destroy_process_group()
