"""VideoLISA against recordings of the published system: every stage from pixels to masks, losses and gradients."""

from __future__ import annotations

import dataclasses
import json
import re
from functools import cache
from pathlib import Path

import pytest
import torch

from instructseg.checkpoints import account, empty_weights
from instructseg.core import Clip, Frame, Instruction
from instructseg.modules.sam import SamSizes, published_sam_shapes
from instructseg.modules.sam_masks import upscale_masks
from instructseg.preprocessing import clip_pixels, sam_pixels, sam_size
from instructseg.recipes.videolisa.checkpoint import IGNORED, PARTS, Loaded, load_weights, sam_sizes
from instructseg.recipes.videolisa.configuration import PRESETS, VideoLISAOptions
from instructseg.recipes.videolisa.modeling import VideoLISA, seg_positions
from instructseg.recipes.videolisa.processing import VideoLISASegmenter
from instructseg.recipes.videolisa.prompts import TEMPLATES, training_template
from instructseg.recipes.videolisa.tokens import ids_with_images
from instructseg.recipes.videolisa.training import TrainingBatch, training_losses
from instructseg.sampling import dense_among_sparse, spread_or_repeat
from instructseg.training.mask_losses import dice_loss, sigmoid_ce_loss

from .golden import Golden, load_case

ATOL = 5e-5  # states, embeddings and mask logits; 1e-5 is usual
EXACT = 0.0
LOSS_RTOL = 1e-5
GRADIENT = 1e-4  # of a gradient's largest entry

VIDEO = ("frames", "sparse_indices", "input_ids", "inputs_embeds", "pred_masks")
Tensors = dict[str, torch.Tensor]


def close(found: torch.Tensor, expected: torch.Tensor, atol: float = ATOL, name: str = "") -> None:
    assert found.shape == expected.shape, f"{name}: {tuple(found.shape)} for {tuple(expected.shape)}"
    torch.testing.assert_close(found.float(), expected.float(), atol=atol, rtol=0, msg=lambda m: f"{name}: {m}")


@dataclasses.dataclass(frozen=True)
class Tiny:
    """The recorded checkpoint, loaded once a run, and the sizes that no published file names."""

    loaded: Loaded
    folder: Path
    seg_id: int

    @property
    def model(self) -> VideoLISA:
        return self.loaded.model


@cache
def tiny(golden: Golden) -> Tiny:
    (config,) = golden.json_files("model_type", "mm_vision_tower")
    (clip,) = [path.parent for path in golden.json_files("model_type", "patch_size") if path != config]
    (sizes,) = [json.loads(path.read_text()) for path in golden.json_files("seg_token_idx")]
    options = VideoLISAOptions(clip=str(clip), sam_decoder_heads=sizes["decoder_num_heads"])
    return Tiny(load_weights(config.parent, options), config.parent, sizes["seg_token_idx"])


# Without weights: sampling, prompts, pixels, key names


@pytest.mark.golden("videolisa")
def test_sparse_and_dense_frames(golden: Golden) -> None:
    (path,) = golden.json_files("sparse", "dense")
    recorded = json.loads(path.read_text())
    assert recorded["sparse"] and recorded["dense"]
    for case in recorded["sparse"]:
        assert list(spread_or_repeat(case["total_frames"], case["num_frames_sparse"])) == case["indices"]
    for case in recorded["dense"]:
        assert list(dense_among_sparse(case["num_frames_sparse"], case["num_frames_dense"])) == case["indices"]


@pytest.mark.golden("videolisa")
def test_reference_frames_of_the_post_optimisation(golden: Golden) -> None:
    (path,) = golden.json_files("num_frames_sparse", "num_frames_dense", "cases")
    recorded = json.loads(path.read_text())
    dense = dense_among_sparse(recorded["num_frames_sparse"], recorded["num_frames_dense"])
    assert recorded["cases"]
    for case in recorded["cases"]:
        sparse = spread_or_repeat(case["total_frames"], recorded["num_frames_sparse"])
        assert [sparse[i] for i in dense] == case["reference_frames"]


@pytest.mark.golden("videolisa")
def test_prompts(golden: Golden) -> None:
    (path,) = golden.json_files("prompts", "image_token_split")
    recorded = json.loads(path.read_text())["prompts"]
    assert recorded
    for case in recorded:
        trained = re.fullmatch(r"train_short_(\d+)_answer_(\d+)", case["mode"])
        template = training_template(*map(int, trained.groups())) if trained else TEMPLATES[case["mode"]]
        assert template.prompt(case["text"]) == case["prompt"], case["mode"]


