"""The pretrained parts of a larger configuration, as ``config.json`` holds them: enough to build them without a hub.

No torch here: a configuration is read and judged before anything heavy is imported.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from ...core import BadInput

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PERCEPTION, LANGUAGE = "perception", "language"  # what may still have to be trained


@dataclasses.dataclass(frozen=True)
class Backbone:
    """origin: hub id or folder name that the weights came from, for people. config: transformers' own configuration,
    with its ``model_type``."""

    origin: str
    config: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not isinstance(self.origin, str):
            raise BadInput(f"the origin of a backbone must be a text; got {self.origin!r}")
        if not isinstance(self.config, Mapping) or not isinstance(self.config.get("model_type"), str):
            raise BadInput("the configuration of a backbone must be a table with the key 'model_type'")

    @classmethod
    def from_value(cls, name: str, value: object) -> Any:
        """From parsed JSON; ``None`` stays. Raises BadInput naming the field ``name``."""
        if value is None or isinstance(value, cls):
            return value
        known = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(value, Mapping) or not set(value) <= known or not {"origin", "config"} <= set(value):
            raise BadInput(f"{name} must be null or a table with the keys {sorted(known)}; got {str(value)[:100]}")
        try:
            return cls(**{key: tuple(part) if isinstance(part, list) else part for key, part in value.items()})
        except BadInput as error:
            raise BadInput(f"{name}: {error}") from None


@dataclasses.dataclass(frozen=True)
class VisionBackbone(Backbone):
    """mean, std: of the red, green and blue values (0..1) that the backbone was trained with."""

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, low in (("mean", -math.inf), ("std", 0.0)):
            values = getattr(self, name)
            whole = isinstance(values, tuple) and len(values) == 3 and all(map(_is_number, values))
            if not whole or min(values) <= low:
                raise BadInput(f"{name} must be three numbers{' above 0' if name == 'std' else ''}; got {values!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
