"""Published checkpoints of GSVA and LISA, read as they are.

GSVA: one ``.bin`` with everything in it, names as peft wraps them, LoRA beside its weights; tokenizer and language
model's sizes come from the LLaVA base. LISA: a Hugging Face folder, LoRA merged, CLIP left out; what its training
leaves, in the form of GSVA's file, is read as well.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import CLIPVisionConfig

from ...checkpoints import (
    Ignored,
    LoadReport,
    Part,
    TensorFiles,
    empty_weights,
    load_parts,
    merge_lora,
    open_tensors,
    read_json,
    resolve_checkpoint,
)
from ...checkpoints.views import Tensors
from ...core import BadInput
from ...modules.clip_patches import check_tower, clip_config, clip_part, clip_vit_l14, find_clip, given_clip, load_clip
from ...modules.sam_keys import sam_part
from ...modules.sam_sizes import SamSizes
from .configuration import GsvaConfig, GsvaOptions, Layout, llama_config
from .lora import LORA_RENAMES, add_lora, lora_rank
from .modeling import GsvaModel
from .prompts import REJ
from .vocabulary import Vocabulary, added_tokens, open_vocabulary

log = logging.getLogger(__name__)
Shapes = Mapping[str, tuple[int, ...]]

PEFT_PREFIX = "base_model.model."
# Whose keys they are where peft's prefix does not say it; a GSVA that was merged keeps its base's config.json.
ARCHITECTURES: dict[str, Layout] = {
    "LISAForCausalLM": "lisa",
    "GSVAForCausalLM": "gsva",
    "LlavaLlamaForCausalLM": "gsva",
}
IGNORED = (
    Ignored(r".*rotary_emb\.inv_freq", "rotary frequencies, computed anew"),
    Ignored(r".*vision_model\.embeddings\.position_ids", "position numbers, computed anew"),
    Ignored(r".*visual_model\.pixel_(mean|std)", "SAM's pixel statistics, constants of the preprocessing"),
)
_FROZEN = {
    "model.mm_projector.": "the projector",
    "model.vision_tower.": "CLIP",
    "model.visual_model.image_encoder.": "SAM's image encoder",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Loaded:
    """A model in evaluation mode on the CPU, and what else its files say."""

    model: GsvaModel
    vocabulary: Vocabulary
    layout: Layout
    report: LoadReport
    notes: tuple[str, ...]


def parts_of(prefix: str, with_lora: bool = False) -> tuple[Part, ...]:
    """Published keys, all of which begin with ``prefix``, to those of :class:`GsvaModel`.

    with_lora: the model has LoRA layers of its own, which then take the checkpoint's unmerged.
    """
    renames = LORA_RENAMES if with_lora else ()
    return (
        clip_part(prefix + "model.vision_tower.vision_tower.", "vision."),
        Part(prefix + "model.mm_projector.", "projector."),
        sam_part(prefix + "model.visual_model.", "sam.sam."),
        Part(prefix + "model.text_hidden_fcs.", "text_hidden_fcs."),
        Part(prefix + "model.", "llm.model.", renames),
        Part(prefix + "lm_head.", "llm.lm_head."),
    )


def load_checkpoint(
    checkpoint: str | Path, options: GsvaOptions, dtype: torch.dtype | None = None, keep_lora: bool = False
) -> Loaded:
    """Model, vocabulary and account of a published checkpoint: a ``.bin`` file, a folder, or a hub id.

    dtype: of the weights; None keeps the files' own. keep_lora: LoRA stays beside its weights, for further training
    (a checkpoint whose LoRA is merged gets none here; see :func:`.lora.add_lora`). Raises BadInput; nothing is half
    loaded.
    """
    path = resolve_checkpoint(checkpoint, allow_file=True)
    folder = path if path.is_dir() else path.parent
    tensors = _open(path)
    shapes = tensors.shapes
    prefix = PEFT_PREFIX if any(key.startswith(PEFT_PREFIX) for key in shapes) else ""
    _check_parts(shapes, prefix, tensors.source)
    base = _base_folder(folder, options, prefix)
    values = _read_config(base)
    layout = _layout(prefix, values, base)
    clip_inside = _has(shapes, prefix + "model.vision_tower.")
    clip_folder = _clip_folder(clip_inside, options, values, folder)
    clip = clip_vit_l14(224) if clip_folder is None else clip_config(clip_folder)
    _check_clip(clip, shapes, prefix, values, clip_folder)
    config = read_config(shapes, prefix, values, base / "config.json", clip, options.sam_decoder_heads)
    vocabulary = open_vocabulary(base, config.llama.vocab_size, layout == "gsva")

    rank = lora_rank(shapes)
    with_lora = keep_lora and rank is not None
    with empty_weights():
        model = GsvaModel(config)
        if with_lora:
            add_lora(model.llm, rank, options.lora_alpha)
    readable = tensors if with_lora else merge_lora(tensors, options.lora_alpha)
    report = _fill(model, readable, parts_of(prefix, with_lora), None if clip_inside else clip_folder, dtype)
    if report.merged:
        scale = f"LoRA of rank {rank} merged with scale {options.lora_alpha / rank:g}"
        report = dataclasses.replace(report, remarks=(*report.remarks, scale))
    log.info("%s from %s: %s", layout, tensors.source, report)
    return Loaded(model.eval(), vocabulary, layout, report, _notes(layout, options))


def _fill(
    model: GsvaModel, tensors: Tensors, parts: Sequence[Part], clip_weights: Path | None, dtype: torch.dtype | None
) -> LoadReport:
    """All weights of the model, CLIP's from a folder of their own where one is given."""
    if clip_weights is None:
        return load_parts(model, tensors, parts, IGNORED, dtype)
    tower, model.vision = model.vision, nn.Identity()  # so that its keys are not missed
    report = load_parts(model, tensors, parts, IGNORED, dtype) + load_clip(tower, clip_weights, dtype)
    model.vision = tower
    return report


