"""Models with their LoRA merged, written as checkpoints of their own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..checkpoints import LoadReport
from ..core import BadInput

TOKENIZER_FILES = (
    "tokenizer.model", "tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json", "added_tokens.json",
    "special_tokens_map.json",
)  # fmt: skip
LARGEST_FILE = "5GB"


@torch.no_grad()
def merged_state(module: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict that the module would have without LoRA: ``W + alpha / r * B @ A``, in float32, in W's type."""
    from peft.tuners.lora import LoraLayer

    updates = {}
    for path, layer in module.named_modules():
        if isinstance(layer, LoraLayer):
            down, up = layer.lora_A["default"].weight.float(), layer.lora_B["default"].weight.float()
            updates[f"{path}.weight"] = layer.scaling["default"] * (up @ down)
    state = {}
    for name, tensor in module.state_dict().items():
        if ".lora_" in name:
            continue
        plain = name.replace(".base_layer.", ".")
        if plain in updates:
            tensor = (tensor.float() + updates[plain]).to(tensor.dtype)
        state[plain] = tensor
    return state


def under_published_names(state: Mapping[str, torch.Tensor], report: LoadReport) -> dict[str, torch.Tensor]:
    """A whole state dict under the names of the checkpoint it was loaded from."""
    keys = {name: report.converted.get(name, name) for name in report.loaded}
    return {keys[name]: tensor for name, tensor in state.items()}


def copy_part(part: Path | None, source: Path, folder: Path) -> None:
    """Copy a folder that lies in the checkpoint ``source``, as a vision tower may, to the same place in ``folder``;
    one that lies elsewhere (None: nowhere) stays where it is."""
    if part is not None and part.resolve().is_relative_to(source.resolve()):
        place = folder / part.resolve().relative_to(source.resolve())
        shutil.copytree(part, place, dirs_exist_ok=True)


def write_checkpoint(folder: Path, tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any], base: Path) -> None:
    """``model.safetensors`` (in several files with an index where it is large), ``config.json`` and the tokenizer's
    files of ``base``. Raises BadInput where a weight is not finite."""
    from huggingface_hub import save_torch_state_dict

    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise BadInput(f"{name} holds values that are not finite: this model is not worth saving")
    folder.mkdir(parents=True, exist_ok=True)
    plain = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    save_torch_state_dict(plain, folder, max_shard_size=LARGEST_FILE)
    for name in TOKENIZER_FILES:
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)
    (folder / "config.json").write_text(json.dumps(dict(config), indent=2) + "\n", encoding="utf-8")
