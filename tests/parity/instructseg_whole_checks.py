"""InstructSeg from pixels and ids to masks, losses and words, against recordings of whole passes."""

from __future__ import annotations

import torch

from instructseg.recipes.instructseg.criterion import criterion
from instructseg.recipes.instructseg.images import frame_pixels, mask_pixels
from instructseg.recipes.instructseg.query_masks import all_queries, best_queries
from instructseg.recipes.instructseg.splicing import INSTRUCTION, QUERIES
from instructseg.recipes.instructseg.training import TrainingBatch
from instructseg.recipes.instructseg.training import training_losses as training_step_losses
from instructseg.training.mask_losses import text_loss

from .instructseg_cases import (
    Case,
    Recorded,
    frame_shape,
    frames,
    images,
    instructions,
    numbered,
    read,
    recorded_heads,
    reference_tokens,
)  # fmt: skip
from .instructseg_comparing import FEATURES, LOSSES, PIXELS, SCORES, check, compare_instances, is_soft, near, same


@check("in.image_uint8", "in.images_clip", "in.padding_mask", "mid.crop_hw")
def preprocessing(system: Recorded, case: Case) -> None:
    size, frame_size = images(case).shape[-1], frames(case).shape[-1]
    pixels, inside = mask_pixels(case["in.image_uint8"].numpy(), size)
    near(pixels, images(case)[0], PIXELS)
    assert inside == tuple(case["mid.crop_hw"].tolist())
    padding = torch.ones(size, size)
    padding[: inside[0], : inside[1]] = 0
    same(padding, case["in.padding_mask"])
    seen = [case["in.image_uint8"], *numbered(case, "in.ref_uint8")]
    for image, expected in zip(seen, frames(case)[0], strict=True):
        near(frame_pixels(image.numpy(), frame_size), expected, PIXELS)


@check("in.images_clip", "mid.siglip_features", "mid.mm_projector")
def frame_encoder(system: Recorded, case: Case) -> None:
    pixels = frames(case)
    order = [*range(1, pixels.shape[1]), 0]  # references first, the key frame last
    if pixels.shape[1] == 1 and len(numbered(case, "mid.siglip_features")) == 2:
        order = [0, 0]  # the key frame as its own reference
    for k, features, tokens in zip(
        order, numbered(case, "mid.siglip_features"), numbered(case, "mid.mm_projector"), strict=True
    ):
        near(system.model.frames.features(pixels[:, k]), features)
        near(system.model.frames(pixels[:, k]), tokens)


@check("in.images_clip", r"in.token_refer_id(\.0)?", "mid.ovp_out")
def object_aware_perceiver(system: Recorded, case: Case) -> None:
    for found, expected in zip(reference_tokens(system.model, case), numbered(case, "mid.ovp_out"), strict=True):
        near(found[None], expected)


@check("in.input_ids", "mid.refer_mask", "mid.llm.last_hidden_state", "mid.seg_query_proj")
def language_model(system: Recorded, case: Case) -> None:
    reading = read(system.model, case)
    spliced = reading.spliced
    near(spliced.embeddings, case["mid.llm.inputs_embeds"])
    same(spliced.attention_mask, case["mid.llm.attention_mask"])
    same(spliced.labels, case["mid.expanded_labels"])
    same(spliced.origin == QUERIES, case["mid.seg_query_mask"])
    same(spliced.origin == INSTRUCTION, case["mid.refer_mask"])
    near(reading.states, case["mid.llm.last_hidden_state"])
    near(reading.queries, case["mid.seg_query_proj"])
    assert [len(words) for words in reading.words] == [len(ids) for ids in instructions(case)]


@check("in.images", r"mid\.swin_res\.0", r"mid\.pixdec\.mask_features")
def image_encoder(system: Recorded, case: Case) -> None:
    features = system.model.image(images(case))
    for found, expected in zip(features.backbone, numbered(case, "mid.swin_res"), strict=True):
        near(found, expected)
    near(features.mask_features, case["mid.pixdec.mask_features"])
    for found, expected in zip(features.levels, numbered(case, "mid.pixdec.multi_scale"), strict=True):
        near(found, expected)


@check(r"mid\.text_vmtf", r"mid\.vmtf_out", r"mid\.swin_res\.\d+", "mid.SEG_embedding")
def text_fusion(system: Recorded, case: Case) -> None:
    fusion = system.model.fusion
    last = numbered(case, "mid.swin_res")[-1]
    parts = ("mid.text_vmtf.in", "mid.text_vmtf", "mid.origin_SEG", "mid.vmtf_out")
    for n, (listed, words, whole, fused) in enumerate(zip(*(numbered(case, p) for p in parts), strict=True)):
        states = listed[0, 1:]  # the first row is the mean
        mean, latents = fusion.latents(states)
        near(mean, listed[0, :1])
        near(latents, words)
        near(fusion.whole(mean)[None], whole)
        near(fusion.perceiver(fusion.context(last[n]), latents)[:, :1], fused)
        near(fusion(states, last[n])[None], case["mid.SEG_embedding"][n : n + 1])
    if "mid.local_project" in case:
        near(fusion.pixels(last), case["mid.local_project"])


