"""The MLLMSeg recipe against recordings of the published system: whole conversations, decisions, masks, training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from instructseg.checkpoints import open_tensors
from instructseg.recipes.mllmseg import training
from instructseg.recipes.mllmseg.inference import answer, refusals
from instructseg.recipes.mllmseg.processing import Seen, target_mask
from instructseg.recipes.mllmseg.prompts import Conversation

from .golden import Golden, load_case
from .mllmseg_models import Tensors, checkpoint_of, close, load, passing, token_ids

# float32 on a CPU; other orders of summation were measured at half of these or less
HIDDEN = 5e-5
LOGITS = 5e-5
DECODER = 5e-5
MASK_LOGITS = 2e-5
PROBABILITY = 5e-6  # the wrong epsilon in a norm shows as 1e-5 and no more
LOSS = 1e-6
# bfloat16 rounds differently wherever sums are ordered differently: two right runs are 0.037 apart at most, 0.0045 on
# average; a wrong layer is 0.2 to 0.6 apart
BF16_MOST, BF16_MEAN = 0.12, 0.015

CONVERSATION = (r"in\.pixel_values", r"in\.input_ids", r"out\.mask_prob", r"out\.is_rejected", r"out\.dec\..+")


def final_ids(tensors: Tensors) -> torch.Tensor:
    """``(N,)`` ids of the pass that the masks come from."""
    return tensors["out.input_ids_after"][0]


def mask_slots(tensors: Tensors, seg: int) -> list[int]:
    return torch.nonzero(final_ids(tensors) == seg)[:, 0].tolist()


@pytest.mark.golden("mllmseg", *CONVERSATION)
@torch.inference_mode()
def test_vision_and_language_states(case: Path, golden: Golden) -> None:
    """Every layer of both encoders, the image's tokens, and the logits; in both passes where there are two."""
    tensors = load_case(case)
    model, _ = load(checkpoint_of(golden, case))
    tower, language = model.mllm.model.vision_tower, model.mllm.model.language_model
    modules = {
        "out.vit.embeddings": tower.embeddings,
        **{f"out.vit.layer_{i}": layer for i, layer in enumerate(tower.encoder.layer)},
        "out.mlp1": model.mllm.model.multi_modal_projector,
        **{f"hidden_{i + 1}": layer for i, layer in enumerate(language.layers[:-1])},
        "first": language.layers[0],
    }
    passes = {"out.pass1.llm.": tensors["in.input_ids"], "out.pass2.llm.": tensors["out.input_ids_after"]}
    if "out.pass1.llm.logits" not in tensors:
        passes = {"out.llm.": tensors["in.input_ids"]}
    for prefix, ids in passes.items():
        with passing(modules) as seen:
            reading = model(tensors["in.pixel_values"], ids)
        seen["hidden_0"] = seen["inputs_embeds"] = seen.pop("first#in")
        seen[f"hidden_{len(language.layers)}"] = reading.states
        for name in [n for n in tensors if n.startswith(("out.vit.", "out.mlp1"))]:
            close(name, seen[name], tensors[name], HIDDEN)
        for name in [n for n in tensors if n.startswith(prefix) and not n.endswith("logits")]:
            close(name, seen[name.removeprefix(prefix)], tensors[name], HIDDEN)
        close(prefix + "logits", model.logits(reading.states), tensors[prefix + "logits"], LOGITS)


