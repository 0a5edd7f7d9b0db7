"""Adapters: the trained weights of a model in a file of their own, and what they belong to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ..checkpoints import read_json
from ..core import BadInput

TENSORS, DESCRIPTION = "adapters.safetensors", "adapters.json"
_SAMPLED = 64  # values of each frozen weight that make its mark

Belonging = Mapping[str, str | int | float]


def trained_state(module: nn.Module, trained: Collection[str]) -> dict[str, torch.Tensor]:
    """The trained parameters by name, and the buffers that training changes (a batch norm's statistics)."""
    parameters, buffers = dict(module.named_parameters()), dict(module.named_buffers())
    state = {name: parameters[name].detach() for name in trained}
    return state | {name: buffers[name] for name in trained_buffers(module, trained)}


def trained_buffers(module: nn.Module, trained: Collection[str]) -> tuple[str, ...]:
    """Names of the running statistics that lie in a layer whose own parameters train."""
    names = []
    for path, layer in module.named_modules():
        if not isinstance(layer, nn.modules.batchnorm._BatchNorm):
            continue
        prefix = f"{path}." if path else ""
        if any(f"{prefix}{name}" in trained for name, _ in layer.named_parameters(recurse=False)):
            names += [f"{prefix}{name}" for name, _ in layer.named_buffers(recurse=False)]
    return tuple(names)


def hold_in_float32(module: nn.Module, trained: Collection[str]) -> None:
    """What trains is kept in float32 whatever the rest is in: small steps would be lost in bfloat16."""
    for name in (*trained, *trained_buffers(module, trained)):
        path, _, last = name.rpartition(".")
        tensor = getattr(module.get_submodule(path), last)
        if tensor.is_floating_point():
            tensor.data = tensor.data.float()


def write_adapters(folder: Path, tensors: Mapping[str, torch.Tensor], belongs_to: Belonging) -> None:
    """``adapters.safetensors`` and ``adapters.json`` in ``folder``, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, folder / TENSORS)
    text = json.dumps({"belongs_to": dict(belongs_to)}, indent=2, sort_keys=True)
    (folder / DESCRIPTION).write_text(text + "\n", encoding="utf-8")


@torch.no_grad()
def read_adapters(folder: Path, module: nn.Module, trained: Collection[str], belongs_to: Belonging) -> None:
    """Put the tensors of :func:`write_adapters` into the module; all of them or none.

    Raises BadInput where they belong to another model, where names or shapes differ, or a value is not finite.
    """
    described = read_json(folder / DESCRIPTION)
    theirs = described.get("belongs_to") if isinstance(described, dict) else None
    if not isinstance(theirs, dict):
        raise BadInput(f"{folder / DESCRIPTION} must hold a table 'belongs_to'; it is not written by training here")
    for key in sorted({*theirs, *belongs_to}):
        if theirs.get(key) != belongs_to.get(key):
            raise BadInput(
                f"the adapters in {folder} belong to another model: {key} is {theirs.get(key)!r} there and "
                f"{belongs_to.get(key)!r} here; load the checkpoint and the LoRA settings that they were trained with"
            )
    put_tensors(module, read_tensor_file(folder / TENSORS), trained)


def read_tensor_file(path: Path) -> dict[str, torch.Tensor]:
    """Raises BadInput where the file is missing or damaged."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from error


@torch.no_grad()
def put_tensors(
    module: nn.Module,
    tensors: Mapping[str, torch.Tensor],
    trained: Collection[str],
    like: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = lambda tensor, place: tensor,
) -> None:
    """Copy trained weights and statistics into a module. like: makes a whole tensor like the place it goes to, where
    that is shared out among processes. Raises BadInput before anything is changed."""
    places = trained_state(module, trained)
    for label, names in (("lack", set(places) - set(tensors)), ("have too many of", set(tensors) - set(places))):
        if names:
            raise BadInput(f"the trained weights {label} {len(names)} tensor(s), the first {min(names)}")
    for name, place in places.items():
        if place.shape != tensors[name].shape:
            raise BadInput(f"{name} has shape {tuple(tensors[name].shape)}; the model's is {tuple(place.shape)}")
        if not bool(torch.isfinite(tensors[name]).all()):
            raise BadInput(f"{name} holds values that are not finite")
    for name, place in places.items():
        place.copy_(like(tensors[name], place))


def belonging(recipe: str, rank: int, alpha: float, module: nn.Module, trained: Collection[str]) -> Belonging:
    """What adapters of this model say of it: the recipe, its LoRA, and a mark of all that does not train."""
    return {
        "recipe": recipe, "lora_rank": rank, "lora_alpha": float(alpha), "frozen": mark_of(module, trained),
    }  # fmt: skip


def mark_of(module: nn.Module, trained: Collection[str]) -> str:
    """A short mark of the frozen weights: names, shapes and a few values, the same in float32 and bfloat16."""
    digest = hashlib.sha256()
    for name, parameter in sorted(module.named_parameters()):
        if name in trained:
            continue
        flat = parameter.detach().flatten()
        sampled = flat[:: max(1, len(flat) // _SAMPLED)][:_SAMPLED].to(torch.bfloat16).float().cpu()
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        digest.update(sampled.numpy().tobytes())
    return digest.hexdigest()[:16]
