"""What the node published, read from its recording as plain records."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from instructseg.core import State

from ..conversions import stamp_ns
from .bags import Decoder, mask_values, open_bag, read

KEPT = 64  # messages of a mask topic that wait for their frame


@dataclasses.dataclass(frozen=True)
class TargetRecord:
    """One entry of ``~/targets``."""

    instruction_text: str
    instance_id: int
    state: State
    score: float
    rejection_score: float
    reason: str = ""
    phrase: str = ""
    instruction_id: str = ""


@dataclasses.dataclass(frozen=True)
class FrameRecord:
    """What the node published on one frame. age: seconds, by the node's clock at publication (None without targets);
    received_age: seconds from the frame's stamp to the recorder."""

    stamp_ns: int
    targets: tuple[TargetRecord, ...]
    age: float | None
    received_age: float
    camera: str = "camera"


def frame_record(message: Any, time_ns: int) -> FrameRecord:
    """From a TargetArray received at that time."""
    stamp = stamp_ns(message.header.stamp)
    targets = tuple(
        TargetRecord(
            t.instruction_text, int(t.instance_id), State(t.state), float(t.score), float(t.rejection_score), t.reason,
            t.phrase, t.instruction_id,
        )
        for t in message.targets
    )  # fmt: skip
    age = float(message.targets[0].age) if message.targets else None
    return FrameRecord(stamp, targets, age, (time_ns - stamp) / 1e9, str(message.camera))


def messages(path: Path, topics: Sequence[str]) -> Iterator[tuple[str, int, Any]]:
    """(topic, log time in ns, message) of these topics, in order. Raises BadInput."""
    with closing(open_bag(path)) as reader:
        wanted = [c for c in reader.connections if c.topic in topics]
        decoder = Decoder(wanted)
        for connection, time_ns, data in read(reader, wanted):
            yield connection.topic, time_ns, decoder.decode(connection, data)


def frame_records(path: Path, node: str) -> Iterator[FrameRecord]:
    """Everything on ``~/targets``, in order."""
    for _, time_ns, message in messages(path, (f"{node}/targets",)):
        yield frame_record(message, time_ns)


class MaskStream:
    """The masks of one topic, found by their stamps while they are read once, in order: few are in memory at a time.

    Ask for stamps in about the order in which they were recorded. tolerance_s: between a stamp and its mask's.
    """

    def __init__(self, path: Path, topic: str, tolerance_s: float = 0.0) -> None:
        self.topic = topic
        self.found = 0
        self._messages = messages(path, (topic,))
        self._tolerance_ns = round(tolerance_s * 1e9)
        self._kept: deque[tuple[int, str, Any]] = deque(maxlen=KEPT)

    def at(self, stamp: int, frame_id: str | None = None) -> np.ndarray | None:
        """``(H, W)`` values of the mask nearest to this stamp; None where there is none. frame_id: of its header, where
        several cameras share a topic."""
        while not self._kept or self._kept[-1][0] < stamp + self._tolerance_ns or self._unseen(stamp, frame_id):
            message = next(self._messages, None)
            if message is None:
                break
            header = message[2].header
            self._kept.append((stamp_ns(header.stamp), str(header.frame_id), message[2]))
            if len(self._kept) == KEPT and self._kept[-1][0] > stamp + self._tolerance_ns:
                break
        near = [entry for entry in self._kept if self._fits(entry, stamp, frame_id)]
        if not near:
            return None
        self.found += 1
        return mask_values(min(near, key=lambda entry: abs(entry[0] - stamp))[2], self.topic)

    def _unseen(self, stamp: int, frame_id: str | None) -> bool:
        """With several cameras on one topic, that of the next camera may follow with the same stamp."""
        newest = self._kept[-1][0]
        return newest == stamp and not any(self._fits(entry, stamp, frame_id) for entry in self._kept)

    def _fits(self, entry: tuple[int, str, Any], stamp: int, frame_id: str | None) -> bool:
        return abs(entry[0] - stamp) <= self._tolerance_ns and frame_id in (None, entry[1])
