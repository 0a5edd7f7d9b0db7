"""When the reasoner is asked about an instruction: at once, again for what is missing, and anew for what is in view."""

from __future__ import annotations

import dataclasses

_LONGEST_BACK_OFF = 16  # periods; a model that keeps failing is still asked now and then


@dataclasses.dataclass(frozen=True)
class Schedule:
    """When to ask the reasoner: every ``period_ns`` about targets that are not live, with ``on_loss`` also about those
    that were already answered, and about live ones in doubt; every ``refresh_ns`` (0: never) about PRESENT ones."""

    period_ns: int = 500_000_000
    refresh_ns: int = 0
    on_loss: bool = True


class Timetable:
    """The schedule of one instruction on one camera. All times are stamps of frames, in nanoseconds.

    pace: factor on both periods, above 1 where the machine is overloaded. turn, passed_over: for the owner, which
    grounding this was last asked in, and how many it has waited through since. doubt: why the live targets are in
    doubt, in one word; "": they are not.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.pace = 1.0
        self.turn = 0
        self.passed_over = 0
        self.doubt = ""
        self.restart()

    def about(self, stamp_ns: int, missing: bool, present: bool) -> str | None:
        """What to ask now: "missing" (targets that are not live), "all" (the live ones too), None: nothing yet.

        missing, present: whether there are targets that want an answer, and targets in view.
        """
        if self._next_ns is not None and stamp_ns < self._next_ns:
            return None
        refresh_ns = self.schedule.refresh_ns * self.pace
        old = refresh_ns > 0 and stamp_ns - self._last_all_ns >= refresh_ns
        if present and (old or self.doubt):
            return "all"
        return "missing" if missing else None

    def reschedule(self, schedule: Schedule) -> None:
        """Go by other periods from now on, as if the last question had been asked under them. A back-off after failures
        runs out first."""
        if self._next_ns is not None and not self._failures:
            self._next_ns += round((schedule.period_ns - self.schedule.period_ns) * self.pace)
        self.schedule = schedule

    def begin(self, key_stamp_ns: int, everything: bool, turn: int) -> None:
        """The reasoner is about to be asked with this key frame; everything: about every target there is."""
        self._next_ns = key_stamp_ns + round(self.schedule.period_ns * self.pace)
        self.turn, self.passed_over = turn, 0
        if everything:
            self._last_all_ns, self.doubt = key_stamp_ns, ""

    def failed(self, stamp_ns: int) -> None:
        """The next question comes later with every failure in a row."""
        self._failures += 1
        back_off = min(2 ** (self._failures - 1), _LONGEST_BACK_OFF)
        self._next_ns = stamp_ns + round(back_off * self.schedule.period_ns * self.pace)

    def succeeded(self) -> None:
        """A failure from now on is the first one."""
        self._failures = 0

    def at_once(self) -> None:
        self._next_ns = None

    def restart(self) -> None:
        """A new time base: nothing was asked in it yet."""
        self._next_ns: int | None = None  # None: at once
        self._last_all_ns = 0
        self._failures = 0
        self.doubt = ""
