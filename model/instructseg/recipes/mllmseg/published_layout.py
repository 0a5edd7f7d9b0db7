"""Names and shapes of a published MLLMSeg file, without its weights: for accounts of full-size models, and for tiny
checkpoints in the published layout. Written from the layout alone, independently of the conversion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .configuration import MllmSegConfig

Shapes = dict[str, tuple[int, ...]]

ADAPTED = {
    "internlm2": ("attention.wqkv", "attention.wo", "feed_forward.w1", "feed_forward.w2", "feed_forward.w3"),
    "qwen2": (
        "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
        "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
    ),
}  # fmt: skip


def published_shapes(config: MllmSegConfig, lora_rank: int = 0) -> Shapes:
    """The file the merge tool writes, or with ``lora_rank`` the trainer's, whose LoRA stands apart."""
    c, d = config.language["hidden_size"], config.vision["hidden_size"]
    language = _internlm2(config.language) if config.family == "internlm2" else _qwen2(config.language)
    if lora_rank:
        language = _with_lora(language, ADAPTED[config.family], lora_rank)
    prefix = "language_model.base_model.model." if lora_rank else "language_model."
    projector = {"0": (4 * d,), "1": (c, 4 * d), "3": (c, c)}
    return {
        **{f"vision_model.{name}": shape for name, shape in _vision(config).items()},
        **{f"{prefix}{name}": shape for name, shape in language.items()},
        **{f"mlp1.{name}.weight": shape for name, shape in projector.items()},
        **{f"mlp1.{name}.bias": shape[:1] for name, shape in projector.items()},
        **{f"res_decoder.{name}": shape for name, shape in _decoder(c, d, config.patch_size).items()},
    }


def _vision(config: MllmSegConfig) -> Shapes:
    d, wide, patch = config.vision["hidden_size"], config.vision["intermediate_size"], config.patch_size
    shapes: Shapes = {
        "embeddings.class_embedding": (1, 1, d),
        "embeddings.position_embedding": (1, 1 + config.grid**2, d),
        "embeddings.patch_embedding.weight": (d, 3, patch, patch),
        "embeddings.patch_embedding.bias": (d,),
    }
    linears = {"attn.qkv": (3 * d, d), "attn.proj": (d, d), "mlp.fc1": (wide, d), "mlp.fc2": (d, wide)}
    for n in range(config.vision["num_hidden_layers"]):
        layer = f"encoder.layers.{n}."
        shapes |= {f"{layer}ls1": (d,), f"{layer}ls2": (d,)}
        for name, shape in linears.items():
            shapes |= {f"{layer}{name}.weight": shape, f"{layer}{name}.bias": shape[:1]}
        for name in ("norm1", "norm2"):
            shapes |= {f"{layer}{name}.weight": (d,), f"{layer}{name}.bias": (d,)}
    return shapes


def _internlm2(sizes: Mapping[str, Any]) -> Shapes:
    c, wide = sizes["hidden_size"], sizes["intermediate_size"]
    head = c // sizes["num_attention_heads"]
    fused = (sizes["num_attention_heads"] + 2 * sizes["num_key_value_heads"]) * head
    shapes: Shapes = {"model.tok_embeddings.weight": (sizes["vocab_size"], c), "model.norm.weight": (c,)}
    for n in range(sizes["num_hidden_layers"]):
        layer = f"model.layers.{n}."
        shapes |= {
            f"{layer}attention.wqkv.weight": (fused, c),
            f"{layer}attention.wo.weight": (c, c),
            f"{layer}feed_forward.w1.weight": (wide, c),
            f"{layer}feed_forward.w3.weight": (wide, c),
            f"{layer}feed_forward.w2.weight": (c, wide),
            f"{layer}attention_norm.weight": (c,),
            f"{layer}ffn_norm.weight": (c,),
        }
    return shapes | {"output.weight": (sizes["vocab_size"], c)}


def _qwen2(sizes: Mapping[str, Any]) -> Shapes:
    c, wide = sizes["hidden_size"], sizes["intermediate_size"]
    pairs = sizes["num_key_value_heads"] * (c // sizes["num_attention_heads"])
    shapes: Shapes = {"model.embed_tokens.weight": (sizes["vocab_size"], c), "model.norm.weight": (c,)}
    for n in range(sizes["num_hidden_layers"]):
        layer = f"model.layers.{n}."
        for name, rows in (("q_proj", c), ("k_proj", pairs), ("v_proj", pairs)):
            shapes |= {f"{layer}self_attn.{name}.weight": (rows, c), f"{layer}self_attn.{name}.bias": (rows,)}
        shapes |= {
            f"{layer}self_attn.o_proj.weight": (c, c),
            f"{layer}mlp.gate_proj.weight": (wide, c),
            f"{layer}mlp.up_proj.weight": (wide, c),
            f"{layer}mlp.down_proj.weight": (c, wide),
            f"{layer}input_layernorm.weight": (c,),
            f"{layer}post_attention_layernorm.weight": (c,),
        }
    return shapes | {"lm_head.weight": (sizes["vocab_size"], c)}


def _with_lora(shapes: Shapes, adapted: tuple[str, ...], rank: int) -> Shapes:
    result: Shapes = {}
    for name, shape in shapes.items():
        layer, _, kind = name.rpartition(".")
        if not layer.endswith(adapted):
            result[name] = shape
            continue
        result[f"{layer}.base_layer.{kind}"] = shape
        if kind == "weight":
            result[f"{layer}.lora_A.default.weight"] = (rank, shape[1])
            result[f"{layer}.lora_B.default.weight"] = (shape[0], rank)
    return result


def _decoder(c: int, d: int, patch: int) -> Shapes:
    linears = {"img_llm_down": (d, c), "text_down": (d, c), "text_out_adapter": (d, 3 * d)}
    vectors: Shapes = {}
    for block in ("ca_layer_v2l", "ca_layer_vl"):
        layer = f"{block}.decoder.layers.0."
        for attention in ("self_attn", "multihead_attn"):
            vectors |= {f"{layer}{attention}.in_proj_weight": (3 * d, d), f"{layer}{attention}.in_proj_bias": (3 * d,)}
            linears[f"{layer}{attention}.out_proj"] = (d, d)
        linears |= {f"{layer}linear1": (d, d), f"{layer}linear2": (d, d)}
        for norm in (f"{layer}norm1", f"{layer}norm2", f"{layer}norm3", f"{block}.decoder.norm"):
            vectors |= {f"{norm}.weight": (d,), f"{norm}.bias": (d,)}
    linears |= {
        "upsample_adapter_l.offset": (32, d, 1, 1),
        "conv1.0": (patch * patch, d, 3, 3),
        "conv2": (1, 1, 5, 5),
    }
    for name in ("weight", "bias", "running_mean", "running_var"):
        vectors[f"conv1.1.{name}"] = (patch * patch,)
    vectors |= {"conv1.1.num_batches_tracked": (), "upsample_adapter_l.init_pos": (1, 32, 1, 1)}
    weights = {f"{name}.weight": shape for name, shape in linears.items()}
    return weights | {f"{name}.bias": shape[:1] for name, shape in linears.items()} | vectors
