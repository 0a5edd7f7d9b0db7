"""Bounded memory of the recent past of one camera: frames together with what the vision encoder computed on them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from ..core import BadInput, Clip, EncodedFrame, Sampling
from ..sampling import sparse_dense


class FrameBuffer:
    """Encoded frames of one camera, oldest first, all of one size, stamps strictly increasing.

    Bounded twice: frames more than ``seconds`` older than the newest go, and never more than ``frames`` stay. The
    encoded features live exactly as long as their frame does. ``epoch`` counts the flushes: work begun in an earlier
    epoch is obsolete.

    While a stamp is held (:meth:`hold`), the frames since then stay whatever their age, so that a token reasoned on the
    frame of that stamp can be carried to the present over all of them; where they become too many, they are thinned out
    evenly and ``frames`` still bounds them.
    """

    def __init__(self, seconds: float, frames: int) -> None:
        if not seconds >= 0.0:
            raise BadInput(f"FrameBuffer.seconds must be 0 or more; got {seconds}")
        if frames < 1:
            raise BadInput(f"FrameBuffer.frames must be 1 or more; got {frames}")
        self.epoch = 0
        self._horizon_ns = round(seconds * 1e9)
        self._most = frames
        self._held_ns: int | None = None
        self._frames: deque[EncodedFrame] = deque()

    def __len__(self) -> int:
        return len(self._frames)

    def __iter__(self) -> Iterator[EncodedFrame]:
        return iter(self._frames)

    def __repr__(self) -> str:
        return f"<FrameBuffer of {len(self)} frames, newest {self.newest_ns} ns, epoch {self.epoch}>"

    @property
    def newest_ns(self) -> int | None:
        """Stamp of the newest frame, None when empty."""
        return self._frames[-1].frame.stamp_ns if self._frames else None

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) of the frames, None when empty."""
        return self._frames[-1].frame.size if self._frames else None

    @property
    def image_bytes(self) -> int:
        """Memory of the images alone; what the features take is the recipe's secret."""
        return sum(encoded.frame.image.nbytes for encoded in self._frames)

    def push(self, encoded: EncodedFrame) -> None:
        """Add the newest frame. Raises BadInput when its stamp does not advance or its size differs (flush first)."""
        frame = encoded.frame
        if self._frames:
            if frame.stamp_ns <= self.newest_ns:
                raise BadInput(f"frame stamp must be later than {self.newest_ns} ns; got {frame.stamp_ns} ns")
            if frame.size != self.size:
                raise BadInput(f"frame size must be {self.size} like the buffered frames; got {frame.size}")
        self._frames.append(encoded)
        old = frame.stamp_ns - self._horizon_ns
        while self._oldest_ns < old and not self._is_held(self._oldest_ns):
            self._frames.popleft()
        if len(self._frames) > self._most:
            self._make_room()

    def hold(self, stamp_ns: int) -> None:
        """Keep the frames since this stamp until :meth:`let_go`; a later call replaces an earlier one."""
        self._held_ns = stamp_ns

    def let_go(self) -> None:
        """Hold nothing any more; what is too old goes with the next frame."""
        self._held_ns = None

    def flush(self) -> None:
        """Forget every frame and begin a new epoch."""
        self._frames.clear()
        self._held_ns = None
        self.epoch += 1

    def clip(self, sampling: Sampling) -> Clip:
        """The clip a reasoner wants, ending in the newest frame. Raises BadInput when the buffer is empty."""
        frames = tuple(self._frames)
        chosen = sparse_dense([encoded.frame.stamp_ns for encoded in frames], sampling)
        return Clip(tuple(frames[i] for i in chosen.indices), chosen.dense)

    def after(self, stamp_ns: int) -> list[EncodedFrame]:
        """The frames later than ``stamp_ns``, oldest first."""
        return [encoded for encoded in self._frames if encoded.frame.stamp_ns > stamp_ns]

    @property
    def _oldest_ns(self) -> int:
        return self._frames[0].frame.stamp_ns

    def _is_held(self, stamp_ns: int) -> bool:
        return self._held_ns is not None and stamp_ns >= self._held_ns

    def _make_room(self) -> None:
        """Drop one frame: the oldest, or among held ones the one whose neighbours are closest to each other."""
        if not self._is_held(self._oldest_ns) or len(self._frames) < 3:
            self._frames.popleft()
            return
        stamps = [encoded.frame.stamp_ns for encoded in self._frames]
        del self._frames[min(range(1, len(stamps) - 1), key=lambda i: stamps[i + 1] - stamps[i - 1])]
