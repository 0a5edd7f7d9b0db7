"""Which command and which stretch of time every expectation is about; checked before anything is played."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from instructseg.core import BadInput

from .bags import COMPRESSED, IMAGE, mask_values, open_bag
from .expectations import Expectation
from .records import Given
from .results import messages


@dataclasses.dataclass(frozen=True)
class Window:
    """An expectation in place. number: of the command among those given. start, end: what is judged, in seconds after
    the first image; given: when the command was given."""

    expectation: Expectation
    number: int
    given: float
    start: float
    end: float

    @property
    def name(self) -> str:
        camera = f", camera {self.expectation.camera}" if self.expectation.camera else ""
        return f"{self.expectation.name}{camera} [{round(self.start, 3):g}-{round(self.end, 3):g} s]"


def place(
    expectations: Sequence[Expectation],
    given: Sequence[Given],
    start: float,
    end: float,
    cameras: Sequence[str],
    bag: Path,
    every_frame: bool,
) -> tuple[Window, ...]:
    """The windows of all expectations within what is played. Raises BadInput naming the line."""
    windows = tuple(_window(expectation, given, start, end) for expectation in expectations)
    for expectation in expectations:
        where = expectation.place
        if expectation.camera and expectation.camera not in cameras:
            raise BadInput(f"{where}: there is no camera {expectation.camera!r}; there are: {', '.join(cameras)}")
        if expectation.max_age is not None and every_frame:
            raise BadInput(
                f"{where}: max_age cannot be judged with --every-frame: time stands still while a frame waits"
            )
        if expectation.reference is not None and len(cameras) > 1 and not expectation.camera:
            raise BadInput(f"{where}: say which camera the reference is about (camera: {' or '.join(cameras)})")
    for expectation in expectations:
        _check_reference(expectation, bag)
    return windows


def _window(expectation: Expectation, given: Sequence[Given], start: float, end: float) -> Window:
    where = expectation.place
    number = _command(expectation, given)
    command = given[number]
    begins = command.start if expectation.start is None else expectation.start
    ends = command.end if expectation.end is None else expectation.end
    if begins < command.start:
        raise BadInput(
            f"{where}: the window begins at {begins:g} s, before {expectation.name!r} is asked ({command.start:g} s)"
        )
    if begins < start or ends > end + 1e-6:
        raise BadInput(
            f"{where}: the window from {begins:g} to {ends:g} s is outside of what is played, {start:g} to {end:g} s"
        )
    if begins + expectation.settle >= ends:
        raise BadInput(
            f"{where}: nothing is left to be judged: the window from {begins:g} to {ends:g} s ends before settle "
            f"({expectation.settle:g} s) is over"
        )
    return Window(expectation, number, command.start, begins + expectation.settle, ends)


def _command(expectation: Expectation, given: Sequence[Given]) -> int:
    """The number of the command that an expectation names; with `from`, the one in force then."""
    matching = [
        number
        for number, entry in enumerate(given)
        if entry.command.asks
        and (
            entry.command.words == expectation.command
            if expectation.command
            else entry.command.request is not None and entry.command.request.id == expectation.id
        )
    ]
    if not matching:
        there = ", ".join(repr(e.command.words) for e in given if e.command.asks) or "none"
        raise BadInput(f"{expectation.place}: {expectation.name!r} is not asked in what is played; asked: {there}")
    if expectation.start is not None:
        in_force = [n for n in matching if given[n].start <= expectation.start < given[n].end]
        return in_force[-1] if in_force else matching[0]
    if len(matching) > 1:
        times = ", ".join(f"{given[number].start:g}" for number in matching)
        raise BadInput(
            f"{expectation.place}: {expectation.name!r} is asked {len(matching)} times (at {times} s); give from"
        )
    return matching[0]


def _check_reference(expectation: Expectation, bag: Path) -> None:
    reference = expectation.reference
    if reference is None:
        return
    path = reference.bag or bag
    try:
        with closing(open_bag(path)) as reader:
            kinds = {c.topic: c.msgtype for c in reader.connections}
    except BadInput as error:
        raise BadInput(f"{expectation.place}: reference: {error}") from error
    if kinds.get(reference.topic) not in (IMAGE, COMPRESSED):
        there = ", ".join(sorted(t for t, kind in kinds.items() if kind in (IMAGE, COMPRESSED))) or "none"
        raise BadInput(
            f"{expectation.place}: reference: {path} has no images on {reference.topic}; image topics: {there}"
        )
    try:
        _check_mask(path, reference.topic)
    except BadInput as error:
        raise BadInput(f"{expectation.place}: reference: {error}") from error


def _check_mask(bag: Path, topic: str) -> None:
    """Raises BadInput where the first message is no mask: found out before minutes of replay."""
    with closing(messages(bag, (topic,))) as found:
        _, _, message = next(found, (topic, 0, None))
        if message is not None:
            mask_values(message, topic)
