"""Why targets in view are doubted, so that the reasoner is asked about them again."""

from __future__ import annotations

import math
from typing import Protocol

from ..core import TargetMask
from .timetable import Timetable
from .whereabouts import Whereabouts

_USUAL_RATE = 0.05  # of the running mean of scores: about the last 20 frames


class Watched(Protocol):
    """What is known of a target in view. usual: running mean of its score; pace: how it moved when the reasoner was
    last asked for that, in diagonals of the picture per second."""

    usual: float | None
    pace: tuple[float, float] | None


class Doubts:
    """Watches the targets of one instruction and notes in its timetable what speaks against them."""

    def __init__(self, timetable: Timetable) -> None:
        self._timetable = timetable
        self._changed_ns: int | None = None  # when a motion last changed that no clip has shown the end of
        self._look_back_ns = 0

    def asked(self, key_stamp_ns: int, look_back_ns: int) -> None:
        """The reasoner is about to be asked with a clip of that length. A motion that changed within it is asked about
        once more, when clips show nothing else."""
        self._look_back_ns = look_back_ns
        if self._changed_ns is not None and key_stamp_ns - self._changed_ns >= look_back_ns:
            self._changed_ns = None

    def restart(self) -> None:
        """A new time base."""
        self._changed_ns = None

    def watch_score(self, target: Watched, mask: TargetMask, collapse: float) -> None:
        """A score that has collapsed by more than ``collapse``, or witnesses of the recipe that disagree."""
        usual = mask.score if target.usual is None else target.usual
        collapsed = mask.score < usual - collapse
        if self._timetable.schedule.on_loss and (mask.disagrees or collapsed):
            self._timetable.doubt = "score" if collapsed else "disagreement"
            usual = mask.score  # one collapse is one question
        target.usual = usual + _USUAL_RATE * (mask.score - usual)

    def watch_motion(self, target: Watched, where: Whereabouts, limit: float) -> None:
        """A target that starts, stops or turns by more than ``limit`` diagonals per second; 0: whatever it does."""
        if limit <= 0.0 or not where.settled:
            return
        pace = where.velocity[0] / where.last.diagonal, where.velocity[1] / where.last.diagonal
        if target.pace is None:
            target.pace = pace
        elif math.dist(pace, target.pace) > limit:
            self._suspect("motion")
            target.pace, self._changed_ns = pace, where.seen_ns
        elif self._changed_ns is not None and where.seen_ns - self._changed_ns >= self._look_back_ns:
            self._suspect("motion")

    def view_moved(self) -> None:
        """The camera looks elsewhere: what the instruction says of places may no longer hold."""
        self._suspect("view")

    def _suspect(self, reason: str) -> None:
        self._timetable.doubt = self._timetable.doubt or reason
