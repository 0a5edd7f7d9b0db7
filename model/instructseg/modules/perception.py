"""Encoder, object finder and appearance head as one: images in, object latents out."""

from __future__ import annotations

import torch
from torch import nn

from .object_latents import AppearanceHead, ObjectFinder, ObjectLatents, fill_slots, geometry
from .visual_encoder import VisualEncoder, VisualMaps


class Perception(nn.Module):
    """Sized by a recipe's configuration (``channels``, ``blocks``, ``pyramid``, ``slots``, ``colors`` …)."""

    def __init__(self, config):
        super().__init__()
        attributes = len(config.colors) + len(config.shapes) + len(config.sizes)
        self.encoder = VisualEncoder(config.channels, config.blocks, config.pyramid, attributes)
        self.finder = ObjectFinder(config.slots)
        self.appearance = AppearanceHead(
            config.channels[0], config.pyramid, config.channels[2],
            len(config.colors), len(config.shapes), len(config.sizes), config.embedding,
        )  # fmt: skip

    def forward(self, images: torch.Tensor) -> tuple[VisualMaps, ObjectLatents]:
        """``(B, 3, h, w)`` RGB in 0..1 to the maps and the latents of each frame."""
        maps = self.encoder(images)
        return maps, self.latents(images, maps)

    def latents(self, images: torch.Tensor, maps: VisualMaps) -> ObjectLatents:
        masks, score, valid = self.finder(maps)
        found = (masks, geometry(masks), self.appearance(images, maps, masks))
        return ObjectLatents(*(fill_slots(values, valid.shape[1]) for values in found), score, valid)
