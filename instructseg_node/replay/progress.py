"""One line of progress for people: rewritten on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm


class Progress:
    """every_s: seconds between two lines where there is no terminal. quiet: nothing at all."""

    def __init__(self, every_s: float = 5.0, quiet: bool = False) -> None:
        self._live = sys.stdout.isatty()
        self._every_s, self._quiet = every_s, quiet
        self._said, self._at, self._width = "", -every_s, 0
        self._began: float | None = None

    def show(self, line: str) -> None:
        if line == self._said or self._quiet:
            return
        if self._live:
            print("\r" + line.ljust(self._width), end="", flush=True)
            self._width = len(line)
        elif time.monotonic() - self._at >= self._every_s:
            print(line, flush=True)
            self._at = time.monotonic()
        self._said = line

    def played(self, seconds: float, total: float, frames: int) -> None:
        """A bar for ``seconds`` of ``total``."""
        now = time.monotonic()
        self._began = now if self._began is None else self._began
        if not self._live or now - self._at >= 0.1:
            line = tqdm.format_meter(
                round(seconds, 1), round(total, 1), now - self._began, ncols=90, unit="s", prefix="playing",
                postfix=f"{frames} frames",
            )  # fmt: skip
            self.show(line)
            self._at = now if self._live else self._at

    def done(self, line: str) -> None:
        """A line that stays."""
        if not self._quiet:
            print(("\r" if self._live else "") + line.ljust(self._width if self._live else 0), flush=True)
        self._said, self._width = "", 0

    def clear(self) -> None:
        """Take the line away, so that something else can be written."""
        if self._live and self._width:
            print("\r" + " " * self._width + "\r", end="", flush=True)
        self._said, self._width = "", 0
