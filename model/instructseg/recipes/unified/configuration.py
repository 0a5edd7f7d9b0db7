"""Sizes and names of the default recipe; stored beside its weights as ``config.json``."""

from __future__ import annotations

import dataclasses
from typing import Any

from ...core import BadInput
from ...data.scene import CLUTTER
from .backbones import LANGUAGE, PERCEPTION, Backbone, VisionBackbone

FORMAT = 2  # of a checkpoint; 1 had no scene concepts


@dataclasses.dataclass(frozen=True)
class UnifiedConfig:
    """Everything needed to build the model; the published checkpoint uses these defaults."""

    image_size: tuple[int, int] = (192, 256)  # (height, width) the encoder sees; multiples of 16
    channels: tuple[int, int, int, int] = (24, 48, 96, 128)  # encoder stages at stride 2, 4, 8, 16
    blocks: tuple[int, int, int, int] = (1, 1, 2, 2)
    pyramid: int = 48
    slots: int = 20  # object latents per frame
    embedding: int = 24  # identity part of a latent's appearance
    colors: tuple[str, ...] = (
        "red", "green", "blue", "yellow", "orange", "purple", "white", "black", "brown", "pink", "grey",
    )  # fmt: skip
    shapes: tuple[str, ...] = (
        "block", "ball", "can", "cone", "mug", "bowl", "bottle", "plate", "box", "banana", "key", CLUTTER,
    )  # fmt: skip
    sizes: tuple[str, ...] = ("small", "large", "tall", "flat")
    sparse_frames: int = 4  # frames of a clip, the newest is the key frame
    horizon_s: float = 1.5
    max_words: int = 40
    max_targets: int = 3  # target slots an instruction can fill
    hidden: int = 160  # width of the language model
    layers: int = 4
    heads: int = 5
    intermediate: int = 448
    head_hidden: int = 96  # width of the mask head's scoring networks
    present_threshold: float = 0.5  # calibrated on the validation split, see the model card
    seed: int = 0
    # Pretrained parts of a larger model (docs/unified_large.md); with a language backbone, hidden, layers, heads and
    # intermediate are its own.
    vision_backbone: VisionBackbone | None = None
    language_backbone: Backbone | None = None
    untrained: tuple[str, ...] = ()  # of "perception" and "language": what still has to be trained

    def __post_init__(self) -> None:
        height, width = self.image_size
        if height % 16 or width % 16 or not (64 <= height <= 2048 and 64 <= width <= 2048):
            raise BadInput(f"image_size must be (height, width), multiples of 16 in 64..2048; got {self.image_size}")
        for name, low, high in (("slots", 1, 256), ("sparse_frames", 1, 16), ("max_words", 4, 512), ("max_targets",
        1, 16),
                                ("layers", 1, 64), ("heads", 1, 64), ("hidden", 16, 4096)):  # fmt: skip
            value = getattr(self, name)
            if not low <= value <= high:
                raise BadInput(f"UnifiedConfig.{name} must be in {low}..{high}; got {value}")
        if self.hidden % (2 * self.heads):
            raise BadInput(
                f"UnifiedConfig.hidden must be a multiple of twice the heads ({self.heads}); got {self.hidden}"
            )
        if self.language_backbone and self.language_backbone.config.get("hidden_size") != self.hidden:
            raise BadInput(
                f"UnifiedConfig.hidden must be the language backbone's hidden_size; got {self.hidden} and "
                f"{self.language_backbone.config.get('hidden_size')!r}"
            )
        if not set(self.untrained) <= {PERCEPTION, LANGUAGE}:
            raise BadInput(f"UnifiedConfig.untrained may hold {PERCEPTION} and {LANGUAGE}; got {self.untrained}")
        if not 0.0 < self.present_threshold < 1.0:
            raise BadInput(f"UnifiedConfig.present_threshold must be in 0..1; got {self.present_threshold}")

    @property
    def appearance(self) -> int:
        """Width of a latent's appearance code."""
        return len(self.colors) + len(self.shapes) + len(self.sizes) + self.embedding

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> UnifiedConfig:
        """From parsed JSON; an unknown key is an error that lists the known ones."""
        if not isinstance(values, dict):
            raise BadInput(f"a unified configuration must be a JSON object; got {type(values).__name__}")
        known = {f.name for f in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known - {"recipe", "format"})
        if unknown:
            raise BadInput(f"unknown key(s) {unknown} in the unified configuration; known are {sorted(known)}")
        if values.get("format", FORMAT) != FORMAT:
            raise BadInput(
                f"this checkpoint of the recipe unified has format {values['format']!r}, this version reads {FORMAT}: "
                "train it again (docs/training_default.md), or use the version it was written with"
            )
        picked = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known}
        for name, kind in (("vision_backbone", VisionBackbone), ("language_backbone", Backbone)):
            picked[name] = kind.from_value(name, picked.get(name))
        return cls(**picked)

    def to_dict(self) -> dict[str, Any]:
        return {"recipe": "unified", "format": FORMAT, **dataclasses.asdict(self)}
