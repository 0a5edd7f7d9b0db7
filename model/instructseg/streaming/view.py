"""Whether the camera looks elsewhere than before: the picture as a whole has shifted, or become another one."""

from __future__ import annotations

import cv2
import numpy as np

_SIZE = (64, 48)  # (width, height) that pictures are compared at
_PERIOD_NS = 100_000_000  # of the frames' time between two comparisons
_FLAT = 2.0  # deviation of grey values below which a quarter of the picture says nothing
_SPEAKING = 3  # quarters that must say something: a thing that moves on plain ground is in one or two of them
_OTHER = 32.0  # mean difference of grey values, of 256, that no shift explains: another scene, or another light
_EXPLAINED = 0.7  # share of the difference that may be left once the shift is taken back


class ViewWatch:
    """Compares each picture with the one at the last change."""

    def __init__(self) -> None:
        self._window = cv2.createHanningWindow(_SIZE, cv2.CV_32F)
        self._before: np.ndarray | None = None
        self._looked_ns = 0

    def forget(self) -> None:
        """The next picture is the first one."""
        self._before = None

    def changed(self, image: np.ndarray, stamp_ns: int, threshold: float) -> bool:
        """Whether ``image``, ``(H, W, 3)`` uint8, shows another view: shifted by more than that share of its width or
        height, or another scene. Then it is what later ones are compared with."""
        if self._before is not None and 0 <= stamp_ns - self._looked_ns < _PERIOD_NS:
            return False
        self._looked_ns = stamp_ns
        now, before = _small(image), self._before
        if before is not None and not self._differs(before, now, threshold):
            return False
        self._before = now
        return before is not None

    def _differs(self, before: np.ndarray, now: np.ndarray, threshold: float) -> bool:
        apart = float(np.abs(now - before).mean())
        if sum(float(part.std()) >= _FLAT for part in _quarters(before)) >= _SPEAKING:
            # Windowed here: OpenCV would do it in the pictures that it is given.
            (x, y), _ = cv2.phaseCorrelate(before * self._window, now * self._window)
            if np.isfinite(x + y) and _left(before, now, x, y) < _EXPLAINED * apart:
                return max(abs(x) / _SIZE[0], abs(y) / _SIZE[1]) > threshold
        return apart > _OTHER


def _quarters(image: np.ndarray) -> list[np.ndarray]:
    return [part for half in np.split(image, 2) for part in np.split(half, 2, axis=1)]


def _left(before: np.ndarray, now: np.ndarray, x: float, y: float) -> float:
    """Mean difference where both pictures show the same, once the shift is taken back; infinite where they share less
    than a quarter."""
    dx, dy = round(x), round(y)
    height, width = now.shape
    if max(0, width - abs(dx)) * max(0, height - abs(dy)) < width * height / 4:
        return float("inf")
    new = now[max(0, dy) : height + min(0, dy), max(0, dx) : width + min(0, dx)]
    old = before[max(0, -dy) : height + min(0, -dy), max(0, -dx) : width + min(0, -dx)]
    return float(np.abs(new - old).mean())


def _small(image: np.ndarray) -> np.ndarray:
    """``(48, 64)`` float32 grey values; big pictures are thinned out first, which costs no time."""
    step = max(1, min(image.shape[0] // (2 * _SIZE[1]), image.shape[1] // (2 * _SIZE[0])))
    thin = np.ascontiguousarray(image[::step, ::step])
    return cv2.cvtColor(cv2.resize(thin, _SIZE, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY).astype(np.float32)
