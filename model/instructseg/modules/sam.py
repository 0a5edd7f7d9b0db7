"""Segment Anything prompted by embeddings of a language model: transformers' SAM parts, without point and box prompts.

Sizes, key names of the original checkpoints, and the two calls that the LISA family makes: an image embedding once a
frame, and one mask for every prompt embedding.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping

import torch
from torch import nn
from transformers import SamConfig, SamMaskDecoderConfig, SamModel, SamPromptEncoderConfig, SamVisionConfig

from ..checkpoints import Part
from ..core import BadInput

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


@dataclasses.dataclass(frozen=True)
class SamSizes:
    """Sizes of a Segment Anything model; the defaults are ViT-H, which every published checkpoint uses."""

    image_size: int = 1024
    patch_size: int = 16
    hidden: int = 1280
    layers: int = 32
    heads: int = 16
    mlp: int = 5120
    window: int = 14
    global_layers: tuple[int, ...] = (7, 15, 23, 31)
    prompt: int = 256  # width of image embeddings and prompts
    mask_channels: int = 16
    decoder_layers: int = 2
    decoder_heads: int = 8
    decoder_mlp: int = 2048
    decoder_downsample: int = 2
    iou_hidden: int = 256
    iou_layers: int = 3
    multimask: int = 3

    @classmethod
    def vit_h(cls) -> SamSizes:
        return cls()

    @property
    def grid(self) -> int:
        """Cells of an image embedding along one side."""
        return self.image_size // self.patch_size

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, tuple[int, ...]], decoder_heads: int = 8) -> SamSizes:
        """Sizes read off the tensors of an original checkpoint (names without the model's prefix).

        Everything but the decoder's number of heads can be: 8 in every published one. Raises BadInput.
        """

        def shape(name: str) -> tuple[int, ...]:
            if name not in shapes:
                raise BadInput(f"the checkpoint holds no {name!r}: SAM's weights are missing from it")
            return shapes[name]

        hidden, _, patch, _ = shape("image_encoder.patch_embed.proj.weight")
        grid = shape("image_encoder.pos_embed")[1]
        layers = _count(shapes, r"image_encoder\.blocks\.(\d+)\.norm1\.weight")
        spans = [
            (shape(f"image_encoder.blocks.{i}.attn.rel_pos_h")[0] + 1) // 2 for i in range(layers)
        ]  # window or whole grid
        windows = sorted({span for span in spans if span != grid})
        if len(windows) > 1:
            raise BadInput(f"SAM's attention windows differ between layers: {windows}; one size is supported")
        prompt = shape("image_encoder.neck.0.weight")[0]
        if prompt % decoder_heads:
            raise BadInput(f"sam_decoder_heads must divide SAM's prompt width {prompt}; got {decoder_heads}")
        attention = shape("mask_decoder.transformer.layers.0.cross_attn_token_to_image.q_proj.weight")
        return cls(
            image_size=grid * patch,
            patch_size=patch,
            hidden=hidden,
            layers=layers,
            heads=hidden // shape("image_encoder.blocks.0.attn.rel_pos_h")[1],
            mlp=shape("image_encoder.blocks.0.mlp.lin1.weight")[0],
            window=windows[0] if windows else 0,
            global_layers=tuple(i for i, span in enumerate(spans) if span == grid),
            prompt=prompt,
            mask_channels=shape("prompt_encoder.mask_downscaling.3.weight")[0],
            decoder_layers=_count(shapes, r"mask_decoder\.transformer\.layers\.(\d+)\.norm1\.weight"),
            decoder_heads=decoder_heads,
            decoder_mlp=shape("mask_decoder.transformer.layers.0.mlp.lin1.weight")[0],
            decoder_downsample=prompt // attention[0],
            iou_hidden=shape("mask_decoder.iou_prediction_head.layers.0.weight")[0],
            iou_layers=_count(shapes, r"mask_decoder\.iou_prediction_head\.layers\.(\d+)\.weight"),
            multimask=shape("mask_decoder.mask_tokens.weight")[0] - 1,
        )

    def config(self) -> SamConfig:
        """transformers' configuration of the same sizes."""
        vision = SamVisionConfig(
            hidden_size=self.hidden,
            output_channels=self.prompt,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            image_size=self.image_size,
            patch_size=self.patch_size,
            window_size=self.window,
            global_attn_indexes=list(self.global_layers),
            num_pos_feats=self.prompt // 2,
            mlp_dim=self.mlp,
            mlp_ratio=self.mlp / self.hidden,
        )
        prompt = SamPromptEncoderConfig(
            hidden_size=self.prompt,
            image_size=self.image_size,
            patch_size=self.patch_size,
            mask_input_channels=self.mask_channels,
        )
        decoder = SamMaskDecoderConfig(
            hidden_size=self.prompt,
            mlp_dim=self.decoder_mlp,
            num_hidden_layers=self.decoder_layers,
            num_attention_heads=self.decoder_heads,
            attention_downsample_rate=self.decoder_downsample,
            num_multimask_outputs=self.multimask,
            iou_head_depth=self.iou_layers,
            iou_head_hidden_dim=self.iou_hidden,
            layer_norm_eps=1e-5,  # original SAM's two-way blocks; transformers' default of 1e-6 moves mask logits
        )
        return SamConfig(
            vision_config=vision.to_dict(),
            prompt_encoder_config=prompt.to_dict(),
            mask_decoder_config=decoder.to_dict(),
        )


class TokenPromptedSam(nn.Module):
    """A ``SamModel`` (attribute ``sam``) whose prompts are embeddings."""

    def __init__(self, sizes: SamSizes):
        super().__init__()
        self.sizes = sizes
        self.sam = SamModel(sizes.config())

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Image embeddings ``(B, C, h, w)`` of normalised, padded pixels ``(B, 3, S, S)``."""
        return self.sam.vision_encoder(pixels).last_hidden_state

    def decode(
        self, image_embeddings: torch.Tensor, prompts: torch.Tensor, multimask: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Masks for ``n`` prompts of ``k`` tokens on each of B images.

        image_embeddings: ``(B, C, h, w)``; prompts: ``(B, n, k, C)``. Returns low-resolution logits ``(B, n, 4h, 4w)``
        of mask token 0 and its IoU estimate ``(B, n)``; with ``multimask`` those of the other tokens,
        ``(B, n, m, 4h, 4w)`` and ``(B, n, m)``. No prompt gives no mask.
        """
        batch, n = prompts.shape[:2]
        h, w = image_embeddings.shape[-2:]
        if n == 0:
            shape = (batch, 0, self.sizes.multimask, 4 * h, 4 * w) if multimask else (batch, 0, 4 * h, 4 * w)
            empty = image_embeddings.new_zeros(shape)
            return empty, empty.new_zeros(shape[:-2])
        dense = self.sam.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(batch, -1, h, w)
        outputs = self.sam.mask_decoder(
            image_embeddings=image_embeddings,
            image_positional_embeddings=self.positions(image_embeddings),
            sparse_prompt_embeddings=prompts.to(image_embeddings.dtype),
            dense_prompt_embeddings=dense.to(image_embeddings.dtype),
            multimask_output=multimask,
        )
        masks, iou = outputs[0], outputs[1]  # (B, n, m, 4h, 4w), (B, n, m)
        return (masks, iou) if multimask else (masks[:, :, 0], iou[:, :, 0])

    def positions(self, image_embeddings: torch.Tensor) -> torch.Tensor:
        """The image-wide positional encoding ``(B, C, h, w)``."""
        encoding = self.sam.get_image_wide_positional_embeddings()  # (1, C, h, w)
        return encoding.to(image_embeddings.dtype).expand(len(image_embeddings), -1, -1, -1)


def published_sam_shapes(sizes: SamSizes) -> dict[str, tuple[int, ...]]:
    """Names and shapes of an original SAM checkpoint of these sizes."""
    from .sam_shapes import shapes_of

    return shapes_of(sizes)


def _count(shapes: Mapping[str, tuple[int, ...]], pattern: str) -> int:
    """How many layers there are whose key matches ``pattern``, by their highest index."""
    found = [int(match[1]) for name in shapes if (match := re.fullmatch(pattern, name))]
    if not found:
        raise BadInput(f"the checkpoint holds no key like {pattern!r}: SAM's weights are missing from it")
    return max(found) + 1


def square_patches(count: int) -> int:
    """Cells along one side of a square of ``count`` patches."""
    side = math.isqrt(count)
    if side * side != count:
        raise BadInput(f"{count} patches do not form a square")
    return side
