"""VISA in miniature: a checkpoint in the published layouts with random weights and a tokenizer of its own."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal

import sentencepiece
import torch
from safetensors.torch import save_file
from transformers import CLIPVisionConfig
from unit.tiny_tokenizer import trained, write_tokenizer
from unit.tiny_weights import random_tensors

from instructseg.modules.clip_patches import published_clip_shapes
from instructseg.modules.sam_keys import published_sam_shapes
from instructseg.modules.sam_sizes import SamSizes
from instructseg.recipes.visa.configuration import VisaConfig
from instructseg.recipes.visa.prompts import SEG

Layout = Literal["shards", "single", "bin", "dump"]
Tensors = dict[str, torch.Tensor]

CLIP = CLIPVisionConfig(
    hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2, image_size=28, patch_size=7,
    hidden_act="quick_gelu", projection_dim=8,
)  # fmt: skip
SAM = SamSizes(
    image_size=64, patch_size=8, hidden=16, layers=2, heads=2, mlp=24, window=3, global_layers=(1,), prompt=32,
    mask_channels=8, decoder_mlp=24, iou_hidden=12,
)  # fmt: skip
PIECES = sentencepiece.SentencePieceProcessor(model_proto=trained()).vocab_size()
CONFIG = VisaConfig(
    vocabulary=PIECES + 1, hidden=32, layers=2, heads=4, key_value_heads=4, mlp=48, positions=2048, vision_width=16,
    vision_tower="owner/clip-tiny", prompt=32, rates=(6.0, 4.0, 3.0),
)  # fmt: skip
TOKENS = 6 + 4 + 3  # that stand for one image


def tiny_checkpoint(folder: Path, layout: Layout = "shards", seed: int = 4, **changes: Any) -> Path:
    """config.json, tokenizer, weights and, in a folder of the name that config.json gives, the CLIP tower. changes: of
    ``config.json``. The default seed gives masks that cover part of a frame."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config_json() | changes))
    write_tokenizer(folder, {SEG: PIECES})
    generator = torch.Generator().manual_seed(seed)
    write_weights(folder, random_tensors(published_shapes(CONFIG, SAM), generator), layout, generator)
    write_clip(folder / CONFIG.vision_tower, clip_tensors(generator))
    return folder


def config_json() -> dict[str, Any]:
    """As published, with the fields that mean nothing."""
    c = CONFIG
    return {
        "model_type": "ChatUniVi", "architectures": ["VISAForCausalLM"], "vocab_size": c.vocabulary,
        "hidden_size": c.hidden, "num_hidden_layers": c.layers, "num_attention_heads": c.heads,
        "num_key_value_heads": c.key_value_heads, "intermediate_size": c.mlp, "max_position_embeddings": c.positions,
        "rms_norm_eps": c.norm_eps, "rope_scaling": None, "mm_hidden_size": c.vision_width,
        "mm_vision_select_layer": c.vision_layer, "mm_vision_select_feature": "patch",
        "mm_vision_tower": c.vision_tower, "vision_tower": c.vision_tower, "out_dim": c.prompt,
        "mm_use_im_start_end": True, "image_aspect_ratio": "square", "torch_dtype": "float32",
        "config": {"use_cluster": True, "temporal_cluster_rate": 0.0625}
        | {f"spatial_cluster_rate{i}": int(rate) for i, rate in enumerate(c.rates)},
    }  # fmt: skip


def published_shapes(config: VisaConfig, sam: SamSizes) -> dict[str, tuple[int, ...]]:
    """Every tensor of a merged checkpoint of these sizes, rotary frequencies included."""
    width, inner = config.hidden, config.mlp
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config.vocabulary, width)}
    for i in range(config.layers):
        layer = f"model.layers.{i}"
        shapes |= {f"{layer}.self_attn.{name}_proj.weight": (width, width) for name in "qkvo"}
        shapes |= {f"{layer}.mlp.{name}_proj.weight": (inner, width) for name in ("gate", "up")}
        shapes |= {
            f"{layer}.mlp.down_proj.weight": (width, inner),
            f"{layer}.input_layernorm.weight": (width,),
            f"{layer}.post_attention_layernorm.weight": (width,),
            f"{layer}.self_attn.rotary_emb.inv_freq": (width // config.heads // 2,),
        }
    shapes |= {
        "model.norm.weight": (width,),
        "lm_head.weight": (config.vocabulary, width),
        "model.mm_projector.weight": (width, config.vision_width),
        "model.mm_projector.bias": (width,),
        "model.text_hidden_fcs.0.0.weight": (width, width),
        "model.text_hidden_fcs.0.0.bias": (width,),
        "model.text_hidden_fcs.0.2.weight": (config.prompt, width),
        "model.text_hidden_fcs.0.2.bias": (config.prompt,),
    }
    return shapes | {f"model.visual_model.{name}": shape for name, shape in published_sam_shapes(sam).items()}


def clip_tensors(generator: torch.Generator) -> Tensors:
    """The vision half, and bits of a CLIP file that are no part of it."""
    tower = random_tensors(published_clip_shapes(CLIP), generator)
    return tower | {
        "vision_model.embeddings.position_ids": torch.arange(17)[None],
        "text_model.final_layer_norm.weight": torch.ones(8),
        "logit_scale": torch.ones(()),
    }


def write_clip(folder: Path, tensors: Tensors) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"vision_config": CLIP.to_dict(), "model_type": "clip"}))
    torch.save(tensors, folder / "pytorch_model.bin")
    return folder


def write_weights(folder: Path, tensors: Tensors, layout: Layout, generator: torch.Generator) -> None:
    """``shards``: two .bin files and an index, as published. ``single``, ``bin``: one file. ``dump``: one .bin as
    training leaves it."""
    if layout == "single":
        save_file(tensors, folder / "model.safetensors")
    elif layout == "bin":
        torch.save(tensors, folder / "pytorch_model.bin")
    elif layout == "dump":
        torch.save(training_dump(tensors, generator), folder / "pytorch_model.bin")
    else:
        names = sorted(tensors)
        files = ("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin")
        halves = (names[: len(names) // 2], names[len(names) // 2 :])
        for file, half in zip(files, halves, strict=True):
            torch.save({name: tensors[name] for name in half}, folder / file)
        places = {name: file for file, half in zip(files, halves, strict=True) for name in half}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def training_dump(tensors: Tensors, generator: torch.Generator) -> Tensors:
    """LoRA beside the queries and values, the CLIP tower inside, a prefix on every name."""
    dump = dict(tensors)
    for name, tensor in tensors.items():
        if re.fullmatch(r"model\.layers\.\d+\.self_attn\.[qv]_proj\.weight", name):
            layer = name.removesuffix(".weight")
            dump[f"{layer}.lora_A.default.weight"] = torch.randn(8, tensor.shape[1], generator=generator) / 8
            dump[f"{layer}.lora_B.default.weight"] = torch.randn(tensor.shape[0], 8, generator=generator) / 8
    tower = {k: v for k, v in clip_tensors(generator).items() if k.startswith("vision_model.")}
    dump |= {f"model.vision_tower.vision_tower.{name}": tensor for name, tensor in tower.items()}
    return {f"base_model.model.{name}": tensor for name, tensor in dump.items()}
