"""VideoLISA in miniature: a checkpoint in the published layout with random weights and a tokenizer of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import sentencepiece
import torch
from safetensors.torch import save_file
from transformers import CLIPVisionConfig
from unit.tiny_tokenizer import trained
from unit.tiny_weights import random_tensors

from instructseg.modules.clip_patches import published_clip_shapes
from instructseg.modules.sam_keys import published_sam_shapes
from instructseg.modules.sam_sizes import SamSizes
from instructseg.recipes.videolisa.configuration import VideoLISAConfig

Layout = Literal["shards", "single", "bin", "peft"]
CONTROL = ("<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>", "[SEG]")
PIECES = sentencepiece.SentencePieceProcessor(model_proto=trained()).vocab_size()

CLIP = CLIPVisionConfig(
    hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2, image_size=28, patch_size=7,
    hidden_act="quick_gelu", projection_dim=8,
)  # fmt: skip
SAM = SamSizes(
    image_size=64, patch_size=8, hidden=16, layers=2, heads=2, mlp=24, window=3, global_layers=(1,), prompt=32,
    mask_channels=8, decoder_mlp=24, iou_hidden=12,
)  # fmt: skip
CONFIG = VideoLISAConfig(
    vocab_size=PIECES + len(CONTROL), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=4, sliding_window=100, mm_hidden_size=16, out_dim=32, eos_token_id=PIECES,
)  # fmt: skip


def tiny_checkpoint(folder: Path, layout: Layout = "shards", seed: int = 3) -> Path:
    """config.json, tokenizer, weights and, in a folder of the published name, the CLIP tower. The default seed gives
    masks that cover part of a frame."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG.to_json()))
    write_tokenizer(folder)
    generator = torch.Generator().manual_seed(seed)
    write_weights(folder, random_tensors(published_shapes(CONFIG, SAM), generator), layout, generator)
    clip = folder / Path(CONFIG.mm_vision_tower).name
    clip.mkdir(exist_ok=True)
    (clip / "config.json").write_text(json.dumps({"vision_config": CLIP.to_dict(), "model_type": "clip"}))
    tower = random_tensors(published_clip_shapes(CLIP), generator)
    tower["vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    tower["logit_scale"] = torch.ones(())
    torch.save(tower, clip / "pytorch_model.bin")
    return folder


def published_shapes(config: VideoLISAConfig, sam: SamSizes) -> dict[str, tuple[int, ...]]:
    """Every tensor of a published checkpoint of these sizes."""
    width, inner = config.hidden_size, config.intermediate_size
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config.vocab_size, width)}
    for i in range(config.num_hidden_layers):
        layer = f"model.layers.{i}"
        shapes |= {
            f"{layer}.self_attn.qkv_proj.weight": (3 * width, width),
            f"{layer}.self_attn.o_proj.weight": (width, width),
            f"{layer}.mlp.gate_up_proj.weight": (2 * inner, width),
            f"{layer}.mlp.down_proj.weight": (width, inner),
            f"{layer}.input_layernorm.weight": (width,),
            f"{layer}.post_attention_layernorm.weight": (width,),
        }
    shapes |= {"model.norm.weight": (width,), "lm_head.weight": (config.vocab_size, width)}
    for name, first, out in (
        ("model.mm_projector", config.mm_hidden_size, width),
        ("model.text_hidden_fcs.0", width, config.out_dim),
    ):
        shapes |= {f"{name}.0.weight": (width, first), f"{name}.0.bias": (width,)}
        shapes |= {f"{name}.2.weight": (out, width), f"{name}.2.bias": (out,)}
    return shapes | {f"model.visual_model.{name}": shape for name, shape in published_sam_shapes(sam).items()}


def write_weights(folder: Path, tensors: dict[str, torch.Tensor], layout: Layout, generator: torch.Generator) -> None:
    """``shards``: two .safetensors and an index. ``single``, ``bin``: one file. ``peft``: one .bin as training leaves
    it, with LoRA beside the weights and the vision tower among them."""
    if layout == "single":
        save_file(tensors, folder / "model.safetensors")
    elif layout == "bin":
        torch.save(tensors, folder / "pytorch_model.bin")
    elif layout == "peft":
        dump = {}
        for name, tensor in tensors.items():
            dump[f"base_model.model.{name}"] = tensor
            if name.endswith("qkv_proj.weight"):
                layer = f"base_model.model.{name.removesuffix('.weight')}"
                dump[f"{layer}.lora_A.default.weight"] = torch.randn(4, tensor.shape[1], generator=generator) / 4
                dump[f"{layer}.lora_B.default.weight"] = torch.randn(tensor.shape[0], 4, generator=generator) / 4
        dump["base_model.model.model.vision_tower.vision_tower.vision_model.embeddings.class_embedding"] = torch.ones(
            16
        )
        torch.save(dump, folder / "pytorch_model.bin")
    else:
        names = sorted(tensors)
        files = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
        halves = (names[: len(names) // 2], names[len(names) // 2 :])
        for file, half in zip(files, halves, strict=True):
            save_file({name: tensors[name] for name in half}, folder / file)
        places = {name: file for file, half in zip(files, halves, strict=True) for name in half}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def write_tokenizer(folder: Path) -> None:
    """The tests' SentencePiece model with Phi-3's control tokens and, last, ``[SEG]``."""
    (folder / "tokenizer.model").write_bytes(trained())
    added = {token: PIECES + i for i, token in enumerate(CONTROL)}
    decoder = {
        str(index): {"content": token, "lstrip": False, "rstrip": token.startswith("<|"), "special": True}
        for token, index in added.items()
    }
    config = {"add_bos_token": True, "legacy": False, "bos_token": "<s>", "eos_token": "<|endoftext|>",
        "unk_token": "<unk>", "tokenizer_class": "LlamaTokenizer", "added_tokens_decoder": decoder}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "added_tokens.json").write_text(json.dumps(added))
