"""What the tests of VideoLISA share: the recorded checkpoint, the clips of the recorded cases, tolerances."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path

import numpy as np
import torch

from instructseg.recipes.videolisa.checkpoint import Loaded, load_weights
from instructseg.recipes.videolisa.configuration import VideoLISAOptions
from instructseg.recipes.videolisa.modeling import VideoLISA

from .golden import Golden

ATOL = 5e-5  # states, embeddings and mask logits; 1e-5 is usual
EXACT = 0.0
LOSS_RTOL = 1e-5
GRADIENT = 1e-4  # of a gradient's largest entry

# The tensors every recorded clip or still image has.
CLIP = ("frames?", "input_ids", "last_hidden_state", "seg_embeddings", "low_res_masks", "pred_masks")
Tensors = dict[str, torch.Tensor]


def close(found: torch.Tensor, expected: torch.Tensor, atol: float = ATOL, name: str = "") -> None:
    assert found.shape == expected.shape, f"{name}: {tuple(found.shape)} for {tuple(expected.shape)}"
    torch.testing.assert_close(found.float(), expected.float(), atol=atol, rtol=0, msg=lambda m: f"{name}: {m}")


@dataclasses.dataclass(frozen=True)
class Tiny:
    """The recorded checkpoint, loaded once a run, and the sizes that no published file names."""

    loaded: Loaded
    folder: Path
    seg_id: int

    @property
    def model(self) -> VideoLISA:
        return self.loaded.model


@cache
def tiny(golden: Golden, dtype: torch.dtype = torch.float32) -> Tiny:
    (config,) = golden.json_files("model_type", "mm_vision_tower")
    (clip,) = golden.clip_folders(weights=True)
    sizes = golden.contents("seg_token_idx", "decoder_num_heads")[0]
    options = VideoLISAOptions(clip=str(clip), sam_decoder_heads=sizes["decoder_num_heads"])
    return Tiny(load_weights(config.parent, options, dtype), config.parent, sizes["seg_token_idx"])


@dataclasses.dataclass(frozen=True)
class RecordedClip:
    """images: ``(T, H, W, 3)`` uint8. sparse: frame numbers. dense: positions in ``sparse``."""

    images: np.ndarray
    sparse: list[int]
    dense: list[int]


def recorded_clip(tensors: Tensors) -> RecordedClip:
    if "frames" in tensors:
        sparse = tensors["sparse_indices"].tolist()
        dense = [i % len(sparse) for i in tensors["dense_indices"].tolist()]
        return RecordedClip(tensors["frames"].numpy(), sparse, dense)
    sparse, dense = tensors["num_frames_sparse"].item(), tensors["num_frames_dense"].item()
    return RecordedClip(tensors["frame"].numpy()[None], [0] * sparse, list(range(dense)))


def as_images(pixels: torch.Tensor) -> torch.Tensor:
    """``(F, 3, h, w)`` of pixels with or without leading axes."""
    return pixels.reshape(-1, *pixels.shape[-3:])