@pytest.mark.golden("videolisa")
def test_placeholders_among_the_ids(golden: Golden) -> None:
    (path,) = golden.json_files("prompts", "image_token_split")
    recorded = json.loads(path.read_text())["image_token_split"]["cases"]
    assert recorded
    for case in recorded:
        bos = [1] if case["bos"] else []
        ids = ids_with_images(
            case["prompt"], lambda text, bos=bos: bos + [10 + ord(c) % 90 for c in text], 1 if bos else None
        )
        assert ids == case["ids"], case["prompt"]


@pytest.mark.golden("videolisa", r".+\.image", r".+\.clip\d+", r".+\.sam\d+")
def test_pixels(case: Path) -> None:
    tensors = load_case(case)
    checked = 0
    for name, expected in tensors.items():
        shape, _, rest = name.partition(".")
        image = tensors[f"{shape}.image"].numpy()
        if match := re.fullmatch(r"clip(\d+)", rest):
            close(clip_pixels(image, int(match[1])), expected, EXACT, name)
        elif match := re.fullmatch(r"sam(\d+)", rest):
            close(sam_pixels(image, int(match[1]))[0], expected, EXACT, name)
        elif match := re.fullmatch(r"sam(\d+)\.resize_hw", rest):
            assert sam_pixels(image, int(match[1]))[1] == tuple(expected.tolist()), name
        elif match := re.fullmatch(r"sam(\d+)\.stride(\d+)", rest):
            step = int(match[2])
            close(sam_pixels(image, int(match[1]))[0][:, ::step, ::step], expected, EXACT, name)
        elif match := re.fullmatch(r"sam(\d+)\.resized_uint8", rest):
            assert sam_size(*image.shape[:2], int(match[1])) == tuple(expected.shape[:2]), name
        else:
            assert rest == "image", f"{name} is compared with nothing"
            continue
        checked += 1
    assert checked


@pytest.mark.golden("videolisa")
def test_every_published_tensor_has_its_place_at_full_size(golden: Golden) -> None:
    (path,) = golden.json_files("num_tensors", "tensors")
    published = {name: tuple(shape) for name, shape in json.loads(path.read_text())["tensors"].items()}
    sizes = sam_sizes(published, decoder_heads=8)
    assert sizes == SamSizes.vit_h()
    with torch.device("meta"):
        model = VideoLISA(PRESETS["VideoLISA-3.8B"], sizes)
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    accounted = account(published, own, PARTS, IGNORED)
    accounted.check(path)
    assert not accounted.ignored
    # One to one, but for the positional matrix, which transformers holds twice.
    assert len(accounted.sources) == len(published) + 1 and set(accounted.sources.values()) == set(published)
    stored = {n for n in published if n.startswith("model.visual_model.")}
    assert stored == {f"model.visual_model.{name}" for name in published_sam_shapes(sizes)}


# With weights: the parts


@pytest.mark.golden(
    "videolisa", r"clip_tower\.in", r"mm_projector\.in", r"text_hidden_fcs\.in", r"sam_image_encoder\.in"
)
def test_parts(case: Path, golden: Golden) -> None:
    tensors, parts = load_case(case), tiny(golden)
    model = parts.model
    with torch.inference_mode():
        close(parts.loaded.tower(tensors["clip_tower.in"]), tensors["clip_tower.out"], name="CLIP")
        close(model.mm_projector(tensors["mm_projector.in"]), tensors["mm_projector.out"], name="projector")
        fcs = model.mask_prompts(tensors["text_hidden_fcs.in"])[:, 0]
        close(fcs, tensors["text_hidden_fcs.out"], name="text_hidden_fcs")
        close(model.sam.encode(tensors["sam_image_encoder.in"]), tensors["sam_image_encoder.out"], name="SAM encoder")


@pytest.mark.golden("videolisa", r"video_tokens\.in", r"video_tokens\.dense_indices", r"video_tokens\.out")
def test_video_tokens(case: Path, golden: Golden) -> None:
    tensors, parts = load_case(case), tiny(golden)
    for clip, dense, expected in zip(
        tensors["video_tokens.in"], tensors["video_tokens.dense_indices"], tensors["video_tokens.out"], strict=True
    ):
        with torch.inference_mode():
            found = parts.model.video_tokens(parts.loaded.tower(clip), range(len(clip)), dense.tolist())
        close(found[None], expected)


