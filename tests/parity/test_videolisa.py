"""VideoLISA's parts against recordings of the published system: frame choice, prompts, pixels, key names, modules."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from instructseg.checkpoints import account, empty_weights
from instructseg.modules.sam_keys import published_sam_shapes
from instructseg.modules.sam_masks import upscale_masks
from instructseg.modules.sam_sizes import SamSizes
from instructseg.preprocessing import clip_pixels, sam_pixels
from instructseg.recipes.videolisa.checkpoint import IGNORED, PARTS, sam_sizes
from instructseg.recipes.videolisa.configuration import PRESETS
from instructseg.recipes.videolisa.modeling import VideoLISA
from instructseg.recipes.videolisa.prompts import TEMPLATES, training_template
from instructseg.recipes.videolisa.tokens import ids_with_images
from instructseg.sampling import dense_among_sparse, spread_or_repeat
from instructseg.training.mask_losses import dice_loss, sigmoid_ce_loss

from .golden import Golden, load_case
from .videolisa_recordings import EXACT, LOSS_RTOL, Tensors, as_images, close, recorded_clip, tiny

# Without weights: sampling, prompts, pixels, key names


@pytest.mark.golden("videolisa")
def test_sparse_and_dense_frames(golden: Golden) -> None:
    for recorded in golden.contents("sparse", "dense"):
        assert recorded["sparse"] and recorded["dense"]
        for case in recorded["sparse"]:
            assert list(spread_or_repeat(case["total_frames"], case["num_frames_sparse"])) == case["indices"]
        for case in recorded["dense"]:
            assert list(dense_among_sparse(case["num_frames_sparse"], case["num_frames_dense"])) == case["indices"]


@pytest.mark.golden("videolisa")
def test_reference_frames_of_the_post_optimisation(golden: Golden) -> None:
    for recorded in golden.contents("num_frames_sparse", "num_frames_dense", "cases"):
        dense = dense_among_sparse(recorded["num_frames_sparse"], recorded["num_frames_dense"])
        assert recorded["cases"]
        for case in recorded["cases"]:
            sparse = spread_or_repeat(case["total_frames"], recorded["num_frames_sparse"])
            assert [sparse[i] for i in dense] == case["reference_frames"]


@pytest.mark.golden("videolisa")
def test_prompts(golden: Golden) -> None:
    recorded = [case for content in golden.contents("prompts", "image_token_split") for case in content["prompts"]]
    assert recorded
    for case in recorded:
        trained = re.fullmatch(r"train_short_(\d+)_answer_(\d+)", case["mode"])
        template = training_template(*map(int, trained.groups())) if trained else TEMPLATES[case["mode"]]
        assert template.prompt(case["text"]) == case["prompt"], case["mode"]


@pytest.mark.golden("videolisa")
def test_placeholders_among_the_ids(golden: Golden) -> None:
    recorded = golden.contents("prompts", "image_token_split")[0]["image_token_split"]["cases"]
    assert recorded
    for case in recorded:
        bos = [1] if case["bos"] else []
        ids = ids_with_images(
            case["prompt"], lambda text, bos=bos: bos + [10 + ord(c) % 90 for c in text], 1 if bos else None
        )
        assert ids == case["ids"], case["prompt"]


def recorded_pixels(tensors: Tensors) -> Iterator[tuple[str, np.ndarray, torch.Tensor]]:
    """(kind, image, expected) of every image a case holds together with its pixels; the kind has the size in it."""
    for name, image in tensors.items():
        if name.endswith(".image"):
            prefix = name.removesuffix("image")
            for other, expected in tensors.items():
                if other.startswith(prefix) and other != name:
                    yield other.removeprefix(prefix), image.numpy(), expected
    if "pixel_values_clip" in tensors and "pixel_values_sam" in tensors:
        clip = recorded_clip(tensors)
        for kind, frames in (("clip", clip.sparse), ("sam", range(len(clip.images)))):
            pixels = as_images(tensors[f"pixel_values_{kind}"])  # one for a still image
            for i, expected in zip(frames, pixels, strict=False):
                yield f"{kind}{pixels.shape[-1]}", clip.images[i], expected
        yield f"sam{tensors['pixel_values_sam'].shape[-1]}.resize_hw", clip.images[-1], tensors["resize_hw"]


@pytest.mark.golden("videolisa")
def test_pixels(golden: Golden) -> None:
    compared = set()
    for path in golden.cases():
        for kind, image, expected in recorded_pixels(load_case(path)):
            encoder, size, rest = re.fullmatch(r"(clip|sam)(\d+)(.*)", kind).groups()
            pixels, resized = (
                sam_pixels(image, int(size)) if encoder == "sam" else (clip_pixels(image, int(size)), None)
            )
            if rest == ".resize_hw":
                assert resized == tuple(expected.tolist()), (path.name, kind)
            elif rest == ".resized_uint8":
                assert resized == tuple(expected.shape[:2]), (path.name, kind)
            else:
                stride = int(rest.removeprefix(".stride") or 1)
                close(pixels[:, ::stride, ::stride], expected, EXACT, f"{path.name} {kind}")
            compared.add(encoder + rest)
    assert {"clip", "sam", "sam.resize_hw"} <= compared


@pytest.mark.golden("videolisa")
def test_every_published_tensor_has_its_place_at_full_size(golden: Golden) -> None:
    listed = golden.contents("num_tensors", "tensors")[0]["tensors"]
    published = {name: tuple(shape) for name, shape in listed.items()}
    sizes = sam_sizes(published, decoder_heads=8)
    assert sizes == SamSizes.vit_h()
    with torch.device("meta"):
        model = VideoLISA(PRESETS["VideoLISA-3.8B"], sizes)
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    accounted = account(published, own, PARTS, IGNORED)
    accounted.check("the published list")
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
