"""The recorded checkpoints of GSVA and LISA as the loader wants them: base folder, CLIP's folder, options."""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from pathlib import Path

import torch

from instructseg.checkpoints import open_tensors
from instructseg.modules.clip_patches import clip_config
from instructseg.options import parse_options
from instructseg.recipes.gsva.checkpoint import Loaded, load_checkpoint
from instructseg.recipes.gsva.configuration import GsvaOptions
from instructseg.recipes.gsva.conversations import CONVERSATIONS, Conversation

from .golden import Golden


def sizes(golden: Golden) -> dict:
    """The file that states what no published checkpoint does: the mask decoder's heads, the conversation."""
    (found,) = golden.json_files("seg_token_idx", "sam", "clip")
    return json.loads(found.read_text(encoding="utf-8"))


def conversation(golden: Golden) -> Conversation:
    return CONVERSATIONS[sizes(golden)["conv_type"]]


@functools.cache
def gsva(golden: Golden, keep_lora: bool = False) -> Loaded:
    """GSVA's file with its base folder put together from the recorded configuration and tokenizer."""
    with tempfile.TemporaryDirectory() as folder:
        return load_checkpoint(gsva_file(golden), gsva_options(golden, Path(folder)), torch.float32, keep_lora)


@functools.cache
def lisa(golden: Golden) -> Loaded:
    return load_checkpoint(lisa_folder(golden), lisa_options(golden), torch.float32)


def recorded_keys(golden: Golden) -> list[dict[str, tuple[int, ...]]]:
    """Names and shapes of the recorded checkpoints, read from their files."""
    return [open_tensors(gsva_file(golden)).shapes, open_tensors(lisa_folder(golden)).shapes]


def gsva_file(golden: Golden) -> Path:
    """The one ``.bin`` that is no shard of an indexed checkpoint."""
    (found,) = (p for p in golden.folder.rglob("*.bin") if not any(p.parent.glob("*.index.json")))
    return found


def gsva_options(golden: Golden, base: Path) -> GsvaOptions:
    """Options that load it; its base folder is written to ``base``."""
    (config,) = (p for p in golden.json_files("mm_hidden_size", "hidden_size") if p.parent != lisa_folder(golden))
    shutil.copy(config, base / "config.json")
    (tokenizer,) = (p for p in golden.folders("tokenizer.model") if p != lisa_folder(golden))
    for file in tokenizer.iterdir():
        shutil.copy(file, base / file.name)
    (clip,) = (p for p in _clip_folders(golden) if not any(p.glob("*.safetensors")))
    heads = sizes(golden)["sam"]["decoder_num_heads"]
    values = {"base": str(base), "clip": str(clip), "sam_decoder_heads": heads, "conversation": conv_name(golden)}
    return parse_options(GsvaOptions, {**values, "lora_alpha": sizes(golden)["lora_alpha"]}, "recipe gsva")


def lisa_folder(golden: Golden) -> Path:
    (found,) = golden.folders("*.index.json", "config.json", "tokenizer.model")
    return found


def lisa_options(golden: Golden) -> GsvaOptions:
    (clip,) = (p for p in _clip_folders(golden) if any(p.glob("*.safetensors")))
    heads = sizes(golden)["sam"]["decoder_num_heads"]
    return parse_options(GsvaOptions, {"clip": str(clip), "sam_decoder_heads": heads}, "recipe lisa")


def conv_name(golden: Golden) -> str:
    return sizes(golden)["conv_type"]


def _clip_folders(golden: Golden) -> list[Path]:
    """Folders of a CLIP vision tower, by the content of their configuration."""
    files = [p for p in golden.json_files("patch_size", "image_size", "hidden_size") if p.name == "config.json"]
    return [p.parent for p in files if clip_config(p.parent).patch_size]