@pytest.mark.golden("mllmseg", *CONVERSATION)
@torch.inference_mode()
def test_mask_decoder_inside_a_conversation(case: Path, golden: Golden) -> None:
    tensors, folder = load_case(case), checkpoint_of(golden, case)
    model, _ = load(folder)
    decoder = model.decoder
    modules = {
        "text_down": decoder.token_down,
        "img_llm_down": decoder.fusion.language_down,
        "ca_layer_v2l": decoder.fusion.detail,
        "dysample": decoder.fusion.upsample,
        "dysample_offset_conv": decoder.fusion.upsample.offset,
        "text_out_adapter": decoder.fusion.join,
        "ca_layer_vl": decoder.prompted,
        "conv1": decoder.to_pixels,
        "logits": decoder.smooth,
    }
    reading = model(tensors["in.pixel_values"], final_ids(tensors)[None])
    slots = mask_slots(tensors, token_ids(folder)["[SEG]"])
    with passing(modules) as seen:
        logits = model.masks(reading, 0, slots)
    seen["text_down"] = seen["text_down"][:, None]
    for block in ("ca_layer_v2l", "ca_layer_vl"):
        seen[block] = seen[block].transpose(0, 1)  # recorded with the positions first
    seen["in.img_vit"] = reading.patches.expand(len(slots), -1, -1)
    seen["in.img_llm"] = reading.image_states.expand(len(slots), -1, -1)
    seen["in.text_src"] = reading.states[0, torch.tensor(slots) - 1][:, None]
    seen["out.prob"] = logits.sigmoid()[:, None]
    for name in [n.removeprefix("out.dec.") for n in tensors if n.startswith("out.dec.")]:
        limit = {"logits": MASK_LOGITS, "out.prob": PROBABILITY}.get(name, DECODER)
        close(name, seen[name], tensors[f"out.dec.{name}"], limit)


@pytest.mark.golden("mllmseg", *CONVERSATION)
@torch.inference_mode()
def test_decisions_and_masks(case: Path, golden: Golden) -> None:
    tensors, folder = load_case(case), checkpoint_of(golden, case)
    model, _ = load(folder)
    ids = token_ids(folder)
    again = "out.pass1.llm.logits" in tensors
    found = answer(model, tensors["in.pixel_values"], tensors["in.input_ids"][0], ids["[SEG]"], ids["[REJ]"], again)
    assert torch.equal(found.refused, tensors["out.is_rejected"].bool())
    assert torch.equal(found.decided, tensors["out.output_ids"][0])
    assert torch.equal(found.slots, tensors["out.target_pos"])
    close("masks", found.masks, tensors["out.mask_prob"], PROBABILITY)
    height, width = tensors["in.orig_hw"].tolist()
    for row, probabilities in enumerate(found.masks):
        result = target_mask(Seen(0.0, 1.0, False, probabilities), (height, width), None)
        recorded = tensors["out.mask_prob_resized"][row]
        certain = ((recorded - 0.5).abs() > PROBABILITY).numpy()
        assert certain.mean() > 0.99
        assert np.array_equal(result.mask[certain], tensors["out.mask_binary"][row].bool().numpy()[certain])
        assert np.abs(result.confidence / 255.0 - recorded.numpy()).max() <= 0.5 / 255 + PROBABILITY


@pytest.mark.golden("mllmseg", *CONVERSATION)
@torch.inference_mode()
def test_image_read_once_and_instruction_as_suffix(case: Path, golden: Golden) -> None:
    """The recipe's own way of working gives the published masks, also for several instructions in one pass and with
    nothing after the last slot."""
    tensors, folder = load_case(case), checkpoint_of(golden, case)
    model, _ = load(folder)
    ids, seg = final_ids(tensors), token_ids(folder)["[SEG]"]
    slots = mask_slots(tensors, seg)
    start = int(torch.nonzero(ids == model.image_token)[-1]) + 2  # one past the image's end token
    image = model.read_image(tensors["in.pixel_values"], ids[:start])
    whole, shorter = ids[start : slots[-1]], ids[start : slots[0]]
    before = [(keys.clone(), values.clone()) for keys, values in image.cache]
    first, second, third = model.read_commands(image, [whole, shorter, whole])
    for states in (first, third):
        tokens = states[torch.tensor(slots) - 1 - start]
        close("masks", model.image_masks(image, tokens).sigmoid(), tensors["out.mask_prob"], PROBABILITY)
    close("first slot", model.image_masks(image, second[-1:]).sigmoid(), tensors["out.mask_prob"][:1], PROBABILITY)
    for kept, now in zip(before, image.cache, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(kept, now, strict=True)), "reading changed the shared cache"


@pytest.mark.golden("mllmseg", *CONVERSATION)
@torch.inference_mode()
def test_one_pass_with_every_slot_open_decides_alike(case: Path, golden: Golden) -> None:
    """On a robot no slot's answer is known: with [SEG] in all of them the decisions are still the published ones."""
    tensors, folder = load_case(case), checkpoint_of(golden, case)
    model, _ = load(folder)
    ids = token_ids(folder)
    given = tensors["in.input_ids"][0]
    slots = torch.nonzero((given == ids["[SEG]"]) | (given == ids["[REJ]"]))[:, 0]
    open_slots = torch.where(given == ids["[REJ]"], ids["[SEG]"], given)
    reading = model(tensors["in.pixel_values"], open_slots[None])
    found = refusals(model.logits(reading.states[0, slots - 1]), ids["[REJ]"])
    assert torch.equal(found, tensors["out.is_rejected"].bool())


