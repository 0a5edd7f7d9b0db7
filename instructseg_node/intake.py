"""From what people and programs send to instructions: ids, label values, and refusal of what cannot be used.

No rclpy and no message package: only the fields of the messages are used.
"""

from __future__ import annotations

import dataclasses
import itertools
import threading
from collections.abc import Iterable
from typing import Any

from instructseg.core import BadInput, Instruction, Mode
from instructseg.spoken import SpokenCommand, hear, without_fillers

_SHOWN = 60  # characters of a refused text that are repeated in a message


class Intake:
    """Makes instructions, and keeps account of the ids and label values (1..255) in use.

    Every instruction made counts as active until it has ended. Whoever has one made hands it over and then says what
    became of it, :meth:`taken` or :meth:`withdraw`, before the next is made. :meth:`release` may be called from any
    thread and at any time: endings are told late, and what has the id by then may be another instruction.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._active: dict[str, Instruction] = {}
        self._replaced: Instruction | None = None  # what the last accepted instruction took the place of
        self._ended: list[Instruction] = []  # while it was being handed over

    def command(self, text: str) -> Instruction:
        """An instruction from plain language, fillers taken out. A text that is being worked on already gives an equal
        instruction again, so that a sender who repeats himself does not restart it. Raises BadInput."""
        cleaned = checked_text("command", text)
        with self._lock:
            for known in self._active.values():
                if known == Instruction(known.id, cleaned, known.class_id):
                    return self._accept(known)
            return self._accept(Instruction(self._fresh_id("command"), cleaned))

    def message(self, message: Any) -> Instruction:
        """An instruction from an ``instructseg_msgs/Instruction``. Raises BadInput naming the field."""
        identity = checked_id(message.id)
        modes = {mode.value: mode for mode in Mode}
        if message.mode not in modes:
            names = ", ".join(f"{mode.value} ({mode.name})" for mode in Mode)
            raise BadInput(f"instruction.mode is {message.mode}; allowed: {names}")
        if message.timeout.nanosec >= 1_000_000_000:
            raise BadInput(f"instruction.timeout has nanosec {message.timeout.nanosec}; allowed: less than a second")
        timeout_s = message.timeout.sec + message.timeout.nanosec * 1e-9
        if timeout_s < 0:
            raise BadInput(f"instruction.timeout is {timeout_s:g} s; allowed: 0 (none) or more")
        text = checked_text("instruction.text", message.text)
        with self._lock:
            return self._accept(
                Instruction(
                    id=identity or self._fresh_id("instruction"),
                    text=text,
                    cameras=tuple(message.cameras),
                    mode=modes[message.mode],
                    timeout_s=timeout_s,
                    priority=int(message.priority),
                )
            )

    def taken(self, at_work: Instruction) -> None:
        """The last instruction made was taken; at_work: what is worked on under its id, itself or an equal one."""
        with self._lock:
            self._settle(at_work.id, at_work)

    def withdraw(self, instruction: Instruction) -> None:
        """The last instruction made was not taken after all: the one whose place it took counts again."""
        with self._lock:
            self._settle(instruction.id, self._replaced)

    def release(self, ended: Iterable[Instruction]) -> None:
        """These very instructions have ended; the label values that they hold may be given out again."""
        with self._lock:
            for instruction in ended:
                self._ended.append(instruction)
                if self._active.get(instruction.id) is instruction:
                    del self._active[instruction.id]

    def release_all(self) -> None:
        with self._lock:
            self._active.clear()

    def _settle(self, identity: str, holder: Instruction | None) -> None:
        self._active.pop(identity, None)
        if holder is not None and not any(holder is ended for ended in self._ended):
            self._active[identity] = holder

    def _accept(self, instruction: Instruction) -> Instruction:
        """Give the instruction its label value: the one its id has already, else the smallest free one."""
        known = self._active.get(instruction.id)
        used = {other.class_id for other in self._active.values()}
        free = known.class_id if known else next((value for value in range(1, 256) if value not in used), None)
        if free is None:
            raise BadInput("255 instructions are active: no label value is left; cancel some")
        accepted = dataclasses.replace(instruction, class_id=free)
        self._active[accepted.id], self._replaced, self._ended = accepted, known, []
        return accepted

    def _fresh_id(self, kind: str) -> str:
        return next(name for number in self._numbers if (name := f"{kind}-{number}") not in self._active)


def spoken(text: str) -> SpokenCommand:
    """What a text on the topic ``command`` says. Raises BadInput."""
    try:
        return hear(text)
    except BadInput as error:
        raise _refusal("command", text, error) from error


def checked_id(identity: str) -> str:
    """The id, which may be empty. Raises BadInput."""
    if len(identity) > 256 or not identity.isprintable():
        raise BadInput(f"instruction.id is {identity[:_SHOWN]!r}; allowed: at most 256 printable characters")
    return identity


def checked_text(field: str, text: str) -> str:
    """The text of an instruction, fillers taken out. Raises BadInput naming the field."""
    try:
        return without_fillers(text)
    except BadInput as error:
        raise _refusal(field, text, error) from error


def _refusal(field: str, text: str, error: BadInput) -> BadInput:
    shown = repr(text[:_SHOWN]) + ("..." if len(text) > _SHOWN else "")
    return BadInput(f"{field} {shown} refused: {error}")
