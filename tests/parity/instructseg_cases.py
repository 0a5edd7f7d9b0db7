"""InstructSeg's recordings: the small checkpoint they were made with, and their inputs in the network's terms."""

from __future__ import annotations

import dataclasses
import json
import re
from functools import cache
from pathlib import Path

import torch

from instructseg.checkpoints import LoadReport, read_json
from instructseg.recipes.instructseg.checkpoint import load_model, published_tensors
from instructseg.recipes.instructseg.criterion import CriterionSettings
from instructseg.recipes.instructseg.mask_decoder import ImageFeatures, Prediction
from instructseg.recipes.instructseg.modeling import InstructSegModel, Reading
from instructseg.recipes.instructseg.query_masks import FrameShape
from instructseg.recipes.instructseg.sizes import Unseen, read_sizes

from .golden import Golden

SYSTEM = "instructseg"
Case = dict[str, torch.Tensor]


@dataclasses.dataclass(frozen=True, eq=False)
class Recorded:
    """The checkpoint of one set: its network, the account of its keys, the settings of its training losses."""

    model: InstructSegModel
    report: LoadReport
    settings: CriterionSettings


@cache
def recorded(root: Path) -> Recorded:
    golden = Golden(root, SYSTEM)
    dims = json.loads(golden.json_files("hard_coded_constants_overridden", "mask_config")[0].read_text())
    constants, masks = dims["hard_coded_constants_overridden"], dims["mask_config"]
    unseen = Unseen(masks["INPUT.IMAGE_SIZE"], constants["ovp_heads"], constants["vmtf_heads"])
    folder = golden.checkpoints()[0]
    tensors = published_tensors(folder)
    model, report = load_model(read_sizes(read_json(folder / "config.json"), tensors.shapes, unseen), tensors)
    published = CriterionSettings()
    settings = CriterionSettings(
        masks["MASK_FORMER.TRAIN_NUM_POINTS"],
        masks.get("MASK_FORMER.OVERSAMPLE_RATIO", published.oversample),
        masks.get("MASK_FORMER.IMPORTANCE_SAMPLE_RATIO", published.importance),
        masks.get("MASK_FORMER.CLASS_WEIGHT", published.score_weight),
        masks.get("MASK_FORMER.MASK_WEIGHT", published.mask_weight),
        masks.get("MASK_FORMER.DICE_WEIGHT", published.dice_weight),
    )
    return Recorded(model.float(), report, settings)


def numbered(case: Case, name: str) -> list[torch.Tensor]:
    """``name``, ``name.1``, ``name.2`` ..., or ``name.0``, ``name.1`` ..., in order."""
    found = {int(match[1] or 0): key for key in case if (match := re.fullmatch(re.escape(name) + r"(?:\.(\d+))?", key))}
    return [case[found[i]] for i in sorted(found)]


def frames(case: Case) -> torch.Tensor:
    """SigLIP pixels ``(B, 1 + R, 3, s, s)``, key frame first."""
    pixels = case["in.images_clip"]
    return pixels if pixels.dim() == 5 else pixels[:, None]


def images(case: Case) -> torch.Tensor:
    """Swin pixels ``(B, 3, S, S)``."""
    return case["in.images"].flatten(0, -4)


def instructions(case: Case) -> list[torch.Tensor]:
    return numbered(case, "in.token_refer_id")


def reference_tokens(model: InstructSegModel, case: Case) -> list[torch.Tensor]:
    """Per sample ``(T, n, hidden)``; without references the key frame is its own."""
    tokens = [model.frames(row) for row in frames(case)]
    return [
        model.reference_tokens(t[1:] if len(t) > 1 else t, ids)
        for t, ids in zip(tokens, instructions(case), strict=True)
    ]


def read(model: InstructSegModel, case: Case) -> Reading:
    """The whole language half, from pixels and ids."""
    keys = model.frames(frames(case)[:, 0])
    labels = case.get("in.labels", case["in.input_ids"])
    return model.read(
        case["in.input_ids"], instructions(case), keys, reference_tokens(model, case), case["in.attention_mask"], labels
    )


def recorded_heads(case: Case) -> list[Prediction]:
    """Predictions of all heads as recorded, the result last."""
    count = sum(bool(re.fullmatch(r"mid\.aux\.\d+\.pred_masks", key)) for key in case)
    names = [f"mid.aux.{i}" for i in range(count)]
    heads = [Prediction(case[f"{n}.pred_masks"], case[f"{n}.pred_SEG_logits"]) for n in names]
    return [*heads, Prediction(case["out.pred_masks"], case["out.pred_SEG_logits"])]


def frame_shape(case: Case) -> FrameShape:
    inside, size = (tuple(case[name].tolist()) for name in ("mid.crop_hw", "in.orig_hw"))
    return FrameShape(images(case).shape[-1], inside, size)


def pixel_features(case: Case, prefix: str) -> ImageFeatures:
    """What a mask decoder reads, as recorded; without the backbone's maps."""
    return ImageFeatures((), case[f"{prefix}mask_features"], tuple(numbered(case, f"{prefix}multi_scale")))
