"""From samples to one picture with its truth: what every system that looks at single images trains on."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

import numpy as np
import torch

from ..core import BadInput
from ..data.samples import Kind, Sample

FRAMES_TRIED = 10  # of a video, to find one with an annotation


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """image ``(H, W, 3)`` uint8 RGB. samples: those with an annotation on it. masks ``(n, H, W)`` float32 of 0 and 1,
    for each sample all that it names together; pixels to be ignored count as background."""

    image: np.ndarray
    samples: tuple[Sample, ...]
    masks: torch.Tensor

    @property
    def absent(self) -> list[bool]:
        """Per sample, whether nothing of it is to be seen."""
        return [not bool(mask.any()) for mask in self.masks]


def has_words(sample: Sample) -> bool:
    """Whether a sample names something in words and its truth is known, so that an image system can learn from it."""
    return sample.truth is not None and bool(sample.instruction.strip()) and sample.kind is not Kind.FIRST_FRAME


def read_picture(samples: Sequence[Sample], draw: random.Random, needs_present: bool = False) -> Picture:
    """The image of samples with one footage; of a video a frame drawn by chance that is annotated for the first of
    them. needs_present: samples of which nothing is to be seen are left out. Raises BadInput.
    """
    footage = samples[0].footage
    for index in draw.sample(range(len(footage)), min(len(footage), FRAMES_TRIED)):
        truths = [(sample, sample.truth(index)) for sample in samples if sample.truth is not None]
        seen = [(sample, truth.union) for sample, truth in truths if truth is not None]
        seen = [(sample, mask) for sample, mask in seen if not needs_present or mask.any()]
        if not seen:
            continue
        image = footage.read(index)
        for sample, mask in seen:
            if mask.shape != image.shape[:2]:
                raise BadInput(
                    f"sample {sample.id}: the mask is {mask.shape[1]} x {mask.shape[0]} pixels, the image "
                    f"{image.shape[1]} x {image.shape[0]}"
                )
        masks = torch.from_numpy(np.stack([mask for _, mask in seen])).float()
        return Picture(image, tuple(sample for sample, _ in seen), masks)
    wanted = "on which something is seen" if needs_present else "with an annotation"
    raise BadInput(f"sample {samples[0].id}: no frame {wanted} was found in {footage.name}")
