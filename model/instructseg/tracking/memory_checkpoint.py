"""A memory tracker from a SAM 2 checkpoint: an original ``.pt`` or a folder that transformers wrote."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import Sam2VideoConfig, Sam2VideoModel

from ..checkpoints import empty_weights, load_parts, open_tensors, read_json, resolve_checkpoint
from ..checkpoints.views import Tensors
from ..core import BadInput
from ..modules.sam2_keys import ORIGINAL, StackedPoints, is_original, transformers_part
from ..modules.sam2_memory import Sam2MemoryModel
from ..modules.sam2_sizes import config_from_json, sam2_config, size_of, with_image_size
from .memory import MemoryTracker


def load_memory_tracker(
    checkpoint: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    image_size: int | None = None,
) -> MemoryTracker:
    """checkpoint: a ``.pt`` or ``.safetensors`` file, a folder with one, a folder in the layout of transformers, or a
    hub id such as ``facebook/sam2.1-hiera-tiny``. dtype: of the weights; None takes bfloat16 on a GPU, else float32.
    image_size: edge of the square input in pixels, None for the checkpoint's own (1024).

    Every key is accounted for. Raises BadInput that names the file, and loads nothing, when anything is wrong.
    """
    device = torch.device(device)
    path = resolve_checkpoint(checkpoint, allow_file=True)
    tensors: Tensors = open_tensors(path)
    original = is_original(tensors)
    config = _config(path, tensors, original)
    if image_size is not None:
        config = with_image_size(config, image_size)
    with empty_weights():
        sam = Sam2VideoModel(config)
    if original:
        tensors = StackedPoints(tensors)
    part = ORIGINAL if original else transformers_part(tensors)
    report = load_parts(sam, tensors, (part,), dtype=torch.float32)
    model = Sam2MemoryModel(sam).to(device)
    model = model.cast(dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32))
    return MemoryTracker(model, report=report)


def _config(path: Path, tensors: Tensors, original: bool) -> Sam2VideoConfig:
    """From config.json; without one that fits, from what the shapes of an original checkpoint tell."""
    described = (path if path.is_dir() else path.parent) / "config.json"
    content = read_json(described) if described.is_file() or not original else {}
    if not isinstance(content, dict):
        raise BadInput(f"{described} is no JSON object; it does not describe a model")
    if original and content.get("model_type") != "sam2_video":  # the release has none; another's says nothing
        return sam2_config(*size_of(tensors.shapes))
    return config_from_json(content, described)
