"""VISA's checkpoints: the merged folder that evaluation reads, and the dump that training leaves."""

from __future__ import annotations

import dataclasses
import re
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
)
from ...checkpoints.views import View
from ...core import BadInput
from ...modules.clip_patches import (
    CLIP_IGNORED,
    check_tower,
    clip_config,
    clip_part,
    clip_vit_l14,
    find_clip,
    load_clip,
)
from ...modules.sam_keys import sam_part
from ...modules.sam_sizes import SamSizes
from ...sentencepieces import SentencePieces
from .configuration import CLIP_L14, VisaConfig, VisaOptions
from .modeling import VisaModel
from .prompts import SEG

DUMP_PREFIX = "base_model.model."
SAM_PREFIX = "model.visual_model."
TOWER = "model.vision_tower.vision_tower."
PARTS = (
    sam_part(SAM_PREFIX, "sam.sam."),
    clip_part(TOWER, "clip."),
    Part("model.mm_projector.", "mm_projector."),
    Part("model.text_hidden_fcs.", "text_hidden_fcs."),
    Part("model.", "llm.model."),
    Part("lm_head.", "llm.lm_head."),
)
IGNORED = (
    Ignored(
        r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",
        "rotary frequencies, computed anew in float32: the stored ones are rounded",
    ),
    *CLIP_IGNORED,
)
OTHER_TOWER = Ignored(re.escape(TOWER) + ".*", "the option clip names another vision tower")


@dataclasses.dataclass(frozen=True, eq=False)
class Loaded:
    """A model with everything that its checkpoint says about it."""

    model: VisaModel
    tokenizer: SentencePieces
    seg_id: int
    report: LoadReport
    clip_folder: Path | None  # None: the tower was in the checkpoint
    notes: tuple[str, ...] = ()


def load_checkpoint(checkpoint: str | Path, options: VisaOptions, dtype: torch.dtype | None = None) -> Loaded:
    """Read either published format; see docs/recipes/visa.md. Raises BadInput, and then nothing is half-loaded."""
    weights = resolve_checkpoint(checkpoint, allow_file=True)
    base = resolve_checkpoint(options.base) if options.base else weights.parent if weights.is_file() else weights
    config = _config(base)
    tensors = published_tensors(weights, options.lora_alpha)
    rows = _rows(tensors)
    if options.base:  # the language model that training began with knew no [SEG]
        config = dataclasses.replace(config, vocabulary=rows)
    tokenizer, seg_id = load_tokenizer(base, rows)
    sam = SamSizes.from_shapes(
        {name.removeprefix(SAM_PREFIX): shape for name, shape in tensors.shapes.items() if name.startswith(SAM_PREFIX)},
        options.sam_decoder_heads,
    )
    inside = any(name.startswith(TOWER) for name in tensors.shapes) and not options.clip
    if inside and config.vision_tower == CLIP_L14:  # known by name: nothing else of it is needed
        clip_folder, clip = None, clip_vit_l14(224)
    else:
        clip_folder = find_clip(options.clip, config.vision_tower, base)
        clip = clip_config(clip_folder)
        check_tower(clip, config.vision_width, config.vision_tower, clip_folder)
    with empty_weights():
        model = VisaModel(config, clip, sam)
    report = _assign(model, tensors, None if inside else clip_folder, dtype)
    if dtype == torch.float16:
        model.sam.float()  # its neck overflows in half precision
    return Loaded(model.eval(), tokenizer, seg_id, report, clip_folder, _notes(inside, report))


def published_tensors(weights: Path, lora_alpha: float = 16.0) -> View:
    """The tensors of either format under the names of the merged one, LoRA merged."""
    tensors = open_tensors(weights)
    if any(name.startswith(DUMP_PREFIX) for name in tensors.shapes):
        return merge_lora(strip_prefix(tensors, DUMP_PREFIX), lora_alpha)
    return merge_lora(tensors, lora_alpha)


def load_tokenizer(folder: Path, rows: int) -> tuple[SentencePieces, int]:
    """The tokenizer as the model was trained with it, and the id of ``[SEG]``. rows: of the embedding table."""
    listed = folder / "added_tokens.json"
    added = read_json(listed) if listed.is_file() else {}
    if not isinstance(added, dict) or not all(isinstance(i, int) and i >= 0 for i in added.values()):
        raise BadInput(f"{listed} must map added tokens to ids")
    if SEG not in added:  # a base folder without it: training appended exactly this token
        known = SentencePieces(folder / "tokenizer.model", added).size
        if known + 1 != rows:
            raise BadInput(
                f"the tokenizer in {folder} has {known} tokens and no {SEG}, which training adds as the last one; the "
                f"embedding table has {rows} rows and not {known + 1}: tokenizer and weights are of different models"
            )
        added = {**added, SEG: known}
    tokenizer = SentencePieces(folder / "tokenizer.model", added, frozenset({SEG}))
    if tokenizer.size > rows:
        raise BadInput(
            f"the tokenizer in {folder} has ids up to {tokenizer.size - 1} ({SEG} is {added[SEG]}), but the embedding "
            f"table has {rows} rows: tokenizer and weights are of different models"
        )
    return tokenizer, added[SEG]


def _config(base: Path) -> VisaConfig:
    path = base / "config.json"
    if not path.is_file():
        raise BadInput(
            f"{path} is missing; a dump of training holds weights alone: give a folder with config.json and the "
            "tokenizer of the model it began with (option base)"
        )
    values = read_json(path)
    if not isinstance(values, Mapping):
        raise BadInput(f"{path} is no table of settings")
    return VisaConfig.from_json(values, path)


def _rows(tensors: View) -> int:
    name = "model.embed_tokens.weight"
    if name not in tensors.shapes:
        raise BadInput(f"{tensors.source} holds no {name!r}: it is no checkpoint of VISA, or a shard is not listed")
    return tensors.shapes[name][0]


def _assign(model: VisaModel, tensors: View, clip_folder: Path | None, dtype: torch.dtype | None) -> LoadReport:
    """All tensors into the model. clip_folder: where the vision tower is; None: among the tensors."""
    if clip_folder is None:
        return load_parts(model, tensors, PARTS, IGNORED, dtype)
    tower, model.clip = model.clip, torch.nn.Identity()  # its keys are in other files
    report = load_parts(model, tensors, PARTS, (OTHER_TOWER, *IGNORED), dtype)
    model.clip = tower
    return report + load_clip(tower, clip_folder, dtype)


def _notes(inside: bool, report: LoadReport) -> tuple[str, ...]:
    notes = []
    if inside:
        notes.append("a dump of training: its own CLIP tower is used")
    if report.merged:
        notes.append(f"LoRA of {len(report.merged)} layers was merged on loading")
    return tuple(notes)
