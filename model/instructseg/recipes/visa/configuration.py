"""Sizes of a VISA model, the published ones as presets, and the options of the recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from transformers import LlamaConfig

from ...core import BadInput
from ...modules.dpc_knn import MergeLevel
from ...modules.evidence import Rule
from .frame_choice import MAX_IMAGE_TOKEN

CLIP_L14 = "openai/clip-vit-large-patch14"
NEIGHBOURS = (5, 3, 3)  # published, one number a merging level; not in config.json
RATES = (64.0, 32.0, 16.0)


@dataclasses.dataclass(frozen=True)
class VisaConfig:
    """Everything that ``config.json`` decides. SAM is not in it: its sizes are read off the weights."""

    vocabulary: int = 32001  # Vicuna's 32000 and [SEG]
    hidden: int = 4096
    layers: int = 32
    heads: int = 32
    key_value_heads: int = 32
    mlp: int = 11008
    positions: int = 4096
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    vision_width: int = 1024  # CLIP's
    vision_layer: int = -2  # whose states are used
    vision_tower: str = CLIP_L14
    prompt: int = 256  # width of SAM's prompts
    rates: tuple[float, ...] = RATES

    @property
    def levels(self) -> tuple[MergeLevel, ...]:
        """The merging of one frame's patch tokens."""
        return tuple(MergeLevel(rate, k) for rate, k in zip(self.rates, NEIGHBOURS, strict=True))

    def llama(self) -> LlamaConfig:
        """transformers' configuration of the language model."""
        return LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.mlp,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.key_value_heads,
            max_position_embeddings=self.positions,
            rms_norm_eps=self.norm_eps,
            rope_theta=self.rope_theta,
            tie_word_embeddings=False,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )

    @classmethod
    def from_json(cls, values: Mapping[str, Any], source: Path) -> VisaConfig:
        """Read a published ``config.json``. Raises BadInput naming the field and the file."""
        kind = values.get("model_type")
        if kind != "ChatUniVi":
            raise BadInput(
                f"{source} is of model_type {kind!r}, VISA's is 'ChatUniVi': is it another system's checkpoint?"
            )
        merging = values.get("config")
        merging = merging if isinstance(merging, Mapping) else {}
        if not merging.get("use_cluster", True):
            raise BadInput(f"{source} switches token merging off (config.use_cluster); VISA is published with it on")
        if values.get("mm_vision_select_feature", "patch") != "patch":
            raise BadInput(
                f"{source}: mm_vision_select_feature must be 'patch'; got {values['mm_vision_select_feature']!r}"
            )
        if values.get("hidden_act", "silu") != "silu":
            raise BadInput(f"{source}: hidden_act must be 'silu', as in every Llama; got {values['hidden_act']!r}")
        if values.get("rope_scaling"):
            raise BadInput(
                f"{source} has rope_scaling {values['rope_scaling']!r}; no published VISA has, so it is not read"
            )
        read = _Reader(values, source)
        heads = read.whole("num_attention_heads")
        hidden = read.whole("hidden_size")
        if hidden % heads:
            raise BadInput(f"{source}: num_attention_heads {heads} does not divide hidden_size {hidden}")
        return cls(
            vocabulary=read.whole("vocab_size"),
            hidden=hidden,
            layers=read.whole("num_hidden_layers"),
            heads=heads,
            key_value_heads=read.whole("num_key_value_heads", heads),
            mlp=read.whole("intermediate_size"),
            positions=read.whole("max_position_embeddings", 4096),
            norm_eps=read.number("rms_norm_eps"),
            rope_theta=read.number("rope_theta", 10000.0),
            vision_width=read.whole("mm_hidden_size"),
            vision_layer=read.whole("mm_vision_select_layer", -2, low=-100),
            vision_tower=str(values.get("mm_vision_tower") or values.get("vision_tower") or ""),
            prompt=read.whole("out_dim", 256),
            rates=tuple(_Reader(merging, source).number(f"spatial_cluster_rate{i}", RATES[i]) for i in range(3)),
        )


PRESETS: dict[str, VisaConfig] = {
    "VISA-7B": VisaConfig(),
    "VISA-13B": VisaConfig(hidden=5120, layers=40, heads=40, key_value_heads=40, mlp=13824),
}


class _Reader:
    """Positive numbers out of a configuration file."""

    def __init__(self, values: Mapping[str, Any], source: Path) -> None:
        self._values = values
        self._source = source

    def whole(self, name: str, default: int | None = None, low: int = 1) -> int:
        value = self._values.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise BadInput(f"{self._source}: {name} must be a whole number of at least {low}; got {value!r}")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self._values.get(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
            raise BadInput(f"{self._source}: {name} must be a number above 0; got {value!r}")
        return float(value)


def _option(default: Any, text: str, low: float | None = None, high: float | None = None) -> Any:
    bounds = {} if low is None else {"low": low, "high": high}
    return dataclasses.field(default=default, metadata={"help": text, **bounds})


@dataclasses.dataclass(frozen=True)
class VisaOptions:
    """What a user may set; the defaults are what a robot needs."""

    clip: str = _option("", "folder or hub id of the CLIP tower; empty: as config.json names it")
    base: str = _option("", "folder with config.json and the tokenizer, where the checkpoint holds weights alone")
    tracker_checkpoint: str = _option(
        "", "folder or hub id of a SAM 2 checkpoint whose memory carries masks on; empty: [SEG] prompts SAM every frame"
    )
    frame_sampler: Literal["newest", "uniform", "similarity", "published"] = _option(
        "newest", "which frame of the clip is the target frame"
    )
    video_answerer: str = _option(
        "", "name of an installed entry point of instructseg.video_answerers, for frame_sampler=published"
    )
    max_image_token: int = _option(MAX_IMAGE_TOKEN, "images of a prompt, the target's repetition included", 1, 64)
    clip_frames: int = _option(11, "frames of the buffer that a grounding looks at", 1, 64)
    horizon_s: float = _option(3.0, "seconds that these frames are spread over", 0.0, 600.0)
    merge_noise: Literal["none", "published"] = _option(
        "none", "the random tie-breaker of token merging; published draws it from merge_seed for every frame"
    )
    merge_seed: int = _option(0, "seed of the merge noise", 0, 2**31 - 1)
    rejection: Rule = dataclasses.field(
        default="mask",
        metadata={"help": "what the rejection score is made of (ours); none: as published"},
    )
    lora_alpha: float = _option(16.0, "scale of LoRA in a training dump that is not merged", 0.0, 1024.0)
    sam_decoder_heads: int = _option(8, "attention heads of SAM's mask decoder; 8 in every published one", 1, 64)
