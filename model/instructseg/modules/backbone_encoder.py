"""The frame encoder on a pretrained vision backbone: its deep features come from transformers, the rest stays.

A light convolutional stem keeps what a backbone has lost (strides 2 and 4: edges, colour, texture); the backbone gives
strides 8 and 16; pyramid and heads are those of :class:`~.visual_encoder.VisualEncoder`. A plain vision transformer has
one resolution only: a simple feature pyramid makes two of it (ViTDet, Li et al., ECCV 2022, sec. 3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import CONFIG_MAPPING, AutoBackbone, PretrainedConfig

from ..core import BadInput
from .visual_encoder import VisualEncoder, conv_norm

PLAIN = ("dinov2", "dinov2_with_registers", "dinov3_vit")  # one resolution: a grid of patches
STAGED = ("swin", "swinv2", "convnext", "convnextv2")  # four stages, at stride 4, 8, 16 and 32
# transformers works these out from the depth, or fills them in itself.
_DERIVED = ("model_type", "stage_names", "out_indices", "out_features", "num_layers", "transformers_version")


def backbone_config(values: Mapping[str, Any]) -> PretrainedConfig:
    """transformers' configuration of a vision backbone that gives the features needed here, from its table. Raises
    BadInput for a kind that is not known here."""
    kind = values.get("model_type")
    if kind not in PLAIN + STAGED:
        raise BadInput(f"a vision backbone must be one of {', '.join(PLAIN + STAGED)}; got {kind!r}")
    sizes = {name: value for name, value in values.items() if name not in _DERIVED and not name.startswith("_")}
    stages = CONFIG_MAPPING[kind](**sizes).stage_names  # stem, stage1 …
    if kind in STAGED and (len(stages) != 5 or sizes.get("patch_size", 4) != 4):
        raise BadInput(
            f"a vision backbone of the kind {kind} must have four stages and patches of 4 pixels; got "
            f"{len(stages) - 1} and {sizes.get('patch_size', 4)}"
        )
    if sizes.get("num_channels", 3) != 3:
        raise BadInput(f"a vision backbone must look at 3 channels; got {sizes['num_channels']}")
    return CONFIG_MAPPING[kind](**sizes, out_features=stages[-1:] if kind in PLAIN else stages[-3:])


class BackbonePyramid(nn.Module):
    """``(B, 3, h, w)`` RGB in 0..1 to features ``(B, c8, h/8, w/8)`` and ``(B, c16, h/16, w/16)``.

    The backbone is frozen, and stays in evaluation mode while the rest trains. mean, std: what it was trained with.
    """

    def __init__(
        self, config: PretrainedConfig, mean: Sequence[float], std: Sequence[float], c8: int, c16: int
    ) -> None:
        super().__init__()
        self.patch = config.patch_size if config.model_type in PLAIN else None
        self.backbone = AutoBackbone.from_config(config).requires_grad_(False)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(3, 1, 1), persistent=False)
        channels = self.backbone.channels
        if self.patch is not None:
            self.to16 = conv_norm(channels[-1], c16, kernel=1)
            # The same as a transposed convolution of kernel and stride 2, which ViTDet uses; its batch norm folds.
            self.to8 = nn.Sequential(conv_norm(channels[-1], 4 * c8, kernel=1), nn.PixelShuffle(2))
        else:
            self.to8, self.to16 = conv_norm(channels[0], c8, kernel=1), conv_norm(channels[1], c16, kernel=1)
            self.from32 = conv_norm(channels[2], c16, kernel=1)

    def train(self, mode: bool = True) -> BackbonePyramid:
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h, w = images.shape[-2:]
        x = (images - self.mean) / self.std
        if self.patch is not None:
            if self.patch != 16:  # so that a patch of the backbone is a cell of stride 16
                size = (h // 16 * self.patch, w // 16 * self.patch)
                x = F.interpolate(x, size=size, mode="bilinear", antialias=True, align_corners=False)
            (found,) = self.backbone(x).feature_maps  # (B, C, h/16, w/16)
            return F.relu(self.to8(found)), F.relu(self.to16(found))
        at8, at16, at32 = self.backbone(x).feature_maps
        x16 = resized(self.to16(at16), (h // 16, w // 16))
        x16 = x16 + resized(self.from32(at32), (h // 16, w // 16))
        return F.relu(resized(self.to8(at8), (h // 8, w // 8))), F.relu(x16)


def resized(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Stages round sizes up or down where an edge is odd; here each has the size that its stride says."""
    same = tuple(x.shape[-2:]) == size
    return x if same else F.interpolate(x, size=size, mode="bilinear", align_corners=False)


class BackboneEncoder(VisualEncoder):
    """``(B, 3, h, w)`` RGB in 0..1, h and w multiples of 16, to ``VisualMaps``, on a pretrained backbone."""

    def __init__(
        self,
        deep: BackbonePyramid,
        channels: tuple[int, int, int, int],
        blocks: tuple[int, int, int, int],
        pyramid: int,
        attributes: int,
    ) -> None:
        super().__init__(channels, blocks, pyramid, attributes)
        del self.stage8, self.stage16
        self.deep = deep

    def deep_features(self, images: torch.Tensor, x4: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.deep(images)
