"""The recorded checkpoints of GSVA and LISA as the loader wants them: base folder, CLIP's folder, options."""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from pathlib import Path

import torch

from instructseg.checkpoints import open_tensors
from instructseg.options import parse_options
from instructseg.recipes.gsva.checkpoint import PEFT_PREFIX, Loaded, load_checkpoint
from instructseg.recipes.gsva.configuration import GsvaOptions
from instructseg.recipes.gsva.conversations import CONVERSATIONS, Conversation

from .golden import Golden


def sizes(golden: Golden) -> dict:
    """The file that states what no published checkpoint does: the mask decoder's heads, the conversation."""
    return golden.contents("seg_token_idx", "sam", "clip")[0]


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
    """Names and shapes of the recorded checkpoints, read from their files; buffers that older versions of transformers
    stored as well are left out."""
    found = [open_tensors(place).shapes for place in (gsva_file(golden), lisa_folder(golden))]
    return [{k: s for k, s in shapes.items() if not k.endswith(("inv_freq", "position_ids"))} for shapes in found]


def gsva_file(golden: Golden) -> Path:
    """The weights whose names are peft's: a file, or a folder of shards."""
    loose = [p for p in golden.folder.rglob("*") if p.suffix in (".bin", ".safetensors") and p.parent != golden.folder]
    indexed = sorted({p.parent for p in golden.folder.rglob("*.index.json")})
    places = [*indexed, *sorted(p for p in loose if p.parent not in indexed)]
    return next(p for p in places if any(key.startswith(PEFT_PREFIX) for key in open_tensors(p).shapes))


def gsva_options(golden: Golden, base: Path) -> GsvaOptions:
    """Options that load it; its base folder is written to ``base``."""
    config = next(p for p in golden.json_files("mm_hidden_size", "hidden_size") if p.parent != lisa_folder(golden))
    shutil.copy(config, base / "config.json")
    tokenizer = next(p for p in golden.folders("tokenizer.model") if p != lisa_folder(golden))
    for file in tokenizer.iterdir():
        if file.is_file() and file.suffix != ".bin" and file.name != "config.json":
            shutil.copy(file, base / file.name)
    (clip,) = golden.clip_folders(weights=False)
    heads = sizes(golden)["sam"]["decoder_num_heads"]
    values = {"base": str(base), "clip": str(clip), "sam_decoder_heads": heads, "conversation": conv_name(golden)}
    return parse_options(GsvaOptions, {**values, "lora_alpha": sizes(golden)["lora_alpha"]}, "recipe gsva")


def lisa_folder(golden: Golden) -> Path:
    """The folder whose ``config.json`` says that it is LISA."""
    configs = golden.json_files("architectures", "mm_hidden_size")
    return next(p.parent for p in configs if "LISA" in str(json.loads(p.read_text(encoding="utf-8"))["architectures"]))


def lisa_options(golden: Golden) -> GsvaOptions:
    (clip,) = golden.clip_folders(weights=True)
    heads = sizes(golden)["sam"]["decoder_num_heads"]
    return parse_options(GsvaOptions, {"clip": str(clip), "sam_decoder_heads": heads}, "recipe lisa")


def conv_name(golden: Golden) -> str:
    return sizes(golden)["conv_type"]
