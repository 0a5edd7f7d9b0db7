"""What training keeps in memory whatever the batch: weights, gradients, optimiser, average. Counted from shapes."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from torch import nn


@dataclasses.dataclass(frozen=True)
class Memory:
    """Numbers of parameters. Bytes: what is frozen in 4 or 2, what trains in float32 with a gradient, AdamW's two
    averages and, where one is kept, the average of the weights."""

    frozen: int
    trained: int

    def bytes(self, precision: str, average: bool = False) -> int:
        return self.frozen * (2 if precision == "bf16" else 4) + self.trained * (4 + 4 + 8 + 4 * average)

    def describe(self, precision: str, average: bool = False) -> str:
        return (
            f"{self.trained / 1e6:.4g} M of {(self.frozen + self.trained) / 1e6:.4g} M parameters train; weights, "
            f"gradients and optimiser take {self.bytes(precision, average) / 2**30:.3g} GiB, activations come on top"
        )


def memory_of(module: nn.Module, trained: Collection[str]) -> Memory:
    """Of a module whose ``trained`` parameters train; works without weights (on the meta device) too."""
    names = set(trained)
    counts = {True: 0, False: 0}
    for name, parameter in module.named_parameters():
        counts[name in names] += parameter.numel()
    return Memory(counts[False], counts[True])
