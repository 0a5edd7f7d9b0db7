"""A finished replay as tests use it: ask what the node said of a command, in numbers to be asserted on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from instructseg.core import BadInput

from .expectations import Expectation, Reference
from .judge import Judgement, judge
from .report import Report, as_table
from .windows import place


@dataclasses.dataclass(frozen=True)
class Outcome:
    """report: the judgements on the expectations that were given with the replay, if any. ``str()`` is its table."""

    report: Report

    def __str__(self) -> str:
        return as_table(self.report)

    @property
    def passed(self) -> bool:
        """Every expectation given with the replay is met."""
        return self.report.passed

    @property
    def bag(self) -> Path:
        """What the node published."""
        return self.report.run.results

    def verdict(
        self,
        command: str,
        *,
        start: float | None = None,
        end: float | None = None,
        settle: float = 0.0,
        camera: str = "",
    ) -> Judgement:
        """What the node said of a command while it was in force, or from ``start`` to ``end`` (seconds after the first
        image): ``state``, ``states``, ``held``, ``drops``, ``ids``, ``first_mask``, ``age_p95``.

        Raises BadInput for a command that was not given and for a window outside of the replay.
        """
        return self._judge(Expectation(command, camera=camera, start=start, end=end, settle=settle, place="verdict()"))

    def mean_iou(
        self,
        command: str,
        reference: str | Reference,
        ids: Sequence[int] | None = None,
        *,
        start: float | None = None,
        end: float | None = None,
        settle: float = 0.0,
        camera: str = "",
    ) -> float:
        """Mean IoU with a mask topic of the bag over the frames where that shows something; a frame without a mask
        counts 0. ids: the pixel values of the reference that belong to the command; None: all but 0.

        Raises BadInput, also where the reference shows nothing."""
        source = Reference(reference) if isinstance(reference, str) else reference
        values = None if ids is None else tuple(ids)
        asked = Expectation(
            command, camera=camera, start=start, end=end, settle=settle, reference=source, ids=values,
            place="mean_iou()",
        )  # fmt: skip
        found = self._judge(asked).iou
        if found is None:
            raise BadInput(f"mean_iou() of {command!r}: {source.topic} shows none of it in these frames")
        return found

    def _judge(self, expectation: Expectation) -> Judgement:
        run = self.report.run
        cameras = tuple(dict.fromkeys(frame.camera for frame in run.frames))
        windows = place((expectation,), run.given, run.start, run.end, cameras, run.bag, run.rate is None)
        return judge(run, windows)[0]