@pytest.mark.golden("videolisa", r"phi3_window(\d+)\.inputs_embeds", r"phi3_window(\d+)\.last_hidden_state")
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_sliding_window(case: Path, golden: Golden, attention: str) -> None:
    tensors, parts = load_case(case), tiny(golden)
    windows = sorted({int(m[1]) for name in tensors if (m := re.match(r"phi3_window(\d+)\.", name))})
    assert windows
    for window in windows:
        config = dataclasses.replace(parts.model.config, sliding_window=window)
        with empty_weights():
            model = VideoLISA(config, parts.model.sam.sizes)
        model.load_state_dict(parts.model.state_dict(), assign=True)
        model.llm.set_attn_implementation(attention)
        with torch.inference_mode():
            states = model.eval().states(tensors[f"phi3_window{window}.inputs_embeds"])
        close(states, tensors[f"phi3_window{window}.last_hidden_state"], name=f"window {window}")


@pytest.mark.golden("videolisa", r"mask_decoder\.low_res_masks", r"prompt_encoder\.text_embeds", r"postprocess\.out")
def test_mask_decoder_and_post_processing(case: Path, golden: Golden) -> None:
    tensors, sam = load_case(case), tiny(golden).model.sam
    images, prompts = tensors["mask_decoder.image_embeddings"], tensors["prompt_encoder.sparse"]
    close(prompts, tensors["prompt_encoder.text_embeds"], EXACT)
    with torch.inference_mode():
        close(sam.positions(images), tensors["prompt_encoder.dense_pe"], name="positions")
        low_res, iou = sam.decode(images, prompts[None])
        close(low_res[0][:, None], tensors["mask_decoder.low_res_masks"], name="mask token 0")
        close(iou[0][:, None], tensors["mask_decoder.iou"], name="IoU estimate")
        several = sam.decode(images, prompts[None], multimask=True)[0]
        close(several[0], tensors["mask_decoder.low_res_masks_multi"], name="the other mask tokens")
    resized, original = tensors["postprocess.resize_hw"].tolist(), tensors["postprocess.original_hw"].tolist()
    full = upscale_masks(tensors["mask_decoder.low_res_masks"][:, 0], resized, original, sam.sizes.image_size)
    close(full[:, None], tensors["postprocess.out"])


@pytest.mark.golden("videolisa", r"loss\.pred", r"loss\.target", r"loss\.bce", r"loss\.dice")
def test_mask_losses(case: Path) -> None:
    tensors = load_case(case)
    logits, targets = tensors["loss.pred"], tensors["loss.target"]
    torch.testing.assert_close(
        sigmoid_ce_loss(logits, targets, len(logits)), tensors["loss.bce"], rtol=LOSS_RTOL, atol=0
    )
    torch.testing.assert_close(dice_loss(logits, targets, len(logits)), tensors["loss.dice"], rtol=LOSS_RTOL, atol=0)


# With weights: a video from frames to masks


@pytest.mark.golden("videolisa", *VIDEO)
def test_video_pixels_and_frame_choice(case: Path, golden: Golden) -> None:
    tensors, parts = load_case(case), tiny(golden)
    frames, sparse = tensors["frames"].numpy(), tensors["sparse_indices"].tolist()
    assert list(spread_or_repeat(len(frames), len(sparse))) == sparse
    dense = tensors["dense_indices"].tolist()
    assert [i % len(sparse) for i in dense_among_sparse(len(sparse), len(dense))] == [i % len(sparse) for i in dense]
    clip = torch.stack([clip_pixels(frames[i], parts.loaded.tower.image_size) for i in sparse])
    close(clip[None], tensors["pixel_values_clip"], EXACT)
    sam = [sam_pixels(frame, parts.model.sam.sizes.image_size) for frame in frames]
    close(torch.stack([pixels for pixels, _ in sam])[None], tensors["pixel_values_sam"], EXACT)
    assert {hw for _, hw in sam} == {tuple(tensors["resize_hw"].tolist())}


@pytest.mark.golden("videolisa", *VIDEO)
def test_video_to_states(case: Path, golden: Golden) -> None:
    tensors, parts = load_case(case), tiny(golden)
    model = parts.model
    sparse, dense = range(len(tensors["sparse_indices"])), tensors["dense_indices"].tolist()
    with torch.inference_mode():
        features = parts.loaded.tower(tensors["pixel_values_clip"][0])
        close(features, tensors["clip_features"], name="CLIP")
        video = model.video_tokens(features, sparse, dense)  # (V, H)
        if "video_tokens" in tensors:
            close(video[None, None], tensors["video_tokens"], name="video tokens")
        spliced = model.embed(tensors["input_ids"], [video])
        close(spliced.embeddings, tensors["inputs_embeds"], name="embeddings")
        states = model.states(spliced.embeddings, spliced.attention_mask)
        close(states, tensors["last_hidden_state"], name="states")
        tail = tensors["logits_last16"]
        close(model.llm.lm_head(states[:, -tail.shape[1] :]), tail, name="logits")
        (positions,) = seg_positions(tensors["input_ids"], parts.seg_id, len(video))
        assert positions.tolist() == tensors["seg_hidden_positions"].tolist()
        close(states[0, positions], tensors["seg_hidden"], name="state that predicts [SEG]")
        prompts = model.mask_prompts(states[0, positions])
        close(prompts[:, 0], tensors["seg_embeddings"], name="mask prompts")
        close(prompts, tensors["sparse_prompt_embeddings"], name="prompts as SAM sees them")


