"""What the parity tests of MLLMSeg share: the recorded checkpoints as models, and what passes through their modules."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

from instructseg.checkpoints import LoadReport, open_tensors, read_json
from instructseg.recipes.mllmseg.checkpoint import embedding_rows, load_model
from instructseg.recipes.mllmseg.configuration import parse_config
from instructseg.recipes.mllmseg.modeling import MllmSegModel

from .golden import Golden, metadata

Tensors = dict[str, torch.Tensor]


def checkpoint_of(golden: Golden, case: Path) -> Path:
    """The folder of the checkpoint that a case was recorded with."""
    name = metadata(case)["checkpoint"]
    (folder,) = [folder for folder in golden.folders("config.json") if folder.name == name]
    return folder


@cache
def load(folder: Path, dtype: torch.dtype | None = None) -> tuple[MllmSegModel, LoadReport]:
    tensors = open_tensors(folder)
    config = parse_config(read_json(folder / "config.json"), folder / "config.json", embedding_rows(tensors))
    return load_model(config, tensors, token_ids(folder)["<IMG_CONTEXT>"], dtype)


@cache
def token_ids(folder: Path) -> dict[str, int]:
    """Ids of the special tokens, which stand beside the recorded checkpoints in place of a tokenizer."""
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        if "[SEG]" in content and "[REJ]" in content:
            return content
    raise AssertionError(f"{folder} names no token ids")


@contextmanager
def passing(modules: dict[str, torch.nn.Module]) -> Iterator[dict[str, torch.Tensor]]:
    """What comes out of the named modules while the block runs, and, as ``name#in``, what went in first."""
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: torch.nn.Module, inputs: tuple, output: Any) -> None:
            seen[name] = output[0] if isinstance(output, tuple) else output
            if inputs:
                seen[f"{name}#in"] = inputs[0]

        return hook

    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def close(name: str, ours: torch.Tensor, recorded: torch.Tensor, limit: float) -> None:
    """Same shape, and nowhere further apart than ``limit``."""
    assert tuple(ours.shape) == tuple(recorded.shape), f"{name}: {tuple(ours.shape)} for {tuple(recorded.shape)}"
    error = (ours.float() - recorded.float()).abs().max().item() if recorded.numel() else 0.0
    assert error <= limit, f"{name}: off by {error:.2e}, limit {limit:.0e}"
