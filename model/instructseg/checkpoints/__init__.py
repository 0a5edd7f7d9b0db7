"""Finding, reading and converting checkpoints: safe reading only, and every key accounted for."""

from .account import Ignored, KeyAccount, LoadReport, Part, account
from .loading import building, empty_weights, load_parts, load_strictly
from .locate import read_json, resolve_checkpoint
from .reading import TensorFiles, open_tensors, read_tensors
from .views import merge_lora, strip_prefix

__all__ = [
    "Ignored", "KeyAccount", "LoadReport", "Part", "TensorFiles", "account", "building", "empty_weights", "load_parts",
    "load_strictly", "merge_lora", "open_tensors", "read_json", "read_tensors", "resolve_checkpoint", "strip_prefix",
]  # fmt: skip
