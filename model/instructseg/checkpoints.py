"""Finding and reading checkpoints: from a folder or from a hub id that the user named, never by unpickling code."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from .core import BadInput

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What became of every key of a checkpoint."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]

    def __str__(self) -> str:
        return f"{len(self.loaded)} tensors loaded, {len(self.missing)} missing, {len(self.unexpected)} unexpected"


def resolve_checkpoint(checkpoint: str | Path) -> Path:
    """The local folder of a checkpoint; a hub id (``owner/name``) is downloaded because the user asked for it by
    name."""
    path = Path(checkpoint).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise BadInput(
            f"checkpoint {str(checkpoint)!r} is a file; give the folder that holds config.json and the weights"
        )
    if not _HUB_ID.fullmatch(str(checkpoint)):
        raise BadInput(
            f"checkpoint {str(checkpoint)!r} does not exist; give a folder, or a hub id of the form owner/name"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(str(checkpoint), allow_patterns=["*.json", "*.safetensors", "*.bin", "*.model", "*.md"])
        )
    except Exception as error:
        raise BadInput(
            f"checkpoint {str(checkpoint)!r} is no local folder and could not be fetched from the hub: {error}"
        ) from error


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path.name} is missing from the checkpoint {path.parent}") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BadInput(f"{path} is not valid JSON: {error}") from error


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of one ``.safetensors`` file."""
    try:
        return load_file(path)
    except FileNotFoundError:
        raise BadInput(f"{path.name} is missing from the checkpoint {path.parent}") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise BadInput(f"{path} is not a readable safetensors file: {error}") from error


def load_strictly(module: torch.nn.Module, tensors: dict[str, torch.Tensor], source: Path) -> LoadReport:
    """Load with every key accounted for; a missing, unexpected or misshapen one is an error that names it."""
    own = module.state_dict()
    report = LoadReport(
        tuple(k for k in tensors if k in own),
        tuple(k for k in own if k not in tensors),
        tuple(k for k in tensors if k not in own),
    )
    if report.missing or report.unexpected:
        raise BadInput(
            f"{source} does not fit the model: {report}; first missing {list(report.missing[:5])}, "
            f"first unexpected {list(report.unexpected[:5])}: was it written for another configuration?"
        )
    wrong = [
        f"{k} {tuple(tensors[k].shape)} for {tuple(own[k].shape)}" for k in own if own[k].shape != tensors[k].shape
    ]
    if wrong:
        raise BadInput(f"{source} does not fit the model: {len(wrong)} tensor(s) of another shape, first {wrong[:3]}")
    module.load_state_dict(tensors)
    return report
