"""From a published MLLMSeg folder to the model: every key accounted for, LoRA merged, fused projections split.

Accepted as the publication's code writes them: the trainer's output (``safetensors``, LoRA apart, language keys under
``language_model.base_model.model.``) and the merge tool's (one ``pytorch_model.bin``), in any file layout. What is in
the file decides, not what config.json says of LoRA.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from ...checkpoints import (
    LoadReport,
    Part,
    building,
    empty_weights,
    load_parts,
    merge_lora,
    open_tensors,
    read_json,
    resolve_checkpoint,
)
from ...checkpoints.views import Tensors
from ...core import BadInput
from .configuration import MllmSegConfig, parse_config
from .fused_weights import SplitProjections
from .modeling import MllmSegModel
from .tokenizer import ChatTokenizer, load_tokenizer

LORA_SCALE = 2.0  # alpha is twice the rank in the published training, whatever the rank
LORA_PREFIX = "language_model.base_model.model."
SAME_ROWS = (
    "the checkpoint's output rows of [SEG] and [REJ] are identical, so its language model cannot refuse; whether a "
    "target is there is judged by the mask's evidence instead"
)

_VISION = (
    (r"^embeddings\.class_embedding$", "embeddings.cls_token"),
    (r"^embeddings\.position_embedding$", "embeddings.position_embeddings"),
    (r"^embeddings\.patch_embedding\.", "embeddings.patch_embeddings.projection."),
    (r"^encoder\.layers\.", "encoder.layer."),
    (r"\.ls([12])$", r".lambda_\1"),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.proj\.", ".attention.projection_layer."),
)
_PROJECTOR = ((r"^0\.", "layer_norm."), (r"^1\.", "linear_1."), (r"^3\.", "linear_2."))
_INTERNLM2 = (
    (r"^tok_embeddings\.", "embed_tokens."),
    (r"\.attention\.wo\.", ".self_attn.o_proj."),
    (r"\.feed_forward\.w1\.", ".mlp.gate_proj."),
    (r"\.feed_forward\.w3\.", ".mlp.up_proj."),
    (r"\.feed_forward\.w2\.", ".mlp.down_proj."),
    (r"\.attention_norm\.", ".input_layernorm."),
    (r"\.ffn_norm\.", ".post_attention_layernorm."),
)
_DECODER = (
    (r"^text_down\.", "token_down."),
    (r"^img_llm_down\.", "fusion.language_down."),
    (r"^text_out_adapter\.", "fusion.join."),
    (r"^upsample_adapter_l\.init_pos$", "fusion.upsample.start"),
    (r"^upsample_adapter_l\.", "fusion.upsample."),
    (r"^ca_layer_v2l\.decoder\.", "fusion.detail."),
    (r"^ca_layer_vl\.decoder\.", "prompted."),
    (r"^(fusion\.detail|prompted)\.norm\.", r"\1.last_norm."),
    (r"^(fusion\.detail|prompted)\.layers\.0\.", r"\1."),
    (r"^(fusion\.detail|prompted)\.self_attn\.", r"\1.self_attention."),
    (r"^(fusion\.detail|prompted)\.multihead_attn\.", r"\1.memory_attention."),
    (r"^conv1\.", "to_pixels."),
    (r"^conv2\.", "smooth."),
)
DECODER_PART = Part("res_decoder.", "decoder.", _DECODER)


def parts(family: str) -> tuple[Part, ...]:
    """Where the keys of a :class:`SplitProjections` view belong in :class:`MllmSegModel`."""
    head, renames = ("output.", _INTERNLM2) if family == "internlm2" else ("lm_head.", ())
    language = [
        part
        for prefix in (LORA_PREFIX, "language_model.")
        for part in (
            Part(f"{prefix}model.", "mllm.model.language_model.", renames),
            Part(f"{prefix}{head}", "mllm.lm_head."),
        )
    ]
    vision = Part("vision_model.", "mllm.model.vision_tower.", _VISION)
    return (vision, Part("mlp1.", "mllm.model.multi_modal_projector.", _PROJECTOR), *language, DECODER_PART)


@dataclasses.dataclass(frozen=True, eq=False)
class Loaded:
    """A checkpoint in memory. can_refuse: the language model's rows of ``[SEG]`` and ``[REJ]`` differ."""

    model: MllmSegModel
    tokenizer: ChatTokenizer
    report: LoadReport
    can_refuse: bool
    notes: tuple[str, ...]


def load_checkpoint(checkpoint: str | Path, dtype: torch.dtype | None = None) -> Loaded:
    """A local folder or a hub id. dtype: of the weights; None keeps the file's. Raises BadInput."""
    folder = resolve_checkpoint(checkpoint)
    values = read_json(folder / "config.json")
    parse_config(values, folder / "config.json")  # a wrong system's file is named before its weights are opened
    tensors = open_tensors(folder)
    config = parse_config(values, folder / "config.json", embedding_rows(tensors))
    tokenizer = load_tokenizer(folder, config.family, config.vocabulary)
    model, report = load_model(config, tensors, tokenizer.image_context, dtype)
    can_refuse = can_say_refused(model, tokenizer.seg, tokenizer.rej)
    notes = () if can_refuse else (SAME_ROWS,)
    return Loaded(model, tokenizer, dataclasses.replace(report, remarks=notes), can_refuse, notes)


def load_model(
    config: MllmSegConfig, tensors: Tensors, image_token: int, dtype: torch.dtype | None = None
) -> tuple[MllmSegModel, LoadReport]:
    """The model with a checkpoint's tensors assigned, in eval mode."""
    with building(config.source), empty_weights():
        model = MllmSegModel(config, image_token)
    report = load_parts(model, converted(tensors, config), parts(config.family), dtype=dtype)
    return model.eval(), report


def converted(tensors: Tensors, config: MllmSegConfig) -> SplitProjections:
    """The published tensors with LoRA merged (into the fused projections, as they were trained) and then split."""
    adapted = [key for key in tensors.shapes if key.startswith("vision_model.base_model.")]
    if adapted:
        raise BadInput(
            f"{getattr(tensors, 'source', 'the checkpoint')} adapts its vision encoder ({adapted[0]}); the published "
            "models do not: merge that LoRA before loading"
        )
    ranks = {shape[0] for key, shape in tensors.shapes.items() if ".lora_A." in key}
    if len(ranks) > 1:
        raise BadInput(
            f"{getattr(tensors, 'source', 'the checkpoint')} holds LoRA of ranks {sorted(ranks)}; MLLMSeg has one rank"
        )
    return SplitProjections(merge_lora(tensors, LORA_SCALE * (ranks.pop() if ranks else 1)), config)


def embedding_rows(tensors: Tensors) -> int:
    """Rows of the token embedding: the vocabulary the weights were saved with, added tokens counted."""
    for key, shape in tensors.shapes.items():
        if key.startswith("language_model.") and key.endswith(("model.tok_embeddings.weight", "embed_tokens.weight")):
            return shape[0]
    raise BadInput(
        f"{getattr(tensors, 'source', 'the checkpoint')} has no token embedding under language_model.; is it the "
        "checkpoint of MLLMSeg?"
    )


def can_say_refused(model: MllmSegModel, seg: int, rej: int) -> bool:
    """False where both tokens' output rows are the same: a row that ties with another is never the likeliest word.

    So it is with the Qwen2-based checkpoints, whose output layer stayed frozen in training with both rows at the mean
    of all others.
    """
    rows: torch.Tensor = model.mllm.lm_head.weight
    return not torch.equal(rows[seg], rows[rej])