def read_config(
    shapes: Shapes, prefix: str, values: Mapping[str, Any], source: Path, clip: CLIPVisionConfig, decoder_heads: int
) -> GsvaConfig:
    """All sizes: the language model's from the base's ``config.json``, SAM's and the projections' from the tensors.

    Raises BadInput where that file and the tensors contradict each other.
    """
    rows, hidden = _matrix(shapes, prefix + "model.embed_tokens.weight")
    layers = len([k for k in shapes if k.startswith(prefix + "model.layers.") and k.endswith("input_layernorm.weight")])
    llama = llama_config(values, rows, source)
    if (llama.hidden_size, llama.num_hidden_layers) != (hidden, layers):
        raise BadInput(
            f"{source} describes a language model of width {llama.hidden_size} with {llama.num_hidden_layers} layers; "
            f"the checkpoint's has width {hidden} and {layers} layers: it belongs to another base model"
        )
    sam_prefix = prefix + "model.visual_model."
    sam_shapes = {key.removeprefix(sam_prefix): s for key, s in shapes.items() if key.startswith(sam_prefix)}
    projector = "linear" if prefix + "model.mm_projector.weight" in shapes else "mlp2x_gelu"
    prompt_width, _ = _matrix(shapes, prefix + "model.text_hidden_fcs.0.2.weight")
    select = values.get("mm_vision_select_layer", -2)
    if not isinstance(select, int):
        raise BadInput(f"{source}: mm_vision_select_layer must be a whole number; got {select!r}")
    return GsvaConfig(llama, clip, SamSizes.from_shapes(sam_shapes, decoder_heads), prompt_width, select, projector)


def _matrix(shapes: Shapes, key: str) -> tuple[int, int]:
    shape = shapes.get(key, ())
    if len(shape) != 2:
        raise BadInput(f"the checkpoint's {key} must be a matrix; its shape is {tuple(shape) or 'missing'}")
    return shape[0], shape[1]


def _open(path: Path) -> TensorFiles:
    """The tensors; GSVA's download folders hold several models side by side."""
    files = sorted(path.glob("*.bin")) if path.is_dir() and not any(path.glob("*.index.json")) else []
    if len(files) > 1:
        raise BadInput(
            f"{path} holds several weight files and no index ({', '.join(f.name for f in files)}): give one of the "
            "files, or fetch the index that joins them"
        )
    return open_tensors(path)


