"""The tensors of a checkpoint, read when they are asked for: one file or many, ``.safetensors`` or ``.bin``.

``.bin`` and ``.pt`` files are read with ``weights_only=True``: a pickle that holds anything but tensors is refused.
Both kinds are mapped into memory, so a file of tens of gigabytes costs what is taken from it.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from ..core import BadInput
from .locate import read_json

INDEX_NAMES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
SINGLE_NAMES = ("model.safetensors", "pytorch_model.bin")
PICKLES = (".bin", ".pt", ".pth")


class TensorFiles(Mapping[str, torch.Tensor]):
    """Tensors by name over one or several files. ``shapes`` is known without reading any data."""

    def __init__(self, source: Path, files: Mapping[Path, tuple[str, ...] | None]):
        """files: each file with the names the index promises in it; None takes all that it holds."""
        self.source = source
        self._places: dict[str, _File] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for path, promised in files.items():
            opened = _open(path)
            names = opened.shapes if promised is None else promised
            absent = [name for name in names if name not in opened.shapes]
            if absent:
                raise BadInput(
                    f"{path} lacks {len(absent)} tensor(s) that the index of {source} promises, first {absent[:3]}: "
                    "fetch the checkpoint again"
                )
            for name in names:
                self._places[name] = opened
                self.shapes[name] = opened.shapes[name]
            strays = [] if promised is None else [n for n in opened.shapes if n not in set(promised)]
            if strays:
                raise BadInput(
                    f"{path} holds {len(strays)} tensor(s) that the index of {source} does not name, first "
                    f"{strays[:3]}: index and files are of different checkpoints"
                )

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._places[name].tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def open_tensors(path: Path) -> TensorFiles:
    """All tensors of a folder in the Hugging Face layout (index and shards, or one file), or of one file.

    Raises BadInput with the file's name where something is missing, damaged, or not only tensors.
    """
    if path.is_file():
        return TensorFiles(path, {path: None})
    for index, single in zip(INDEX_NAMES, SINGLE_NAMES, strict=True):  # the safer format first
        if (path / index).is_file():
            return TensorFiles(path, _sharded(path / index))
        if (path / single).is_file():
            return TensorFiles(path / single, {path / single: None})
    loose = sorted(p for p in path.glob("*") if p.suffix in (".safetensors", *PICKLES)) if path.is_dir() else []
    if len(loose) == 1:
        return TensorFiles(loose[0], {loose[0]: None})
    wanted = " or ".join((*SINGLE_NAMES, *INDEX_NAMES))
    found = f"several weight files and no index: {[p.name for p in loose]}" if loose else "no weights"
    raise BadInput(f"{path} holds {found}; it should hold {wanted}")


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of one ``.safetensors`` file, at once."""
    try:
        return load_file(path)
    except FileNotFoundError:
        raise BadInput(f"{path.name} is missing from the checkpoint {path.parent}") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise BadInput(f"{path} is not a readable safetensors file: {error}") from error


def _sharded(index: Path) -> dict[Path, tuple[str, ...]]:
    content = read_json(index)
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not places or not all(isinstance(v, str) for v in places.values()):
        raise BadInput(f"{index} has no 'weight_map' from tensor names to file names")
    files: dict[Path, tuple[str, ...]] = {}
    for file in sorted(set(places.values())):
        if Path(file).name != file:
            raise BadInput(f"{index} names the file {file!r}; only files of the same folder are read")
        files[index.parent / file] = tuple(name for name, place in places.items() if place == file)
    return files


class _File(Protocol):
    """One file: the shapes of its tensors, and the tensors on demand."""

    shapes: dict[str, tuple[int, ...]]

    def tensor(self, name: str) -> torch.Tensor: ...


class _Safetensors:
    def __init__(self, path: Path):
        self._handle = safe_open(path, framework="pt", device="cpu")
        self.shapes = {k: tuple(self._handle.get_slice(k).get_shape()) for k in self._handle.keys()}  # noqa: SIM118

    def tensor(self, name: str) -> torch.Tensor:
        return self._handle.get_tensor(name)


class _Pickle:
    def __init__(self, path: Path):
        # Files of torch before 1.6 are no zip archives, and only those can be mapped.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it wonders about is either read or refused below
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        self._tensors = _flat(content, path)
        self.shapes = {name: tuple(tensor.shape) for name, tensor in self._tensors.items()}

    def tensor(self, name: str) -> torch.Tensor:
        return self._tensors[name]


def _flat(content: Any, path: Path) -> dict[str, torch.Tensor]:
    """The state dict of a loaded file; SAM 2's and some trainers' files wrap it under one key."""
    if isinstance(content, dict):
        for wrapper in ("model", "state_dict", "module"):
            if set(content) == {wrapper} and isinstance(content[wrapper], dict):
                content = content[wrapper]
        if content and all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in content.items()):
            return content
    raise BadInput(f"{path} is no flat table of tensors; expected a state dict as torch.save writes it")


def _open(path: Path) -> _File:
    if not path.is_file():
        raise BadInput(f"{path.name} is missing from the checkpoint {path.parent}")
    _refuse_other_files(path)
    try:
        return _Safetensors(path) if path.suffix == ".safetensors" else _Pickle(path)
    except BadInput:
        raise
    except pickle.UnpicklingError as error:
        # torch's own text advises to load the file without the safeguard; only what it stumbled over is passed on.
        name = re.search(r"GLOBAL (\S+)", str(error))
        raise BadInput(
            f"{path} holds more than tensors{f', namely {name[1]},' if name else ''} and was not loaded, because "
            "unpickling it could run code; use a .safetensors version of it"
        ) from error
    except Exception as error:  # damaged bytes end in IndexError, struct.error, AssertionError and others
        kind = "safetensors" if path.suffix == ".safetensors" else "PyTorch"
        detail = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(f"{path} is not a readable {kind} file ({detail}); was it fetched completely?") from error


def _refuse_other_files(path: Path) -> None:
    """What often lies in a weight file's place: a pointer to it, or the web page that a failed download left."""
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error}") from error
    if start.startswith(b"version https://git-lfs"):
        raise BadInput(f"{path} is a Git LFS pointer and not the weights themselves; fetch them with 'git lfs pull'")
    if path.suffix in PICKLES and start and not start.startswith((b"PK", b"\x80")):
        raise BadInput(f"{path} is no PyTorch file (it begins with {start[:16]!r}); was it fetched completely?")
