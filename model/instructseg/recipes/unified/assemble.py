"""A larger model of the recipe put together from pretrained backbones. What joins them is new and has to be trained.

Perception's stem, pyramid and heads and the video perceiver begin as those of a trained checkpoint. With a vision
backbone they have to be trained again, because they now look at other features; without one they stay as they are.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import MODEL_FOR_BACKBONE_MAPPING, MODEL_MAPPING, PreTrainedModel

from ...checkpoints import building, read_json, resolve_checkpoint
from ...core import BadInput
from ...modules.backbone_encoder import backbone_config
from ...modules.language_backbone import language_config
from .backbones import IMAGENET_MEAN, IMAGENET_STD, LANGUAGE, PERCEPTION, Backbone, VisionBackbone
from .checkpoint import load_checkpoint
from .modeling import UnifiedModel
from .subwords import renumbered, renumbered_embedding

log = logging.getLogger(__name__)
FETCHED = ("*.json", "model*.safetensors")  # of a hub id: nothing that would have to be unpickled
WORD_PIECES = 64  # an instruction may have; words alone would be 40
KEPT = ("perception.", "perceiver.", "concepts.")  # of the checkpoint that it begins with
LATENT_SIZE, SLOT_SIZE = 0.3, 0.05  # root mean square of a fresh model's latent tokens and slots
PIXELS = "preprocessor_config.json"
_OF_IMAGENET = (("image_mean", IMAGENET_MEAN), ("image_std", IMAGENET_STD))
_NOT_SIZES = (
    "architectures", "dtype", "torch_dtype", "transformers_version", "auto_map", "id2label", "label2id", "use_cache",
    "bos_token_id", "eos_token_id", "pad_token_id",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A backbone with its weights, as ``config.json`` will hold it."""

    described: Backbone
    model: PreTrainedModel


def assemble(
    vision: str | Path | None = None,
    language: str | Path | None = None,
    start: str | Path | None = None,
    image_size: tuple[int, int] | None = None,
) -> tuple[UnifiedModel, Tokenizer]:
    """The recipe with a vision backbone, a language backbone, or both: hub ids or folders. It answers nothing useful
    before it is trained, and says so in ``config.untrained``.

    start: the checkpoint that everything else begins with, None: the shipped one. image_size: (height, width) that the
    encoder sees, None: as there. Raises BadInput.
    """
    if not vision and not language:
        raise BadInput("name a vision backbone, a language backbone or both: without one this is the small model")
    small, tokenizer, _ = load_checkpoint(start)
    if small.config.vision_backbone or small.config.language_backbone:
        raise BadInput(f"checkpoint {str(start)!r} has backbones already; begin with one of the small model")
    changes: dict[str, Any] = {
        "image_size": image_size or small.config.image_size, "untrained": (LANGUAGE,), "present_threshold": 0.5,
    }  # fmt: skip
    seeing = vision_backbone(vision) if vision else None
    if seeing is not None:
        changes |= {"vision_backbone": seeing.described, "untrained": (PERCEPTION, LANGUAGE)}
    speaking, embedding = None, None
    if language:
        speaking, tokenizer, embedding = language_backbone(language)
        sizes = speaking.model.config
        changes |= {
            "language_backbone": speaking.described, "hidden": sizes.hidden_size, "layers": sizes.num_hidden_layers,
            "heads": sizes.num_attention_heads, "intermediate": sizes.intermediate_size, "max_words": WORD_PIECES,
        }  # fmt: skip
    with building(f"{vision or ''} {language or ''}".strip()):
        torch.manual_seed(small.config.seed)
        model = UnifiedModel(dataclasses.replace(small.config, **changes), tokenizer.get_vocab_size())
    _begin_with(model, small)
    if seeing is not None:
        model.perception.encoder.deep.backbone.load_state_dict(seeing.model.state_dict())
    if speaking is not None:
        _speak(model, speaking.model, embedding)
    return model.eval(), tokenizer


def vision_backbone(name: str | Path) -> Pretrained:
    """Of a hub id or folder: its weights as they are, in float32. Raises BadInput."""
    folder = resolve_checkpoint(name, fetched=FETCHED)
    values = _configuration(folder)
    with building(folder / "config.json"):
        config = backbone_config(values)
    pixels = read_json(folder / PIXELS) if (folder / PIXELS).is_file() else {}
    mean, std = (pixels.get(key) or default for key, default in _OF_IMAGENET) if isinstance(pixels, dict) else ((), ())
    described = VisionBackbone(_origin(name), values, tuple(mean), tuple(std))
    # Backbones have norms on their outputs that classifiers and plain encoders lack; they begin as no change.
    return Pretrained(
        described, _pretrained(MODEL_FOR_BACKBONE_MAPPING, folder, config, may_lack="hidden_states_norms.")
    )


