"""Which submitted frames are taken: known camera, stamps that advance, not faster than asked."""

from __future__ import annotations

import dataclasses

from ..core import BadInput, Frame
from .types import FrameRefused

TIME_JUMP_NS = 1_000_000_000  # further back than this is a new clock or a bag that starts again, not a late frame


@dataclasses.dataclass
class _Camera:
    newest_ns: int
    next_due_ns: int


class Admission:
    """The door for frames. With no camera names given, the first camera that sends a frame is the only one.

    Not thread-safe; its owner holds a lock.
    """

    def __init__(self, cameras: tuple[str, ...] = (), max_rate: float = 0.0) -> None:
        self._names = cameras
        self._cameras: dict[str, _Camera] = {}
        self.limit(max_rate)

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras that frames are taken from; empty while that is still open."""
        return self._names

    def limit(self, max_rate: float) -> None:
        """Take at most so many frames a second of each camera from now on; 0: all."""
        self._period_ns = round(1e9 / max_rate) if max_rate > 0 else 0
        for camera in self._cameras.values():
            camera.next_due_ns = camera.newest_ns + self._period_ns

    def forget(self) -> None:
        """Forget the stamps seen, not the cameras: the next frame of each may have any stamp."""
        self._cameras.clear()

    def admit(self, frame: Frame, limit_rate: bool = True) -> None:
        """Take the frame, or raise FrameRefused whose ``cause`` is one of unknown_camera, stamp_repeated,
        stamp_backwards, rate_limit; BadInput when it is not a Frame."""
        if not isinstance(frame, Frame):
            raise BadInput(f"a Frame is needed; got {type(frame).__name__}")
        if self.cameras and frame.camera not in self.cameras:
            known = ", ".join(repr(name) for name in self.cameras)
            raise FrameRefused("unknown_camera", f"frames are taken from {known}; got one of {frame.camera!r}")
        self._names = self._names or (frame.camera,)
        camera = self._cameras.get(frame.camera)
        if camera is None or frame.stamp_ns < camera.newest_ns - TIME_JUMP_NS:
            self._cameras[frame.camera] = _Camera(frame.stamp_ns, frame.stamp_ns + self._period_ns)
            return
        if frame.stamp_ns == camera.newest_ns:
            raise FrameRefused("stamp_repeated", f"camera {frame.camera!r} sent stamp {frame.stamp_ns} ns twice")
        if frame.stamp_ns < camera.newest_ns:
            late = (camera.newest_ns - frame.stamp_ns) / 1e9
            raise FrameRefused("stamp_backwards", f"camera {frame.camera!r}: stamp is {late:.3f} s before the last one")
        camera.newest_ns = frame.stamp_ns
        if limit_rate and self._period_ns:
            self._limit_rate(frame, camera)

    def _limit_rate(self, frame: Frame, camera: _Camera) -> None:
        # A tenth of a period early is in time: a camera at exactly the allowed rate must not lose frames by its jitter.
        if frame.stamp_ns + self._period_ns // 10 < camera.next_due_ns:
            raise FrameRefused("rate_limit", f"camera {frame.camera!r} is faster than max_rate")
        camera.next_due_ns = max(camera.next_due_ns, frame.stamp_ns - self._period_ns) + self._period_ns
