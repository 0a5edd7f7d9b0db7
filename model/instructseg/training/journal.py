"""What a stage tells people while it trains: a bar, lines in the log, TensorBoard, and points for the curves."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from .curves import CURVES, read_curves, write_curves

log = logging.getLogger(__name__)


class Journal:
    """Of one stage, from its ``step`` on: what an earlier call wrote down of later steps, which it did not save, is
    forgotten.

    folder: gets ``curves.json`` and ``tensorboard/STAGE``; None: only bar and log. total: seconds or steps of the bar.
    """

    def __init__(self, stage: str, folder: Path | None, step: int, total: float, unit: str, done: float) -> None:
        self.stage, self.folder = stage, folder
        self._curves: dict[str, Any] = {} if folder is None else read_curves(folder / CURVES)
        own = self._curves.setdefault(stage, {"training": [], "validation": []})
        for part, points in own.items():
            own[part] = [point for point in points if point["step"] <= step]
        self._writer = None if folder is None else _writer(folder / "tensorboard" / stage, step)
        # None: no bar where no person looks on.
        self._bar = tqdm(
            total=total, initial=min(done, total), desc=stage, disable=None,
            bar_format="{desc} {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} " + unit + " {postfix}",
        )  # fmt: skip
        self._lines = logging_redirect_tqdm()

    def __enter__(self) -> Journal:
        self._lines.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._lines.__exit__(*error)
        self._bar.close()
        if self._writer is not None:
            self._writer.close()

    def advance(self, done: float, step: int, loss: float) -> None:
        """After every step. done: seconds or steps, as the bar counts."""
        self._bar.set_postfix_str(f"step {step} loss {loss:.4g}", refresh=False)
        self._bar.update(min(done, self._bar.total) - self._bar.n)

    def training(self, step: int, minutes: float, numbers: Mapping[str, float], more: str = "") -> None:
        """Smoothed losses under ``loss/``, the learning rate and the gradient's norm."""
        losses = "  ".join(f"{k.removeprefix('loss/')} {v:.3f}" for k, v in numbers.items() if k.startswith("loss/"))
        log.info("%s %4.1f min step %d%s  %s", self.stage, minutes, step, more, losses)
        self._note("training", "", step, minutes, numbers)

    def validation(self, step: int, minutes: float, figures: Mapping[str, float]) -> None:
        log.info("%s validation at step %d: %s", self.stage, step, {k: round(v, 3) for k, v in figures.items()})
        self._note("validation", "validation/", step, minutes, figures)

    def save(self) -> None:
        """Write the curves, at the moment the state is saved that they belong to."""
        if self.folder is not None:
            write_curves(self.folder / CURVES, self._curves)

    def _note(self, part: str, prefix: str, step: int, minutes: float, numbers: Mapping[str, float]) -> None:
        self._curves[self.stage][part].append({"step": step, "minutes": round(minutes, 3), **numbers})
        if self._writer is not None:
            for name, value in numbers.items():
                self._writer.add_scalar(prefix + name, value, step)


def _writer(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        log.warning("no TensorBoard here: its files are not written (the extra [train] brings it)")
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)
