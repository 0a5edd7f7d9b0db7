"""What every part is told."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import instructseg
from instructseg.core import Segmenter

RECIPE = "unified"


class MeasurementFailed(RuntimeError):
    """A process of the benchmark ended without its figures."""


@dataclasses.dataclass(frozen=True)
class Options:
    """quick: few repetitions, to see that it works. checkpoint: "" for the one that comes with the recipe. say:
    progress for people. full: also what takes long. device: of the parts that can run on a GPU. recipe, size, peak,
    compile: of the part gpu, scenes, latents, episodes, steps, seeds, without: of ablations, see there."""

    quick: bool = False
    checkpoint: str = ""
    out: Path = Path("out/bench")
    say: Callable[[str], None] = lambda line: None
    full: bool = False
    device: str = "cpu"
    recipe: str = ""
    size: str = "miniature"
    peak: str = ""
    compile: bool = False
    scenes: str = ""
    latents: str = ""
    episodes: int = 0
    steps: int = 0
    seeds: int = 1
    without: str = ""

    def load(self, dtype: str = "float32") -> Segmenter:
        """The default recipe on the CPU. Raises BadInput where its weights are not there."""
        return instructseg.load(RECIPE, checkpoint=self.checkpoint or None, device="cpu", dtype=dtype)

    def repetitions(self, full: int, quick: int) -> int:
        return quick if self.quick else full
