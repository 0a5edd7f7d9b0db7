"""The two that the memory tracker's benchmark compares, with the same random weights: ours, and the inference session
of transformers. Nothing is read from a file."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np
import torch
from transformers import Sam2HieraDetConfig, Sam2VideoConfig, Sam2VideoModel, Sam2VisionConfig
from transformers.models.sam2_video.configuration_sam2_video import (
    Sam2VideoMaskDecoderConfig,
    Sam2VideoPromptEncoderConfig,
)
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

from instructseg.modules.sam2_memory import Sam2MemoryModel
from instructseg.modules.sam2_sizes import SIZES, sam2_config, with_image_size
from instructseg.tracking.memory import MemoryTracker

MINIATURE = 128  # pixels of the small model's square


def miniature() -> Sam2VideoConfig:
    """The blocks of the published tiny size, a twelfth as wide, with two layers of memory attention."""
    width = 128
    backbone = Sam2HieraDetConfig(
        hidden_size=8, embed_dim_per_stage=[8, 16, 32, 64], num_attention_heads_per_stage=[1, 2, 4, 8]
    )
    config = Sam2VideoConfig(
        vision_config=Sam2VisionConfig(
            backbone_config=backbone, backbone_channel_list=[64, 32, 16, 8], fpn_hidden_size=width
        ),
        prompt_encoder_config=Sam2VideoPromptEncoderConfig(hidden_size=width),
        mask_decoder_config=Sam2VideoMaskDecoderConfig(hidden_size=width),
        memory_attention_hidden_size=width,
        memory_attention_feed_forward_hidden_size=width,
        memory_attention_num_layers=2,
        memory_encoder_hidden_size=width,
        mask_downsampler_embed_dim=width,
        memory_fuser_embed_dim=width,
        memory_fuser_intermediate_dim=4 * width,
        enable_temporal_pos_encoding_for_object_pointers=True,
        enable_occlusion_spatial_embedding=True,
    )
    return with_image_size(config, MINIATURE)


def random_sam(config: Sam2VideoConfig, device: str = "cpu", seed: int = 8) -> Sam2VideoModel:
    """Random weights of a scale that lets every part count, and an object score that says that objects are there."""
    torch.manual_seed(seed)
    sam = Sam2VideoModel(config).eval().requires_grad_(False)
    for name, parameter in sam.named_parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=parameter[0].numel() ** -0.5)
        elif "norm" not in name:
            parameter.normal_(std=0.1)
    head = sam.mask_decoder.pred_obj_score_head.proj_out
    head.weight.mul_(0.1)
    head.bias.fill_(2.0)
    return sam.to(device)


def configuration(size: str) -> Sam2VideoConfig:
    """size: "miniature", or the edge of the square for the published tiny size, Hiera-T."""
    return miniature() if size == "miniature" else sam2_config(SIZES["tiny"], "2.1", int(size))


def film(edge: int, seed: int = 3) -> Iterator[np.ndarray]:
    """Images ``(edge, edge, 3)`` uint8 without end: coloured blocks that drift to the left, 32 different ones."""
    blocks = np.random.default_rng(seed).integers(0, 256, (edge // 16, edge // 8, 3), np.uint8)
    wide = np.kron(blocks, np.ones((16, 16, 1), np.uint8))  # twice as wide as the square
    return itertools.cycle([np.ascontiguousarray(wide[:, 2 * t : 2 * t + edge]) for t in range(32)])


def masks(edge: int, objects: int) -> list[np.ndarray]:
    """Squares ``(edge, edge)`` bool in different places."""
    found = []
    for index in range(objects):
        mask = np.zeros((edge, edge), bool)
        top, left = edge // 8 * (index % 4), edge // 4 * (index // 4)
        mask[top : top + edge // 3, left : left + edge // 3] = True
        found.append(mask)
    return found


class Ours:
    """The memory tracker on ``objects`` objects; every call is the next frame."""

    def __init__(self, sam: Sam2VideoModel, image: np.ndarray, given: list[np.ndarray], dtype: torch.dtype):
        model = Sam2MemoryModel(sam, session_pointer=True)  # as the session takes a mask's pointer
        self.tracker = MemoryTracker(model if dtype == torch.float32 else model.cast(dtype))
        features = self.tracker.encode(image)
        self.memories = [self.tracker.start(features, mask) for mask in given]

    def logits(self, image: np.ndarray) -> torch.Tensor:
        """``(objects, 4h, 4w)``."""
        decoded, self.memories = self.tracker.step_logits(self.tracker.encode(image), self.memories)
        return torch.cat([d.masks for d in decoded])

    def masks(self, image: np.ndarray) -> None:
        """As a user calls it, with masks in the size of the image."""
        _, self.memories = self.tracker.step(self.tracker.encode(image), self.memories)

    @property
    def nbytes(self) -> int:
        return sum(memory.nbytes for memory in self.memories)


class Session:
    """transformers' own tracking, in its streaming mode."""

    def __init__(self, sam: Sam2VideoModel, pixels: torch.Tensor, given: list[np.ndarray]):
        edge = sam.config.image_size
        self.sam = sam
        places = ("inference_device", "inference_state_device", "video_storage_device")  # all where it computes
        self.session = Sam2VideoInferenceSession(
            video_height=edge, video_width=edge, dtype=torch.float32, **dict.fromkeys(places, pixels.device)
        )
        for index, mask in enumerate(given):
            place = self.session.obj_id_to_idx(index + 1)
            self.session.add_mask_inputs(place, 0, torch.from_numpy(mask)[None, None].float())
            self.session.obj_with_new_inputs.append(index + 1)
        self.logits(pixels)

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        """``(objects, 4h, 4w)``. pixels: ``(1, 3, S, S)``."""
        with torch.inference_mode():
            return self.sam(inference_session=self.session, frame=pixels).pred_masks[:, 0]

    @property
    def nbytes(self) -> int:
        """Bytes of every tensor that the session holds."""
        storages: dict[int, int] = {}
        pending: list[object] = [vars(self.session), vars(self.session.cache)]
        while pending:
            value = pending.pop()
            if isinstance(value, torch.Tensor):
                storages[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
            elif isinstance(value, dict):
                pending += value.values()
            elif isinstance(value, (list, tuple)):
                pending += value
        return sum(storages.values())


@dataclasses.dataclass(frozen=True, eq=False)
class Pair:
    """Both sides at their first frame, with the same weights, and what they see next."""

    ours: Ours
    session: Session
    images: Iterator[np.ndarray]

    @staticmethod
    def begin(sam: Sam2VideoModel, objects: int) -> Pair:
        edge = sam.config.image_size
        images, given = film(edge), masks(edge, objects)
        first = next(images)
        ours = Ours(sam, first, given, torch.float32)
        return Pair(ours, Session(sam, ours.tracker.pixels(first), given), images)
