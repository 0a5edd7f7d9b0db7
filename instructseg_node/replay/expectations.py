"""What is right: the file of ``--expect``, one entry for a command and a stretch of time.

reference: /ground_truth/instance_mask/compressed
expect:
  - command: the red block
    settle: 1.0                # seconds for the first answer, not judged
    verdict: PRESENT
    ids: [1]                   # of the reference mask
    min_iou: 0.8
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from instructseg.core import State

from .lined_yaml import Mapping, entries

GONE = "GONE"  # any state but PRESENT
VERDICTS = (*(state.name for state in State), GONE)
WINDOW_KEYS = {
    "command": "words of the command that is judged, or",
    "id": "id of the instruction that is judged",
    "camera": "name, where there are several cameras; default: all of them",
    "from": "seconds after the first image; default: when the command is given",
    "to": "seconds after the first image; default: when the command ends",
    "settle": "seconds after `from` that are not judged, for the first answer; default 0",
}
CHECK_KEYS = {
    "verdict": "state in most frames of the window's second half, or a list: states in this order, the last at the end",
    "min_iou": "mean intersection over union with the reference, over the published frames where that shows something",
    "min_held": "share of the published frames that are PRESENT, 0 to 1",
    "max_age": "seconds from a frame's stamp to its masks, 95th percentile; not with --every-frame",
    "max_false_masks": "frames with a mask where the reference shows none of `ids` (not counted: frames that it says "
    "nothing of); without a reference: with any mask",
    "max_drops": "frames of the window on which nothing was published",
    "stable_id": "true: there is a mask, and no instance id is given up for another",
    "max_first_mask": "seconds from the command to the frame of its first mask",
}
REFERENCE_KEYS = {
    "reference": "mask topic of the bag, or a mapping with topic and the two below",
    "ids": "its pixel values of this command, `[]`: none; default: all but 0, or none where no PRESENT is expected",
}
SOURCE_KEYS = {
    "topic": "Image or CompressedImage with a value for each thing",
    "bag": "another bag, a path from this file's folder",
    "tolerance": "seconds between the stamps of a frame and its reference; default 0",
}


@dataclasses.dataclass(frozen=True)
class Reference:
    """Where the right masks are. bag: None for the bag that is played. tolerance_s: between the stamps."""

    topic: str
    bag: Path | None = None
    tolerance_s: float = 0.0


@dataclasses.dataclass(frozen=True)
class Expectation:
    """What is right for one command in one window; None: not judged. See WINDOW_KEYS, CHECK_KEYS, REFERENCE_KEYS."""

    command: str = ""
    id: str = ""
    camera: str = ""
    start: float | None = None
    end: float | None = None
    settle: float = 0.0
    verdict: tuple[str, ...] | None = None
    min_iou: float | None = None
    min_held: float | None = None
    max_age: float | None = None
    max_false_masks: int | None = None
    max_drops: int | None = None
    stable_id: bool = False
    max_first_mask: float | None = None
    reference: Reference | None = None
    ids: tuple[int, ...] | None = None
    place: str = "expectation"

    @property
    def name(self) -> str:
        return self.command or self.id

    @property
    def nothing_right(self) -> bool:
        """Whether any mask is wrong. What is never expected to be there is not in the reference, whatever else is."""
        if self.ids is not None:
            return not self.ids
        return self.verdict is not None and State.PRESENT.name not in self.verdict

    def right(self, reference: np.ndarray) -> np.ndarray:
        """``(H, W)`` bool: what of the reference's values belongs to the command."""
        if self.nothing_right:
            return np.zeros(reference.shape, bool)
        return reference != 0 if self.ids is None else np.isin(reference, self.ids)


def load(path: Path) -> tuple[Expectation, ...]:
    """The expectations of a file. Raises BadInput naming line and key."""
    found, top = entries(path, "expect", ("reference",))
    common = _reference(top) if "reference" in top else None
    return tuple(_expectation(entry, common) for entry in found)


