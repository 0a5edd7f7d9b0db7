"""What the recipe InstructSeg lets its user choose, and the sizes of its network."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from ...core import BadInput

REFERENCES = 4  # published: four neighbours of the key frame


@dataclasses.dataclass(frozen=True)
class InstructSegOptions:
    """Options of the recipe; every one that is not part of the publication says so."""

    references: Literal["causal", "published", "none"] = dataclasses.field(
        default="causal",
        metadata={
            "help": "causal: up to four frames of the past; published: two before and two after, so the answer is two "
            "frames late and masks=tracker must carry it to the present; none: single images with the image prompt"
        },
    )
    reference_seconds: float = dataclasses.field(
        default=0.7,
        metadata={"help": "time the four references span, in seconds", "low": 0.01, "high": 60.0},
    )
    task: Literal["referring", "reasoning"] = dataclasses.field(
        default="referring",
        metadata={"help": "wording of the prompt: the instruction names the target, or it has to be inferred"},
    )
    masks: Literal["every_frame", "tracker"] = dataclasses.field(
        default="every_frame",
        metadata={
            "help": "every_frame: the language model runs on every frame (published); tracker: on groundings only, a "
            "memory tracker carries the masks between them (ours)"
        },
    )
    tracker_checkpoint: str = dataclasses.field(
        default="", metadata={"help": "folder, file or hub id of SAM 2 weights, for masks=tracker"}
    )
    threshold: float = dataclasses.field(
        default=0.5,
        metadata={
            "help": "score (class x mask quality) below which the target counts as absent; ours, not calibrated; 0: "
            "always show the best mask, as published",
            "low": 0.0,
            "high": 0.99,
        },
    )
    max_targets: int = dataclasses.field(
        default=3,
        metadata={
            "help": "masks above the threshold that become targets of their own (ours); 1: the best only, as published",
            "low": 1,
            "high": 16,
        },
    )
    overlap: float = dataclasses.field(
        default=0.5,
        metadata={
            "help": "share of the smaller mask that two masks may have in common and still be two targets (ours)",
            "low": 0.0,
            "high": 1.0,
        },
    )

    def __post_init__(self) -> None:
        if (self.masks == "tracker") != bool(self.tracker_checkpoint):
            raise BadInput(
                "options masks=tracker and tracker_checkpoint=<folder, file or hub id of SAM 2 weights> of recipe "
                f"instructseg go together; got masks={self.masks} and tracker_checkpoint={self.tracker_checkpoint!r}"
            )
        if self.references == "published" and self.masks != "tracker":
            raise BadInput(
                "option references=published of recipe instructseg answers about the frame two references before the "
                "newest, and masks=every_frame has nothing that carries the answer to the present: set masks=tracker "
                "or references=causal (for recorded videos there is InstructSegSegmenter.segment_video)"
            )


@dataclasses.dataclass(frozen=True)
class PerceiverSizes:
    """A stack of perceiver layers."""

    width: int
    depth: int
    heads: int
    head_width: int


@dataclasses.dataclass(frozen=True)
class MaskSizes:
    """Swin, pixel decoder and mask decoder."""

    image_size: int
    swin_width: int
    swin_depths: tuple[int, ...]
    swin_heads: tuple[int, ...]
    swin_window: int
    swin_mlp_ratio: float
    width: int  # of pixel decoder and mask decoder
    mask_width: int  # of mask features and mask embeddings
    heads: int
    pixel_layers: int
    pixel_feed_forward: int
    layers: int
    feed_forward: int
    queries: int

    @property
    def channels(self) -> tuple[int, ...]:
        """Of the four feature maps, finest first."""
        return tuple(self.swin_width * 2**i for i in range(len(self.swin_depths)))


@dataclasses.dataclass(frozen=True)
class InstructSegSizes:
    """Everything the network is built from. language and vision: fields of ``PhiConfig`` and ``SiglipVisionConfig``."""

    language: dict[str, Any]
    head_rows: int  # of the language model's output layer; not the number of embeddings
    vision: dict[str, Any]
    select_layer: int  # index into the vision encoder's hidden states
    projector: str
    reference_tokens: int
    perceiver: PerceiverSizes
    fusion: PerceiverSizes
    masks: MaskSizes

    @property
    def hidden(self) -> int:
        """Width of the language model."""
        return self.language["hidden_size"]

    @property
    def vision_layers(self) -> int:
        """Layers of the vision encoder that are evaluated: what follows the selected hidden state is left out."""
        layers = self.vision["num_hidden_layers"]
        return self.select_layer if self.select_layer >= 0 else layers + 1 + self.select_layer
