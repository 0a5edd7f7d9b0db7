"""What is said to the node during a replay, and when: the file of ``--commands``.

- {at: 2.0, command: the red block}           # seconds after the bag's first image
- {stamp: 1700000008.5, cancel: all}          # or a time of the bag's own clock
- at: 9.0
  instruction: {id: cup, text: the white mug, mode: track}
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

from instructseg.core import BadInput, Mode
from instructseg.language import clean_instruction
from instructseg.spoken import hear

from .lined_yaml import Mapping, entries

ALL = "all"  # what a cancel may name beside an id
# Keys of the file with their meaning; the names after the comma are older ones for the same.
TIMES = {
    "at": "seconds after the bag's first image",
    "stamp": "or seconds since 1970 on the bag's clock",
    "time": "the same as at",
}
ACTIONS = {
    "command": "plain language, as on the topic `command`",
    "instruction": "as on the topic `instruction`: a mapping of the keys below",
    "cancel": "`all`, or the id of an instruction",
    "text": "the same as command",
}
NOTES = {"kind": "not used here, for reports of your own", "targets": "not used here: what the demo expects"}
INSTRUCTION_KEYS = {
    "id": "name for it, needed",
    "text": "the words, needed",
    "cameras": "list of camera names; default: all",
    "mode": "track (default) or one_shot",
    "timeout": "seconds; default 0: none",
    "priority": "whole number; default 0",
}


@dataclasses.dataclass(frozen=True)
class Request:
    """An instruction with an id, as on the topic ``instruction``."""

    id: str
    text: str
    cameras: tuple[str, ...] = ()
    mode: Mode = Mode.TRACK
    timeout_s: float = 0.0
    priority: int = 0


@dataclasses.dataclass(frozen=True)
class Command:
    """One thing said: exactly one of text, request, cancel. at: seconds after the first image, or else stamp_ns on the
    bag's clock. cancel: an instruction id, or ALL. place: where it was written, for errors."""

    at: float | None = None
    stamp_ns: int | None = None
    text: str = ""
    request: Request | None = None
    cancel: str = ""
    place: str = ""

    def seconds(self, zero_ns: int) -> float:
        """Seconds after the first image, which was recorded at zero_ns."""
        return self.at if self.at is not None else (self.stamp_ns - zero_ns) / 1e9

    @property
    def words(self) -> str:
        """What people call it."""
        return self.request.text if self.request else self.text or f"cancel {self.cancel}"

    @property
    def asks(self) -> bool:
        """Whether it asks for something, rather than to stop alone."""
        return not self.cancel and not (self.text and self.stops and not hear(self.text).text)

    @property
    def stops(self) -> bool:
        """Whether its words end everything before, as "never mind" does."""
        try:
            return hear(self.text).cancels
        except BadInput:  # words of a bag that the node will refuse
            return False


def load(path: Path) -> tuple[Command, ...]:
    """The commands of a file, as they stand there. Raises BadInput naming line and key."""
    return tuple(_command(entry) for entry in entries(path, "commands")[0])


def spoken(pairs: Sequence[tuple[float, str]]) -> tuple[Command, ...]:
    """Commands from pairs of seconds and words, for tests."""
    for at, words in pairs:
        if not math.isfinite(at) or at < 0:
            raise BadInput(f"a command is given at {at!r}; seconds after the first image are needed")
        _usable(words)
    return tuple(Command(at=float(at), text=words, place=f"command {words!r}") for at, words in pairs)


def _command(entry: Mapping) -> Command:
    entry.allow((*TIMES, *ACTIONS, *NOTES))
    times, actions = [key for key in TIMES if key in entry], [key for key in ACTIONS if key in entry]
    if len(times) != 1:
        raise entry.refuse(None, f"one of at, stamp is needed; got {', '.join(times) or 'none'}")
    if len(actions) != 1:
        raise entry.refuse(None, f"one of command, instruction, cancel is needed; got {', '.join(actions) or 'none'}")
    when, what = times[0], actions[0]
    place = f"{entry.file}, line {entry.line}"
    if when == "stamp":
        entry.number("stamp", 0.0, 9e9)
        # By its digits: a float times a billion would be off by some hundred nanoseconds.
        time = {"stamp_ns": round(Decimal(str(entry["stamp"])) * 10**9)}
    else:
        time = {"at": entry.number(when, 0.0, 1e8)}
    if what == "cancel":
        return Command(**time, cancel=entry.text("cancel"), place=place)
    if what == "instruction":
        return Command(**time, request=_request(entry), place=place)
    return Command(**time, text=_words(entry, what), place=place)


def _request(entry: Mapping) -> Request:
    given = entry["instruction"]
    if not isinstance(given, Mapping):
        raise entry.refuse("instruction", f"a mapping with id and text is needed; got {given!r}")
    given.allow(tuple(INSTRUCTION_KEYS))
    for needed in ("id", "text"):
        if needed not in given:
            raise given.refuse(None, f"an instruction needs {needed}")
    cameras = given.get("cameras", [])
    if not isinstance(cameras, list) or not all(isinstance(name, str) and name for name in cameras):
        raise given.refuse("cameras", f"a list of names is needed; got {cameras!r}")
    mode = given.get("mode", "track")
    modes = {mode.name.lower(): mode for mode in Mode}
    if mode not in modes:
        raise given.refuse("mode", f"allowed: {', '.join(modes)}; got {mode!r}")
    return Request(
        id=given.text("id"),
        text=_words(given, "text"),
        cameras=tuple(cameras),
        mode=modes[mode],
        timeout_s=given.number("timeout", 0.0, 1e6) if "timeout" in given else 0.0,
        priority=given.integer("priority", -(2**31), 2**31 - 1) if "priority" in given else 0,
    )


def _words(entry: Mapping, key: str) -> str:
    words = entry.text(key)
    try:
        return _usable(words)
    except BadInput as error:
        raise entry.refuse(key, str(error)) from error


def _usable(words: str) -> str:
    """What the node would refuse is refused here, before anything is started."""
    clean_instruction(words)
    return words
