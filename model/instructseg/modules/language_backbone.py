"""A pretrained decoder language model from its configuration, sized for a vocabulary of our own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import CONFIG_MAPPING, AutoModel, PretrainedConfig, PreTrainedModel

from ..core import BadInput

KINDS = ("llama", "qwen2", "qwen3", "mistral")  # they take embeddings, positions and masks as they are given


def language_config(values: Mapping[str, Any], vocabulary: int) -> PretrainedConfig:
    """transformers' configuration from its table; ``vocabulary`` tokens, of which 0 is padding. Raises BadInput for a
    kind that is not known here."""
    kind = values.get("model_type")
    if kind not in KINDS:
        raise BadInput(f"a language backbone must be one of {', '.join(KINDS)}; got {kind!r}")
    ours = {
        "vocab_size": vocabulary, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None, "use_cache": False,
    }  # fmt: skip
    sizes = {k: v for k, v in values.items() if k not in ("model_type", "transformers_version") and k[0] != "_"}
    return CONFIG_MAPPING[kind](**{**sizes, **ours})


def build_language(values: Mapping[str, Any], vocabulary: int) -> PreTrainedModel:
    """The model without its output layer, with random weights."""
    return AutoModel.from_config(language_config(values, vocabulary), attn_implementation="sdpa")
