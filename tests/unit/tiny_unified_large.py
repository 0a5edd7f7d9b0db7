"""Backbones in miniature, with random weights, as they lie in folders of the hub, and the default recipe on them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import CONFIG_MAPPING, AutoModel
from unit.tiny_unified import tiny_checkpoint

from instructseg.data.instructions import training_words
from instructseg.recipes.unified.assemble import assemble
from instructseg.recipes.unified.checkpoint import save_checkpoint

VISION = {
    "dinov2": {"patch_size": 14, "image_size": 28},
    "dinov2_with_registers": {"patch_size": 14, "image_size": 28, "num_register_tokens": 2},
    "dinov3_vit": {"patch_size": 16, "image_size": 32, "num_register_tokens": 2, "intermediate_size": 32},
    "swin": {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 4, "image_size": 32},
    "swinv2": {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 4, "image_size": 32},
    "convnext": {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]},
    "convnextv2": {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]},
}
_VIT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2}
LANGUAGES = ("llama", "qwen2", "qwen3", "mistral")
PIXELS = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.25, 0.3]}


def vision_values(kind: str) -> dict:
    return {**(_VIT if "hidden_sizes" not in VISION[kind] and "embed_dim" not in VISION[kind] else {}), **VISION[kind]}


def vision_folder(folder: Path, kind: str = "dinov2_with_registers") -> Path:
    """``config.json``, ``model.safetensors`` and ``preprocessor_config.json`` of a random vision backbone."""
    torch.manual_seed(1)
    AutoModel.from_config(CONFIG_MAPPING[kind](**vision_values(kind))).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PIXELS))
    return folder


def language_folder(folder: Path, kind: str = "qwen2", tokenizer: Tokenizer | None = None) -> Path:
    """``config.json``, ``model.safetensors`` and ``tokenizer.json`` of a random decoder of a few thousand weights."""
    tokenizer = tokenizer or byte_pairs()
    torch.manual_seed(2)
    config = CONFIG_MAPPING[kind](
        vocab_size=tokenizer.get_vocab_size() + 3,  # published ones have a few rows that no token uses
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=8,
        intermediate_size=24, max_position_embeddings=256, pad_token_id=None, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    AutoModel.from_config(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    return folder


def byte_pairs() -> Tokenizer:
    """A byte-level tokenizer as GPT-2's, trained on the generator's words, with two control tokens of its own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1200, special_tokens=["<|endoftext|>", "<pad>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator([" ".join(training_words())] * 2, trainer)
    tokenizer.add_special_tokens([AddedToken("<|im_start|>", special=True)])
    return tokenizer


def large_checkpoint(
    folder: Path, vision: str | None = "dinov2_with_registers", language: str | None = "qwen2", **changes: object
) -> Path:
    """An assembled checkpoint in ``folder / "large"``, which sees things everywhere as the tiny small one does.
    changes: of its configuration."""
    small = tiny_checkpoint(folder / "small")
    model, tokenizer = assemble(
        vision_folder(folder / "vision", vision) if vision else None,
        language_folder(folder / "language", language) if language else None,
        small,
    )
    model.config = dataclasses.replace(model.config, present_threshold=0.01, **changes)
    save_checkpoint(folder / "large", model, tokenizer)
    return folder / "large"
