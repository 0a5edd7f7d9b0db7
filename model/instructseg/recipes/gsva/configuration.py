"""Sizes and options of GSVA and LISA: what a checkpoint fixes, and what a user may choose."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from transformers import CLIPVisionConfig, LlamaConfig

from ...core import BadInput
from ...modules.clip_patches import clip_vit_l14
from ...modules.evidence import Rule
from ...modules.sam_sizes import SamSizes

Layout = Literal["gsva", "lisa"]


def _option(default: Any, text: str, **bounds: float) -> Any:
    return dataclasses.field(default=default, metadata={"help": text, **bounds})


@dataclasses.dataclass(frozen=True)
class GsvaOptions:
    """What ``--option key=value`` and the node's ``recipe_options`` may set."""

    base: str = _option("", "folder or hub id of the LLaVA base: its tokenizer and config.json (GSVA ships neither)")
    clip: str = _option("", "folder or hub id of CLIP: GSVA reads its config.json, LISA its weights as well")
    conversation: Literal["llava_v1", "llava_llama_2"] = _option("llava_v1", "chat template (published: llava_v1)")
    decoding: Literal["forced_slot", "generate"] = _option(
        "forced_slot", "forced_slot: one decision a target in a given answer (ours); generate: free greedy answer"
    )
    split: Literal["and", "off"] = _option("and", "cut an instruction at commas, semicolons and 'and' into targets")
    prompt: Literal["auto", "phrase", "sentence"] = _option(
        "auto", "ask for a named thing or reason about a sentence; auto tells a question from a name"
    )
    reject_threshold: float = _option(
        0.5, "GSVA: [REJ] is chosen at a forced slot from this probability on", low=0, high=1
    )
    rejection: Rule = dataclasses.field(
        default="mask", metadata={"help": "LISA only: what its rejection score (ours) is made of; it has no [REJ]"}
    )
    max_targets: int = _option(10, "target phrases an instruction may name", low=1, high=100)
    answer_targets: int = _option(5, "targets asked in one answer; further ones get answers of their own", low=1)
    max_new_tokens: int = _option(512, "longest free answer in tokens (published chat: 512)", low=1, high=4096)
    lora_alpha: float = _option(16.0, "LoRA scale times rank; every published GSVA was trained with 16", low=0)
    sam_decoder_heads: int = _option(8, "attention heads of SAM's mask decoder, which no checkpoint states", low=1)


@dataclasses.dataclass(frozen=True)
class GsvaConfig:
    """Everything the model is built from. prompt_width: width of SAM's prompts, 256 when published."""

    llama: LlamaConfig
    clip: CLIPVisionConfig
    sam: SamSizes
    prompt_width: int = 256
    select_layer: int = -2
    projector: str = "linear"

    @property
    def visual_tokens(self) -> int:
        """Rows that one image becomes in the language model's sequence."""
        return (self.clip.image_size // self.clip.patch_size) ** 2


@dataclasses.dataclass(frozen=True)
class Preset:
    """A published size. rows: of the embedding table; ids as the base tokenizer of that size yields them."""

    layout: Layout
    layers: int
    heads: int
    hidden: int
    intermediate: int
    rows: int
    seg: int
    rej: int | None
    image_start: int
    image_end: int
    norm_eps: float = 1e-6
    positions: int = 2048
    lora_rank: int | None = None

    def config(self) -> GsvaConfig:
        """The configuration of this size, without a checkpoint."""
        llama = LlamaConfig(
            hidden_size=self.hidden, intermediate_size=self.intermediate, num_hidden_layers=self.layers,
            num_attention_heads=self.heads, num_key_value_heads=self.heads, rms_norm_eps=self.norm_eps,
            max_position_embeddings=self.positions, vocab_size=self.rows, tie_word_embeddings=False,
            pad_token_id=0,
        )  # fmt: skip
        return GsvaConfig(llama, clip_vit_l14(224), SamSizes.vit_h())


_7B = {"layers": 32, "heads": 32, "hidden": 4096, "intermediate": 11008}
_13B = {"layers": 40, "heads": 40, "hidden": 5120, "intermediate": 13824}
_LLAMA_2 = {"norm_eps": 1e-5, "positions": 4096}
# LLaVA v1.1 bases bring <im_patch>, <im_start> and <im_end> (32000..32002); the Llama-2 base brings none of them.
_GSVA_VICUNA = {"layout": "gsva", "rows": 32005, "seg": 32003, "rej": 32004, "image_start": 32001, "image_end": 32002}
_GSVA_LLAMA_2 = {"layout": "gsva", "rows": 32004, "seg": 32000, "rej": 32001, "image_start": 32002, "image_end": 32003}
_LISA_VICUNA = {"layout": "lisa", "rows": 32004, "seg": 32003, "rej": None, "image_start": 32001, "image_end": 32002}
_LISA_LLAMA_2 = {"layout": "lisa", "rows": 32003, "seg": 32000, "rej": None, "image_start": 32001, "image_end": 32002}

PRESETS: dict[str, Preset] = {
    "GSVA-7B": Preset(**_7B, **_GSVA_VICUNA, lora_rank=8),
    "GSVA-13B": Preset(**_13B, **_GSVA_VICUNA, lora_rank=64),
    "GSVA-13B-Llama2": Preset(**_13B, **_GSVA_LLAMA_2, **_LLAMA_2, lora_rank=64),
    "LISA-7B": Preset(**_7B, **_LISA_VICUNA),
    "LISA-13B": Preset(**_13B, **_LISA_VICUNA),
    "LISA-13B-Llama2": Preset(**_13B, **_LISA_LLAMA_2, **_LLAMA_2),
}


_LLAMA_KEYS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "max_position_embeddings", "rms_norm_eps", "hidden_act", "attention_bias", "mlp_bias", "bos_token_id",
    "eos_token_id",
)  # fmt: skip
_NEEDED = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "rms_norm_eps")


def llama_config(values: Mapping[str, Any], rows: int, source: Path) -> LlamaConfig:
    """The language model of a LLaVA-style ``config.json`` (model_type "llava", which transformers reads differently).

    rows: of the checkpoint's embedding table; the file holds the size before tokens were added.
    """
    lacking = [key for key in _NEEDED if values.get(key) is None]
    if lacking:
        raise BadInput(f"{source} is not the config.json of a LLaVA or LISA model: it lacks {', '.join(lacking)}")
    if values.get("rope_scaling"):
        raise BadInput(
            f"{source}: rope_scaling {values['rope_scaling']!r} is not supported; published models have none"
        )
    if values.get("hidden_act", "silu") != "silu":
        raise BadInput(f"{source}: hidden_act must be 'silu', as in every Llama; got {values['hidden_act']!r}")
    known = {key: values[key] for key in _LLAMA_KEYS if values.get(key) is not None}
    try:
        rope = {"rope_type": "default", "rope_theta": float(values.get("rope_theta", 10000.0))}
        return LlamaConfig(
            **known, rope_parameters=rope, vocab_size=rows, pad_token_id=0, tie_word_embeddings=False, use_cache=True
        )
    except Exception as error:  # strict validation raises several kinds
        raise BadInput(f"{source} does not describe a Llama model: {error}") from error
