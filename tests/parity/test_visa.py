"""VISA against recordings of the published system, stage by stage."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
import torch

from instructseg import sampling_text
from instructseg.core import Clip, Frame, Instruction
from instructseg.modules.dpc_knn import cluster_dpc_knn, merge_clusters
from instructseg.modules.sam_masks import upscale_masks
from instructseg.modules.token_mlp import project
from instructseg.preprocessing import clip_pixels, sam_pixels
from instructseg.recipes.visa import frame_choice, prompts
from instructseg.recipes.visa.modeling import Reading
from instructseg.recipes.visa.processing import VisaSegmenter
from instructseg.recipes.visa.training import BCE_WEIGHT, DICE_WEIGHT, training_losses

from .golden import Golden, load_case
from .visa_recordings import (
    BATCH,
    CHAIN,
    DECODER,
    EXACT,
    LOSS_RTOL,
    MASKS,
    Batch,
    Tensors,
    checkpoint_places,
    close,
    conversations,
    text,
    tiny,
)

# Words: prompts, ids, labels


@pytest.mark.golden("visa")
def test_ids_of_texts(golden: Golden) -> None:
    recorded, loaded = text(golden), tiny(golden)
    assert loaded.seg_id == recorded["seg_token_id"]
    assert recorded["tokenization"]
    for probe in recorded["tokenization"]:
        assert loaded.tokenizer.encode_with_images(probe["text"]) == probe["input_ids"], probe["text"]


@pytest.mark.golden("visa")
def test_ids_and_labels_of_conversations(golden: Golden) -> None:
    tokenize, cases = tiny(golden).tokenizer.encode_with_images, text(golden)["cases"].values()
    assert cases
    for case in cases:
        for said, ids, labels, mask in zip(
            case["conversations"], case["input_ids"], case["labels"], case["attention_mask"], strict=True
        ):
            found = tokenize(said)
            assert found + [0] * (len(ids) - len(found)) == ids
            assert [int(i != 0) for i in ids] == [int(m) for m in mask]
            assert prompts.supervised(said, tokenize, len(ids)) == labels


@pytest.mark.golden("visa", r"input\.frames_uint8", r"input\.seg_frame_index")
def test_prompt_from_expression_and_frames(case: Path, golden: Golden) -> None:
    tensors = load_case(case)
    said, target = conversations(golden, tensors), int(tensors["input.seg_frame_index"])
    seen = frame_choice.reference_frames(len(tensors["input.frames_uint8"]), target, said["max_image_token"])
    built = [
        prompts.conversation([prompts.Turn(prompts.question(expression, len(seen)), prompts.ANSWERS[0])])
        for expression in said["expressions"]
    ]
    assert built == said["conversations"]


# Frames: choice, answers of the text-guided sampler, data order, pixels


@pytest.mark.golden("visa")
def test_reference_frames(golden: Golden) -> None:
    recorded = text(golden)["eval_frame_selection"]
    assert recorded
    for choice in recorded:
        found = frame_choice.reference_frames(choice["num_frames"], choice["target"], choice["max_image_token"])
        assert list(found) == choice["reference"], choice


@pytest.mark.golden("visa")
def test_answers_of_the_frame_sampler(golden: Golden) -> None:
    recorded = text(golden)
    assert recorded["tfs_parse"] and recorded["tfs_frame_index"]
    for case in recorded["tfs_parse"]:
        assert sampling_text.mean_position(case["answers"]) == pytest.approx(case["tp"], abs=1e-12), case["answers"]
    for case in recorded["tfs_frame_index"]:
        assert sampling_text.frame_at(case["tp"], case["num_frames"]) == case["index"], case


@pytest.mark.golden("visa")
def test_order_of_training_data(golden: Golden) -> None:
    recorded = text(golden)["balance_sampler"]
    lists = {key: value for key, value in recorded.items() if key != "weights"}
    assert len(lists) == 2
    for key, expected in lists.items():
        if key.startswith("frames"):
            low, high = map(int, re.findall(r"\d+", key)[:2])
            found = frame_choice.balanced_counts(range(low, high + 1))
        else:
            found = frame_choice.balanced_choices(recorded["weights"])
        assert list(itertools.islice(found, len(expected))) == expected, key


@pytest.mark.golden("visa", r"input\.frames_uint8", r"input\.seg_frame_index", r"input\.sam_pixels\.0")
def test_pixels_of_a_video(case: Path, golden: Golden) -> None:
    tensors = load_case(case)
    images, target = tensors["input.frames_uint8"].numpy(), int(tensors["input.seg_frame_index"])
    most = conversations(golden, tensors)["max_image_token"]
    shown = [*frame_choice.reference_frames(len(images), target, most), target]
    wanted = tensors["input.clip_pixels.0"]
    close(torch.stack([clip_pixels(images[i], wanted.shape[-1]) for i in shown]), wanted, EXACT)
    pixels, resized = sam_pixels(images[target], tensors["input.sam_pixels.0"].shape[-1])
    close(pixels[None], tensors["input.sam_pixels.0"], EXACT)
    assert resized == tuple(tensors["input.resize_hw.0"].tolist())


# Modules by themselves


def merging_cases(tensors: Tensors) -> list[str]:
    return sorted(name.removesuffix(".x") for name in tensors if re.fullmatch(r"dpc_knn.*\.x", name))


@pytest.mark.golden("visa", r"dpc_knn.*\.x", r"dpc_knn.*\.expect\.idx_cluster")
def test_token_merging(case: Path) -> None:
    tensors = load_case(case)
    names = merging_cases(tensors)
    for name in names:
        x, count, k = tensors[f"{name}.x"], int(tensors[f"{name}.cluster_num"]), int(tensors[f"{name}.k"])
        index = cluster_dpc_knn(x, count, k, tensors[f"{name}.noise"])
        assert torch.equal(index, tensors[f"{name}.expect.idx_cluster"]), name
        if f"{name}.expect.merged" in tensors:  # the bfloat16 one bit for bit
            merged, wanted = merge_clusters(x, index, count), tensors[f"{name}.expect.merged"]
            assert merged.dtype == wanted.dtype
            close(merged, wanted, EXACT if wanted.dtype == torch.bfloat16 else 1e-6, name)
    assert any("bf16" in name for name in names) and any("ties" in name for name in names)


@pytest.mark.golden("visa", r"project_image\.features", r"text_fc\.x", r"text_fc\.expect\.y")
def test_projections(case: Path, golden: Golden) -> None:
    tensors, model = load_case(case), tiny(golden).model
    noise = [tensors[f"project_image.noise.{i}"] for i in range(len(model.merging.levels))]
    with torch.inference_mode():
        found = model.visual_tokens(tensors["project_image.features"], noise)
        close(found, tensors["project_image.expect.tokens"], name="visual tokens")
        close(project(model.text_hidden_fcs, tensors["text_fc.x"]), tensors["text_fc.expect.y"], name="text_hidden_fcs")


@pytest.mark.golden("visa", r"sam\.image_embeddings", r"sam\.text_embeds", r"sam\.expect\.all_masks")
def test_mask_decoder(case: Path, golden: Golden) -> None:
    tensors, sam = load_case(case), tiny(golden).model.sam
    image, seg = tensors["sam.image_embeddings"], tensors["sam.text_embeds"]
    with torch.inference_mode():
        close(sam.positions(image), tensors["sam.expect.dense_pe"], DECODER, "positions")
        close(seg[:, None], tensors["sam.expect.sparse"], EXACT, "sparse prompts")
        first, first_iou = sam.decode(image, seg[None, :, None])
        others, other_iou = sam.decode(image, seg[None, :, None], multimask=True)
    close(torch.cat([first[0][:, None], others[0]], 1), tensors["sam.expect.all_masks"], DECODER, "masks")
    close(torch.cat([first_iou[0][:, None], other_iou[0]], 1), tensors["sam.expect.all_iou"], DECODER, "IoU")


@pytest.mark.golden("visa", r"postprocess\.low_res", r"postprocess\.\d+\.expect\.masks")
def test_masks_at_the_frames_sizes(case: Path, golden: Golden) -> None:
    tensors, size = load_case(case), tiny(golden).model.sam.sizes.image_size
    numbers = [m[1] for name in tensors if (m := re.fullmatch(r"postprocess\.(\d+)\.input_hw", name))]
    for n in numbers:
        shapes = (tuple(tensors[f"postprocess.{n}.{name}_hw"].tolist()) for name in ("input", "original"))
        full = upscale_masks(tensors["postprocess.low_res"][:, 0], *shapes, size)
        close(full[:, None], tensors[f"postprocess.{n}.expect.masks"], DECODER)  # the sums' order is the CPU's: 1.2e-6
    assert numbers


# Whole batches


def read(batch: Batch, golden: Golden, check: bool = False) -> Reading:
    """The language model's pass over a recorded batch; with ``check`` everything before it is compared as well."""
    loaded, tensors = tiny(golden), batch.tensors
    model = loaded.model
    noise = batch.noise(len(model.merging.levels))
    features = model.clip(batch.clip_pixels())
    tokens = model.visual_tokens(features, noise)
    if check:
        close(features, tensors["expect.clip_features"], name="CLIP")
        for level, index in enumerate(model.merging.clusters(features, noise)):
            assert torch.equal(index, tensors[f"expect.cluster_idx{level}"]), f"clusters of level {level}"
        close(model.merging(features, noise), tensors["expect.merged_tokens"], name="merged tokens")
        close(tokens, tensors["expect.visual_tokens"], name="visual tokens")
    return model.read(tensors["input.input_ids"], batch.by_row(tokens), loaded.seg_id, tensors.get("input.labels"))


