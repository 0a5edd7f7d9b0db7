"""The frames of one sample's footage as a segmenter sees them, encoded when first asked for."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from ...core import BadInput, EncodedFrame, Frame, Segmenter
from ...data.samples import Footage

KEPT = 64  # encoded frames; at published size some 4 MB each


class EncodedFootage:
    """Frame ``i`` has the stamp ``i / rate`` seconds: benchmarks name their frames, they do not time them."""

    def __init__(self, segmenter: Segmenter, footage: Footage, rate: float, kept: int = KEPT) -> None:
        if len(footage) == 0:
            raise BadInput(f"the footage {footage.name} has no frame")
        self.segmenter, self.footage, self.rate, self._most = segmenter, footage, rate, kept
        self._known: OrderedDict[int, EncodedFrame] = OrderedDict()

    def __len__(self) -> int:
        return len(self.footage)

    def stamp_ns(self, index: int) -> int:
        return round(index / self.rate * 1e9)

    def frame(self, index: int) -> Frame:
        return self._known[index].frame if index in self._known else self._read(index)

    def encoded(self, index: int) -> EncodedFrame:
        if index not in self._known:
            self._known[index] = self.segmenter.encode([self._read(index)])[0]
            while len(self._known) > self._most:
                self._known.popitem(last=False)
        self._known.move_to_end(index)
        return self._known[index]

    def _read(self, index: int) -> Frame:
        frame = Frame(np.array(self.footage.read(index)), self.stamp_ns(index), frame_id=self.footage.name)
        first = next(iter(self._known.values()), None)
        if first is not None and first.frame.size != frame.size:
            (h, w), (h0, w0) = frame.size, first.frame.size
            raise BadInput(
                f"{self.footage.name}: frame {self.footage.frames[index]} is {w} x {h}, others are {w0} x {h0}"
            )
        return frame