@pytest.mark.golden("mllmseg", *CONVERSATION, r"info\.bf16\.mask_prob")
@torch.inference_mode()
def test_bfloat16_stays_near(case: Path, golden: Golden) -> None:
    tensors, folder = load_case(case), checkpoint_of(golden, case)
    model, _ = load(folder, torch.bfloat16)
    ids = token_ids(folder)
    again = "out.pass1.llm.logits" in tensors
    found = answer(model, tensors["in.pixel_values"], tensors["in.input_ids"][0], ids["[SEG]"], ids["[REJ]"], again)
    error = (found.masks - tensors["info.bf16.mask_prob"]).abs()
    assert error.max() <= BF16_MOST and error.mean() <= BF16_MEAN, f"{error.max():.3f}, mean {error.mean():.4f}"


@pytest.mark.golden("mllmseg", r"in\.gt_masks_0", r"in\.labels", r"in\.position_ids", r"out\.loss")
@torch.inference_mode()
def test_training_forward_and_losses(case: Path, golden: Golden) -> None:
    tensors, folder = load_case(case), checkpoint_of(golden, case)
    model, _ = load(folder)
    ids, special = tensors["in.input_ids"], token_ids(folder)
    reading = model(tensors["in.pixel_values"], ids, tensors["in.attention_mask"].bool(), tensors["in.position_ids"])
    close("last hidden", reading.states, tensors["out.llm.last_hidden"], HIDDEN)
    logits = model.logits(reading.states)
    close("logits", logits, tensors["out.llm.logits"], LOGITS)
    truths = [tensors[f"in.gt_masks_{row}"] for row in range(len(ids))]
    for row, row_ids in enumerate(ids):
        seg = torch.nonzero(row_ids == special["[SEG]"])[:, 0].tolist()
        masks = model.masks(reading, row, seg).sigmoid()
        close(f"masks of image {row}", masks, tensors[f"out.dec_prob_{row}"][:, 0], PROBABILITY)
    tokens = training.Tokens(ids, tensors["in.labels"], tensors["in.attention_mask"].bool(), tensors["in.position_ids"])
    found = training.training_losses(
        model, tensors["in.pixel_values"], tokens, truths, special["[SEG]"], special["[REJ]"]
    )
    for name, value in {
        "out.ce_loss": found.text,
        "out.mask_focal_loss": found.focal,
        "out.mask_dice_loss": found.dice,
        "out.mask_loss": found.mask,
        "out.loss": found.total,
        "out.iou": found.iou,
    }.items():
        close(name, value.reshape(1), tensors[name], LOSS)


@pytest.mark.golden("mllmseg", r"in\.input_ids", r"in\.labels", r"in\.position_ids", r"in\.attention_mask")
def test_conversations_become_a_batch(case: Path) -> None:
    tensors = load_case(case)
    lengths = tensors["in.attention_mask"].sum(1).tolist()
    talks = [
        Conversation(tuple(ids[:n].tolist()), tuple(labels[:n].tolist()))
        for ids, labels, n in zip(tensors["in.input_ids"], tensors["in.labels"], lengths, strict=True)
    ]
    found = training.collate(talks)
    assert torch.equal(found.input_ids, tensors["in.input_ids"])
    assert torch.equal(found.labels, tensors["in.labels"])
    assert torch.equal(found.attention_mask, tensors["in.attention_mask"].bool())
    assert torch.equal(found.position_ids, tensors["in.position_ids"])


@pytest.mark.golden("mllmseg", *CONVERSATION)
def test_every_key_of_a_recorded_checkpoint_has_its_place(case: Path, golden: Golden) -> None:
    folder = checkpoint_of(golden, case)
    model, report = load(folder)
    assert set(report.loaded) == set(model.state_dict())
    assert not report.missing and not report.unexpected and not report.ignored
    adapters = [key for key in open_tensors(folder).shapes if ".lora_A." in key]
    assert len(report.merged) == len(adapters)
