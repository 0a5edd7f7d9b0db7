"""SAM 2 in miniature with random weights, its files in both published layouts, and a short film to track in."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import Sam2HieraDetConfig, Sam2VideoConfig, Sam2VideoModel, Sam2VisionConfig
from transformers.models.sam2_video.configuration_sam2_video import (
    Sam2VideoMaskDecoderConfig,
    Sam2VideoPromptEncoderConfig,
)

from instructseg.modules.sam2_keys import ORIGINAL

PUBLISHED = json.loads((Path(__file__).parent / "sam2_published_keys.json").read_text())


def tiny_config(version: str = "2.1", image_size: int = 128) -> Sam2VideoConfig:
    """The blocks of the published tiny size, a twelfth as wide, so that the names of its layers are the same. Widths
    that the package ``sam2`` has no parameter for are the published ones."""
    cells, width = image_size // 16, 128  # memories are 64 wide in transformers, and maps must be wider
    backbone = Sam2HieraDetConfig(
        hidden_size=8,
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 2, 4, 8],
        image_size=[image_size, image_size],
    )
    return Sam2VideoConfig(
        vision_config=Sam2VisionConfig(
            backbone_config=backbone,
            backbone_channel_list=[64, 32, 16, 8],
            backbone_feature_sizes=[[scale * cells] * 2 for scale in (4, 2, 1)],
            fpn_hidden_size=width,
        ),
        prompt_encoder_config=Sam2VideoPromptEncoderConfig(hidden_size=width, image_size=image_size),
        mask_decoder_config=Sam2VideoMaskDecoderConfig(hidden_size=width),
        image_size=image_size,
        memory_attention_hidden_size=width,
        memory_attention_feed_forward_hidden_size=128,
        memory_attention_num_layers=2,
        memory_attention_rope_feat_sizes=[cells, cells],
        memory_encoder_hidden_size=width,
        mask_downsampler_embed_dim=width,
        memory_fuser_embed_dim=width,
        memory_fuser_intermediate_dim=4 * width,
        enable_temporal_pos_encoding_for_object_pointers=version == "2.1",
        enable_occlusion_spatial_embedding=version == "2.1",
    )


def tiny_sam(config: Sam2VideoConfig | None = None, presence: float = 2.0, seed: int = 8) -> Sam2VideoModel:
    """Random weights that make every part count, also where a fresh model has zeros, and with object pointers long
    enough to be attended to, so that a mistake anywhere changes the masks.

    presence: bias of the object score; the weights before it are small, so its sign decides whether objects show.
    """
    torch.manual_seed(seed)
    sam = Sam2VideoModel(config or tiny_config()).eval()
    with torch.no_grad():
        for name, parameter in sam.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
            elif "norm" not in name:
                parameter.normal_(std=0.1)
        for tokens in (sam.no_memory_embedding, sam.memory_temporal_positional_encoding, sam.no_object_pointer):
            tokens.normal_(std=0.3)
        sam.object_pointer_proj.proj_out.weight.mul_(10.0)
        sam.shared_image_embedding.load_state_dict(sam.prompt_encoder.shared_embedding.state_dict())  # as published
        head = sam.mask_decoder.pred_obj_score_head.proj_out
        head.weight.mul_(0.1)
        head.bias.fill_(presence)
    return sam.requires_grad_(False)


def original_tensors(sam: Sam2VideoModel, version: str = "2.1") -> dict[str, torch.Tensor]:
    """The weights under the names of the original release, which are taken from the published tiny size."""
    tensors = dict(sam.state_dict())
    points = tensors["prompt_encoder.point_embed.weight"]
    tensors.update({f"prompt_encoder.point_embed.{i}.weight": points[i : i + 1] for i in range(len(points))})
    names = {key: ORIGINAL.targets(key)[0] for key in published_shapes("tiny", version)}
    return {key: tensors[name].clone() for key, name in names.items() if name in tensors}


def original_checkpoint(folder: Path, sam: Sam2VideoModel, version: str = "2.1") -> Path:
    """A ``.pt`` as the original release writes it; config.json beside it, for the size is no published one."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"model": original_tensors(sam, version)}, folder / "sam2_hiera_miniature.pt")
    (folder / "config.json").write_text(sam.config.to_json_string())
    return folder / "sam2_hiera_miniature.pt"


def transformers_checkpoint(folder: Path, sam: Sam2VideoModel) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous().clone() for k, v in sam.state_dict().items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(sam.config.to_json_string())
    return folder


def published_shapes(size: str, version: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a published checkpoint, as the package ``sam2`` 1.1.0 builds them."""
    added = set(PUBLISHED["added in 2.1"]) if version == "2.0" else set()
    both = {**PUBLISHED["all sizes"], **PUBLISHED[size]}
    return {key: tuple(shape) for key, shape in both.items() if key not in added}


def film(frames: int, height: int = 120, width: int = 160, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Images ``(H, W, 3)`` uint8 of a bright square that drifts over noise, and its masks ``(H, W)`` bool."""
    rng = np.random.default_rng(seed)
    ground = rng.integers(0, 120, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    ground = np.kron(ground, np.ones((8, 8, 1), np.uint8))[:height, :width]
    images, masks = [], []
    for t in range(frames):
        mask = np.zeros((height, width), bool)
        top, left = 20 + t % (height - 60), 10 + 2 * t % (width - 50)
        mask[top : top + 36, left : left + 36] = True
        images.append(np.where(mask[..., None], np.array([220, 180, 40], np.uint8), ground))
        masks.append(mask)
    return images, masks
