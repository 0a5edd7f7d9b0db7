"""Convolutional frame encoder with a feature pyramid and instance maps by voting.

One pass per frame serves everything downstream: the language model reads object latents pooled from these maps, the
mask head draws masks from them. Instances follow Panoptic-DeepLab (Cheng et al., CVPR 2020): a heat map of objects, a
vote of every pixel for its own, and an objectness map; masks are drawn at half the encoder's resolution.
Panoptic-DeepLab votes for centres; here it is the foot, the middle of a thing at the height of its lower edge, because
what lies in a bowl or on a plate has nearly its centre.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import nn


@dataclasses.dataclass
class VisualMaps:
    """What one pass gives; (h, w) are the encoder's input size, B frames."""

    fine: torch.Tensor  # (B, C2, h/2, w/2)  first-stage features: colour and texture
    shape: torch.Tensor  # (B, C4, h/4, w/4) pyramid output: detail and context
    context: torch.Tensor  # (B, C8, h/8, w/8)
    heat: torch.Tensor  # (B, h/4, w/4) logits of "an object's foot is here"
    votes: torch.Tensor  # (B, 2, h/4, w/4) vector (x, y) to the foot of the object a pixel is on, in input pixels
    objectness: torch.Tensor  # (B, h/2, w/2) logits of "some object is here"
    attributes: torch.Tensor  # (B, A, h/4, w/4) per-pixel colour, shape and size logits (auxiliary, training only)


def conv_norm(cin: int, cout: int, kernel: int = 3, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """Convolution and batch norm: folds into one convolution for inference, which GroupNorm would not."""
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(cin, cout, kernel, stride, padding, dilation=dilation, bias=False), nn.BatchNorm2d(cout)
    )


class Residual(nn.Module):
    def __init__(self, channels: int, dilation: int = 1):
        super().__init__()
        self.first = conv_norm(channels, channels, dilation=dilation)
        self.second = conv_norm(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


class Stage(nn.Module):
    def __init__(self, cin: int, cout: int, blocks: int, stride: int, dilation: int = 1):
        super().__init__()
        self.down = conv_norm(cin, cout, stride=stride)
        self.blocks = nn.Sequential(*[Residual(cout, dilation) for _ in range(blocks)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(F.relu(self.down(x)))


class VisualEncoder(nn.Module):
    """``(B, 3, h, w)`` RGB in 0..1, h and w multiples of 16, to :class:`VisualMaps`."""

    def __init__(
        self, channels: tuple[int, int, int, int], blocks: tuple[int, int, int, int], pyramid: int, attributes: int
    ):
        super().__init__()
        c2, c4, c8, c16 = channels
        self.stage2 = Stage(12, c2, blocks[0], 1)
        self.stage4 = Stage(c2, c4, blocks[1], 2)
        self.stage8 = Stage(c4, c8, blocks[2], 2)
        self.stage16 = Stage(c8, c16, blocks[3], 2, dilation=2)
        self.lateral16 = conv_norm(c16, c8, kernel=1)
        self.merge8 = conv_norm(c8, c8)
        self.lateral8 = conv_norm(c8, pyramid, kernel=1)
        self.lateral4 = conv_norm(c4, pyramid, kernel=1)
        self.merge4 = conv_norm(pyramid, pyramid)
        self.instance = nn.Sequential(conv_norm(pyramid, pyramid), nn.ReLU(), nn.Conv2d(pyramid, 3, 1))
        self.detail = nn.Sequential(conv_norm(pyramid, 4 * c2, kernel=1), nn.PixelShuffle(2))
        self.objectness = nn.Sequential(conv_norm(c2, c2), nn.ReLU(), nn.Conv2d(c2, 1, 1))
        self.attributes = nn.Conv2d(pyramid, attributes, 1)
        nn.init.constant_(self.instance[-1].bias, -4.0)  # feet are rare: start from "nowhere"

    def forward(self, images: torch.Tensor) -> VisualMaps:
        x = (images - 0.45) / 0.25
        fine = self.stage2(F.pixel_unshuffle(x, 2))  # (B, C2, h/2, w/2)
        x4 = self.stage4(fine)
        x8, x16 = self.deep_features(images, x4)
        up8 = F.interpolate(self.lateral16(x16), size=x8.shape[-2:], mode="nearest")
        context = F.relu(self.merge8(F.relu(x8 + up8)))  # (B, C8, h/8, w/8)
        up4 = F.interpolate(self.lateral8(context), size=x4.shape[-2:], mode="nearest")
        shape = F.relu(self.merge4(F.relu(self.lateral4(x4) + up4)))  # (B, C4, h/4, w/4)
        instance = self.instance(shape)
        objectness = self.objectness(F.relu(fine + self.detail(shape)))[:, 0]
        votes = 16.0 * (instance[:, 1:] + 4.0)  # the bias start of -4 is the heat map's; votes start at zero
        return VisualMaps(fine, shape, context, instance[:, 0], votes, objectness, self.attributes(shape))

    def deep_features(self, images: torch.Tensor, x4: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``(B, C8, h/8, w/8)`` and ``(B, C16, h/16, w/16)``, from the images and their features at stride 4."""
        x8 = self.stage8(x4)
        return x8, self.stage16(x8)