@check("in.images", "in.input_ids", "out.pred_masks", "out.pred_SEG_logits")
def masks_of_all_heads(system: Recorded, case: Case) -> None:
    reading = read(system.model, case)
    features = system.model.image(images(case))
    near(system.model.embed_targets(reading, features), case["mid.SEG_embedding"])
    for found, expected in zip(system.model.predict(reading, features), recorded_heads(case), strict=True):
        near(found.masks, expected.masks)
        near(found.scores, expected.scores)


@check("in.images", "in.input_ids", "out.best_mask", "in.flags_use_soft_video_on")
def best_mask(system: Recorded, case: Case) -> None:
    """From pixels to the mask that is shown, hard or soft."""
    model, shape = system.model, frame_shape(case)
    prediction = model.predict(read(model, case), model.image(images(case)))[-1]
    every = all_queries(prediction, shape)
    compare_instances(every, case["out.instances.pred_masks"], case["out.instances.scores"], is_soft(case))
    best = best_queries(prediction, shape, 2.0)
    assert len(best) == 1
    near(best.scores, case["out.best_score"], SCORES)
    shown = best.soft[0] if is_soft(case) else best.hard[0].float()
    certain = best.logits[0].abs() > FEATURES  # nearer to 0 the sign is a matter of rounding
    near(shown * certain, case["out.best_mask"] * certain, FEATURES)


@check("out.pred_masks", "mid.mask_logits_input_res", "out.mask_logits_orig_res")
def enlarged_masks(system: Recorded, case: Case) -> None:
    shape = frame_shape(case)
    near(shape.to_square(case["out.pred_masks"][0]), case["mid.mask_logits_input_res"])
    near(shape.upscale(case["out.pred_masks"][0]), case["out.mask_logits_orig_res"])
    found = all_queries(recorded_heads(case)[-1], shape)
    compare_instances(found, case["out.instances.pred_masks"], case["out.instances.scores"], is_soft(case))


@check("in.input_ids", "in.images_clip", "out.logits", "in.labels")
def next_token_loss(system: Recorded, case: Case) -> None:
    reading = read(system.model, case)
    logits = system.model.logits(reading.states)
    near(logits, case["out.logits"])
    loss = text_loss(logits, reading.spliced.labels)
    near(loss, case["out.loss_llm"].squeeze(), LOSSES * float(case["out.loss_llm"]))


@check("out.pred_masks", r"in\.rand\.\d+", r"in\.gt_masks\.0", "out.loss")
def training_losses(system: Recorded, case: Case) -> None:
    """Matching and point sampling with the recorded random draws, in their order and shapes."""
    draws = iter(case[name] for name in sorted(name for name in case if name.startswith("in.rand.")))

    def draw(shape: tuple[int, ...]) -> torch.Tensor:
        drawn = next(draws)
        assert drawn.shape == shape
        return drawn

    losses = criterion(recorded_heads(case), numbered(case, "in.gt_masks"), system.settings, draw)
    assert next(draws, None) is None
    *others, last = losses.heads
    for call, head in enumerate([last, *others]):
        suffix = f"_{call - 1}" if call else ""
        for name, found in (("SEG_class", head.score), ("mask", head.mask), ("dice", head.dice)):
            expected = case[f"out.loss_unweighted.loss_{name}{suffix}"].squeeze()
            near(found, expected, LOSSES * float(expected))
        for sample, match in enumerate(head.matches):
            same(torch.stack(match), case[f"mid.match.{call:02d}.{sample}"])
    for name, found in (("SEG_class", losses.score), ("mask", losses.mask), ("dice", losses.dice)):
        near(found, case[f"out.loss_{name}"].squeeze(), LOSSES * float(case[f"out.loss_{name}"]))
    near(losses.total + case["out.loss_llm"].squeeze(), case["out.loss"].squeeze(), LOSSES * float(case["out.loss"]))


@check("in.images", "in.labels", r"in\.rand\.\d+", r"in\.gt_masks\.0", "out.loss", "out.loss_llm")
def training_step(system: Recorded, case: Case) -> None:
    """From pixels and ids to the sum that training minimises."""
    batch = TrainingBatch(
        images(case),
        list(frames(case)),
        case["in.input_ids"],
        case["in.labels"],
        case["in.attention_mask"],
        instructions(case),
        numbered(case, "in.gt_masks"),
        with_text=True,
    )
    draws = iter(case[name] for name in sorted(name for name in case if name.startswith("in.rand.")))
    found = training_step_losses(system.model, batch, system.settings, lambda shape: next(draws))
    near(found.text, case["out.loss_llm"].squeeze(), LOSSES * float(case["out.loss_llm"]))
    near(found.total, case["out.loss"].squeeze(), LOSSES * float(case["out.loss"]))


@check("in.images_clip", "in.input_ids", "out.greedy_tokens", "out.logits")
def conversation(system: Recorded, case: Case) -> None:
    model = system.model
    key = model.frames(frames(case)[0, :1])[0]
    ids = case["in.input_ids"][0]
    states = model.chat_states(ids, key)[None]
    near(states, case["mid.llm.last_hidden_state"])
    near(model.logits(states), case["out.logits"])
    assert model.chat(ids, key, len(case["out.greedy_tokens"])) == case["out.greedy_tokens"].tolist()
