"""Sizes of a published MLLMSeg checkpoint as its config.json states them, and the recipe's options.

The configuration is that of InternVL's own code (``internvl_chat``), which transformers does not read; every field is
therefore taken over by name, and what this recipe has no code for is refused instead of guessed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ...core import BadInput
from ...modules.feature_fusion import FusionSizes

FAMILIES = {"InternLM2ForCausalLM": "internlm2", "Qwen2ForCausalLM": "qwen2"}
_FIXED = {"ps_version": "v2", "select_layer": -1, "pad2square": False, "use_backbone_lora": 0}
_FIXED_VISION = {"norm_type": "layer_norm", "qk_normalization": False, "num_channels": 3}


@dataclasses.dataclass(frozen=True)
class MllmSegOptions:
    """What ``--option`` and the node's ``recipe_options`` may set."""

    prompt: Literal["evaluation", "training"] = dataclasses.field(
        default="evaluation",
        metadata={"help": "wording of the question: the one behind the published figures, or one seen in training"},
    )
    rejection: Literal["auto", "token", "evidence", "both"] = dataclasses.field(
        default="auto",
        metadata={"help": "who refuses: the [REJ] token, the mask's evidence, the more sceptical of both; auto takes "
                          "the token where the checkpoint can say it"},
    )  # fmt: skip
    masks: Literal["every_frame", "tracker"] = dataclasses.field(
        default="every_frame",
        metadata={"help": "every_frame: the instruction is read again on each frame; tracker: that happens every "
                          "mask_period_s, and a memory tracker carries the mask between"},
    )  # fmt: skip
    mask_period_s: float = dataclasses.field(
        default=1.0,
        metadata={"help": "seconds between two masks of the recipe's own with masks=tracker", "low": 0, "high": 3600},
    )
    tracker_checkpoint: str = dataclasses.field(
        default="", metadata={"help": "folder, file or hub id of the memory tracker's weights, with masks=tracker"}
    )
    images_kept: int = dataclasses.field(
        default=4,
        metadata={
            "help": "frames whose reading stays in memory; the 8B model's takes 45 MB each",
            "low": 2,
            "high": 64,
        },
    )
    max_targets: int = dataclasses.field(
        default=4,
        metadata={"help": "most expressions an instruction may name, separated by semicolons", "low": 1, "high": 16},
    )


