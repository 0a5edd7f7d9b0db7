"""GSVA's every step against recordings of the published code. Limits are about ten times the differences measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from unit.tiny_gsva import published_shapes

from instructseg.modules.sam_masks import upscale_masks
from instructseg.preprocessing import clip_pixels, sam_pixels
from instructseg.recipes.gsva.conversations import answer_labels
from instructseg.recipes.gsva.decoding import ImagePrefix, image_prefix_ids, teacher_forced
from instructseg.recipes.gsva.modeling import image_of_row, slot_positions
from instructseg.recipes.gsva.prompts import phrases_answer, phrases_question, slot_fragments

from .golden import Golden, load_case, metadata
from .gsva_recordings import conversation, gsva, lisa, recorded_keys, sizes

STATES = 2e-5  # language model's states and logits
MASKS = 1e-5
FEATURES = 1e-5  # CLIP and projector
ENCODER = 1e-5  # SAM's image embeddings

Tensors = dict[str, torch.Tensor]


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.inference_mode():
        yield


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    torch.testing.assert_close(found.float(), expected.float(), atol=tolerance, rtol=0)


def numbered(tensors: Tensors, prefix: str) -> list[torch.Tensor]:
    """``prefix_0``, ``prefix_1``, ... in order."""
    found = []
    while f"{prefix}_{len(found)}" in tensors:
        found.append(tensors[f"{prefix}_{len(found)}"])
    return found


# Keys


@pytest.mark.golden("gsva", r"ids_\d+")
def test_key_layout_is_the_published_one(case: Path, golden: Golden) -> None:
    """The layout that the account at full size is made of, at the recorded size: every key and shape."""
    listed = recorded_keys(golden)
    for loaded in (gsva(golden), lisa(golden)):
        rank = sizes(golden)["lora_r"] if loaded.layout == "gsva" else None
        assert published_shapes(loaded.model.config, loaded.layout, rank) in listed
        assert loaded.report.missing == loaded.report.unexpected == ()


# Text


@pytest.mark.golden("gsva", r"ids_\d+", r"frag_\d+")
def test_texts_are_tokenised_as_in_training(case: Path, golden: Golden) -> None:
    texts, pieces = metadata(case), gsva(golden).vocabulary.pieces
    tensors = load_case(case)
    for n, ids in enumerate(numbered(tensors, "ids")):
        assert pieces.encode_with_images(texts[f"text_{n}"]) == ids.tolist(), texts[f"text_{n}"]
    for n, ids in enumerate(numbered(tensors, "frag")):
        assert pieces.encode(texts[f"frag_text_{n}"]) == ids.tolist(), texts[f"frag_text_{n}"]


def conversations(case: Path) -> list[str]:
    texts = metadata(case)
    return json.loads(texts["conversations"]) if "conversations" in texts else [texts["conversation"]]


@pytest.mark.golden("gsva", "input_ids", "labels")
def test_answers_are_supervised_and_nothing_else(case: Path, golden: Golden) -> None:
    tensors, pieces = load_case(case), gsva(golden).vocabulary.pieces
    for ids, labels, text in zip(tensors["input_ids"], tensors["labels"], conversations(case), strict=True):
        found = pieces.encode_with_images(text)
        assert ids[: len(found)].tolist() == found
        assert not ids[len(found) :].any() and (labels[len(found) :] == -100).all()
        expected = answer_labels(found, text, conversation(golden), pieces)
        assert labels[: len(found)].tolist() == expected.tolist()
        assert (expected != -100).any()


@pytest.mark.golden("gsva", "pass1_logits", "input_ids")
def test_evaluation_prompt_and_its_slots(case: Path, golden: Golden) -> None:
    texts, tensors, vocabulary = metadata(case), load_case(case), gsva(golden).vocabulary
    phrases, absent = json.loads(texts["sents"]), json.loads(texts["no_target"])
    asked = conversation(golden).prompt(phrases_question(phrases))
    answered = conversation(golden).render([(phrases_question(phrases), phrases_answer(phrases, absent))])
    assert answered.replace("<image>", "<im_start><image><im_end>") == texts["conversation"]
    # The forced-slot protocol rebuilds the same ids: fragments between decisions.
    ids = vocabulary.pieces.encode_with_images(asked)
    for fragment, gone in zip(slot_fragments(phrases), absent, strict=True):
        ids += [*vocabulary.pieces.encode(fragment), vocabulary.rej if gone else vocabulary.seg]
    ids += vocabulary.pieces.encode(".")
    assert tensors["input_ids"][0, : len(ids)].tolist() == ids


# Images


@pytest.mark.golden("gsva", r"image_\d+|image_uint8(_\d+)?", r"images|sam1024_stride16_\d+")
def test_images_are_prepared_as_recorded(case: Path) -> None:
    """At the sizes of the case, and at the published ones where the case holds parts of them."""
    tensors = load_case(case)
    if "images" in tensors:
        images = [tensors["image_uint8"]] if "image_uint8" in tensors else numbered(tensors, "image_uint8")
        for n, image in enumerate(images):
            close(clip_pixels(image.numpy(), tensors["images_clip"].shape[-1]), tensors["images_clip"][n], 0)
            found, resized = sam_pixels(image.numpy(), tensors["images"].shape[-1])
            close(found, tensors["images"][n], 1e-6)
            assert list(resized) == tensors["resize"].reshape(-1, 2)[n].tolist()
    for n, image in enumerate(numbered(tensors, "image")):
        _check_published_sizes(tensors, n, image.numpy())


def _check_published_sizes(tensors: Tensors, n: int, image: np.ndarray) -> None:
    for name in ("tiny_clip", "clip224"):
        expected = tensors[f"{name}_{n}"]
        close(clip_pixels(image, expected.shape[-1]), expected, 0)
    expected = tensors[f"tiny_sam_{n}"]
    found, resized = sam_pixels(image, expected.shape[-1])
    close(found, expected, 1e-6)
    assert resized == tuple(tensors[f"tiny_sam_resized_uint8_{n}"].shape[:2])
    large, (h, w) = sam_pixels(image, 1024)
    assert [h, w] == tensors[f"sam1024_resized_hw_{n}"].tolist()
    close(large[:, 5::16, 3::16], tensors[f"sam1024_stride16_{n}"], 1e-6)
    top, left = (h // 2 - 16, w - 24) if w < 1024 else (h - 24, 500)
    close(large[:, top : top + 32, left : left + 32], tensors[f"sam1024_crop_{n}"], 1e-6)


# Modules


@pytest.mark.golden("gsva", "clip_in", "mm_projector_in", "text_fc_in", "clip_all_hidden_states")
def test_visual_and_text_projections(case: Path, golden: Golden) -> None:
    tensors, model = load_case(case), gsva(golden).model
    close(model.vision(tensors["clip_in"]), tensors["clip_features"], FEATURES)
    states = model.vision.clip(tensors["clip_in"], output_hidden_states=True).hidden_states
    close(torch.stack(states), tensors["clip_all_hidden_states"], FEATURES)
    close(model.projector(tensors["mm_projector_in"]), tensors["mm_projector_out"], FEATURES)
    close(model.prompts(tensors["text_fc_in"]), tensors["text_fc_out"], FEATURES)


@pytest.mark.golden("gsva", "sam_in", r"sam_block_\d+_out", "sam_patch_embed", "sam_out")
def test_sam_image_encoder(case: Path, golden: Golden) -> None:
    tensors, sam = load_case(case), gsva(golden).model.sam
    encoder = sam.sam.vision_encoder
    close(encoder.patch_embed(tensors["sam_in"]), tensors["sam_patch_embed"], ENCODER)
    outputs: list[torch.Tensor] = []
    hooks = [layer.register_forward_hook(lambda _m, _i, out: outputs.append(out)) for layer in encoder.layers]
    try:
        close(sam.encode(tensors["sam_in"]), tensors["sam_out"], ENCODER)
    finally:
        for hook in hooks:
            hook.remove()
    for n, out in enumerate(outputs):
        close(out[0] if isinstance(out, tuple) else out, tensors[f"sam_block_{n}_out"], ENCODER)


@pytest.mark.golden("gsva", "dec_sparse", "dec_all_masks", "dense_pe", "no_mask_dense")
def test_mask_decoder_with_several_tokens_a_mask(case: Path, golden: Golden) -> None:
    tensors, sam = load_case(case), gsva(golden).model.sam
    embeddings, prompts = tensors["dec_image_embeddings"], tensors["dec_sparse"][None]  # (1, n, k, C)
    close(sam.positions(embeddings), tensors["dense_pe"], FEATURES)
    first, first_iou = sam.decode(embeddings, prompts)  # (1, n, ..)
    others, other_iou = sam.decode(embeddings, prompts, multimask=True)  # (1, n, 3, ..)
    close(torch.cat([first[0][:, None], others[0]], 1), tensors["dec_all_masks"], MASKS)
    close(torch.cat([first_iou[0][:, None], other_iou[0]], 1), tensors["dec_all_ious"], MASKS)


@pytest.mark.golden("gsva", "twoway_src", "twoway_tokens", "twoway_hs")
def test_two_way_transformer(case: Path, golden: Golden) -> None:
    tensors, sam = load_case(case), gsva(golden).model.sam
    tokens, image = sam.sam.mask_decoder.transformer(
        point_embeddings=tensors["twoway_tokens"][None],
        image_embeddings=tensors["twoway_src"],
        image_positional_embeddings=tensors["twoway_pos"],
        attention_similarity=None,
    )[:2]
    close(tokens.flatten(0, 1), tensors["twoway_hs"], MASKS)  # (n, t, C)
    close(image.flatten(0, 1), tensors["twoway_src_out"], MASKS)  # (n, h * w, C)


@pytest.mark.golden("gsva", "post_in", "post_out", "post_input_size")
def test_masks_at_the_size_of_the_image(case: Path, golden: Golden) -> None:
    tensors = load_case(case)
    resized, original = tensors["post_input_size"].tolist(), tensors["post_original_size"].tolist()
    square = gsva(golden).model.sam.sizes.image_size
    found = upscale_masks(tensors["post_in"][:, 0], tuple(resized), tuple(original), square)
    close(found, tensors["post_out"][:, 0], MASKS)


# The whole model


@pytest.mark.golden("gsva", "pass1_inputs_embeds", "pass1_last_hidden_state", "pass2_last_hidden_state")
def test_states_of_both_passes(case: Path, golden: Golden) -> None:
    tensors, model = load_case(case), gsva(golden).model
    rows = model.see(tensors["images_clip"])
    close(model.vision(tensors["images_clip"]), tensors["clip_features"], FEATURES)
    close(rows, tensors["projected_features"], FEATURES)
    for name, ids in (("pass1", tensors["input_ids"]), ("pass2", tensors["input_ids_reeval"])):
        spliced = model.splice(ids, rows, tensors["attention_masks"])
        close(spliced.embeddings, tensors[f"{name}_inputs_embeds"], FEATURES)
        states = model.read(spliced)
        close(states, tensors[f"{name}_last_hidden_state"], STATES)
        close(model.logits(states), tensors[f"{name}_logits"], STATES)
    assert torch.equal(
        model.splice(tensors["input_ids"], rows, tensors["attention_masks"]).attention_mask,
        tensors["pass1_expanded_attention_mask"],
    )
    close(model.prompts(states), tensors["text_hidden_fcs_out"], STATES)
    layers = model.llm.model(inputs_embeds=spliced.embeddings, output_hidden_states=True).hidden_states
    close(torch.stack(layers), tensors["pass2_all_hidden_states"], STATES)


@pytest.mark.golden("gsva", "pass1_last_hidden_state", "pass1_logits", "images_clip")
def test_cached_decoding_reaches_the_same_states(case: Path, golden: Golden) -> None:
    """The image is run once, then the answer in pieces, twice over; every state equals that of the uncached pass."""
    tensors, loaded = load_case(case), gsva(golden)
    ids = tensors["input_ids"][0].tolist()
    prefix = ImagePrefix(
        loaded.model, loaded.vocabulary, loaded.model.see(tensors["images_clip"])[0], image_prefix_ids(ids)
    )
    expected = tensors["pass1_last_hidden_state"][0]
    rest = prefix.rest_of(ids)
    slots = [n for n, token in enumerate(rest) if token in loaded.vocabulary.slot_tokens]
    for _ in range(2):
        prefix.rewind()
        found = [prefix.extend(rest[a:b]) for a, b in zip([0, *slots], [*slots, len(rest)], strict=True)]
        close(torch.cat(found), expected[prefix.length :], STATES)


@pytest.mark.golden("gsva", "offset", r"output_ids(_0)?", r"seg_embeddings(_0)?", r"low_res_masks(_0)?")
def test_teacher_forced_evaluation(case: Path, golden: Golden) -> None:
    tensors, model, vocabulary = load_case(case), gsva(golden).model, gsva(golden).vocabulary
    second_pass = "input_ids_reeval" in tensors
    several = "output_ids" not in tensors
    owners = image_of_row(tensors["offset"], len(tensors["input_ids"]))
    rows = model.see(tensors["images_clip"])
    found = teacher_forced(model, vocabulary, tensors["input_ids"], rows[owners], second_pass)
    embeddings = model.sam.encode(tensors["images"])
    if "image_embeddings" in tensors:
        close(embeddings, tensors["image_embeddings"], ENCODER)
    for n, owner in enumerate(owners):
        suffix = f"_{n}" if several else ""
        assert found.decisions[n].tolist() == tensors["output_ids" + suffix].tolist()
        close(found.prompts[n], tensors["seg_embeddings" + suffix][:, 0], STATES)
        low_res = model.masks(embeddings[owner][None], found.prompts[n])
        close(low_res, tensors["low_res_masks" + suffix][:, 0], MASKS)
        resized = tuple(tensors["resize"].reshape(-1, 2)[owner].tolist())
        original = tuple(tensors["original_size"].reshape(-1, 2)[owner].tolist())
        logits = upscale_masks(low_res, resized, original, model.sam.sizes.image_size)
        close(logits, tensors["pred_masks" + suffix], MASKS)
    if "logits" in tensors:
        spliced = model.splice(tensors["input_ids"], rows[owners], tensors["input_ids"] != vocabulary.pad)
        assert torch.equal(spliced.attention_mask, tensors["expanded_attention_mask"])
        states = model.read(spliced)
        close(states, tensors["last_hidden_state"], STATES)
        close(model.logits(states), tensors["logits"], STATES)


@pytest.mark.golden("gsva", "decoder_all_masks", "seg_embeddings", "image_embeddings")
def test_all_masks_of_the_decoder(case: Path, golden: Golden) -> None:
    tensors, sam = load_case(case), gsva(golden).model.sam
    embeddings, prompts = tensors["image_embeddings"], tensors["seg_embeddings"][None]  # (1, n, 1, C)
    first, first_iou = sam.decode(embeddings, prompts)
    others, other_iou = sam.decode(embeddings, prompts, multimask=True)
    close(torch.cat([first[0][:, None], others[0]], 1), tensors["decoder_all_masks"], MASKS)
    close(torch.cat([first_iou[0][:, None], other_iou[0]], 1), tensors["decoder_all_ious"], MASKS)


@pytest.mark.golden("gsva", "input_ids", r"seg_embeddings(_0)?", "offset")
def test_slots_are_found_in_the_order_of_the_text(case: Path, golden: Golden) -> None:
    tensors, vocabulary = load_case(case), gsva(golden).vocabulary
    for row in tensors["input_ids"]:
        said = [token for token in row.tolist() if token in vocabulary.slot_tokens]
        places, kinds = slot_positions(row, vocabulary.slot_tokens, 10)
        assert kinds.tolist() == said and places.tolist() == sorted(places.tolist())
