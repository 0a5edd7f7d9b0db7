"""Names of SAM 2's original checkpoints (``{"model": ...}`` in a ``.pt``) in terms of transformers' Sam2VideoModel."""

from __future__ import annotations

import re

import torch

from ..checkpoints import Part
from ..checkpoints.views import Tensors, View

_CORNERS = 4  # point labels with an embedding of their own: background, foreground, two box corners
_ROW = "sam_prompt_encoder.point_embeddings.{}.weight"
_TABLE = "sam_prompt_encoder.point_embeddings.weight"
_THREE_LAYER_MLP = r"(iou_prediction_head|pred_obj_score_head|output_hypernetworks_mlps\.\d+|obj_ptr_proj)"

# Applied in this order to every key. The upper ones name modules, so that the lower ones find final names.
_RENAMES = (
    (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
    (r"^image_encoder\.neck\.convs\.(\d+)\.conv\.", r"vision_encoder.neck.convs.\1."),
    (r"^sam_prompt_encoder\.", "prompt_encoder."),
    (r"^sam_mask_decoder\.", "mask_decoder."),
    # layers that the original counts and transformers names
    (r"\.patch_embed\.proj\.", ".patch_embed.projection."),
    (r"(backbone\.blocks\.\d+|transformer\.layers\.\d+)\.mlp\.layers\.0\.", r"\1.mlp.proj_in."),
    (r"(backbone\.blocks\.\d+|transformer\.layers\.\d+)\.mlp\.layers\.1\.", r"\1.mlp.proj_out."),
    (_THREE_LAYER_MLP + r"\.layers\.0\.", r"\1.proj_in."),
    (_THREE_LAYER_MLP + r"\.layers\.2\.", r"\1.proj_out."),
    (_THREE_LAYER_MLP + r"\.layers\.1\.", r"\1.layers.0."),
    (r"\.mask_downscaling\.0\.", ".mask_embed.conv1."),
    (r"\.mask_downscaling\.1\.", ".mask_embed.layer_norm1."),
    (r"\.mask_downscaling\.3\.", ".mask_embed.conv2."),
    (r"\.mask_downscaling\.4\.", ".mask_embed.layer_norm2."),
    (r"\.mask_downscaling\.6\.", ".mask_embed.conv3."),
    (r"\.output_upscaling\.0\.", ".upscale_conv1."),
    (r"\.output_upscaling\.1\.", ".upscale_layer_norm."),
    (r"\.output_upscaling\.3\.", ".upscale_conv2."),
    (r"\.pe_layer\.positional_encoding_gaussian_matrix$", ".shared_embedding.positional_embedding"),
    (r"\.point_embeddings\.", ".point_embed."),
    # four times convolution, norm, activation; then the last convolution
    *((rf"\.mask_downsampler\.encoder\.{3 * i}\.", f".mask_downsampler.layers.{i}.conv.") for i in range(4)),
    *((rf"\.mask_downsampler\.encoder\.{3 * i + 1}\.", f".mask_downsampler.layers.{i}.layer_norm.") for i in range(4)),
    (r"\.mask_downsampler\.encoder\.12\.", ".mask_downsampler.final_conv."),
    (r"^memory_encoder\.pix_feat_proj\.", "memory_encoder.feature_projection."),
    (r"^memory_encoder\.out_proj\.", "memory_encoder.projection."),
    (r"^memory_encoder\.fuser\.", "memory_encoder.memory_fuser."),
    (r"\.dwconv\.", ".depthwise_conv."),
    (r"\.pwconv([12])\.", r".pointwise_conv\1."),
    (r"\.gamma$", ".scale"),
    # norms and projections
    (r"\.norm([1-4])\.", r".layer_norm\1."),
    (r"\.norm_final_attn\.", ".layer_norm_final_attn."),
    (r"(^memory_attention|memory_fuser\.layers\.\d+)\.norm\.", r"\1.layer_norm."),
    (r"_attn(_\w+)?\.out_proj\.", r"_attn\1.o_proj."),
    # single tensors of the whole model
    (r"^maskmem_tpos_enc$", "memory_temporal_positional_encoding"),
    (r"^no_mem_embed$", "no_memory_embedding"),
    (r"^no_mem_pos_enc$", "no_memory_positional_encoding"),
    (r"^no_obj_ptr$", "no_object_pointer"),
    (r"^no_obj_embed_spatial$", "occlusion_spatial_embedding_parameter"),
    (r"^obj_ptr_tpos_proj\.", "temporal_positional_encoding_projection_layer."),
    (r"^obj_ptr_proj\.", "object_pointer_proj."),
)

# transformers holds the matrix that encodes positions twice: for prompts, and for the image.
_PROMPTS, _IMAGE = (
    f"{module}.positional_embedding" for module in ("prompt_encoder.shared_embedding", "shared_image_embedding")
)

ORIGINAL = Part("", "", renames=_RENAMES, copies=((re.escape(_PROMPTS), _IMAGE),))


def transformers_part(tensors: Tensors) -> Part:
    """Names as transformers writes them; some of its versions left out one of two equal tensors."""
    pairs = ((_PROMPTS, _IMAGE), (_IMAGE, _PROMPTS))
    return Part("", "", copies=tuple((re.escape(held), other) for held, other in pairs if other not in tensors.shapes))


class StackedPoints(View):
    """A checkpoint in the original layout with its four one-row point embeddings stacked into the one table that
    transformers has. A checkpoint without them passes unchanged, for the account of keys to judge."""

    def __init__(self, inner: Tensors):
        self.rows = [_ROW.format(i) for i in range(_CORNERS)]
        whole = all(row in inner.shapes for row in self.rows)
        super().__init__(inner, {key: key for key in inner.shapes if not (whole and key in self.rows)})
        if whole:
            self.names[_TABLE] = self.rows[0]
            self.shapes[_TABLE] = (_CORNERS, *inner.shapes[self.rows[0]][1:])

    def __getitem__(self, name: str) -> torch.Tensor:
        if name != _TABLE:
            return super().__getitem__(name)
        return torch.cat([self.inner[row] for row in self.rows])


def is_original(tensors: Tensors) -> bool:
    """Whether the names are those of the original release."""
    return any(name.startswith("image_encoder.trunk.") for name in tensors.shapes)
