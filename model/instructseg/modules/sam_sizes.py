"""Sizes of a Segment Anything model: given, or read off the tensors of an original checkpoint."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from transformers import SamConfig, SamMaskDecoderConfig, SamPromptEncoderConfig, SamVisionConfig

from ..core import BadInput


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


def _count(shapes: Mapping[str, tuple[int, ...]], pattern: str) -> int:
    """How many layers there are whose key matches ``pattern``, by their highest index."""
    found = [int(match[1]) for name in shapes if (match := re.fullmatch(pattern, name))]
    if not found:
        raise BadInput(f"the checkpoint holds no key like {pattern!r}: SAM's weights are missing from it")
    return max(found) + 1
