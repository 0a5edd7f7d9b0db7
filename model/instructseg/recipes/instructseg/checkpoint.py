"""InstructSeg's published layout (``weic22/InstructSeg``) to this network: every key has its place or its reason."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Mapping
from pathlib import Path

import torch

from ...checkpoints import (
    Ignored,
    LoadReport,
    Part,
    building,
    empty_weights,
    load_parts,
    merge_lora,
    open_tensors,
    read_json,
    resolve_checkpoint,
    strip_prefix,
)
from ...checkpoints.views import Tensors, View
from .configuration import InstructSegSizes
from .modeling import InstructSegModel
from .prompts import PromptTokens, load_prompt_tokens
from .sizes import Unseen, check_config, read_sizes

log = logging.getLogger(__name__)
LORA_ALPHA = 16  # published training; a published checkpoint has it merged already
_WRAPPERS = ("module.", "base_model.model.")
_THIRDS = ("q_proj", "k_proj", "v_proj")
_FUSED = (
    (re.compile(r"(model\.vision_tower_mask\..+\.attn)\.qkv\.(weight|bias)"), "{0}.{third}.{1}"),
    (
        re.compile(r"(predictor\.transformer_self_attention_layers\..+\.self_attn)\.in_proj_(weight|bias)"),
        "{0}.{third}.{1}",
    ),
)

_SWIN = (
    (r"^patch_embed\.proj\.", "swin.embeddings.patch_embeddings.projection."),
    (r"^patch_embed\.norm\.", "swin.embeddings.norm."),
    (r"^norm0\.", "hidden_states_norms.stage1."),
    (r"^norm1\.", "hidden_states_norms.stage2."),
    (r"^norm2\.", "hidden_states_norms.stage3."),
    (r"^norm3\.", "hidden_states_norms.stage4."),
    (r"^layers\.", "swin.encoder.layers."),
    (r"(\.blocks\.\d+)\.norm1\.", r"\1.layernorm_before."),
    (r"(\.blocks\.\d+)\.norm2\.", r"\1.layernorm_after."),
    (r"\.attn\.([qkv]_proj)\.", r".attention.\1."),
    (r"\.attn\.proj\.", ".attention.o_proj."),
    (
        r"\.attn\.relative_position_bias_table$",
        ".attention.relative_position_bias.relative_position_bias_table",
    ),
)
_PIXEL_DECODER = (
    (r"^input_proj\.", "input_projections."),
    (r"^transformer\.level_embed$", "level_embed"),
    (r"^transformer\.encoder\.", "encoder."),
    (r"(encoder\.layers\.\d+)\.norm1\.", r"\1.self_attn_layer_norm."),
    (r"(encoder\.layers\.\d+)\.norm2\.", r"\1.final_layer_norm."),
    (r"(encoder\.layers\.\d+)\.linear([12])\.", r"\1.fc\2."),
    (r"^mask_features\.", "mask_projection."),
)
_PREDICTOR = (
    (r"^query_embed\.", "queries_embedder."),
    (r"^decoder_norm\.", "decoder.layernorm."),
    (r"^mask_embed\.layers\.(\d+)\.", r"decoder.mask_predictor.mask_embedder.\1.0."),
    (r"^transformer_cross_attention_layers\.(\d+)\.multihead_attn\.", r"decoder.layers.\1.cross_attn."),
    (r"^transformer_cross_attention_layers\.(\d+)\.norm\.", r"decoder.layers.\1.cross_attn_layer_norm."),
    (r"^transformer_self_attention_layers\.(\d+)\.norm\.", r"decoder.layers.\1.self_attn_layer_norm."),
    (r"^transformer_self_attention_layers\.(\d+)\.self_attn\.", r"decoder.layers.\1.self_attn."),
    (r"^transformer_ffn_layers\.(\d+)\.linear([12])\.", r"decoder.layers.\1.fc\2."),
    (r"^transformer_ffn_layers\.(\d+)\.norm\.", r"decoder.layers.\1.final_layer_norm."),
)
PARTS = (
    Part("model.vision_tower.vision_model.", "frames.vision."),
    Part("model.mm_projector.", "frames.projector."),
    Part("model.vision_tower_mask.", "image.backbone.", _SWIN),
    Part("model.", "language."),
    Part("lm_head.", "head."),
    Part("pixel_decoder.", "image.decoder.", _PIXEL_DECODER),
    Part("predictor.SEG_proj.", "decoder.score."),
    Part("predictor.", "decoder.transformer.", _PREDICTOR),
    Part("temporal_query", "perceiver.latents"),
    Part("ovp_layers.", "perceiver.perceiver."),
    Part("vmtf_layers.", "fusion.perceiver."),
    Part("text_vmtf_projector.", "fusion.words."),
    Part("origin_SEG_token_projector.", "fusion.whole."),
    Part("local_project.", "fusion.pixels."),
    Part("SEG_token_projector.", "fusion.out."),
    Part("seg_query_projector.", "query_projector."),
    Part("seg_query", "queries"),
)


@dataclasses.dataclass(frozen=True, eq=False)
class LoadedInstructSeg:
    """A checkpoint in memory: the network in evaluation mode on the CPU, its tokenizer, the account of its keys."""

    model: InstructSegModel
    tokens: PromptTokens
    report: LoadReport


class SplitThirds(View):
    """Fused query, key and value projections seen as three tensors each."""

    def __init__(self, inner: Tensors):
        names, self.third = {}, {}
        for old in inner.shapes:
            for new, third in _split_names(old):
                names[new] = old
                self.third[new] = third
        super().__init__(inner, names)
        self.shapes = split_shapes(inner.shapes)

    def __getitem__(self, name: str) -> torch.Tensor:
        tensor = super().__getitem__(name)
        third = self.third[name]
        return tensor if third is None else tensor.chunk(3)[third].clone()


def split_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Names and shapes as :class:`SplitThirds` shows them; the tensors themselves are not needed."""
    return {
        new: tuple(shape) if third is None else (shape[0] // 3, *shape[1:])
        for old, shape in shapes.items()
        for new, third in _split_names(old)
    }


def fuse_thirds(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The reverse of :class:`SplitThirds`: query, key and value in one tensor each, as published."""
    whole, thirds = {}, {}
    for name, tensor in tensors.items():
        fused = _fused_name(name)
        if fused is None:
            whole[name] = tensor
        else:
            thirds.setdefault(fused[0], {})[fused[1]] = tensor
    return whole | {name: torch.cat([parts[i] for i in range(len(_THIRDS))]) for name, parts in thirds.items()}


def ignored_keys(sizes: InstructSegSizes) -> tuple[Ignored, ...]:
    """Published keys that have no place in the network of these sizes, and why."""
    tower = r"model\.vision_tower\.vision_model\."
    behind = "|".join(str(i) for i in range(sizes.vision_layers, sizes.vision["num_hidden_layers"]))
    rules = [
        Ignored(r"model\.vision_tower_mask\..+\.relative_position_index", "follows from the window size"),
        Ignored(r"predictor\.query_feat\.weight", "the language model's states take its place"),
        Ignored(r"predictor\.SEG_query_embed\.weight", "not used by the published network either"),
        Ignored(tower + r"(post_layernorm|head)\..+", "features are read before it"),
    ]
    if behind:
        rules.append(Ignored(tower + rf"encoder\.layers\.({behind})\..+", "features are read before this layer"))
    return tuple(rules)


def load_checkpoint(checkpoint: str | Path, unseen: Unseen | None = None) -> LoadedInstructSeg:
    """A published checkpoint by folder or hub id. unseen: see :class:`sizes.Unseen`; None takes ``config.json``'s."""
    folder = resolve_checkpoint(checkpoint)
    described = folder / "config.json"
    config = read_json(described)
    check_config(config, described)  # another system's folder is named before its weights are opened
    tensors = published_tensors(folder)
    sizes = read_sizes(config, tensors.shapes, unseen, described)
    tokens = load_prompt_tokens(folder, sizes.language["vocab_size"])
    model, report = load_model(sizes, tensors, described)
    log.info("recipe instructseg from %s: %s", folder, report.describe())
    return LoadedInstructSeg(model, tokens, report)


def published_tensors(folder: Path) -> Tensors:
    """The tensors of a folder under their published names, without wrappers' prefixes and with LoRA merged."""
    tensors: Tensors = open_tensors(folder)
    for prefix in _WRAPPERS:
        tensors = strip_prefix(tensors, prefix)
    return merge_lora(tensors, LORA_ALPHA)


def load_model(
    sizes: InstructSegSizes, tensors: Tensors, described: Path | str = "config.json"
) -> tuple[InstructSegModel, LoadReport]:
    """The network of these sizes with these tensors, in the checkpoint's own precision. described: the file the sizes
    come from, for messages. Raises BadInput."""
    with building(described), empty_weights():
        model = InstructSegModel(sizes)
    report = load_parts(model, SplitThirds(tensors), PARTS, ignored_keys(sizes))
    return model.eval(), report


def _fused_name(name: str) -> tuple[str, int] | None:
    """The published name that a split one is a third of, and which; None for all others."""
    for i, third in enumerate(_THIRDS):
        for joined in (name.replace(f".{third}.", ".qkv."), name.replace(f".{third}.", ".in_proj_")):
            if joined != name and (name, i) in _split_names(joined):
                return joined, i
    return None


def _split_names(name: str) -> list[tuple[str, int | None]]:
    """The names a published tensor is seen under, each with the third of it that is meant (None: the whole)."""
    for pattern, template in _FUSED:
        if match := pattern.fullmatch(name):
            return [(template.format(*match.groups(), third=third), i) for i, third in enumerate(_THIRDS)]
    return [(name, None)]