@dataclasses.dataclass(frozen=True)
class MllmSegConfig:
    """vision, language: keyword arguments for transformers' configurations. family: of the language model as saved.
    image_size: pixels a side. vocabulary: rows of the embedding, the added tokens counted. source: the config.json."""

    vision: Mapping[str, Any]
    language: Mapping[str, Any]
    family: str
    image_size: int
    patch_size: int
    source: Path

    @property
    def grid(self) -> int:
        """Patches a side."""
        return self.image_size // self.patch_size

    @property
    def image_tokens(self) -> int:
        """Tokens of one image in the prompt: four patches make one."""
        return (self.grid // 2) ** 2

    @property
    def vocabulary(self) -> int:
        return self.language["vocab_size"]

    @property
    def fusion(self) -> FusionSizes:
        """The mask decoder's sizes; its 8 heads and 4 sampling groups are the same for every published size."""
        return FusionSizes(self.vision["hidden_size"], self.language["hidden_size"], self.grid)


def parse_config(values: Mapping[str, Any], source: Path, vocabulary: int | None = None) -> MllmSegConfig:
    """``config.json`` of a published checkpoint. vocabulary: rows of the embedding, which count more than the file's
    own number. Raises BadInput for another system's configuration and for variants without code here."""
    vision, language = _section(values, "vision_config", source), _section(values, "llm_config", source)
    if values.get("architectures", ["MLLMSeg"]) != ["MLLMSeg"]:
        raise BadInput(
            f"{source} is of {values['architectures']}, not of MLLMSeg; choose the recipe that the checkpoint is of"
        )
    named = language.get("architectures")
    family = FAMILIES.get(named[0]) if isinstance(named, list) and named and isinstance(named[0], str) else None
    if family is None:
        raise BadInput(f"{source}: llm_config.architectures is {named!r}; known are {[[name] for name in FAMILIES]}")
    if "ps_version" not in values:
        raise BadInput(f"{source} names no ps_version, which means 'v1' there; this recipe supports 'v2' only")
    for table, fixed, where in ((values, _FIXED, ""), (vision, _FIXED_VISION, "vision_config.")):
        for name, expected in fixed.items():
            # False and 0 are the same to what wrote these files
            if table.get(name, expected) != expected:
                raise BadInput(f"{source}: {where}{name} is {table[name]!r}; this recipe supports {expected!r} only")
    forced = values.get("force_image_size") is not None
    image = _number(values, "force_image_size", source) if forced else _number(vision, "image_size", source)
    patch = _number(vision, "patch_size", source)
    if values.get("downsample_ratio", 0.5) != 0.5 or image != vision.get("image_size", image) or image % (2 * patch):
        raise BadInput(
            f"{source}: downsample_ratio must be 0.5, force_image_size the vision encoder's own size and a multiple "
            f"of twice its patch; got {values.get('downsample_ratio')}, {image}, {vision.get('image_size')}, {patch}"
        )
    config = MllmSegConfig(
        _vision(vision, image, patch, source),
        _language(language, family, vocabulary, source),
        family,
        image,
        patch,
        source,
    )
    try:
        _check_heads(config)
    except ValueError as error:
        raise BadInput(f"{source}: sizes that do not go together: {error}") from None
    return config


def _vision(vision: Mapping[str, Any], image: int, patch: int, source: Path) -> dict[str, Any]:
    """InternViT's fields under transformers' names; ``qkv_bias`` would be ignored silently under its own."""
    same = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    return {
        **{name: _number(vision, name, source) for name in same},
        "hidden_act": vision.get("hidden_act", "gelu"),
        "layer_norm_eps": vision.get("layer_norm_eps", 1e-6),
        "norm_type": "layer_norm",
        "attention_bias": vision.get("qkv_bias", True),
        "use_qk_norm": False,
        "use_mean_pooling": True,  # the other choice would add a last norm that InternViT does not have
        "image_size": (image, image),
        "patch_size": (patch, patch),
    }


def _language(language: Mapping[str, Any], family: str, vocabulary: int | None, source: Path) -> dict[str, Any]:
    """The language model's fields under transformers' names; InternLM2 becomes a Llama without biases."""
    same = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    fields = {
        **{name: _number(language, name, source) for name in same},
        "num_key_value_heads": _number(language, "num_key_value_heads", source)
        if language.get("num_key_value_heads") is not None
        else _number(language, "num_attention_heads", source),
        "vocab_size": vocabulary or _number(language, "vocab_size", source),
        "hidden_act": language.get("hidden_act", "silu"),
        "rms_norm_eps": _positive(language, "rms_norm_eps", source),  # the families' own differ
        "max_position_embeddings": language.get("max_position_embeddings", 32768),
        "rope_parameters": rope_parameters(language, source),
        "tie_word_embeddings": False,
        **{name: language.get(name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")},
    }
    if language.get("tie_word_embeddings") or language.get("use_sliding_window"):
        raise BadInput(f"{source}: llm_config ties its embeddings or slides its window; this recipe supports neither")
    if family == "internlm2":
        if language.get("bias"):
            raise BadInput(f"{source}: llm_config.bias is true; the published InternLM2 models have no biases")
        fields |= {"attention_bias": False, "mlp_bias": False}
    return fields


def rope_parameters(language: Mapping[str, Any], source: Path) -> dict[str, Any]:
    """Rotary embedding; the dynamic kind acts beyond ``max_position_embeddings`` only, far longer than a prompt."""
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": _positive(language, "rope_theta", source)}
    scaling = language.get("rope_scaling")
    if scaling:
        if not isinstance(scaling, Mapping) or scaling.get("type", scaling.get("rope_type")) != "dynamic":
            raise BadInput(f"{source}: llm_config.rope_scaling is {scaling}; this recipe supports the dynamic kind")
        rope |= {"rope_type": "dynamic", "factor": _positive(scaling, "factor", source)}
    return rope


def _check_heads(config: MllmSegConfig) -> None:
    """Raise ValueError where a width does not divide among its heads."""
    for table in (config.vision, config.language):
        width, heads = table["hidden_size"], table["num_attention_heads"]
        if width % heads or heads % table.get("num_key_value_heads", heads):
            raise ValueError(f"hidden_size {width}, {heads} heads, {table.get('num_key_value_heads', heads)} of keys")
    assert config.fusion  # raises where the decoder's own heads do not fit


def _section(values: Mapping[str, Any], name: str, source: Path) -> Mapping[str, Any]:
    section = values.get(name) if isinstance(values, Mapping) else None
    if not isinstance(section, Mapping):
        raise BadInput(f"{source} has no {name}; an MLLMSeg checkpoint has vision_config and llm_config in config.json")
    return section


def _positive(table: Mapping[str, Any], name: str, source: Path) -> float:
    """A real number that the published code would otherwise replace by a default of another model's."""
    value = table.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
        raise BadInput(f"{source}: {name} must be a number above 0; got {value!r}")
    return float(value)


def _number(table: Mapping[str, Any], name: str, source: Path) -> int:
    value = table.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BadInput(f"{source}: {name} must be a positive whole number; got {value!r}")
    return value