@pytest.mark.golden("visa", *BATCH)
def test_language_model(case: Path, golden: Golden) -> None:
    batch, model = Batch(load_case(case)), tiny(golden).model
    tensors = batch.tensors
    with torch.inference_mode():
        reading = read(batch, golden, check=True)
        embedded, attended = reading.spliced.embeddings, reading.spliced.attention_mask
        close(embedded, tensors["expect.inputs_embeds"], name="embeddings")
        assert torch.equal(attended, tensors["expect.expanded_attention_mask"].bool())
        if "expect.expanded_labels" in tensors:
            assert torch.equal(reading.spliced.labels, tensors["expect.expanded_labels"])
        if "expect.seg_hidden_position" in tensors:
            assert torch.equal(torch.cat(reading.positions), tensors["expect.seg_hidden_position"])
        close(reading.states[attended], tensors["expect.last_hidden_state"][attended], name="states")
        (last,) = [name for name in tensors if re.fullmatch(r"expect\.logits_last_\d+", name)]
        rows = tensors[last].shape[1]
        real = attended[:, -rows:]
        close(model.llm.lm_head(reading.states[:, -rows:])[real], tensors[last][real], name="logits")
        close(model.prompts(reading), tensors["expect.seg_embeddings"], name="[SEG] embeddings")


