"""The network's sizes, read from a published checkpoint: ``config.json`` and the shapes of its tensors.

``config.json`` describes the language model and the vision encoder; all else follows from shapes, but for three
numbers that no tensor shows: the heads of the two perceivers and the size of the image that Swin sees. They are the
published ones unless ``config.json`` has an object ``"instructseg"`` that says otherwise (an addition of ours, for
checkpoints of other sizes).
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...core import BadInput
from .configuration import InstructSegSizes, MaskSizes, PerceiverSizes

Shapes = Mapping[str, tuple[int, ...]]
_SWIN = "model.vision_tower_mask."
_PIXEL = "pixel_decoder.transformer.encoder.layers."
_FFN = "predictor.transformer_ffn_layers."
_LEVELS_POINTS = 3 * 4  # feature levels and sampling points of the deformable attention


@dataclasses.dataclass(frozen=True)
class Unseen:
    """What no tensor shows; the defaults are the published values."""

    image_size: int = 1024
    perceiver_heads: int = 8
    fusion_heads: int = 8

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise BadInput(f'"instructseg" {field.name} must be a whole number above 0; got {value!r}')
        if self.image_size % 32:
            raise BadInput(f'"instructseg" image_size must be a multiple of 32; got {self.image_size}')

    @staticmethod
    def of(config: Mapping[str, Any]) -> Unseen:
        values = config.get("instructseg", {})
        known = {field.name for field in dataclasses.fields(Unseen)}
        if not isinstance(values, dict) or not set(values) <= known:
            raise BadInput(f'"instructseg" may hold {sorted(known)}; got {values!r}')
        return Unseen(**values)


def check_config(config: Any, source: Path | str = "config.json") -> None:
    """Raise BadInput for another system's ``config.json``."""
    vision = config.get("vision_config") if isinstance(config, dict) else None
    parts = ("vision_tower", "mm_projector")
    if not isinstance(vision, dict) or not all(isinstance(vision.get(part), dict) for part in parts):
        raise BadInput(
            f"{source} is not of InstructSeg, which has vision_config with {' and '.join(parts)}; choose the recipe "
            "that the checkpoint is of"
        )


def read_sizes(
    config: Any, shapes: Shapes, unseen: Unseen | None = None, source: Path | str = "config.json"
) -> InstructSegSizes:
    """Sizes of the checkpoint with this ``config.json``, named ``source`` in messages, and these tensors. Raises
    BadInput for another system's."""
    check_config(config, source)
    try:
        unseen = unseen or Unseen.of(config)
        vision, select = _vision(config["vision_config"]["vision_tower"])
        projector = config["vision_config"]["mm_projector"]["mm_projector_type"]
        return InstructSegSizes(
            language=_language(config, shapes),
            head_rows=shapes["lm_head.weight"][0],
            vision=vision,
            select_layer=select,
            projector=projector,
            reference_tokens=shapes["temporal_query"][0],
            perceiver=_perceiver(shapes, "ovp_layers.", unseen.perceiver_heads),
            fusion=_perceiver(shapes, "vmtf_layers.", unseen.fusion_heads),
            masks=_masks(shapes, unseen.image_size),
        )
    except BadInput as error:
        raise BadInput(f"{source}: {error}") from error
    except KeyError as error:
        raise BadInput(
            f"{source} and the weights beside it are not of InstructSeg: {error.args[0]!r} is missing"
        ) from error
    except (IndexError, ValueError, TypeError) as error:
        raise BadInput(
            f"{source} and the weights beside it do not describe an InstructSeg network: {error.args[0]}"
        ) from error


def _language(config: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """Fields of PhiConfig. The number of embeddings is that of the tensor: tokens were added, or the field is stale."""
    dropped = ("architectures", "model_type", "vision_config", "instructseg", "torch_dtype", "dtype", "vocab_size")
    kept = {k: v for k, v in config.items() if k not in dropped and not k.startswith(("mm_", "_", "swin", "freeze"))}
    needed = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "partial_rotary_factor")
    absent = [name for name in needed if name not in kept]
    if absent:  # PhiConfig would silently put its own defaults in place
        raise BadInput(f"{', '.join(absent)} missing; take the config.json that the checkpoint was published with")
    rows = shapes["model.embed_tokens.weight"][0]
    in_range = {
        k: kept[k] if isinstance(kept.get(k), int) and kept[k] < rows else None
        for k in ("bos_token_id", "eos_token_id")
    }
    return {**kept, **in_range, "pad_token_id": None, "vocab_size": rows, "use_cache": False}


def _vision(tower: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    kept = {
        k: v
        for k, v in tower.items()
        if not k.startswith("mm_") and k not in ("model_type", "vision_model_name_or_path")
    }
    layers, select = int(kept["num_hidden_layers"]), int(tower["mm_vision_select_layer"])
    if not -layers - 1 <= select <= layers:
        raise BadInput(f"mm_vision_select_layer must be in {-layers - 1}..{layers}; got {select}")
    if tower.get("mm_vision_select_feature", "patch") not in ("patch", "cls_patch"):
        raise BadInput(
            f"mm_vision_select_feature must be patch or cls_patch; got {tower['mm_vision_select_feature']!r}"
        )
    return kept, select


def _perceiver(shapes: Shapes, prefix: str, heads: int) -> PerceiverSizes:
    inner, width = shapes[f"{prefix}layers.0.0.to_q.weight"]
    if inner % heads:
        raise BadInput(f"{prefix}layers: {inner} rows of to_q do not divide among {heads} heads")
    return PerceiverSizes(width, _count(shapes, f"{prefix}layers."), heads, inner // heads)


def _masks(shapes: Shapes, image_size: int) -> MaskSizes:
    stages = range(_count(shapes, f"{_SWIN}layers."))
    tables = [shapes[f"{_SWIN}layers.{i}.blocks.0.attn.relative_position_bias_table"] for i in stages]
    swin_width = shapes[f"{_SWIN}patch_embed.proj.weight"][0]
    return MaskSizes(
        image_size=image_size,
        swin_width=swin_width,
        swin_depths=tuple(_count(shapes, f"{_SWIN}layers.{i}.blocks.") for i in stages),
        swin_heads=tuple(heads for _, heads in tables),
        swin_window=(math.isqrt(tables[0][0]) + 1) // 2,
        swin_mlp_ratio=shapes[f"{_SWIN}layers.0.blocks.0.mlp.fc1.weight"][0] / swin_width,
        width=shapes["predictor.decoder_norm.weight"][0],
        mask_width=shapes["pixel_decoder.mask_features.weight"][0],
        heads=shapes[f"{_PIXEL}0.self_attn.attention_weights.weight"][0] // _LEVELS_POINTS,
        pixel_layers=_count(shapes, _PIXEL),
        pixel_feed_forward=shapes[f"{_PIXEL}0.linear1.weight"][0],
        layers=_count(shapes, _FFN),
        feed_forward=shapes[f"{_FFN}0.linear1.weight"][0],
        queries=shapes["seg_query"][0],
    )


def _count(shapes: Shapes, prefix: str) -> int:
    """How many indices follow ``prefix`` in the keys."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    found = {int(match[1]) for key in shapes if (match := pattern.match(key))}
    if not found:
        raise KeyError(prefix)
    return max(found) + 1
