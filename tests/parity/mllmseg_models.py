"""What the parity tests of MLLMSeg share: the recorded checkpoints as models, and what passes through their modules."""

from __future__ import annotations

import json
import re
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

from .golden import Golden, load_case

Tensors = dict[str, torch.Tensor]
# The order in which they were added, as the last rows of the vocabulary
ADDED = (
    "<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>", "[SEG]", "[REJ]",
)  # fmt: skip
SAME_HEAD = 1e-3  # the logits of another checkpoint are whole units apart


@cache
def checkpoint_of(golden: Golden, case: Path) -> Path:
    """The folder of the checkpoint that a case was recorded with, whatever both are called: its output layer makes the
    recorded logits of the recorded states."""
    tensors = load_case(case)
    (logits,) = [n for n in tensors if re.fullmatch(r"out\.(pass1\.)?llm\.logits", n)]
    layers = [n for n in tensors if re.fullmatch(re.escape(logits.removesuffix("logits")) + r"hidden_\d+", n)]
    last = max(layers, key=lambda n: int(n.rpartition("_")[2]), default="out.llm.last_hidden")
    found = [
        folder
        for folder in golden.checkpoints()
        if (head := output_layer(folder)).shape == (tensors[logits].shape[-1], tensors[last].shape[-1])
        and bool(((tensors[last] @ head.T - tensors[logits]).abs() < SAME_HEAD).all())
    ]
    assert found, f"{golden.folder} holds no checkpoint that {case.name} was recorded with"
    return found[0]


@cache
def output_layer(folder: Path) -> torch.Tensor:
    """``(V, C)``."""
    tensors = open_tensors(folder)
    (name,) = [n for n in tensors.shapes if re.fullmatch(r"language_model\.(.+\.)?(lm_head|output)\.weight", n)]
    return tensors[name].float()


@cache
def load(folder: Path, dtype: torch.dtype | None = None) -> tuple[MllmSegModel, LoadReport]:
    tensors = open_tensors(folder)
    config = parse_config(read_json(folder / "config.json"), folder / "config.json", embedding_rows(tensors))
    return load_model(config, tensors, token_ids(folder)["<IMG_CONTEXT>"], dtype)


@cache
def token_ids(folder: Path) -> dict[str, int]:
    """Ids of the special tokens, which stand beside the recorded checkpoints in place of a tokenizer; without such a
    file the vocabulary's last rows, in the order of the publication."""
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and "[SEG]" in content and "[REJ]" in content:
            return content
    rows = embedding_rows(open_tensors(folder))
    return {token: rows - len(ADDED) + place for place, token in enumerate(ADDED)}


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