@pytest.mark.golden("videolisa", *VIDEO, "low_res_masks", "sam_image_embeddings")
def test_prompts_to_masks(case: Path, golden: Golden) -> None:
    tensors, sam = load_case(case), tiny(golden).model.sam
    prompts, frames = tensors["sparse_prompt_embeddings"], len(tensors["frames"])
    with torch.inference_mode():
        images = sam.encode(tensors["pixel_values_sam"][0])
        close(images, tensors["sam_image_embeddings"], name="image embeddings")
        close(sam.positions(images[:1]), tensors["dense_pe"], name="positions")
        low_res, iou = sam.decode(images, prompts.expand(frames, *prompts.shape))  # (T, n, h, w)
        close(low_res[:, :, None], tensors["low_res_masks"], name="low-resolution logits")
        close(iou[:, :, None], tensors["iou_predictions"], name="IoU estimate")
    if len(prompts):
        hw = tensors["resize_hw"].tolist(), tensors["original_hw"].tolist()
        masks = upscale_masks(low_res.flatten(0, 1), *hw, sam.sizes.image_size)
        close(masks, tensors["pred_masks"], name="masks")
    else:
        assert low_res.shape[1] == 0 and tensors["pred_masks"].shape[0] == 0


class RecordedTokens:
    """In place of a tokenizer, which no recorded checkpoint has: one recorded conversation."""

    def __init__(self, input_ids: torch.Tensor, seg_id: int):
        self.ids, self.seg_id = input_ids.tolist(), seg_id

    def encode_prompt(self, prompt: str) -> list[int]:
        return self.ids


@pytest.mark.golden("videolisa", *VIDEO, "low_res_masks")
@pytest.mark.parametrize("stop_before_seg", [True, False])
def test_the_segmenter_gives_the_recorded_masks(case: Path, golden: Golden, stop_before_seg: bool) -> None:
    """The engine's three calls; what follows ``[SEG]`` changes nothing, so leaving it out is exact."""
    tensors, parts = load_case(case), tiny(golden)
    segs = len(tensors["seg_hidden_positions"])
    assert int((tensors["input_ids"] == parts.seg_id).sum()) == segs
    if not segs:  # every prompt of the recipe has [SEG]; without it there is nothing to segment
        return
    options = VideoLISAOptions(
        sparse_frames=len(tensors["sparse_indices"]),
        dense_frames=len(tensors["dense_indices"]),
        stop_before_seg=stop_before_seg,
    )
    tokens = RecordedTokens(tensors["input_ids"][0], parts.seg_id)
    segmenter = VideoLISASegmenter(parts.loaded, tokens, options, torch.device("cpu"), torch.float32)
    encoded = segmenter.encode([Frame(image, t) for t, image in enumerate(tensors["frames"].numpy())])
    (grounding,) = segmenter.ground(Clip(tuple(encoded)), [Instruction("1", "the thing")])
    (target,) = grounding.targets
    close(target.token.prompt[0], tensors["seg_embeddings"][0])
    logits = tensors["pred_masks"].unflatten(0, (len(encoded), segs))[:, 0]  # frame-major; the first [SEG]
    for frame, expected in zip(encoded, logits, strict=True):
        (mask,) = segmenter.segment(frame, [target.token])
        unsure = expected.abs() < ATOL
        assert ((torch.from_numpy(mask.mask) == (expected > 0)) | unsure).all()
        probability = torch.from_numpy(mask.confidence).float() / 255
        close(probability, expected.sigmoid(), 0.5 / 255 + ATOL)
        assert mask.token is target.token


# With weights: a still image, several padded conversations at once


