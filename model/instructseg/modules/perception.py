"""Encoder, object finder and appearance head as one: images in, object latents out."""

from __future__ import annotations

import torch
from torch import nn

from .object_latents import AppearanceHead, ObjectFinder, ObjectLatents, fill_slots, geometry
from .visual_encoder import VisualEncoder, VisualMaps


def frame_encoder(config, attributes: int) -> VisualEncoder:
    """All convolutions, or on the pretrained backbone that the configuration describes."""
    backbone = config.vision_backbone
    if backbone is None:
        return VisualEncoder(config.channels, config.blocks, config.pyramid, attributes)
    from .backbone_encoder import BackboneEncoder, BackbonePyramid, backbone_config  # needs transformers, in seconds

    deep = BackbonePyramid(backbone_config(backbone.config), backbone.mean, backbone.std, *config.channels[2:])
    return BackboneEncoder(deep, config.channels, config.blocks, config.pyramid, attributes)


class Perception(nn.Module):
    """Sized by a recipe's configuration (``channels``, ``blocks``, ``pyramid``, ``slots``, ``colors`` …)."""

    def __init__(self, config):
        super().__init__()
        attributes = len(config.colors) + len(config.shapes) + len(config.sizes)
        self.encoder = frame_encoder(config, attributes)
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