def _check_parts(shapes: Shapes, prefix: str, source: Path) -> None:
    """The file is of this family, and complete: frozen weights are in it as well."""
    needed = ("model.embed_tokens.weight", "lm_head.weight", "model.text_hidden_fcs.0.0.weight")
    if not all(prefix + key in shapes for key in needed) or not _has(shapes, prefix + "model.visual_model."):
        raise BadInput(
            f"{source} is not a checkpoint of GSVA or LISA: it lacks a language model, text_hidden_fcs or SAM "
            f"(first key: {next(iter(shapes), 'none')})"
        )
    if prefix:
        absent = [name for key, name in _FROZEN.items() if not _has(shapes, prefix + key)]
        if absent:
            raise BadInput(
                f"{source} lacks {', '.join(absent)}: it was written without its frozen weights, which GSVA cannot "
                "take from elsewhere (its projector is not LLaVA's); get a complete file"
            )


def _has(shapes: Shapes, prefix: str) -> bool:
    return any(key.startswith(prefix) for key in shapes)


def _base_folder(folder: Path, options: GsvaOptions, prefix: str) -> Path:
    """Where tokenizer and ``config.json`` are: option ``base``, else beside the weights."""
    if options.base:
        return resolve_checkpoint(options.base)
    if prefix and not ((folder / "config.json").is_file() and (folder / "tokenizer.model").is_file()):
        raise BadInput(
            f"{folder} holds no config.json and tokenizer.model, and GSVA publishes none: set option base to the "
            "folder or hub id of the LLaVA model it was trained from (7B: LLaVA-Lightning-7B-v1-1)"
        )
    return folder


def _clip_folder(inside: bool, options: GsvaOptions, values: Mapping[str, Any], folder: Path) -> Path | None:
    """CLIP's folder: for its sizes alone where its weights are in the checkpoint, None then means published ones."""
    if not inside:
        return find_clip(options.clip, values.get("mm_vision_tower") or values.get("vision_tower", ""), folder)
    return given_clip(options.clip) if options.clip else None


def _check_clip(
    clip: CLIPVisionConfig, shapes: Shapes, prefix: str, values: Mapping[str, Any], folder: Path | None
) -> None:
    """CLIP's sizes fit the projector and, where its weights are in the checkpoint, these."""
    names = (f"{prefix}model.mm_projector.{layer}weight" for layer in ("", "0."))
    projection = next((shapes[name] for name in names if len(shapes.get(name, ())) == 2), None)
    own = shapes.get(f"{prefix}model.vision_tower.vision_tower.vision_model.embeddings.position_embedding.weight")
    named = str(values.get("mm_vision_tower") or values.get("vision_tower") or "")
    if folder is not None and projection is not None:
        check_tower(clip, projection[1], named, folder)
    expected = ((clip.image_size // clip.patch_size) ** 2 + 1, clip.hidden_size)
    if own is not None and own != expected:
        given = "published CLIP ViT-L/14" if folder is None else str(folder)
        raise BadInput(
            f"the checkpoint's own CLIP has position embeddings {own}, {given} has {expected}: give a folder with the "
            "config.json of the right CLIP with the option clip=..."
        )


def _read_config(base: Path) -> Mapping[str, Any]:
    values = read_json(base / "config.json")
    if not isinstance(values, dict):
        raise BadInput(f"{base / 'config.json'} must hold a JSON table")
    return values


def _layout(prefix: str, values: Mapping[str, Any], base: Path) -> Layout:
    """Whose checkpoint it is. A tokenizer with ``[REJ]`` is GSVA's; keys of peft are GSVA's too, unless ``config.json``
    says that they are what LISA's training left. Otherwise the architecture decides. Raises BadInput for one of
    another system."""
    listed = values.get("architectures") or []
    named = [str(name) for name in (listed if isinstance(listed, list) else [listed])]
    layout = next((ARCHITECTURES[name] for name in named if name in ARCHITECTURES), None)
    if REJ in added_tokens(base) or (prefix and layout != "lisa"):
        return "gsva"
    if layout is None:
        raise BadInput(
            f"{base / 'config.json'} is of {', '.join(named) or 'no named architecture'}, not of "
            f"{' or '.join(ARCHITECTURES)}: load it with the recipe of its own system"
        )
    return layout


def _notes(layout: Layout, options: GsvaOptions) -> tuple[str, ...]:
    if layout == "lisa":
        return ("LISA has no [REJ]: its rejection score is this project's own, not published",)
    if options.decoding == "forced_slot":
        return ("forced slots are this project's own decoding; GSVA's published figures are teacher-forced",)
    return ()
