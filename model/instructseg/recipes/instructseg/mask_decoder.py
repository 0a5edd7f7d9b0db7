"""From an image and the language model's queries to masks with scores: Swin, and Mask2Former's two decoders.

transformers' own modules throughout, with InstructSeg's three deviations from Mask2Former: convolutions with bias and
a ReLU more on the finest level of the pixel decoder; queries that begin as states of the language model; no classes,
but a score that is a query's agreement with the embedding of what is asked for.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import nn
from transformers import Mask2FormerConfig, SwinBackbone, SwinConfig
from transformers.models.mask2former.modeling_mask2former import Mask2FormerPixelDecoder, Mask2FormerTransformerModule

from .configuration import MaskSizes

LEVELS = 3  # feature maps that the mask decoder reads in turn, coarsest first


@dataclasses.dataclass(frozen=True, eq=False)
class ImageFeatures:
    """backbone: Swin's four maps, finest first; mask_features ``(B, mask width, h, w)`` at a quarter of the image;
    levels: ``(B, width, h, w)`` at 1/32, 1/16 and 1/8."""

    backbone: tuple[torch.Tensor, ...]
    mask_features: torch.Tensor
    levels: tuple[torch.Tensor, ...]

    def repeat(self, count: int) -> ImageFeatures:
        """The features of one image, seen by ``count`` instructions (no copies)."""
        return ImageFeatures(
            tuple(t.expand(count, -1, -1, -1) for t in self.backbone),
            self.mask_features.expand(count, -1, -1, -1),
            tuple(t.expand(count, -1, -1, -1) for t in self.levels),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Prediction:
    """Of Q queries: mask logits ``(B, Q, h, w)`` at a quarter of the image, score logits ``(B, Q, 1)``."""

    masks: torch.Tensor
    scores: torch.Tensor


class ScoreProjection(nn.Module):
    """A query's state to where it is compared with the embedding of what is asked for: ``(..., width)`` to the same."""

    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(width, width), nn.Linear(width, width)])

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.layers[1](torch.relu(self.layers[0](states)))


class ImageEncoder(nn.Module):
    """Swin, and Mask2Former's pixel decoder."""

    def __init__(self, sizes: MaskSizes):
        super().__init__()
        self.backbone = SwinBackbone(_swin(sizes))
        self.backbone.swin.layernorm = nn.Identity()  # never evaluated: every stage has a norm of its own
        self.decoder = pixel_decoder(sizes)

    def forward(self, pixels: torch.Tensor) -> ImageFeatures:
        """``(B, 3, S, S)`` normalised pixels."""
        maps = self.backbone(pixels.to(self.backbone.dtype)).feature_maps
        maps = tuple(m.to(self.decoder.level_embed.dtype) for m in maps)  # deformable sampling stays in float32
        decoded = self.decoder(list(maps))
        return ImageFeatures(maps, decoded.mask_features, tuple(decoded.multi_scale_features))


def pixel_decoder(sizes: MaskSizes) -> Mask2FormerPixelDecoder:
    """Mask2Former's, whose finest level has convolutions with bias here, and a ReLU after the lateral one.

    Area that pads the image is treated as image: no mask reaches the deformable attention.
    """
    decoder = Mask2FormerPixelDecoder(_mask2former(sizes), list(sizes.channels))
    nn.init.normal_(decoder.level_embed)
    lateral, output = decoder.adapter_1, decoder.layer_1
    lateral[0] = nn.Conv2d(sizes.channels[0], sizes.width, 1)
    lateral.append(nn.ReLU())
    output[0] = nn.Conv2d(sizes.width, sizes.width, 3, padding=1)
    return decoder


class MaskDecoder(nn.Module):
    """Mask2Former's masked-attention decoder on the language model's queries, scored against an embedding."""

    def __init__(self, sizes: MaskSizes):
        super().__init__()
        self.transformer = Mask2FormerTransformerModule(sizes.width, _mask2former(sizes))
        del self.transformer.queries_features  # the language model's states take their place
        self.score = ScoreProjection(sizes.width)

    def forward(self, queries: torch.Tensor, embedding: torch.Tensor, features: ImageFeatures) -> list[Prediction]:
        """queries ``(B, Q, width)``, embedding ``(B, 1, width)`` of what is asked for: a prediction from the queries as
        they come, then one after every layer; the last one is the result."""
        module = self.transformer
        maps, places = [], []
        for level, f in enumerate(features.levels):
            place = module.position_embedder(f.shape, f.device, f.dtype)
            places.append(place.flatten(2).permute(2, 0, 1))  # (h * w, 1, width)
            mapped = f.flatten(2) + module.level_embed.weight[level][None, :, None]
            maps.append(mapped.permute(2, 0, 1))  # (h * w, B, width)
        decoded = module.decoder(
            inputs_embeds=queries.transpose(0, 1),  # (Q, B, width)
            multi_stage_positional_embeddings=places,
            pixel_embeddings=features.mask_features,
            encoder_hidden_states=maps,
            query_position_embeddings=module.queries_embedder.weight[:, None].expand(-1, len(queries), -1),
            feature_size_list=[f.shape[-2:] for f in features.levels],
            output_hidden_states=False,
            output_attentions=False,
            return_dict=True,
        )
        predictions = []
        for masks, states in zip(decoded.masks_queries_logits, decoded.intermediate_hidden_states, strict=True):
            scores = self.score(states.transpose(0, 1)) @ embedding.transpose(1, 2)  # (B, Q, 1)
            predictions.append(Prediction(masks, scores))
        return predictions


def _swin(sizes: MaskSizes) -> SwinConfig:
    return SwinConfig(
        image_size=sizes.image_size,
        embed_dim=sizes.swin_width,
        depths=list(sizes.swin_depths),
        num_heads=list(sizes.swin_heads),
        window_size=sizes.swin_window,
        mlp_ratio=sizes.swin_mlp_ratio,
        drop_path_rate=0.3,
        out_features=[f"stage{i + 1}" for i in range(len(sizes.swin_depths))],
    )


def _mask2former(sizes: MaskSizes) -> Mask2FormerConfig:
    return Mask2FormerConfig(
        backbone_config=_swin(sizes),  # required; a config of its own, because building may change it
        feature_size=sizes.width,
        mask_feature_size=sizes.mask_width,
        hidden_dim=sizes.width,
        encoder_feedforward_dim=sizes.pixel_feed_forward,
        encoder_layers=sizes.pixel_layers,
        decoder_layers=sizes.layers + 1,
        num_attention_heads=sizes.heads,
        dim_feedforward=sizes.feed_forward,
        num_queries=sizes.queries,
        dropout=0.0,
        pre_norm=False,
    )
