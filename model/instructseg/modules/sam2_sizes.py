"""The sizes of SAM 2 (Ravi et al. 2024, sec. 4 and app. D; Apache-2.0 weights in four sizes and two versions) as
configurations of transformers' ``Sam2VideoModel``, and how to tell them apart by the shapes of a checkpoint."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import Sam2HieraDetConfig, Sam2VideoConfig, Sam2VisionConfig
from transformers.models.sam2_video.configuration_sam2_video import (
    Sam2VideoMaskDecoderConfig,
    Sam2VideoPromptEncoderConfig,
)

from ..core import BadInput

STRIDE = 16  # pixels of the square input to one cell of the maps that memory attention sees
_TRUNK = "image_encoder.trunk."


@dataclasses.dataclass(frozen=True)
class Sam2Size:
    """The image encoder (Hiera), which alone differs between the sizes.

    channels, heads: of the first stage; both double from stage to stage. blocks: per stage. global_blocks: which
    blocks attend over the whole image. windows: window edge per stage. background: edge of the position table.
    """

    name: str
    channels: int
    heads: int
    blocks: tuple[int, int, int, int]
    global_blocks: tuple[int, int, int]
    windows: tuple[int, int, int, int] = (8, 4, 14, 7)
    background: int = 7


SIZES = {
    size.name: size
    for size in (
        Sam2Size("tiny", 96, 1, (1, 2, 7, 2), (5, 7, 9)),
        Sam2Size("small", 96, 1, (1, 2, 11, 2), (7, 10, 13)),
        Sam2Size("base_plus", 112, 2, (2, 3, 16, 3), (12, 16, 20), background=14),
        Sam2Size("large", 144, 2, (2, 6, 36, 4), (23, 33, 43), windows=(8, 4, 16, 8)),
    )
}
VERSIONS = ("2.0", "2.1")


def sam2_config(size: Sam2Size, version: str = "2.1", image_size: int = 1024) -> Sam2VideoConfig:
    """The configuration of a published size. version: "2.0" or "2.1"; the later one encodes the age of object
    pointers and marks memories of frames in which the object was not visible."""
    if version not in VERSIONS:
        raise BadInput(f"SAM 2 version must be one of {', '.join(VERSIONS)}; got {version!r}")
    channels = [size.channels * 2**stage for stage in range(4)]
    backbone = Sam2HieraDetConfig(
        hidden_size=size.channels,
        num_attention_heads=size.heads,
        embed_dim_per_stage=channels,
        num_attention_heads_per_stage=[size.heads * 2**stage for stage in range(4)],
        blocks_per_stage=list(size.blocks),
        global_attention_blocks=list(size.global_blocks),
        window_size_per_stage=list(size.windows),
        window_positional_embedding_background_size=[size.background, size.background],
    )
    config = Sam2VideoConfig(
        vision_config=Sam2VisionConfig(backbone_config=backbone, backbone_channel_list=channels[::-1]),
        prompt_encoder_config=Sam2VideoPromptEncoderConfig(),
        mask_decoder_config=Sam2VideoMaskDecoderConfig(),
        enable_temporal_pos_encoding_for_object_pointers=version == "2.1",
        enable_occlusion_spatial_embedding=version == "2.1",
    )
    return with_image_size(config, image_size)


def with_image_size(config: Sam2VideoConfig, image_size: int) -> Sam2VideoConfig:
    """The same model for another edge of its square input, in pixels: no weight depends on it. 1024 as trained;
    less is faster and coarser."""
    if image_size % 32 or not 64 <= image_size <= 2048:
        raise BadInput(f"image_size of SAM 2 must be a multiple of 32 in 64..2048 pixels; got {image_size}")
    config = copy.deepcopy(config)
    cells = image_size // STRIDE
    config.image_size = image_size
    config.prompt_encoder_config.image_size = image_size
    config.memory_attention_rope_feat_sizes = [cells, cells]
    config.vision_config.backbone_config.image_size = [image_size, image_size]
    config.vision_config.backbone_feature_sizes = [[scale * cells] * 2 for scale in (4, 2, 1)]
    return config


def config_from_json(content: Mapping[str, Any], source: Path | str = "config.json") -> Sam2VideoConfig:
    """The configuration in the ``config.json`` of a checkpoint that transformers wrote. source: the file, for
    messages. Raises BadInput."""
    if content.get("model_type") != "sam2_video":
        raise BadInput(
            f"{source} is of model type {content.get('model_type')!r}; a memory tracker needs 'sam2_video' "
            "(for example facebook/sam2.1-hiera-tiny)"
        )
    try:
        # The inner ones by their own classes: some versions of transformers take those of the image model.
        inner = {
            "prompt_encoder_config": Sam2VideoPromptEncoderConfig(**_plain(content, "prompt_encoder_config")),
            "mask_decoder_config": Sam2VideoMaskDecoderConfig(**_plain(content, "mask_decoder_config")),
        }
        config = Sam2VideoConfig.from_dict({**_present_day(content), **inner})
        return with_image_size(config, config.image_size)
    except (StrictDataclassError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise BadInput(f"{source} does not describe a SAM 2 video model: {error}") from error


def size_of(shapes: Mapping[str, tuple[int, ...]]) -> tuple[Sam2Size, str]:
    """Which published size and version a checkpoint in the original layout is, from its names and shapes."""
    projection = shapes.get(f"{_TRUNK}patch_embed.proj.weight", (0,))
    blocks = {name.split(".")[3] for name in shapes if name.startswith(f"{_TRUNK}blocks.")}
    for size in SIZES.values():
        if (size.channels, sum(size.blocks)) == (projection[0], len(blocks)):
            return size, "2.1" if "no_obj_embed_spatial" in shapes else "2.0"
    known = ", ".join(f"{s.name} ({s.channels} channels, {sum(s.blocks)} blocks)" for s in SIZES.values())
    raise BadInput(
        f"the image encoder has {projection[0]} channels and {len(blocks)} blocks, no published size of SAM 2: "
        f"{known}; put a config.json of transformers' Sam2VideoModel beside the weights"
    )


def _present_day(content: Mapping[str, Any]) -> dict[str, Any]:
    """The files on the hub were written when the base of the rotary code had an entry of its own."""
    renewed = dict(content)
    theta = renewed.pop("memory_attention_rope_theta", None)
    if theta is not None and not renewed.get("rope_parameters"):
        renewed["rope_parameters"] = {"rope_type": "axial", "rope_theta": float(theta)}
    return renewed


def _plain(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    inner = content.get(key) or {}
    return {name: value for name, value in dict(inner).items() if name != "model_type"}
