"""Which cameras have been silent for too long. No ROS here; the owner gives the time."""

from __future__ import annotations

from collections.abc import Iterable


class CameraWatch:
    """Remembers when each camera last sent anything, good or bad. Times are monotonic seconds."""

    def __init__(self, cameras: Iterable[str], now: float) -> None:
        self._last = dict.fromkeys(cameras, now)
        self._known_silent: set[str] = set()

    def heard(self, camera: str, now: float) -> None:
        self._last[camera] = now
        self._known_silent.discard(camera)

    def silent(self, timeout: float, now: float) -> dict[str, float]:
        """Seconds of silence of every camera that has been silent for more than ``timeout`` seconds."""
        return {camera: now - last for camera, last in self._last.items() if now - last > timeout}

    def newly_silent(self, timeout: float, now: float) -> list[str]:
        """Cameras that fell silent since the last call: each once an outage."""
        new = [camera for camera in self.silent(timeout, now) if camera not in self._known_silent]
        self._known_silent.update(new)
        return new
