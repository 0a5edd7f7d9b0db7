"""From samples to frames with their truth: what systems that look at several frames of a video train on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..core import BadInput
from ..data.samples import Sample


class FrameReader:
    """Images and masks of samples with one footage, each read once. For one example: keeps what it has read."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        """Raises BadInput for an empty video."""
        self.samples, self.footage = tuple(samples), samples[0].footage
        if not len(self.footage):
            raise BadInput(f"sample {samples[0].id}: the video {self.footage.name} has no frame")
        self._images: dict[int, np.ndarray] = {}
        self._masks: dict[int, list[np.ndarray | None]] = {}

    def __len__(self) -> int:
        return len(self.footage)

    def __repr__(self) -> str:
        names = ", ".join(sample.id for sample in self.samples)
        return f"FrameReader({self.footage.name}, {len(self)} frames; {names})"

    def image(self, index: int) -> np.ndarray:
        """``(H, W, 3)`` uint8 RGB. Raises BadInput where it is of another size than the frames read before."""
        if index not in self._images:
            image = self.footage.read(index)
            before = next(iter(self._images.items()), (index, image))
            if image.shape != before[1].shape:
                raise BadInput(
                    f"sample {self.samples[0].id}: frame {self.footage.frames[index]} of {self.footage.name} is "
                    f"{_size(image)} pixels, frame {self.footage.frames[before[0]]} is {_size(before[1])}; all frames "
                    "of a video must have one size"
                )
            self._images[index] = image
        return self._images[index]

    def seen(self, index: int) -> list[bool | None]:
        """Of each sample whether something it names is to be seen on a frame; None where that has no annotation."""
        return [None if mask is None else bool(mask.any()) for mask in self._read(index)]

    def masks(self, index: int, samples: Sequence[int]) -> torch.Tensor:
        """``(n, H, W)`` float32 of 0 and 1: all that each of these samples (by number) names on an annotated frame.

        Pixels to be ignored count as background. Raises BadInput for masks of another size than the frame.
        """
        chosen = [self._read(index)[number] for number in samples]
        for number, mask in zip(samples, chosen, strict=True):
            if mask.shape != self.image(index).shape[:2]:
                raise BadInput(
                    f"sample {self.samples[number].id}: the mask of frame {self.footage.frames[index]} of "
                    f"{self.footage.name} is {_size(mask)} pixels, the frame {_size(self.image(index))}"
                )
        return torch.from_numpy(np.stack(chosen)).float()

    def union(self, index: int) -> torch.Tensor:
        """``(1, H, W)``: all that the samples name, together."""
        return self.masks(index, range(len(self.samples))).amax(0, keepdim=True)

    def _read(self, index: int) -> list[np.ndarray | None]:
        if index not in self._masks:
            truths = [sample.truth(index) if sample.truth is not None else None for sample in self.samples]
            self._masks[index] = [None if truth is None else truth.union for truth in truths]
        return self._masks[index]


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]} x {image.shape[0]}"
