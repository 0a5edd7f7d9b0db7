"""Sizes of VideoLISA as its ``config.json`` gives them, and what a user can choose."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

from transformers import Phi3Config

from ...core import BadInput
from ...modules.evidence import Rule

MODEL_TYPE = "llava_phi"
ARCHITECTURE = "VideoLISAForCausalLM"
CLIP_ID = "openai/clip-vit-large-patch14-336"


@dataclasses.dataclass(frozen=True)
class VideoLISAConfig:
    """Everything that ``config.json`` says of the model; the defaults are those of VideoLISA-3.8B.

    SAM's sizes are not in it: they are read off its tensors. Those of CLIP stand in CLIP's own ``config.json``.

    sliding_window: as published, a query sees this many keys before itself **and** itself; None: all keys.
    """

    vocab_size: int = 32012
    hidden_size: int = 3072
    intermediate_size: int = 8192
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = 32
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    max_position_embeddings: int = 4096
    sliding_window: int | None = 2048
    bos_token_id: int = 1
    eos_token_id: int = 32000
    pad_token_id: int = 0
    mm_vision_tower: str = CLIP_ID
    mm_vision_select_layer: int = -2
    mm_hidden_size: int = 1024
    mm_projector_type: str = "mlp2x_gelu"
    out_dim: int = 256

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise BadInput(f"VideoLISAConfig.{name} must be a positive integer; got {value!r}")
        for name in ("rms_norm_eps", "rope_theta"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
                raise BadInput(f"{name} must be a number above 0; got {value!r}")
        if not isinstance(self.mm_vision_select_layer, int):
            raise BadInput(f"mm_vision_select_layer must be a whole number; got {self.mm_vision_select_layer!r}")
        if self.hidden_size % self.num_attention_heads or self.num_attention_heads % self.num_key_value_heads:
            raise BadInput(
                "VideoLISAConfig: num_attention_heads must divide hidden_size and be a multiple of "
                f"num_key_value_heads; got {self.num_attention_heads}, {self.hidden_size}, {self.num_key_value_heads}"
            )
        if self.mm_projector_type not in ("linear", "mlp2x_gelu"):
            raise BadInput(f"mm_projector_type must be linear or mlp2x_gelu; got {self.mm_projector_type!r}")
        if self.sliding_window is not None and self.sliding_window < 1:
            raise BadInput(f"sliding_window must be 1 or more keys, or null; got {self.sliding_window}")
        if not 0 <= self.pad_token_id < self.vocab_size:
            raise BadInput(f"pad_token_id must be in 0..{self.vocab_size - 1} (vocab_size); got {self.pad_token_id}")

    @classmethod
    def from_json(cls, values: Any, source: Path | str) -> VideoLISAConfig:
        """From the parsed ``config.json`` of a checkpoint; ``source`` is named in errors.

        Keys that say nothing about the model's shape or arithmetic are passed over. Raises BadInput for another
        system's configuration and for settings that the published model does not have.
        """
        if not isinstance(values, dict):
            raise BadInput(f"{source} must hold a JSON object; got {type(values).__name__}")
        _check_system(values, source)
        known = {field.name for field in dataclasses.fields(cls)}
        # Tower ids: one of the two keys, written with the same value by the published code.
        picked = {"mm_vision_tower": values.get("vision_tower") or CLIP_ID}
        picked |= {k: v for k, v in values.items() if k in known and (v is not None or k == "sliding_window")}
        absent = [name for name in _REQUIRED if name not in picked]
        if absent:
            raise BadInput(f"{source} lacks {', '.join(absent)}; it should be the config.json of VideoLISA")
        try:
            return cls(**picked)
        except BadInput as error:
            raise BadInput(f"{source}: {error}") from None
        except TypeError:
            raise BadInput(f"{source} holds a value of the wrong type among {sorted(picked)}") from None

    def to_json(self) -> dict[str, Any]:
        """The published form."""
        fixed = {key: value for key, (value, _) in _FIXED.items()}
        own = dataclasses.asdict(self)
        return {
            "model_type": MODEL_TYPE,
            "architectures": [ARCHITECTURE],
            "vision_tower": self.mm_vision_tower,
            "train_mask_decoder": True,
            **fixed,
            **own,
        }

    def phi3(self) -> Phi3Config:
        """The language model's configuration in transformers' terms.

        Published code (transformers 4.41) lets a query see ``sliding_window`` keys before itself, so window + 1 keys;
        transformers 5 counts the query's own key in. The window acts on the published clips of 2336 visual tokens.
        """
        return Phi3Config(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            num_key_value_heads=self.num_key_value_heads,
            rms_norm_eps=self.rms_norm_eps,
            rope_theta=self.rope_theta,
            max_position_embeddings=self.max_position_embeddings,
            original_max_position_embeddings=self.max_position_embeddings,
            sliding_window=None if self.sliding_window is None else self.sliding_window + 1,
            bos_token_id=self.bos_token_id,
            eos_token_id=self.eos_token_id,
            pad_token_id=self.pad_token_id,
            tie_word_embeddings=False,
            use_cache=False,
        )


_POSITIVE = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "max_position_embeddings", "mm_hidden_size", "out_dim",
)  # fmt: skip
_REQUIRED = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "mm_hidden_size",
    "out_dim",
)  # fmt: skip
# key: (the only value this recipe computes with, what the others would need)
_FIXED: dict[str, tuple[Any, str]] = {
    "hidden_act": ("silu", "another activation in the language model"),
    "mm_vision_select_feature": ("patch", "the class token among the visual tokens"),
    "mm_patch_merge_type": ("flat", "image tiles"),
    "mm_use_im_start_end": (False, "tokens around the image"),
    "mm_use_im_patch_token": (False, "a token for each patch"),
    "rope_scaling": (None, "scaled positions"),
    "tie_word_embeddings": (False, "a shared output layer"),
}

PRESETS: dict[str, VideoLISAConfig] = {"VideoLISA-3.8B": VideoLISAConfig()}


def _check_system(values: dict[str, Any], source: Path | str) -> None:
    architectures = values.get("architectures") or []
    if values.get("model_type") != MODEL_TYPE or architectures not in ([], [ARCHITECTURE]):
        raise BadInput(
            f"{source} is of model_type {values.get('model_type')!r}, architectures {architectures}; the recipe "
            f"'videolisa' reads {MODEL_TYPE!r}, [{ARCHITECTURE!r}]: is it another system's checkpoint?"
        )
    for key, (wanted, meaning) in _FIXED.items():
        if values.get(key, wanted) != wanted:
            raise BadInput(f"{source}: {key} is {values[key]!r}; only {wanted!r} is supported ({meaning} is not)")


@dataclasses.dataclass(frozen=True)
class VideoLISAOptions:
    """What a user can choose when loading (``--option key=value``, node parameter ``recipe_options``)."""

    clip: str = dataclasses.field(
        default="", metadata={"help": "folder or hub id of the CLIP tower; empty: the one config.json names"}
    )
    template: Literal[
        "auto", "chat", "mevis", "reason_vos_long", "reason_vos_short", "reason_seg_sentence", "reason_seg_phrase"
    ] = dataclasses.field(
        default="auto",
        metadata={"help": "published prompt; auto: reason_vos_long for a sentence, reason_vos_short for a phrase"},
    )
    sparse_frames: int = dataclasses.field(
        default=32, metadata={"help": "frames that give one token each", "low": 1, "high": 64}
    )
    dense_frames: int = dataclasses.field(
        default=4, metadata={"help": "of these, frames that give all their tokens", "low": 1, "high": 64}
    )
    horizon_s: float = dataclasses.field(
        default=3.0, metadata={"help": "seconds of the past that the clip covers", "low": 0.0, "high": 3600.0}
    )
    dense: Literal["spread", "newest"] = dataclasses.field(
        default="spread", metadata={"help": "dense frames spread over the clip (published), or the newest ones"}
    )
    stop_before_seg: bool = dataclasses.field(
        default=True, metadata={"help": "leave out [SEG] and what follows it: the same masks, less work"}
    )
    colours: Literal["rgb", "bgr"] = dataclasses.field(
        default="rgb", metadata={"help": "order of the channels the encoders see; bgr is a slip of the published demo"}
    )
    rejection: Rule = dataclasses.field(
        default="mask",
        metadata={
            "help": "absence is judged by the mask's evidence, the probability of [SEG], both, or none (published)"
        },
    )
    sam_decoder_heads: int = dataclasses.field(
        default=8, metadata={"help": "attention heads of SAM's mask decoder, which no file names", "low": 1, "high": 64}
    )
    lora_alpha: float = dataclasses.field(
        default=16.0, metadata={"help": "alpha of a LoRA that is not merged yet (lora_A, lora_B among the tensors)"}
    )

    def __post_init__(self) -> None:
        if self.dense_frames > self.sparse_frames:
            raise BadInput(
                f"option dense_frames must be in 1..{self.sparse_frames} (sparse_frames); got {self.dense_frames}"
            )
        if not self.lora_alpha > 0:
            raise BadInput(f"option lora_alpha must be above 0; got {self.lora_alpha}")
