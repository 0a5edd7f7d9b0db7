"""Between the cameras and the mask thread: the newest frame only, or a short queue that makes the sender wait."""

from __future__ import annotations

import threading
from collections import deque

from ..core import Frame

QUEUE_FRAMES = 8  # bound of the queue under "every"


class FrameBox:
    """Hand-over of frames from many threads to one.

    "latest": one slot a camera; a newer frame replaces the one that waits, and the camera that was served longest ago
    comes first, however fast the others are. "every": a queue of at most eight frames in the order they came; ``put``
    waits while it is full. A closed box takes nothing and wakes everybody.
    """

    def __init__(self, keep_every: bool) -> None:
        self._keep_every = keep_every
        self._changed = threading.Condition()
        self._queue: deque[Frame] = deque()
        self._closed = True
        self._taking = False  # whether somebody waits for a frame, so that none is being worked on
        self._turns = 0
        self._served: dict[str, int] = {}  # by camera, the turn it was last taken at

    def __len__(self) -> int:
        return len(self._queue)

    def open(self) -> None:
        """Begin to take frames, with an empty box."""
        with self._changed:
            self._queue.clear()
            self._served.clear()
            self._closed = False

    def close(self) -> int:
        """Stop taking frames; the number of frames that were still waiting and are gone."""
        with self._changed:
            self._closed = True
            waiting = len(self._queue)
            self._queue.clear()
            self._changed.notify_all()
            return waiting

    def clear(self) -> int:
        """Forget the waiting frames; how many they were."""
        with self._changed:
            waiting = len(self._queue)
            self._queue.clear()
            self._changed.notify_all()
            return waiting

    def put(self, frame: Frame) -> str | None:
        """Hand a frame over; the cause of a drop ("replaced": an older frame went; "not_running": this one) or None."""
        with self._changed:
            if self._keep_every:
                while not self._closed and len(self._queue) >= QUEUE_FRAMES:
                    self._changed.wait()
            if self._closed:
                return "not_running"
            cause = None if self._keep_every else self._replace(frame)
            if cause is None:
                self._queue.append(frame)
            self._changed.notify_all()
            return cause

    def take(self) -> Frame | None:
        """Wait for the next frame; None once the box is closed."""
        with self._changed:
            self._taking = True
            self._changed.notify_all()
            while not self._queue and not self._closed:
                self._changed.wait()
            self._taking = False
            if not self._queue:
                return None
            self._changed.notify_all()
            return self._pop()

    def take_more(self, most: int) -> list[Frame]:
        """Up to ``most`` further frames that wait now, of as many other cameras; none under "every", where what is
        computed must not depend on which frames happened to wait together."""
        with self._changed:
            return [] if self._keep_every else [self._pop() for _ in range(min(most, len(self._queue)))]

    def wait_until_idle(self) -> None:
        """Wait until every frame that was handed over has been taken and worked on, or the box is closed."""
        with self._changed:
            while not self._closed and (self._queue or not self._taking):
                self._changed.wait()

    def _pop(self) -> Frame:
        if self._keep_every:
            return self._queue.popleft()
        frame = min(self._queue, key=lambda waiting: self._served.get(waiting.camera, 0))
        self._queue.remove(frame)
        self._turns += 1
        self._served[frame.camera] = self._turns
        return frame

    def _replace(self, frame: Frame) -> str | None:
        for place, waiting in enumerate(self._queue):
            if waiting.camera == frame.camera:
                self._queue[place] = frame
                return "replaced"
        return None
