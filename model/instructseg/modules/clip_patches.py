"""CLIP's patch features as LLaVA-type models use them: an inner layer's states without the class token."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from ..checkpoints import Ignored, LoadReport, Part, load_parts, open_tensors, read_json, resolve_checkpoint
from ..core import BadInput

CLIP_IGNORED = (
    Ignored(r"(.*\.)?position_ids", "position numbers, computed anew"),
    Ignored(
        r"text_model\..*|text_projection\..*|visual_projection\..*|logit_scale", "CLIP's text half and projections"
    ),
)


class ClipPatches(nn.Module):
    """Patch features ``(N, P, C)`` of normalised pixels ``(N, 3, s, s)``."""

    def __init__(self, config: CLIPVisionConfig, select_layer: int = -2):
        super().__init__()
        if not -config.num_hidden_layers <= select_layer <= config.num_hidden_layers:
            raise BadInput(
                f"mm_vision_select_layer {select_layer} of config.json is outside CLIP's {config.num_hidden_layers} "
                "layers (published: -2)"
            )
        self.clip = CLIPVisionModel(config)
        self.select_layer = select_layer

    @property
    def image_size(self) -> int:
        return self.clip.config.image_size

    @property
    def num_patches(self) -> int:
        return (self.clip.config.image_size // self.clip.config.patch_size) ** 2

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        states = self.clip(pixels, output_hidden_states=True).hidden_states[self.select_layer]
        return states[:, 1:]  # (N, P, C), the class token dropped


def clip_part(source: str, target: str) -> Part:
    """The conversion of ``source`` + ``vision_model.*`` to a :class:`ClipPatches` under ``target``."""
    return Part(source + "vision_model.", target + "clip.")


def clip_config(folder: Path) -> CLIPVisionConfig:
    """The vision half of a CLIP folder's ``config.json``. Raises BadInput."""
    path = folder / "config.json"
    values = read_json(path)
    vision = values.get("vision_config", values) if isinstance(values, dict) else None
    if not isinstance(vision, dict):
        raise BadInput(f"{path} is no configuration of CLIP")
    if "patch_size" not in vision or "image_size" not in vision:
        raise BadInput(f"{path} is no configuration of a CLIP vision tower: it has no patch_size")
    known = {k: v for k, v in vision.items() if k not in ("architectures", "model_type", "transformers_version",
        "torch_dtype", "dtype")}  # fmt: skip
    for name in ("image_size", "patch_size", "hidden_size", "num_hidden_layers", "num_attention_heads"):
        if name in known and not (type(known[name]) is int and known[name] > 0):
            raise BadInput(f"{path}: {name} must be a whole number above 0; got {known[name]!r}")
    try:
        return CLIPVisionConfig(**known)
    except Exception as error:  # strict validation raises several kinds
        raise BadInput(f"{path} does not describe a CLIP vision tower: {error}") from error


# (image size, patch size) of the towers that published checkpoints name, both 1024 wide.
PUBLISHED_TOWERS = {"openai/clip-vit-large-patch14": (224, 14), "openai/clip-vit-large-patch14-336": (336, 14)}


def check_tower(config: CLIPVisionConfig, features: int, named: str, folder: Path) -> None:
    """Raise BadInput where ``folder`` holds another tower than the checkpoint was trained with.

    features: the width that the checkpoint's projector reads. named: the tower's id in its ``config.json``; another
    one of the same width would load, and give tokens of which the language model has never seen as many.
    """
    remedy = f"it is not {named or 'the right tower'!r}; name the right one with the option clip=..."
    if config.hidden_size != features:
        raise BadInput(
            f"the checkpoint wants CLIP features of width {features}, but {folder} gives {config.hidden_size}: {remedy}"
        )
    wanted = PUBLISHED_TOWERS.get(named)
    if config.hidden_size == 1024 and wanted not in (None, (config.image_size, config.patch_size)):
        raise BadInput(
            f"{folder} holds a CLIP for {config.image_size} pixels in patches of {config.patch_size}, the checkpoint "
            f"wants {wanted[0]} and {wanted[1]}: {remedy}"
        )


def clip_vit_l14(image_size: int) -> CLIPVisionConfig:
    """``openai/clip-vit-large-patch14`` (224) and ``-336`` (336)."""
    return CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=image_size,
        patch_size=14,
        hidden_act="quick_gelu",
        projection_dim=768,
    )


def find_clip(given: str, named: str, folder: Path) -> Path:
    """The folder of the CLIP tower: ``given`` by the user, else a folder of the name that the configuration gives,
    inside the checkpoint or beside it, else that name on the hub, which the user's checkpoint asks for."""
    if given:
        return given_clip(given)
    if not named or not isinstance(named, str):
        raise BadInput(f"{folder / 'config.json'} names no vision tower; give CLIP's folder with the option clip=...")
    for place in (folder / named, folder.parent / named, folder / Path(named).name, folder.parent / Path(named).name):
        if (place / "config.json").is_file():
            return place
    try:
        return resolve_checkpoint(named)
    except BadInput as error:
        raise BadInput(
            f"the vision tower {named!r} that {folder / 'config.json'} names was not found ({error}); give its folder "
            "with the option clip=..."
        ) from error


def given_clip(given: str) -> Path:
    """The folder of the CLIP tower that the user names. Raises BadInput."""
    try:
        return resolve_checkpoint(given)
    except BadInput as error:
        raise BadInput(f"option clip: {error}") from error


def load_clip(tower: ClipPatches, folder: Path, dtype: torch.dtype | None = None) -> LoadReport:
    """Weights of a CLIP repository (text half and all) into the tower."""
    tensors = open_tensors(folder)
    prefixed = any(name.startswith("vision_model.") for name in tensors.shapes)
    part = Part("vision_model.", "clip.") if prefixed else Part("", "clip.")
    return load_parts(tower, tensors, (part,), CLIP_IGNORED, dtype)


def published_clip_shapes(config: CLIPVisionConfig) -> Mapping[str, tuple[int, ...]]:
    """Names (``vision_model.*``) and shapes of the vision half of a CLIP checkpoint."""
    with torch.device("meta"):
        model = CLIPVisionModel(config)
    return {f"vision_model.{name}": tuple(tensor.shape) for name, tensor in model.state_dict().items()}
