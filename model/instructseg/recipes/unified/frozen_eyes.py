"""Perception without gradients for training on data sets: every picture is looked at once, what was seen is kept."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import OrderedDict

import numpy as np
import torch

from ...modules.folding import fold_batch_norm
from ...modules.object_latents import ObjectLatents
from .modeling import UnifiedModel

KEPT = 8192  # pictures, 55 KB each at the shipped size


class FrozenEyes:
    """A model's perception as it is now, apart from the module that trains: batch norm stays as it was learned.

    Pictures are looked at one by one, so that what is seen does not depend on which others come with them: a resumed
    run sees what the first one saw.
    """

    def __init__(self, model: UnifiedModel, kept: int = KEPT) -> None:
        self._model, self._kept = model, kept
        self._encoder = fold_batch_norm(model.perception.encoder)
        self._seen: OrderedDict[bytes, ObjectLatents] = OrderedDict()

    def __repr__(self) -> str:
        return f"FrozenEyes({len(self._seen)} of at most {self._kept} pictures kept)"

    @torch.no_grad()
    def look(self, picture: np.ndarray) -> ObjectLatents:
        """``(h, w, 3)`` uint8 RGB of the encoder's size to its latents (batch of one), masks as bool."""
        name = hashlib.blake2b(picture.tobytes(), digest_size=16).digest()
        if name not in self._seen:
            device = next(self._encoder.parameters()).device
            images = torch.from_numpy(picture).to(device).permute(2, 0, 1)[None].float() / 255  # (1, 3, h, w)
            maps = self._encoder(images.contiguous(memory_format=torch.channels_last))
            latents = self._model.perception.latents(images, maps)
            self._seen[name] = dataclasses.replace(latents, masks=latents.masks > 0.5)
            while len(self._seen) > self._kept:
                self._seen.popitem(last=False)
        self._seen.move_to_end(name)
        return self._seen[name]

    @torch.no_grad()
    def motion(self, key: ObjectLatents, past: list[ObjectLatents], seconds: tuple[float, ...]) -> torch.Tensor:
        """Motion codes ``(1, K, code)`` of the key frame's latents."""
        return self._model.perceiver(key, past, torch.tensor([seconds], device=key.valid.device))


def join_latents(frames: list[ObjectLatents], used: int) -> ObjectLatents:
    """Several frames as one batch, the first ``used`` latents of each, without masks: ``(B, used, …)``."""
    parts = {
        field.name: torch.cat([getattr(frame, field.name)[:, :used] for frame in frames])
        for field in dataclasses.fields(ObjectLatents)
        if field.name != "masks"
    }
    return ObjectLatents(masks=parts["valid"][:0], **parts)


def used_latents(frames: list[ObjectLatents]) -> int:
    """Up to the last one that holds something, in any of the frames; they are sorted, so that the rest is empty."""
    used = torch.nonzero(torch.cat([frame.valid for frame in frames]).any(0))
    return int(used.max()) + 1 if len(used) else 1
