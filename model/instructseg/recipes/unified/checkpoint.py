"""The default recipe on disk: ``config.json``, ``tokenizer.json``, ``model.safetensors``, and a model card."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from safetensors.torch import save_file
from tokenizers import Tokenizer

from ...checkpoints import (
    LoadReport,
    building,
    empty_weights,
    load_strictly,
    read_json,
    read_tensors,
    resolve_checkpoint,
)
from ...core import BadInput
from .configuration import UnifiedConfig
from .modeling import UnifiedModel
from .tokenizer import load_tokenizer

log = logging.getLogger(__name__)
SHIPPED = Path(__file__).parent / "weights"


def save_checkpoint(folder: Path, model: UnifiedModel, tokenizer: Tokenizer) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(model.config.to_dict(), indent=2) + "\n", encoding="utf-8")
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=True) + "\n", encoding="utf-8")
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt", "recipe": "unified"})


def load_checkpoint(checkpoint: str | Path | None = None) -> tuple[UnifiedModel, Tokenizer, LoadReport]:
    """The model in evaluation mode on the CPU, its tokenizer, and the account of its keys; ``None`` is the checkpoint
    shipped with the package."""
    folder = SHIPPED if checkpoint is None else resolve_checkpoint(checkpoint)
    values = read_json(folder / "config.json")
    if not isinstance(values, dict) or values.get("recipe") != "unified":
        raise BadInput(f"{folder / 'config.json'} is not a configuration of the recipe 'unified'")
    config = UnifiedConfig.from_dict(values)
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    model = _built(config, tokenizer.get_vocab_size(), folder / "config.json")
    report = load_strictly(model, read_tensors(folder / "model.safetensors"), folder / "model.safetensors")
    log.info("recipe unified from %s: %s", folder, report)
    return model.eval(), tokenizer, report


def _built(config: UnifiedConfig, vocabulary: int, source: Path) -> UnifiedModel:
    """The model to load weights into; on backbones, without memory of its own, and transformers has to agree with what
    ``source`` says of their sizes."""
    if config.vision_backbone is None and config.language_backbone is None:
        return UnifiedModel(config, vocabulary)
    with building(source), empty_weights():
        return UnifiedModel(config, vocabulary)
