"""Reading VideoLISA's published layout: weights, CLIP tower and tokenizer, every key accounted for.

One folder: ``config.json``, tokenizer files, ``model*.safetensors`` or ``pytorch_model*.bin``, with LoRA merged or as
peft names it. SAM is inside, its image encoder included; CLIP is not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch

from ...checkpoints import (
    Ignored,
    LoadReport,
    Part,
    empty_weights,
    load_parts,
    merge_lora,
    open_tensors,
    read_json,
    resolve_checkpoint,
    strip_prefix,
)  # fmt: skip
from ...core import BadInput
from ...modules.clip_patches import ClipPatches, check_tower, clip_config, find_clip, load_clip
from ...modules.sam_keys import sam_part
from ...modules.sam_sizes import SamSizes
from .configuration import VideoLISAConfig, VideoLISAOptions
from .modeling import VideoLISA
from .tokens import Phi3Tokens, check_vocabulary, load_tokens

SAM_PREFIX = "model.visual_model."
PEFT_PREFIX = "base_model.model."

PARTS: tuple[Part, ...] = (
    sam_part(SAM_PREFIX, "sam.sam."),
    Part("model.mm_projector.", "mm_projector."),
    Part("model.text_hidden_fcs.", "text_hidden_fcs."),
    Part("model.", "llm.model."),
    Part("lm_head.", "llm.lm_head."),
)
IGNORED: tuple[Ignored, ...] = (
    Ignored(r"model\.vision_tower\..*", "CLIP is frozen and read from its own checkpoint"),
    Ignored(r"model\.visual_model\.pixel_(mean|std)", "SAM's pixel statistics, part of the preprocessing"),
    Ignored(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq", "rotary frequencies, computed anew"),
)


@dataclasses.dataclass(frozen=True, eq=False)
class Loaded:
    """A checkpoint's weights: the model, its vision tower, and what became of every key."""

    model: VideoLISA
    tower: ClipPatches
    report: LoadReport


def sam_sizes(shapes: Mapping[str, tuple[int, ...]], decoder_heads: int) -> SamSizes:
    """SAM's sizes, which ``config.json`` does not name, from the shapes of the checkpoint's tensors."""
    own = {name.removeprefix(SAM_PREFIX): shape for name, shape in shapes.items() if name.startswith(SAM_PREFIX)}
    return SamSizes.from_shapes(own, decoder_heads)


def load_weights(folder: Path, options: VideoLISAOptions, dtype: torch.dtype | None = None) -> Loaded:
    """Model and vision tower on the CPU. dtype: of all weights; None keeps those of the files. Raises BadInput."""
    config = VideoLISAConfig.from_json(read_json(folder / "config.json"), folder / "config.json")
    tensors = merge_lora(strip_prefix(open_tensors(folder), PEFT_PREFIX), options.lora_alpha)
    sizes = sam_sizes(tensors.shapes, options.sam_decoder_heads)
    clip_folder = find_clip(options.clip, config.mm_vision_tower, folder)
    clip = clip_config(clip_folder)
    check_tower(clip, config.mm_hidden_size, config.mm_vision_tower, clip_folder)
    if config.out_dim != sizes.prompt:
        raise BadInput(
            f"{folder / 'config.json'}: out_dim is {config.out_dim}, but SAM's prompts have width {sizes.prompt}"
        )
    with empty_weights():
        model = VideoLISA(config, sizes)
        tower = ClipPatches(clip, config.mm_vision_select_layer)
    report = load_parts(model, tensors, PARTS, IGNORED) + load_clip(tower, clip_folder)
    _cast(model, tower, dtype)
    return Loaded(model.eval().requires_grad_(False), tower.eval().requires_grad_(False), report)


def load_checkpoint(
    checkpoint: str | Path, options: VideoLISAOptions, dtype: torch.dtype | None = None
) -> tuple[Loaded, Phi3Tokens, tuple[str, ...]]:
    """Weights, tokenizer and notes for the user of a folder or a hub id. Raises BadInput before anything is loaded
    where the tokenizer is missing or does not fit."""
    folder = resolve_checkpoint(checkpoint)
    config = VideoLISAConfig.from_json(read_json(folder / "config.json"), folder / "config.json")
    tokens = load_tokens(folder)
    notes = check_vocabulary(tokens, config.vocab_size, folder)
    return load_weights(folder, options, dtype), tokens, notes


def _cast(model: VideoLISA, tower: ClipPatches, dtype: torch.dtype | None) -> None:
    """Parameters in ``dtype``. Rotary frequencies, a buffer, stay in float32, and so does SAM where float16 is asked
    for, in which its neck overflows."""
    for name, part in (*model.named_children(), ("tower", tower)):
        wanted = torch.float32 if name == "sam" and dtype == torch.float16 else dtype
        for parameter in part.parameters():
            parameter.data = parameter.data.to(wanted or parameter.dtype)
