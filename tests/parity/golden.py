"""Recorded inputs and outputs of the published systems, found by what they hold and not by what they are called.

A set has one folder per system. Inside it, names, sizes and the number of files are free.
"""

from __future__ import annotations

import dataclasses
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
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
            for path in self._case_files()
            if all(any(re.fullmatch(pattern, name) for name in _names(path)) for pattern in tensors)
        ]

    def checkpoints(self) -> list[Path]:
        """Folders below the system's that hold a config.json and weights, in whatever files."""
        return [
            place
            for place in self.folders("config.json")
            if any(path.suffix in (".safetensors", ".bin", ".pt") for path in place.iterdir())
        ]

    def _case_files(self) -> list[Path]:
        """Beside each other in the system's folder or, where there are none, in folders below without a checkpoint."""
        beside = sorted(self.folder.glob("*.safetensors"))
        weights = [] if beside else self.checkpoints()
        below = [] if beside else sorted(self.folder.rglob("*.safetensors"))
        return beside or [path for path in below if not any(path.is_relative_to(place) for place in weights)]

    def json_files(self, *keys: str) -> list[Path]:
        """JSON files anywhere below the folder whose top level has all these keys."""
        found = []
        for path in sorted(self.folder.rglob("*.json")):
            content = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(content, dict) and all(key in content for key in keys):
                found.append(path)
        return found

    def contents(self, *keys: str) -> list[dict[str, Any]]:
        """What the JSON files with these keys hold. Another set may lack such a file, and the test is skipped; the
        committed one may not."""
        found = [json.loads(path.read_text(encoding="utf-8")) for path in self.json_files(*keys)]
        if not found and self.root == COMMITTED:
            raise FileNotFoundError(f"{self.folder} holds no JSON file with {', '.join(keys)}")
        if not found:
            pytest.skip(f"{self.folder} holds no JSON file with {', '.join(keys)}")
        return found

    def clip_folders(self, weights: bool) -> list[Path]:
        """Folders of a CLIP vision tower, by the content of their configuration: those with its weights, or those
        without."""
        configs = [path for path in self.json_files() if path.name == "config.json"]
        towers = [path.parent for path in configs if _is_clip(json.loads(path.read_text(encoding="utf-8")))]
        return [p for p in towers if weights == any(f.suffix in (".safetensors", ".bin") for f in p.iterdir())]

    def folders(self, *patterns: str) -> list[Path]:
        """Folders below (and with) the system's that hold a file for each of the glob patterns."""
        places = [self.folder, *sorted(p for p in self.folder.rglob("*") if p.is_dir())]
        return [place for place in places if all(any(place.glob(pattern)) for pattern in patterns)]


def _is_clip(config: dict[str, Any]) -> bool:
    vision = config.get("vision_config", config)
    return "patch_size" in vision and "image_size" in vision and "llm_config" not in config


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
