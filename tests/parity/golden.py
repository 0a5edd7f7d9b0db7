"""Recorded inputs and outputs of the published systems, found by what they hold and not by what they are called.

A set has one folder per system. Inside it, names, sizes and the number of files are free.
"""

from __future__ import annotations

import dataclasses
import json
import re
from functools import cache
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file

COMMITTED = Path(__file__).parents[1] / "golden"


@dataclasses.dataclass(frozen=True)
class Golden:
    """The recordings of one system: ``root/system``."""

    root: Path
    system: str

    @property
    def folder(self) -> Path:
        return self.root / self.system

    def cases(self, *tensors: str) -> list[Path]:
        """Case files (no weights of a checkpoint) that hold, for every pattern, a tensor whose name matches it."""
        return [
            path
            for path in sorted(self.folder.glob("*.safetensors"))
            if all(any(re.fullmatch(pattern, name) for name in _names(path)) for pattern in tensors)
        ]

    def json_files(self, *keys: str) -> list[Path]:
        """JSON files anywhere below the folder whose top level has all these keys."""
        found = []
        for path in sorted(self.folder.rglob("*.json")):
            content = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(content, dict) and all(key in content for key in keys):
                found.append(path)
        return found

    def folders(self, *patterns: str) -> list[Path]:
        """Folders below (and with) the system's that hold a file for each of the glob patterns."""
        places = [self.folder, *sorted(p for p in self.folder.rglob("*") if p.is_dir())]
        return [place for place in places if all(any(place.glob(pattern)) for pattern in patterns)]


@cache
def _names(path: Path) -> tuple[str, ...]:
    with safe_open(path, framework="pt") as handle:
        return tuple(handle.keys())


def load_case(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a case file."""
    return load_file(path)


def metadata(path: Path) -> dict[str, str]:
    """The texts stored beside the tensors of a case file."""
    with safe_open(path, framework="pt") as handle:
        return dict(handle.metadata() or {})
