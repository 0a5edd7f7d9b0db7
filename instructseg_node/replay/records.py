"""What a replay was, as plain data: the frames that were played, the commands that were given."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

from instructseg.core import BadInput
from instructseg.spoken import without_fillers

from .commands import ALL, Command


@dataclasses.dataclass(frozen=True)
class PlayedFrame:
    """One image that was sent to the node. time: seconds after the first image, by the log time; frame_id and stamp_ns
    from its header."""

    camera: str
    stamp_ns: int
    frame_id: str
    time: float


@dataclasses.dataclass(frozen=True)
class Given:
    """A command that was given, and the time (seconds after the first image) it was in force. ids: of the instructions
    that the node made of it; none where it refused it."""

    command: Command
    start: float
    end: float
    ids: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Run:
    """One replay. zero_ns: log time of the first image. start, end: what was played, seconds after it. rate: None for
    every frame. results: the bag with what the node said. dropped: by the node, by cause. notes: for people."""

    bag: Path
    results: Path
    node: str
    zero_ns: int
    start: float
    end: float
    rate: float | None
    frames: tuple[PlayedFrame, ...]
    given: tuple[Given, ...]
    dropped: dict[str, int]
    notes: tuple[str, ...] = ()
    wall_s: float = 0.0


def timetable(
    commands: Sequence[Command], zero_ns: int, start: float, end: float, mode: str
) -> tuple[tuple[Given, ...], tuple[str, ...]]:
    """The commands that are given between start and end, in order of time, and notes about those that are not.

    mode: the node's command_mode. A command ends with the one that replaces or cancels it, else with the replay.
    """
    timed = sorted(((command.seconds(zero_ns), command) for command in commands), key=lambda pair: pair[0])
    inside = [(at, command) for at, command in timed if start <= at < end]
    given = []
    for index, (at, command) in enumerate(inside):
        later = (then for then, other in inside[index + 1 :] if _ends(other, command, mode))
        given.append(Given(command, at, next(later, end)))
    notes = []
    for words, left_out in (
        ("before", [t for t, _ in timed if t < start]),
        ("after", [t for t, _ in timed if t >= end]),
    ):
        if left_out:
            times = ", ".join(f"{at:g}" for at in left_out[:5]) + (", ..." if len(left_out) > 5 else "")
            edge = f"the start at {start:g} s" if words == "before" else f"the end at {end:g} s"
            notes.append(f"not given, as they lie {words} {edge}: {len(left_out)} commands (at {times} s)")
    return tuple(given), tuple(notes)


def _ends(later: Command, command: Command, mode: str) -> bool:
    """Whether a later command ends an earlier one."""
    if later.text and later.stops:
        return True
    if later.cancel:
        return later.cancel == ALL or (command.request is not None and later.cancel == command.request.id)
    if later.request is not None:
        return command.request is not None and later.request.id == command.request.id
    return mode == "replace"


class InstructionLog:
    """Which instructions the node made of which command, from what it says it is working on."""

    def __init__(self, given: Sequence[Given]) -> None:
        self._given = given
        self._sent: list[int] = []
        self._ids: dict[int, list[str]] = {}
        self._known: set[str] = set()

    def sent(self, index: int) -> None:
        """This command is being sent now."""
        self._sent.append(index)
        request = self._given[index].command.request
        if request is not None:
            self._known.add(request.id)
            self._ids[index] = [request.id]

    def working_on(self, instructions: Iterable[tuple[str, str]]) -> None:
        """The node's list of (id, text) has changed. A new id belongs to the command with this text that has none yet,
        else to the last one."""
        for identity, text in instructions:
            if identity in self._known or not self._sent:
                continue
            self._known.add(identity)
            open_ones = [i for i in self._sent if i not in self._ids and _cleaned(self._given[i].command.text) == text]
            self._ids.setdefault(open_ones[0] if open_ones else self._sent[-1], []).append(identity)

    def result(self) -> tuple[Given, ...]:
        """The commands with their ids. Who repeats a command that is being worked on gets no new instruction."""
        found = []
        for index, given in enumerate(self._given):
            ids = self._ids.get(index, [])
            if not ids and given.command.text:
                words = _cleaned(given.command.text)
                earlier = [e for e in found if _cleaned(e.command.text) == words and e.ids]
                ids = list(earlier[-1].ids) if earlier else []
            found.append(dataclasses.replace(given, ids=tuple(ids)))
        return tuple(found)


def _cleaned(text: str) -> str:
    """As the node repeats it."""
    try:
        return without_fillers(text)
    except BadInput:
        return text