def language_backbone(name: str | Path) -> tuple[Pretrained, Tokenizer, torch.Tensor]:
    """Of a hub id or folder: the model, its tokenizer and its embeddings, both renumbered. Raises BadInput."""
    folder = resolve_checkpoint(name, fetched=FETCHED)
    values = _configuration(folder)
    with building(folder / "config.json"):
        config = language_config(values, int(values.get("vocab_size", 0)))
    tokenizer, former = renumbered(_tokenizer(folder / "tokenizer.json"))
    model = _pretrained(MODEL_MAPPING, folder, config)
    embedding = renumbered_embedding(model.get_input_embeddings().weight.detach(), former)
    return Pretrained(Backbone(_origin(name), values), model), tokenizer, embedding


def _configuration(folder: Path) -> dict[str, Any]:
    """What ``config.json`` says about sizes and kind."""
    values = read_json(folder / "config.json")
    if not isinstance(values, dict):
        raise BadInput(f"{folder / 'config.json'} must hold a table; got {type(values).__name__}")
    return {name: value for name, value in values.items() if name not in _NOT_SIZES and not name.startswith("_")}


def _origin(name: str | Path) -> str:
    """A hub id as it is, of a folder its name alone: a checkpoint does not tell how its maker's disk is laid out."""
    return Path(name).expanduser().resolve().name if Path(name).expanduser().exists() else str(name)


def _tokenizer(path: Path) -> Tokenizer:
    if not path.is_file():
        raise BadInput(f"{path.name} is missing from the language backbone {path.parent}")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises a bare Exception
        raise BadInput(f"{path} is not a tokenizer.json of Hugging Face tokenizers: {error}") from error


def _pretrained(classes: Any, folder: Path, config: Any, may_lack: str | None = None) -> PreTrainedModel:
    """transformers' model with the weights of a folder, from safetensors alone.

    classes: by configuration. may_lack: part of the names of weights that may be missing. Raises BadInput where others
    are, or where one has another shape.
    """
    if not any(folder.glob("model*.safetensors")):
        raise BadInput(f"{folder} has no model.safetensors; backbones are read from safetensors alone")
    try:
        with _quietly():
            model, found = classes[type(config)].from_pretrained(
                str(folder), config=config, dtype=torch.float32, local_files_only=True, use_safetensors=True,
                trust_remote_code=False, output_loading_info=True,
            )  # fmt: skip
    except Exception as error:  # damaged files end in errors of many kinds
        why = (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
        raise BadInput(f"{folder} cannot be read as a {config.model_type}: {why}") from error
    missing = sorted(name for name in found["missing_keys"] if not (may_lack and may_lack in name))
    if missing:
        raise BadInput(f"{folder} lacks {len(missing)} weight(s) of a {config.model_type}, the first {missing[0]}")
    log.info("%s: %d weights that are not needed here", folder, len(found["unexpected_keys"]))
    return model.eval()


@contextmanager
def _quietly() -> Iterator[None]:
    """transformers reports every weight that a backbone does not need; what matters is judged here."""
    from transformers.utils import logging as theirs

    before, shown = theirs.get_verbosity(), theirs.is_progress_bar_enabled()
    theirs.set_verbosity_error(), theirs.disable_progress_bar()
    try:
        yield
    finally:
        theirs.set_verbosity(before)
        if shown:
            theirs.enable_progress_bar()


@torch.no_grad()
def _begin_with(model: UnifiedModel, small: UnifiedModel) -> None:
    """Take over the parts of the small model that both have."""
    ours, theirs = model.state_dict(), small.state_dict()
    for name, tensor in ours.items():
        if name.startswith(KEPT) and name in theirs and theirs[name].shape == tensor.shape:
            tensor.copy_(theirs[name])


@torch.no_grad()
def _speak(model: UnifiedModel, language: PreTrainedModel, embedding: torch.Tensor) -> None:
    """Put the language model's weights in place, and let latents and slots begin as large as its words."""
    known = {name: value for name, value in language.state_dict().items() if name != "embed_tokens.weight"}
    model.language.load_state_dict({**known, "embed_tokens.weight": embedding})
    size = float(embedding.square().mean().sqrt())
    for parameter in (model.latent_embedding.weight, model.latent_embedding.bias):
        parameter.mul_(size / LATENT_SIZE)
    model.slot_embedding.mul_(size / SLOT_SIZE)


def report(model: UnifiedModel) -> str:
    """How large the model and its two large parts are, in a few words."""
    perception, language, everything = (
        sum(p.numel() for p in part.parameters()) / 1e6 for part in (model.perception, model.language, model)
    )
    return f"{everything:.1f} M parameters: perception {perception:.1f} M, language model {language:.1f} M"
