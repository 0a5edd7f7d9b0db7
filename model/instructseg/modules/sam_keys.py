"""The keys of original Segment Anything checkpoints: what transformers calls them, and their shapes at any size."""

from __future__ import annotations

from ..checkpoints import Part
from .sam_sizes import SamSizes

Shapes = dict[str, tuple[int, ...]]

# Original names, with the prefix of the whole model taken off, to transformers' names.
SAM_RENAMES: tuple[tuple[str, str], ...] = (
    (r"^image_encoder\.", "vision_encoder."),
    (r"patch_embed\.proj\.", "patch_embed.projection."),
    (r"vision_encoder\.blocks\.", "vision_encoder.layers."),
    (r"(vision_encoder\.layers\.\d+)\.norm([12])\.", r"\1.layer_norm\2."),
    (r"neck\.0\.", "neck.conv1."),
    (r"neck\.1\.", "neck.layer_norm1."),
    (r"neck\.2\.", "neck.conv2."),
    (r"neck\.3\.", "neck.layer_norm2."),
    (r"mask_downscaling\.0\.", "mask_embed.conv1."),
    (r"mask_downscaling\.1\.", "mask_embed.layer_norm1."),
    (r"mask_downscaling\.3\.", "mask_embed.conv2."),
    (r"mask_downscaling\.4\.", "mask_embed.layer_norm2."),
    (r"mask_downscaling\.6\.", "mask_embed.conv3."),
    (r"point_embeddings\.", "point_embed."),
    (r"pe_layer\.positional_encoding_gaussian_matrix", "shared_embedding.positional_embedding"),
    (r"(transformer\.layers\.\d+)\.norm([1-4])\.", r"\1.layer_norm\2."),
    (r"norm_final_attn\.", "layer_norm_final_attn."),
    (r"output_upscaling\.0\.", "upscale_conv1."),
    (r"output_upscaling\.1\.", "upscale_layer_norm."),
    (r"output_upscaling\.3\.", "upscale_conv2."),
    (r"((?:iou_prediction_head|output_hypernetworks_mlps\.\d+))\.layers\.0\.", r"\1.proj_in."),
    (r"((?:iou_prediction_head|output_hypernetworks_mlps\.\d+))\.layers\.1\.", r"\1.layers.0."),
    (r"((?:iou_prediction_head|output_hypernetworks_mlps\.\d+))\.layers\.2\.", r"\1.proj_out."),
)
# transformers holds the positional matrix twice.
SAM_COPIES = (
    (r"prompt_encoder\.shared_embedding\.positional_embedding", "shared_image_embedding.positional_embedding"),
)


def sam_part(source: str, target: str) -> Part:
    """The conversion of an original SAM under ``source`` to a ``SamModel`` under ``target``."""
    return Part(source, target, SAM_RENAMES, SAM_COPIES)


def published_sam_shapes(sizes: SamSizes) -> Shapes:
    """Names and shapes of every tensor of ``sam_vit_*.pth`` (``pixel_mean`` and ``pixel_std`` are no part of it)."""
    return {
        **{f"image_encoder.{k}": v for k, v in _image_encoder(sizes).items()},
        **{f"prompt_encoder.{k}": v for k, v in _prompt_encoder(sizes).items()},
        **{f"mask_decoder.{k}": v for k, v in _mask_decoder(sizes).items()},
    }


