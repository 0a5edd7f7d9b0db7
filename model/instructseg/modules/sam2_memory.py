"""SAM 2's parts as plain functions of tensors (Ravi et al. 2024): image encoder, prompts, memory attention, mask
decoder, memory encoder. The modules are those of transformers' Sam2VideoModel; what joins them is here, without the
session object that keeps every frame.

Letters: B objects, S edge of the square input in pixels, C width of the maps (256 as published), h = w = S / 16,
M width of a memory (64 as published), N memories, P object pointers.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import nn
from transformers import Sam2VideoModel
from transformers.models.sam2_video.modeling_sam2_video import get_1d_sine_pe

from .sam2_attention import MemoryAttention
from .sam2_encoder import ImageEncoder

ABSENT_LOGIT = -1024.0  # mask logit of an object that is not visible


@dataclasses.dataclass(frozen=True, eq=False)
class ImageMaps:
    """Feature maps of B images: fine ``(B, C/8, 4h, 4w)``, middle ``(B, C/4, 2h, 2w)``, top ``(B, C, h, w)``."""

    fine: torch.Tensor
    middle: torch.Tensor
    top: torch.Tensor

    def image(self, index: int) -> ImageMaps:
        """One image of the batch, batch of one."""
        return ImageMaps(*(getattr(self, f.name)[index : index + 1] for f in dataclasses.fields(self)))

    def expand(self, objects: int) -> ImageMaps:
        """The maps of one image for several objects in it, without a copy."""
        return ImageMaps(*(getattr(self, f.name).expand(objects, -1, -1, -1) for f in dataclasses.fields(self)))

    def take(self, indices: torch.Tensor) -> ImageMaps:
        """One image of the batch for each index of ``(B,)`` int64."""
        return ImageMaps(*(getattr(self, f.name)[indices] for f in dataclasses.fields(self)))

    @staticmethod
    def join(maps: list[ImageMaps]) -> ImageMaps:
        return ImageMaps(*(torch.cat([getattr(m, f.name) for m in maps]) for f in dataclasses.fields(ImageMaps)))


@dataclasses.dataclass(frozen=True, eq=False)
class Prompt:
    """sparse: ``(B, n, C)`` tokens, dense: ``(B, C, h, w)``, multimask: choose among three masks by predicted IoU, as
    the model was trained to where a prompt says little (one click, or none)."""

    sparse: torch.Tensor
    dense: torch.Tensor
    multimask: bool


@dataclasses.dataclass(frozen=True, eq=False)
class DecodedMasks:
    """masks: ``(B, 4h, 4w)`` logits, ABSENT_LOGIT everywhere when the object is not visible. presence: ``(B,)`` logit
    that it is. quality: ``(B,)`` predicted IoU in [0, 1]. pointers: ``(B, C)`` object pointers."""

    masks: torch.Tensor
    presence: torch.Tensor
    quality: torch.Tensor
    pointers: torch.Tensor

    def row(self, index: int) -> DecodedMasks:
        """One object of the batch, batch of one."""
        return DecodedMasks(*(getattr(self, f.name)[index : index + 1] for f in dataclasses.fields(self)))


@dataclasses.dataclass(frozen=True, eq=False)
class MemoryBank:
    """What memory attention reads, ages in frames before the present one.

    memories: ``(B, N, h*w, M)``; memory_ages: ``(B, N)`` int64, 0 for a conditioning frame, whatever its real age.
    pointers: ``(B, P, C)``; pointer_ages: ``(B, P)`` float32.
    """

    memories: torch.Tensor
    memory_ages: torch.Tensor
    pointers: torch.Tensor
    pointer_ages: torch.Tensor


class Sam2MemoryModel(nn.Module):
    """Inference with the loaded weights of ``sam``; it must hold them before this is built, because position codes
    that never change are computed here once.

    ``session_pointer``: a mask prompt's object pointer from the best of three mask tokens, as transformers' session
    takes it, instead of the single-mask token of the original release.
    """

    def __init__(self, sam: Sam2VideoModel, session_pointer: bool = False):
        super().__init__()
        self.sam = sam.eval().requires_grad_(False)
        self.config = sam.config
        self.session_pointer = session_pointer
        self.image_size: int = sam.config.image_size
        self.cells: int = sam.backbone_feature_sizes[-1][0]
        with torch.no_grad():
            decoder = sam.get_image_wide_positional_embeddings()
            shape = (1, 1, self.cells, self.cells)
            image = sam.vision_encoder.neck.position_encoding(shape, decoder.device, torch.float32)
            memory = sam.memory_encoder.position_encoding(shape, decoder.device, torch.float32)
            self.encoder = ImageEncoder(sam.vision_encoder, sam.backbone_feature_sizes[0][0])
            self.attention = MemoryAttention(sam.memory_attention)
        self.register_buffer("decoder_positions", decoder, persistent=False)  # (1, C, h, w)
        # A tenth of them is what memory attention sees.
        self.register_buffer("image_positions", 0.1 * image.flatten(2).mT, persistent=False)  # (1, h*w, C)
        self.register_buffer("memory_positions", memory.flatten(2).mT.clone(), persistent=False)  # (1, h*w, M)

    @property
    def device(self) -> torch.device:
        return self.decoder_positions.device

    @property
    def dtype(self) -> torch.dtype:
        return self.decoder_positions.dtype

    def cast(self, dtype: torch.dtype) -> Sam2MemoryModel:
        """All weights in ``dtype``, except the matrix that encodes clicked pixels: eight bits would blur them."""
        clicks, attention = self.sam.prompt_encoder.shared_embedding, self.attention
        matrix, cos, sin = clicks.positional_embedding.float(), attention.cos, attention.sin
        self.to(dtype)
        clicks.positional_embedding, attention.cos, attention.sin = matrix, cos, sin
        return self

    def encode_image(self, pixels: torch.Tensor) -> ImageMaps:
        """pixels: ``(B, 3, S, S)`` normalised RGB."""
        fine, middle, top = self.encoder(pixels.to(self.dtype))
        decoder = self.sam.mask_decoder
        return ImageMaps(decoder.conv_s0(fine), decoder.conv_s1(middle), top)

    def no_prompt(self, objects: int) -> Prompt:
        """What the decoder gets on a frame where the memory alone knows the object."""
        sparse = self.sam.prompt_encoder.not_a_point_embed.weight.expand(objects, 2, -1)  # an empty click, and the end
        config = self.config
        multimask = config.multimask_output_in_sam and config.multimask_output_for_tracking
        return Prompt(sparse, self._no_mask(objects), multimask and config.multimask_min_pt_num == 0)

    def prompt_points(self, points: torch.Tensor, labels: torch.Tensor) -> Prompt:
        """points: ``(1, n, 2)`` x, y in pixels of the S x S input. labels: ``(1, n)`` int, 1 object, 0 background,
        2 and 3 the top left and bottom right corner of a box."""
        sparse, _ = self.sam.prompt_encoder(points[:, None].float(), labels[:, None], None, None)  # (1, 1, n + 1, C)
        fits = self.config.multimask_min_pt_num <= labels.shape[1] <= self.config.multimask_max_pt_num
        multimask = self.config.multimask_output_in_sam and fits
        return Prompt(sparse[:, 0].to(self.dtype), self._no_mask(1), multimask)

    def prompt_embedding(self, embedding: torch.Tensor) -> Prompt:
        """embedding: ``(B, n, C)`` tokens in the place of encoded clicks, such as the state of a language model."""
        return Prompt(embedding.to(self.dtype), self._no_mask(len(embedding)), multimask=False)

    def prompt_mask(self, mask: torch.Tensor) -> Prompt:
        """mask: ``(B, 1, S, S)`` of 0 and 1. For the object pointer alone: the mask itself is the answer."""
        logits = self.sam.mask_downsample(mask.to(self.dtype))  # (B, 1, S/4, S/4)
        dense = self.sam.prompt_encoder.mask_embed(logits)
        return dataclasses.replace(self.no_prompt(len(mask)), dense=dense, multimask=self.session_pointer)

    def without_memory(self, top: torch.Tensor) -> torch.Tensor:
        """The top map ``(B, C, h, w)`` as the decoder expects it of a frame that starts a track."""
        return top + self.sam.no_memory_embedding.reshape(1, -1, 1, 1)

    def step(
        self, maps: ImageMaps, bank: MemoryBank, owners: torch.Tensor | None = None
    ) -> tuple[DecodedMasks, torch.Tensor]:
        """Every object on its next frame: what is found, and memories ``(B, h*w, M)``. maps: of the image that all
        objects are in; with owners, ``(B,)`` int64, of several images, and which one each object is in."""
        objects = len(bank.memories)
        top = self.attend(maps.top, bank, owners)
        own = maps.expand(objects) if owners is None else maps.take(owners)
        found = self.decode(own, top, self.no_prompt(objects))
        probabilities = self.full_size(found.masks).sigmoid()
        seen = maps.top if owners is None else own.top
        return found, self.remember(seen, probabilities, found.presence > 0)

    def attend(self, top: torch.Tensor, bank: MemoryBank, owners: torch.Tensor | None = None) -> torch.Tensor:
        """The top map with what the memories say about each object: ``(B, C, h, w)``. top: ``(1, C, h, w)`` for all
        objects; with owners, ``(B,)``, one for each image: what is the same for all objects in it is computed once."""
        sam, (objects, _, _, size) = self.sam, bank.memories.shape
        ages = (bank.memory_ages - 1) % sam.num_maskmem  # conditioning frames, age 0, have the last row
        times = sam.memory_temporal_positional_encoding[ages].reshape(objects, -1, 1, size)  # (B, N, 1, M)
        memory = bank.memories.to(self.dtype)  # (B, N, h*w, M)
        dated = memory + self.memory_positions + times
        splits = sam.hidden_dim // size  # a pointer is as wide as several memory tokens
        pointers = bank.pointers.to(self.dtype).reshape(objects, -1, size)  # (B, P*splits, M)
        pointer_times = self._pointer_times(bank.pointer_ages).repeat_interleave(splits, dim=1)
        attended = self.attention(
            top.flatten(2).mT + self.image_positions,  # (images, h*w, C)
            torch.cat((memory.flatten(1, 2), pointers), 1),  # (B, N*h*w + P*splits, M)
            torch.cat((dated.flatten(1, 2), pointers + pointer_times), 1),
            pointers.shape[1],
            owners,
        )
        return attended.mT.unflatten(2, top.shape[2:])

    def decode(self, maps: ImageMaps, top: torch.Tensor, prompt: Prompt) -> DecodedMasks:
        """Masks from the fine maps, the top map with or without memory, and a prompt."""
        objects = len(top)
        logits, quality, tokens, presence = self.sam.mask_decoder(
            image_embeddings=top,
            image_positional_embeddings=self.decoder_positions.expand(objects, -1, -1, -1),
            sparse_prompt_embeddings=prompt.sparse[:, None],  # one prompt an image
            dense_prompt_embeddings=prompt.dense,
            multimask_output=prompt.multimask,
            high_resolution_features=[maps.fine, maps.middle],
        )
        logits, quality, tokens, presence = logits[:, 0], quality[:, 0], tokens[:, 0], presence[:, 0, 0]
        best = quality.argmax(-1)  # (B,), of one or of three
        each = torch.arange(objects, device=best.device)
        visible = presence > 0
        masks = torch.where(visible[:, None, None], logits[each, best], ABSENT_LOGIT)
        pointers = self._pointers_of(tokens[each, best.clamp(max=tokens.shape[1] - 1)], visible)
        return DecodedMasks(masks, presence, quality[each, best], pointers)

    def remember(self, top: torch.Tensor, probabilities: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """Memories ``(B, h*w, M)`` of a frame. top: ``(B or 1, C, h, w)`` without memory. probabilities:
        ``(B, 1, S, S)`` of the object, 0 or 1 where somebody gave the mask. visible: ``(B,)`` bool."""
        encoder, config = self.sam.memory_encoder, self.config
        scaled = probabilities * config.sigmoid_scale_for_mem_enc + config.sigmoid_bias_for_mem_enc
        fused = encoder.feature_projection(top) + self._shrink(scaled.to(self.dtype))
        memory = encoder.projection(encoder.memory_fuser(fused)).flatten(2).mT  # (B, h*w, M)
        occluded = self.sam.occlusion_spatial_embedding_parameter
        if occluded is not None:
            memory = memory + torch.where(visible, 0.0, 1.0).to(memory.dtype)[:, None, None] * occluded
        return memory

    def full_size(self, masks: torch.Tensor) -> torch.Tensor:
        """Mask logits ``(B, 4h, 4w)`` at the size of the input: ``(B, 1, S, S)`` float32."""
        size = (self.image_size, self.image_size)
        return F.interpolate(masks[:, None].float(), size, mode="bilinear", align_corners=False)

    def _shrink(self, masks: torch.Tensor) -> torch.Tensor:
        """``(B, C, h, w)`` of masks ``(B, 1, S, S)``: the memory encoder's mask downsampler."""
        downsampler = self.sam.memory_encoder.mask_downsampler
        x = masks
        for layer in downsampler.layers:
            x = layer.activation(_norm_of_few(layer.conv(x), layer.layer_norm))
        return downsampler.final_conv(x)

    def _no_mask(self, objects: int) -> torch.Tensor:
        empty = self.sam.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        return empty.expand(objects, -1, self.cells, self.cells)

    def _pointers_of(self, tokens: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """``(B, C)`` from the tokens of the chosen masks; an object out of sight has a pointer that says so."""
        return torch.where(visible[:, None], self.sam.object_pointer_proj(tokens), self.sam.no_object_pointer)

    def _pointer_times(self, ages: torch.Tensor) -> torch.Tensor:
        """Codes ``(B, P, M)`` of the pointers' ages; zero in SAM 2.0, which does not tell them apart."""
        if not self.config.enable_temporal_pos_encoding_for_object_pointers:
            return torch.zeros(*ages.shape, self.sam.mem_dim, device=ages.device, dtype=self.dtype)
        share = ages / (self.config.max_object_pointers_in_encoder - 1)
        codes = get_1d_sine_pe(share, dim=self.sam.hidden_dim).to(self.dtype)  # (B, P, C)
        return self.sam.temporal_positional_encoding_projection_layer(codes)


def _norm_of_few(x: torch.Tensor, norm: nn.LayerNorm) -> torch.Tensor:
    """``norm`` over the channels of ``(B, C, h, w)``. With 4 or 16 of them on large maps the kernel for rows, which
    gets a row for every pixel, takes up to ten times as long."""
    centred = x.float() - x.float().mean(1, keepdim=True)
    scale = (centred.square().mean(1, keepdim=True) + norm.eps).rsqrt()
    weight, bias = (p.float()[:, None, None] for p in (norm.weight, norm.bias))
    return torch.addcmul(bias, centred * scale, weight).to(x.dtype)
