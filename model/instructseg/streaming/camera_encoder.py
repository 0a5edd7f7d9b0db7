"""One call of the vision encoder for the frames of several cameras, without one camera's trouble becoming another's."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ..core import EncodedFrame, Frame
from .checks import checked_encodings
from .state import StreamState


class CameraEncoder:
    """Encodes the frames of different cameras in one batch.

    A batch that raises is encoded again frame by frame; a camera whose frame then still raises stays out of batches
    until one of its frames succeeds. A recipe that raises on a batch of frames each of which is good gets no more.
    """

    def __init__(self, state: StreamState) -> None:
        self._state = state
        self._apart: set[str] = set()
        self._batches = True

    def encode(self, frames: Sequence[Frame]) -> list[EncodedFrame | str]:
        """For each frame its encoding, or the fault in words, which has been counted and logged."""
        together = [frame for frame in frames if self._batches and frame.camera not in self._apart]
        done: dict[str, EncodedFrame | str] = {}
        if len(together) > 1:
            try:
                encodings = checked_encodings(self._state.segmenter.encode(together), together)
                done = {frame.camera: encoded for frame, encoded in zip(together, encodings, strict=True)}
            except Exception as error:
                done = {frame.camera: self._alone(frame) for frame in together}
                if not any(isinstance(result, str) for result in done.values()):
                    self._batches = False
                    message = f"the recipe cannot encode frames of several cameras together ({error}): one by one now"
                    self._state.say(logging.WARNING, "batches", " ".join(message.split())[:500])
        return [done.get(frame.camera) or self._alone(frame) for frame in frames]

    def _alone(self, frame: Frame) -> EncodedFrame | str:
        try:
            (encoded,) = checked_encodings(self._state.segmenter.encode([frame]), [frame])
        except Exception as error:
            self._apart.add(frame.camera)
            return self._state.fault("encode", error)
        self._apart.discard(frame.camera)
        return encoded