def _expectation(entry: Mapping, common: Reference | None) -> Expectation:
    entry.allow((*WINDOW_KEYS, *CHECK_KEYS, *REFERENCE_KEYS))
    if ("command" in entry) == ("id" in entry):
        raise entry.refuse(None, "one of command, id is needed: which command is judged?")
    if not any(key in entry for key in CHECK_KEYS):
        raise entry.refuse(None, f"nothing is expected; give one of {', '.join(CHECK_KEYS)}")

    def given(key: str, read: Callable[[], Any]) -> Any:
        return read() if key in entry else None

    expectation = Expectation(
        command=given("command", lambda: entry.text("command")) or "",
        id=given("id", lambda: entry.text("id")) or "",
        camera=given("camera", lambda: entry.text("camera")) or "",
        start=given("from", lambda: entry.number("from", 0.0, 1e8)),
        end=given("to", lambda: entry.number("to", 0.0, 1e8)),
        settle=given("settle", lambda: entry.number("settle", 0.0, 1e8)) or 0.0,
        verdict=given("verdict", lambda: _verdict(entry)),
        min_iou=given("min_iou", lambda: entry.number("min_iou", 0.0, 1.0)),
        min_held=given("min_held", lambda: entry.number("min_held", 0.0, 1.0)),
        max_age=given("max_age", lambda: entry.number("max_age", 0.0, 1e6)),
        max_false_masks=given("max_false_masks", lambda: entry.integer("max_false_masks", 0, 10**9)),
        max_drops=given("max_drops", lambda: entry.integer("max_drops", 0, 10**9)),
        stable_id=bool(given("stable_id", lambda: _true(entry, "stable_id"))),
        max_first_mask=given("max_first_mask", lambda: entry.number("max_first_mask", 0.0, 1e8)),
        reference=_reference(entry) if "reference" in entry else common,
        ids=given("ids", lambda: _ids(entry)),
        place=f"{entry.file}, line {entry.line}",
    )
    if expectation.start is not None and expectation.end is not None and expectation.end <= expectation.start:
        raise entry.refuse("to", f"the window ends at {expectation.end:g} s, before it begins")
    for key in ("min_iou", "ids"):
        if key in entry and expectation.reference is None:
            raise entry.refuse(key, "there is no reference to compare with; give reference: TOPIC")
    return expectation


def _true(entry: Mapping, key: str) -> bool:
    if not entry.flag(key):
        raise entry.refuse(key, "only true is an expectation; leave it out")
    return True


def _verdict(entry: Mapping) -> tuple[str, ...]:
    value = entry["verdict"]
    names = value if isinstance(value, list) else [value]
    if not names or any(name not in VERDICTS for name in names):
        raise entry.refuse("verdict", f"allowed: {', '.join(VERDICTS)}, or a list of them; got {value!r}")
    if isinstance(value, list) and len(value) == 1:  # judged by its end, or by most of its frames?
        raise entry.refuse("verdict", f"a list gives an order and needs two states or more; got {value!r}")
    return tuple(names)


def _ids(entry: Mapping) -> tuple[int, ...]:
    value = entry["ids"]
    numbers = value if isinstance(value, list) else [value]
    if any(isinstance(i, bool) or not isinstance(i, int) or not 0 < i < 65536 for i in numbers):
        raise entry.refuse("ids", f"pixel values from 1 to 65535 are needed, one or a list; got {value!r}")
    return tuple(numbers)


def _reference(entry: Mapping) -> Reference:
    value = entry["reference"]
    if isinstance(value, str) and value.startswith("/"):
        return Reference(value)
    if not isinstance(value, Mapping):
        raise entry.refuse("reference", f"a full topic name, or a mapping with topic, is needed; got {value!r}")
    value.allow(tuple(SOURCE_KEYS))
    if not str(value.get("topic", "")).startswith("/"):
        raise value.refuse("topic", f"a full topic name is needed; got {value.get('topic')!r}")
    bag = entry.file.parent / value.text("bag") if "bag" in value else None
    return Reference(value["topic"], bag, value.number("tolerance", 0.0, 10.0) if "tolerance" in value else 0.0)