@pytest.mark.golden("videolisa", "frame", "num_frames_dense", "attention_mask", "seg_embeddings", "pred_masks")
def test_image_with_several_conversations(case: Path, golden: Golden) -> None:
    tensors, parts = load_case(case), tiny(golden)
    model, image = parts.model, tensors["frame"].numpy()
    sparse, dense = tensors["num_frames_sparse"].item(), tensors["num_frames_dense"].item()
    clip = clip_pixels(image, parts.loaded.tower.image_size)
    sam, resized = sam_pixels(image, model.sam.sizes.image_size)
    close(clip, tensors["pixel_values_clip"], EXACT)
    close(sam, tensors["pixel_values_sam"], EXACT)
    assert resized == tuple(tensors["resize_hw"].tolist())
    ids = tensors["input_ids"]
    with torch.inference_mode():
        video = model.video_tokens(parts.loaded.tower(clip[None]), [0] * sparse, [0] * dense)
        spliced = model.embed(ids, [video] * len(ids), tensors["attention_mask"])
        states = model.states(spliced.embeddings, spliced.attention_mask)
        real = spliced.attention_mask[..., None]  # what stands at padding is meaningless
        close(states * real, tensors["last_hidden_state"] * real, name="states")
        positions = seg_positions(ids, parts.seg_id, len(video))
        found = [[row, place] for row, places in enumerate(positions) for place in places.tolist()]
        assert found == tensors["seg_hidden_positions"].tolist()
        prompts = model.mask_prompts(torch.cat([states[row, places] for row, places in enumerate(positions)]))
        close(prompts[:, 0], tensors["seg_embeddings"], name="mask prompts")
        images = model.sam.encode(sam[None]).expand(dense, -1, -1, -1)
        low_res, _ = model.sam.decode(images, prompts.expand(dense, *prompts.shape))
        close(low_res[:, :, None], tensors["low_res_masks"], name="low-resolution logits")
    hw = resized, tensors["original_hw"].tolist()
    close(upscale_masks(low_res.flatten(0, 1), *hw, model.sam.sizes.image_size), tensors["pred_masks"], name="masks")


# With weights: the training step


def training_batch(tensors: Tensors) -> TrainingBatch:
    samples = range(len(tensors["input_ids"]))
    return TrainingBatch(
        clip_pixels=tensors["images_clip"],
        sam_pixels=list(tensors["images"]),
        dense=tensors["dense_indices"],
        input_ids=tensors["input_ids"],
        labels=tensors["labels"],
        attention_mask=tensors["attention_mask"],
        targets=[tensors[f"gt_masks_{i}"] for i in samples],
        resized_hw=[tuple(hw) for hw in tensors["resize_hw"].tolist()],
        original_hw=[tuple(hw) for hw in tensors["original_hw"].tolist()],
    )


@pytest.mark.golden("videolisa", "labels", "ce_loss", "mask_bce_loss", "mask_dice_loss", r"grad\..+", r"gt_masks_\d+")
def test_losses_and_gradients(case: Path, golden: Golden) -> None:
    tensors, parts = load_case(case), tiny(golden)
    with empty_weights():
        model = VideoLISA(parts.model.config, parts.model.sam.sizes)
    model.load_state_dict({k: v.clone() for k, v in parts.model.state_dict().items()}, assign=True)
    frozen = [model.mm_projector, model.sam.sam.vision_encoder, model.sam.sam.prompt_encoder]
    model.train().requires_grad_(True)
    for module in frozen:
        module.requires_grad_(False)

    losses = training_losses(model, parts.loaded.tower, training_batch(tensors), parts.seg_id)

    for name, found in (
        ("ce_loss", losses.text),
        ("mask_bce_loss", losses.bce),
        ("mask_dice_loss", losses.dice),
        ("mask_loss", losses.bce + losses.dice),
        ("loss", losses.total),
    ):
        torch.testing.assert_close(
            found, tensors[name], rtol=LOSS_RTOL, atol=0, msg=lambda m, name=name: f"{name}: {m}"
        )
    low_res = torch.cat([low.flatten(0, 1) for low in losses.low_res])[:, None, None]  # sample-major frames
    close(low_res, tensors["low_res_masks"], name="low-resolution logits")
    extra = losses.logits.shape[1] - tensors["input_ids"].shape[1]  # what the video adds to every row
    last = tensors["attention_mask"].sum(1) - 1 + extra
    close(losses.logits[torch.arange(len(last)), last], tensors["logits_valid_last"], name="last logits")

    losses.total.backward()
    parameters = dict(model.named_parameters())
    compared = 0
    for name, expected in tensors.items():
        if not name.startswith("grad."):
            continue
        key = name.removeprefix("grad.")
        (own, *_) = next(part for part in PARTS if key.startswith(part.source)).targets(key)
        close(parameters[own].grad, expected, GRADIENT * expected.abs().max().item(), name)
        compared += 1
    assert compared
    assert all(p.grad is None for module in (*frozen, parts.loaded.tower) for p in module.parameters())
