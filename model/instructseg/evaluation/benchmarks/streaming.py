"""A benchmark's videos as a camera shows them: the streaming engine answers, latency is charged.

The instruction comes just before the first frame. Frame *i* is current until the next one comes; its prediction is the
mask that a planner holds when that time is over (:mod:`..causal`), no matter which frame it was computed on. So the
benchmark's own metric scores what a robot would have had.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

import numpy as np

from ...core import BadInput, Frame, Instruction, Segmenter
from ...data.samples import Benchmark, Kind, Sample
from ...streaming.config import EngineConfig
from ...streaming.statistics import percentile
from ...streaming.types import FrameResult
from ..causal import PublishedMask, held_masks
from ..simulated_stream import SimulatedStream
from ..timed_segmenter import Charges
from .masks import encode_mask
from .predictions import Prediction
from .protocol import FIRST_MASKS
from .run import Asked

_START_NS = 1_000_000_000


def check_streaming(row: Benchmark) -> None:
    """Raises BadInput for what no stream can be made of."""
    if not row.video:
        raise BadInput(
            f"--protocol streaming needs videos; {row.name} is a set of single images, in which no time passes: "
            "leave the option out"
        )
    if row.name in FIRST_MASKS:
        raise BadInput(f"--protocol streaming needs instructions in words; {row.name} gives objects by their masks")


class Streaming:
    """Each sample as a stream of its own; the engine is the one of the node. rate: frames per second."""

    def __init__(self, segmenter: Segmenter, rate: float, charges: Charges, config: EngineConfig | None = None) -> None:
        self.segmenter, self.rate, self.charges = segmenter, rate, charges
        self.config = config or EngineConfig(buffer_s=max(EngineConfig.buffer_s, segmenter.sampling.horizon_s))
        self._warm = False

    def __call__(self, asked: Sequence[Asked]) -> list[Prediction]:
        return [self._one(one.index, one.sample) for one in asked]

    def _one(self, index: int, sample: Sample) -> Prediction:
        if sample.kind is Kind.FIRST_FRAME:
            raise BadInput(f"{sample.id} is given by a mask, not by words")
        started = time.perf_counter()
        footage = sample.footage
        stamps = [_START_NS + round(i / self.rate * 1e9) for i in range(len(footage))]
        end_ns = stamps[-1] + round(1e9 / self.rate)
        published: list[PublishedMask] = []
        ages: list[float] = []

        def on_result(result: FrameResult) -> None:
            ages.append(result.age_s)
            masks = [target.mask for target in result.targets if target.mask is not None]
            runs = (
                encode_mask(np.any(masks, axis=0)) if masks else None
            )  # in place of the mask: a long video stays small
            published.append(PublishedMask(stream.clock.now_ns, 0, runs))

        if not self._warm:  # the first call of a step is slower than any later one
            self.segmenter.warm_up(*footage.read(0).shape[:2])
            self._warm = True
        with SimulatedStream(self.segmenter, self.config, self.charges, _START_NS - 1, on_result=on_result) as stream:
            stream.at(_START_NS - 1, lambda: stream.engine.set_instruction(Instruction("asked", sample.instruction)))
            for i, stamp in enumerate(stamps):
                # One frame after the other: a long video is never in memory as a whole.
                stream.show(Frame(footage.read(i), stamp))
                stream.run(stamp)
            stream.run(end_ns - 1)
            faults = stream.engine.statistics().last_error
        if faults and not published:
            raise BadInput(f"the engine published nothing: {faults}")
        held, _ = held_masks(published, stamps, end_ns, self.config.stale_after)
        masks = tuple(None if p is None else p.mask for p in held)
        first = next((p.when_ns for p in published if p.mask is not None), None)
        figures = {
            "first_mask_s": None if first is None else (first - stamps[0]) / 1e9,
            "age_p50_s": percentile(ages, 0.5) if ages else None,
            "age_p95_s": percentile(ages, 0.95) if ages else None,
        }
        seconds = round(time.perf_counter() - started, 4)
        return Prediction(index, sample.id, masks, first is None, float(first is not None), seconds, figures=figures)


def streaming_settings(rate: float, charges: Charges) -> dict[str, str]:
    """What makes two streaming runs comparable."""
    words = {
        name: "measured" if value is None else f"{value:g} s" for name, value in dataclasses.asdict(charges).items()
    }
    return {"rate": f"{rate:g}", **words}
