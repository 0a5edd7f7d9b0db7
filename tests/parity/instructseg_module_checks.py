"""InstructSeg's parts alone, against recordings of their own inputs and outputs."""

from __future__ import annotations

import re

import numpy as np
import torch

from instructseg.recipes.instructseg.images import frame_pixels, mask_pixels
from instructseg.recipes.instructseg.query_masks import QueryMasks, mask_quality

from .instructseg_cases import Case, Recorded, numbered, pixel_features
from .instructseg_comparing import PIXELS, check, compare_instances, near, same


@check(r"ovp\.x", r"ovp\.latents", r"ovp\.out")
def perceiver_layers(system: Recorded, case: Case) -> None:
    perceiver = system.model.perceiver.perceiver
    attention, feed = perceiver.layers[0]
    near(attention(case["ovp.x"], case["ovp.latents"]), case["ovp.layer0.attn_out"])
    near(feed(case["ovp.latents"]), case["ovp.layer0.ff_out"])
    near(perceiver(case["ovp.x"], case["ovp.latents"]), case["ovp.out"])


@check(r"vmtf\.x", r"vmtf\.latents", r"vmtf\.out")
def fusion_layers(system: Recorded, case: Case) -> None:
    perceiver = system.model.fusion.perceiver
    near(perceiver.layers[0][0](case["vmtf.x"], case["vmtf.latents"]), case["vmtf.layer0.attn_out"])
    near(perceiver(case["vmtf.x"], case["vmtf.latents"])[..., 0, :], case["vmtf.out"])


@check("phi.inputs_embeds", "phi.last_hidden_state")
def phi(system: Recorded, case: Case) -> None:
    states = system.model.language(inputs_embeds=case["phi.inputs_embeds"]).last_hidden_state
    near(states, case["phi.last_hidden_state"])


@check("siglip.pixel_values", "siglip.features", "siglip.projected")
def siglip(system: Recorded, case: Case) -> None:
    near(system.model.frames.features(case["siglip.pixel_values"]), case["siglip.features"])
    near(system.model.frames(case["siglip.pixel_values"]), case["siglip.projected"])


@check(r"swin(_rect)?\.in", r"swin(_rect)?\.res2")
def swin(system: Recorded, case: Case) -> None:
    for prefix in {name.split(".")[0] for name in case if re.fullmatch(r"swin\w*\.in", name)}:
        maps = system.model.image.backbone(case[f"{prefix}.in"]).feature_maps
        for stage, found in enumerate(maps):
            near(found, case[f"{prefix}.res{stage + 2}"])


@check(r"pixdec\.in\.res2", r"pixdec\.mask_features")
def pixel_decoder(system: Recorded, case: Case) -> None:
    found = system.model.image.decoder([case[f"pixdec.in.res{i}"] for i in range(2, 6)])
    near(found.mask_features, case["pixdec.mask_features"])
    for level, expected in zip(found.multi_scale_features, numbered(case, "pixdec.multi_scale"), strict=True):
        near(level, expected)


@check("msda.query", "msda.reference_points", "msda.out")
def deformable_attention(system: Recorded, case: Case) -> None:
    attention = system.model.image.decoder.encoder.layers[0].self_attn
    found = attention(
        hidden_states=case["msda.query"],
        encoder_hidden_states=case["msda.value"],
        reference_points=case["msda.reference_points"],
        spatial_shapes_list=case["msda.spatial_shapes"].tolist(),
    )[0]
    near(found, case["msda.out"])


@check("predictor.seg_query", "predictor.pred_masks")
def mask_decoder(system: Recorded, case: Case) -> None:
    features = pixel_features(case, "predictor.")
    heads = system.model.decoder(case["predictor.seg_query"], case["predictor.SEG_embedding"], features)
    aux = [f"predictor.aux.{i}" for i in range(len(heads) - 1)]
    for found, prefix in zip(heads, [*aux, "predictor"], strict=True):
        near(found.masks, case[f"{prefix}.pred_masks"])
        near(found.scores, case[f"{prefix}.pred_SEG_logits"])


@check("segtok.hidden", "segtok.refer_mask", "segtok.pooled_then_tokens")
def pooled_instruction(system: Recorded, case: Case) -> None:
    states = case["segtok.hidden"][case["segtok.refer_mask"].bool()]
    mean, _ = system.model.fusion.latents(states)
    near(torch.cat([mean, states]), case["segtok.pooled_then_tokens"], PIXELS)


@check(r"posenc\.\d+x\d+")
def position_code(system: Recorded, case: Case) -> None:
    for name in (name for name in case if name.startswith("posenc.")):
        embedder = system.model.decoder.transformer.position_embedder
        near(embedder(case[name].shape, torch.device("cpu"), torch.float32), case[name])


@check("post.SEG_cls", "post.mask_logits", r"post\.soft0\.scores")
def scoring(system: Recorded, case: Case) -> None:
    logits = case["post.mask_logits"]
    found = QueryMasks(logits, case["post.SEG_cls"][:, 0].sigmoid(), mask_quality(logits))
    for mode in (0, 1):
        compare_instances(found, case[f"post.soft{mode}.pred_masks"], case[f"post.soft{mode}.scores"], bool(mode))


@check(r"img\d+\.uint8_hwc", r"img\d+\.swin_\d+\.image(_stride\d+)?")
def pixels_alone(system: Recorded, case: Case) -> None:
    """Whole, thinned out or summed up, at every size that was recorded."""
    for name in (name for name in case if name.endswith(".uint8_hwc")):
        image, prefix = case[name].numpy(), name.removesuffix("uint8_hwc")
        for key in (key for key in case if key.startswith(prefix) and key != name):
            compare_pixels(image, key.removeprefix(prefix), case[key])


def compare_pixels(image: np.ndarray, key: str, expected: torch.Tensor) -> None:
    encoder, size, what = re.fullmatch(r"(siglip|swin)_(\d+)\.(\w+)", key).groups()
    if encoder == "siglip":
        pixels, inside = frame_pixels(image, int(size)), (int(size), int(size))
    else:
        pixels, inside = mask_pixels(image, int(size))
    if what in ("image", "pixel_values"):
        near(pixels, expected, PIXELS)
    elif match := re.fullmatch(r"(?:image|pixel_values)_stride(\d+)", what):
        step = int(match[1])
        near(pixels[:, ::step, ::step], expected, PIXELS)
    elif what == "uint8":
        same(((pixels + 1) * 127.5).round(), expected)
    elif what == "channel_mean":
        near(pixels.double().mean((1, 2)), expected, PIXELS)
    elif what == "channel_sumsq":
        total = pixels.double().square().sum((1, 2))
        near(total / expected, torch.ones(3), PIXELS)
    elif what == "valid_hw":
        assert inside == tuple(expected.tolist())
    elif what == "padding_count":
        assert int(size) ** 2 - inside[0] * inside[1] == int(expected)
    elif what == "padding_mask":
        assert int((expected == 0).sum()) == inside[0] * inside[1]
        assert not expected[: inside[0], : inside[1]].any()
    else:
        raise AssertionError(f"no comparison for {key}")