def _image_encoder(s: SamSizes) -> Shapes:
    shapes: Shapes = {
        "pos_embed": (1, s.grid, s.grid, s.hidden),
        "patch_embed.proj.weight": (s.hidden, 3, s.patch_size, s.patch_size),
        "patch_embed.proj.bias": (s.hidden,),
        "neck.0.weight": (s.prompt, s.hidden, 1, 1),
        **_norm("neck.1", s.prompt),
        "neck.2.weight": (s.prompt, s.prompt, 3, 3),
        **_norm("neck.3", s.prompt),
    }
    for i in range(s.layers):
        span = s.grid if i in s.global_layers else s.window
        block = f"blocks.{i}"
        shapes |= _norm(f"{block}.norm1", s.hidden) | _norm(f"{block}.norm2", s.hidden)
        shapes |= _linear(f"{block}.attn.qkv", s.hidden, 3 * s.hidden) | _linear(
            f"{block}.attn.proj", s.hidden, s.hidden
        )
        shapes |= {f"{block}.attn.rel_pos_{axis}": (2 * span - 1, s.hidden // s.heads) for axis in "hw"}
        shapes |= _linear(f"{block}.mlp.lin1", s.hidden, s.mlp) | _linear(f"{block}.mlp.lin2", s.mlp, s.hidden)
    return shapes


def _prompt_encoder(s: SamSizes) -> Shapes:
    quarter = s.mask_channels // 4
    shapes: Shapes = {"pe_layer.positional_encoding_gaussian_matrix": (2, s.prompt // 2)}
    shapes |= {f"point_embeddings.{i}.weight": (1, s.prompt) for i in range(4)}
    shapes |= {f"{name}.weight": (1, s.prompt) for name in ("not_a_point_embed", "no_mask_embed")}
    return shapes | {
        "mask_downscaling.0.weight": (quarter, 1, 2, 2),
        "mask_downscaling.0.bias": (quarter,),
        **_norm("mask_downscaling.1", quarter),
        "mask_downscaling.3.weight": (s.mask_channels, quarter, 2, 2),
        "mask_downscaling.3.bias": (s.mask_channels,),
        **_norm("mask_downscaling.4", s.mask_channels),
        "mask_downscaling.6.weight": (s.prompt, s.mask_channels, 1, 1),
        "mask_downscaling.6.bias": (s.prompt,),
    }


def _mask_decoder(s: SamSizes) -> Shapes:
    inner = s.prompt // s.decoder_downsample
    shapes: Shapes = {"iou_token.weight": (1, s.prompt), "mask_tokens.weight": (s.multimask + 1, s.prompt)}
    for i in range(s.decoder_layers):
        layer = f"transformer.layers.{i}"
        shapes |= _attention(f"{layer}.self_attn", s.prompt, s.prompt)
        shapes |= _attention(f"{layer}.cross_attn_token_to_image", s.prompt, inner)
        shapes |= _attention(f"{layer}.cross_attn_image_to_token", s.prompt, inner)
        for n in range(1, 5):
            shapes |= _norm(f"{layer}.norm{n}", s.prompt)
        shapes |= _linear(f"{layer}.mlp.lin1", s.prompt, s.decoder_mlp)
        shapes |= _linear(f"{layer}.mlp.lin2", s.decoder_mlp, s.prompt)
    shapes |= _attention("transformer.final_attn_token_to_image", s.prompt, inner)
    shapes |= _norm("transformer.norm_final_attn", s.prompt)
    quarter, eighth = s.prompt // 4, s.prompt // 8
    shapes |= {
        "output_upscaling.0.weight": (s.prompt, quarter, 2, 2),
        "output_upscaling.0.bias": (quarter,),
        **_norm("output_upscaling.1", quarter),
        "output_upscaling.3.weight": (quarter, eighth, 2, 2),
        "output_upscaling.3.bias": (eighth,),
    }
    for i in range(s.multimask + 1):
        shapes |= _mlp(f"output_hypernetworks_mlps.{i}", s.prompt, s.prompt, eighth, 3)
    return shapes | _mlp("iou_prediction_head", s.prompt, s.iou_hidden, s.multimask + 1, s.iou_layers)


def _mlp(name: str, width: int, hidden: int, out: int, depth: int) -> Shapes:
    widths = [width, *[hidden] * (depth - 1), out]
    shapes: Shapes = {}
    for i in range(depth):
        shapes |= _linear(f"{name}.layers.{i}", widths[i], widths[i + 1])
    return shapes


def _attention(name: str, width: int, inner: int) -> Shapes:
    shapes: Shapes = {}
    for part in ("q_proj", "k_proj", "v_proj"):
        shapes |= _linear(f"{name}.{part}", width, inner)
    return shapes | _linear(f"{name}.out_proj", inner, width)


def _linear(name: str, width: int, out: int) -> Shapes:
    return {f"{name}.weight": (out, width), f"{name}.bias": (out,)}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}
