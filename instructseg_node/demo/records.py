"""The two bags of a demo run as plain records: what the camera saw and what was true, and what the node said of it.

No rclpy. Everything that belongs to a frame is found under the frame's header stamp.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from instructseg.core import BadInput
from instructseg.spoken import without_fillers

from ..conversions import stamp_ns
from ..replay.bags import decoded, message_counts
from ..replay.results import FrameRecord, TargetRecord, frame_record, messages

IMAGE = "/camera/image/compressed"
TRUTH = "/ground_truth/instance_mask/compressed"
EXPECTATIONS = "/ground_truth/expectations"
VERDICTS = ("present", "absent", "either")


@dataclasses.dataclass(frozen=True)
class Window:
    """What is right from start to end (s after the first image): ``present``, ``absent``, ``either``."""

    start: float
    end: float
    verdict: str


@dataclasses.dataclass(frozen=True)
class Slot:
    """One thing asked for; instance_ids: its pixels in the ground truth, none where it does not exist."""

    objects: tuple[str, ...]
    instance_ids: tuple[int, ...]
    windows: tuple[Window, ...]


@dataclasses.dataclass(frozen=True)
class Expectation:
    """One command of the recording, in force from start to end (s after the first image)."""

    text: str
    kind: str
    start: float
    end: float
    slots: tuple[Slot, ...]

    def own(self, targets: Sequence[TargetRecord]) -> tuple[TargetRecord, ...]:
        """Those of the targets that answer this command."""
        text = _cleaned(self.text)
        return tuple(target for target in targets if target.instruction_text == text)


class DemoBag:
    """The recording that was played. Images are decoded when asked for."""

    def __init__(self, path: Path) -> None:
        self._images: dict[int, bytes] = {}
        self._truth: dict[int, bytes] = {}
        self.expectations: list[Expectation] = []
        for topic, _, message in messages(path, (IMAGE, TRUTH, EXPECTATIONS)):
            if topic == EXPECTATIONS:
                self.expectations.append(expectation(message.data, str(path)))
            else:
                kept = self._images if topic == IMAGE else self._truth
                kept[stamp_ns(message.header.stamp)] = bytes(message.data)
        for topic, content in ((IMAGE, self._images), (TRUTH, self._truth), (EXPECTATIONS, self.expectations)):
            if not content:
                raise BadInput(f"the recording {path} has no message on {topic}: nothing can be judged")
        self.stamps = sorted(self._images)
        self.first_stamp = self.stamps[0]

    def seconds(self, stamp: int) -> float:
        """Time of a stamp after the first image."""
        return (stamp - self.first_stamp) / 1e9

    def image(self, stamp: int) -> np.ndarray:
        """``(H, W, 3)`` uint8 RGB."""
        return cv2.cvtColor(decoded(self._images[stamp], IMAGE), cv2.COLOR_BGR2RGB)

    def truth(self, stamp: int) -> np.ndarray | None:
        """``(H, W)`` uint8 instance ids; None where no truth was recorded for this stamp."""
        return decoded(self._truth[stamp], TRUTH) if stamp in self._truth else None


class ResultsBag:
    """What the node published. frames: by stamp. diagnostics: the values of the last report about the stream."""

    def __init__(self, path: Path, node: str = "/instructseg") -> None:
        self.frames: dict[int, FrameRecord] = {}
        self.repeated = 0
        self.diagnostics: dict[str, str] = {}
        self.groundings: list[tuple[str, float]] = []  # (instruction text, seconds it took)
        self._masks: dict[int, bytes] = {}
        self.messages = message_counts(path)
        mask, targets, grounding = f"{node}/instance_mask/compressed", f"{node}/targets", f"{node}/grounding"
        for topic, time_ns, message in messages(path, (mask, targets, grounding, "/diagnostics")):
            if topic == targets:
                record = frame_record(message, time_ns)
                self.repeated += record.stamp_ns in self.frames
                self.frames[record.stamp_ns] = record
            elif topic == mask:
                self._masks[stamp_ns(message.header.stamp)] = bytes(message.data)
            elif topic == grounding:
                self.groundings.append((message.instruction_text, float(message.duration)))
            else:
                self._take_diagnostics(message, f"{node.lstrip('/')}: stream")

    def has_mask(self, stamp: int) -> bool:
        """Whether a mask image was recorded for this stamp."""
        return stamp in self._masks

    def instances(self, stamp: int) -> np.ndarray | None:
        """``(H, W)`` uint16 instance ids; None where no mask image was published for this stamp."""
        return decoded(self._masks[stamp], "~/instance_mask/compressed") if stamp in self._masks else None

    def _take_diagnostics(self, message: Any, name: str) -> None:
        for status in message.status:
            values = {pair.key: pair.value for pair in status.values}
            if status.name == name and "frames in" in values:  # not the reports before and after the stream
                self.diagnostics = values


def expectation(text: str, place: str) -> Expectation:
    """One message of the expectations. Raises BadInput naming what is missing or wrong."""
    try:
        facts = json.loads(text)
        slots = tuple(_slot(slot) for slot in facts["slots"])
        found = Expectation(
            str(facts["text"]), str(facts.get("kind", "")), float(facts["start"]), float(facts["end"]), slots
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{place}: {EXPECTATIONS} holds {text[:60]!r}, which is no expectation: {error!r}") from error
    if not found.slots or found.end <= found.start:
        raise BadInput(f"{place}: the expectation of {found.text!r} needs slots, and an end after its start")
    return found


def _cleaned(text: str) -> str:
    """As the node repeats it; a text that it refuses stays as it is and is found nowhere."""
    try:
        return without_fillers(text)
    except BadInput:
        return text


def _slot(facts: Mapping[str, Any]) -> Slot:
    windows = tuple(Window(float(w["start"]), float(w["end"]), w["verdict"]) for w in facts["windows"])
    for window in windows:
        if window.verdict not in VERDICTS:
            raise ValueError(f"verdict {window.verdict!r}; allowed: {', '.join(VERDICTS)}")
    return Slot(tuple(facts["objects"]), tuple(int(i) for i in facts["instance_ids"]), windows)