@pytest.mark.golden("visa", *BATCH, r"input\.sam_pixels\.\d+", r"expect\.low_res_masks\.\d+")
def test_masks(case: Path, golden: Golden) -> None:
    batch, model = Batch(load_case(case)), tiny(golden).model
    with torch.inference_mode():
        reading = read(batch, golden)
        images = torch.cat([model.sam.encode(batch.of("input.sam_pixels", b)) for b in range(len(batch.rows))])
        close(images, batch.tensors["expect.sam_image_embeddings"], name="SAM embeddings")
        counts = [sum(len(reading.positions[row]) for row in rows) for rows in batch.rows]
        for b, seg in enumerate(model.prompts(reading).split(counts)):
            low_res, iou = model.masks(images[b : b + 1], seg)
            if not len(seg):  # a sample of words only
                assert len(low_res) == 0 and f"expect.low_res_masks.{b}" not in batch.tensors
                continue
            recorded, prompt = batch.of("expect.low_res_masks", b), batch.of("expect.sparse_prompt", b)
            close(seg[:, None], prompt, name="prompts")
            close(low_res[:, None], recorded, CHAIN, "low-resolution masks")
            decoded, _ = model.masks(batch.tensors["expect.sam_image_embeddings"][b : b + 1], prompt[:, 0])
            close(decoded[:, None], recorded, MASKS, "low-resolution masks of recorded prompts")
            close(iou[:, None], batch.of("expect.iou_pred", b), name="IoU")
            if f"expect.pred_masks.{b}" in batch.tensors:
                shapes = [tuple(batch.of(f"input.{kind}_hw", b).tolist()) for kind in ("resize", "original")]
                full = upscale_masks(low_res, *shapes, model.sam.sizes.image_size)
                close(full, batch.of("expect.pred_masks", b), CHAIN, "masks")


@pytest.mark.golden("visa", r"input\.frames_uint8", r"input\.seg_frame_index", r"expect\.pred_masks\.0")
def test_from_frames_to_mask_through_the_interface(case: Path, golden: Golden) -> None:
    """``ground`` and ``segment`` on the recorded video: only pixels whose logit is all but zero may differ."""
    tensors, (_, options) = load_case(case), checkpoint_places(golden)
    said, target = conversations(golden, tensors), int(tensors["input.seg_frame_index"])
    with_frames = type(options)(sam_decoder_heads=options.sam_decoder_heads, max_image_token=said["max_image_token"])
    segmenter = VisaSegmenter(tiny(golden), with_frames, torch.device("cpu"), torch.float32)
    segmenter.frame_sampler = Recorded(target)
    frames = [Frame(image.numpy(), i) for i, image in enumerate(tensors["input.frames_uint8"])]
    encoded = segmenter.encode(frames)
    (grounding,) = segmenter.ground(Clip(tuple(encoded)), [Instruction("a", said["expressions"][0])])
    logits = tensors["expect.pred_masks.0"][0]
    clear = (logits.abs() > 1e-3).numpy()
    assert clear.mean() > 0.9
    if grounding.targets[0].token is None:  # an empty mask is this system's only refusal
        assert grounding.targets[0].rejected and not ((logits > 0).numpy() & clear).any()
        return
    (found,) = segmenter.segment(encoded[target], [grounding.targets[0].token])
    assert ((found.mask == (logits > 0).numpy()) | ~clear).all()


class Recorded:
    """The frame that the recording was made with."""

    def __init__(self, index: int) -> None:
        self.index = index

    def choose(self, frames, expression: str) -> int:
        return self.index


# Training


@pytest.mark.golden("visa", *BATCH, r"input\.labels", r"expect\.loss")
def test_losses(case: Path, golden: Golden) -> None:
    batch, loaded = Batch(load_case(case)), tiny(golden)
    with torch.no_grad():
        losses = training_losses(loaded.model, list(batch.samples()), loaded.seg_id)
    for name, found in {
        "ce_loss": losses.text,
        "mask_bce_loss": BCE_WEIGHT * losses.bce,
        "mask_dice_loss": DICE_WEIGHT * losses.dice,
        "mask_loss": losses.mask,
        "loss": losses.total,
    }.items():
        expected = batch.tensors[f"expect.{name}"][0]
        torch.testing.assert_close(found, expected, rtol=LOSS_RTOL, atol=0, msg=lambda m, name=name: f"{name}: {m}")
