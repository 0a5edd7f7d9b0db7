"""The recipes by name, ``load``: the one way to get a Segmenter, and ``with_tracker``: who carries its masks on."""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .core import BadInput, Segmenter

if TYPE_CHECKING:  # imported where a recipe is loaded, so that looking at the list stays quick
    import torch


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A line of ``instructseg recipes``: what it is, the module with its ``build``, and the class of its options."""

    name: str
    summary: str
    module: str
    options: str = "instructseg.options:NoOptions"
    shipped: bool = False

    @property
    def options_class(self) -> type:
        module, name = self.options.split(":")
        return getattr(importlib.import_module(module), name)


def _published(name: str, folder: str, options: str, summary: str) -> Recipe:
    package = f"instructseg.recipes.{folder}"
    return Recipe(name, summary, f"{package}.processing", f"{package}.configuration:{options}")


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "unified",
            "the project's small default: object latents, motion, several targets, refusal; runs on a CPU",
            "instructseg.recipes.unified.processing",
            shipped=True,
        ),
        _published("videolisa", "videolisa", "VideoLISAOptions", "VideoLISA: one token segments all frames of a clip"),
        _published(
            "gsva", "gsva", "GsvaOptions", "GSVA: several targets in one answer, [REJ] for those that are absent"
        ),
        _published("lisa", "gsva", "GsvaOptions", "LISA: reasoning about one image, the answer in words and one mask"),
        _published(
            "visa", "visa", "VisaOptions", "VISA: a chosen target frame, references around it, a memory tracker"
        ),
        _published(
            "mllmseg", "mllmseg", "MllmSegOptions", "MLLMSeg: masks from the language model's own vision encoder"
        ),
        _published("instructseg", "instructseg", "InstructSegOptions", "InstructSeg: mask queries, video perceiver"),
    )
}

DTYPES = ("auto", "float32", "bfloat16", "float16")
TRACKERS = ("token", "memory", "hybrid")


def load(
    name: str = "unified",
    checkpoint: str | Path | None = None,
    device: str | None = None,
    dtype: str | None = None,
    options: Mapping[str, str] | None = None,
) -> Segmenter:
    """A recipe with its weights on a device, ready to ``encode``, ``ground`` and ``segment``.

    checkpoint: a folder or a hub id; empty or None means the one shipped with the recipe. device: ``auto`` (CUDA where
    there is one), ``cpu``, ``cuda``, ``cuda:N``. dtype: ``auto``, ``float32``, ``bfloat16`` or ``float16``. options:
    the recipe's own (``instructseg recipes NAME`` lists them). Raises BadInput.
    """
    if name not in RECIPES:
        raise BadInput(f"unknown recipe {name!r}; known are {sorted(RECIPES)}")
    if (dtype or "auto") not in DTYPES:
        raise BadInput(f"dtype must be one of {', '.join(DTYPES)}; got {dtype!r}")
    recipe = RECIPES[name]
    if not checkpoint and not recipe.shipped:
        raise BadInput(f"recipe {name!r} ships no weights: give the folder or the hub id of its checkpoint")
    build = importlib.import_module(recipe.module).build
    return build(checkpoint or None, pick_device(device), _pick_dtype(dtype), dict(options or {}))


def with_tracker(
    segmenter: Segmenter,
    tracker: str = "token",
    checkpoint: str | Path | None = None,
    anchor_period_s: float = 0.0,
    dtype: str | None = None,
) -> Segmenter:
    """The segmenter with the way its masks get from frame to frame.

    tracker: ``token``, the recipe's own token on every frame (the segmenter as it is); ``memory``, SAM 2's memory
    between the recipe's masks; ``hybrid``, both on every frame. checkpoint: SAM 2's weights for the last two: a file, a
    folder or a hub id. anchor_period_s: with ``memory``, seconds after which the recipe looks at its target again; 0:
    at groundings alone. Raises BadInput.
    """
    check_tracker(tracker, checkpoint)
    if tracker == "token":
        return segmenter
    from .tracking.agreement import HybridRule
    from .tracking.following import FollowingSegmenter
    from .tracking.memory_checkpoint import load_memory_tracker

    memory = load_memory_tracker(checkpoint, segmenter.device, _pick_dtype(dtype))
    rule = HybridRule() if tracker == "hybrid" else None
    return FollowingSegmenter(segmenter, memory, anchor_period_s or math.inf, rule)


def check_tracker(tracker: str, checkpoint: str | Path | None) -> None:
    """Raise BadInput for what :func:`with_tracker` cannot use; ask before gigabytes of a recipe are read."""
    if tracker not in TRACKERS:
        raise BadInput(f"tracker must be one of {', '.join(TRACKERS)}; got {tracker!r}")
    if tracker != "token" and not checkpoint:
        raise BadInput(
            f"tracker {tracker!r} needs a tracker checkpoint: a file, a folder or a hub id of SAM 2 weights, such as "
            "facebook/sam2.1-hiera-tiny; none is given"
        )


def _pick_dtype(dtype: str | None) -> torch.dtype | None:
    import torch

    return None if (dtype or "auto") == "auto" else getattr(torch, dtype)


def pick_device(device: str | None) -> torch.device:
    """``auto`` is CUDA where it is usable, else the CPU; a device that is not there is an error, not a fall-back."""
    import torch

    if device in (None, "", "auto"):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        picked = torch.device(device)
    except RuntimeError:
        raise BadInput(f"device must be auto, cpu, cuda or cuda:N; got {device!r}") from None
    if picked.type not in ("cpu", "cuda"):
        raise BadInput(f"device must be auto, cpu, cuda or cuda:N; got {device!r}")
    if picked.type == "cuda" and not torch.cuda.is_available():
        raise BadInput(f"device {device!r} was asked for, but torch sees no CUDA device; use cpu, or its CUDA build")
    if picked.type == "cuda" and (picked.index or 0) >= torch.cuda.device_count():
        raise BadInput(f"device {device!r} was asked for; there are {torch.cuda.device_count()} CUDA devices")
    return picked
