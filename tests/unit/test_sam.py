"""SAM by embeddings: sizes from shapes, the published key layout, decoding, upscaling, evidence."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from instructseg.checkpoints import account, empty_weights
from instructseg.core import BadInput
from instructseg.modules.evidence import mask_evidence, rejection_score
from instructseg.modules.sam import TokenPromptedSam
from instructseg.modules.sam_keys import published_sam_shapes, sam_part
from instructseg.modules.sam_masks import upscale_masks
from instructseg.modules.sam_sizes import SamSizes

TINY = SamSizes(
    image_size=64, patch_size=16, hidden=16, layers=2, heads=2, mlp=32, window=3, global_layers=(1,), prompt=16,
    mask_channels=8, decoder_heads=2, decoder_mlp=16, iou_hidden=16,
)  # fmt: skip
VIT_B = SamSizes(hidden=768, layers=12, heads=12, mlp=3072, global_layers=(2, 5, 8, 11))


@pytest.fixture(scope="module")
def tiny() -> TokenPromptedSam:
    torch.manual_seed(0)
    return TokenPromptedSam(TINY).eval()


@pytest.mark.parametrize("sizes", [SamSizes.vit_h(), VIT_B, TINY], ids=["vit_h", "vit_b", "tiny"])
def test_every_published_key_has_its_place_and_shape(sizes: SamSizes) -> None:
    published = published_sam_shapes(sizes)
    with empty_weights():
        model = TokenPromptedSam(sizes)
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    accounted = account({f"x.{k}": v for k, v in published.items()}, own, (sam_part("x.", "sam."),))
    accounted.check("the layout")
    assert len(published) + 1 == len(own)  # the positional matrix is held twice
    assert SamSizes.from_shapes(published, sizes.decoder_heads) == sizes


def test_a_checkpoint_without_sam_or_with_other_heads_is_refused() -> None:
    shapes = published_sam_shapes(TINY)
    with pytest.raises(BadInput, match="SAM's weights are missing"):
        SamSizes.from_shapes({})
    with pytest.raises(BadInput, match="sam_decoder_heads must divide SAM's prompt width 16; got 3"):
        SamSizes.from_shapes(shapes, 3)
    with pytest.raises(BadInput, match="attention windows differ"):
        SamSizes.from_shapes(shapes | {"image_encoder.blocks.1.attn.rel_pos_h": (3, 8)})


def test_prompts_are_masks_of_their_own(tiny: TokenPromptedSam) -> None:
    torch.manual_seed(1)
    pixels, prompts = torch.randn(2, 3, 64, 64), torch.randn(2, 3, 1, 16)
    with torch.inference_mode():
        images = tiny.encode(pixels)
        masks, iou = tiny.decode(images, prompts)
        alone, _ = tiny.decode(images[1:], prompts[1:, 2:])
        several, _ = tiny.decode(images, prompts, multimask=True)
    assert images.shape == (2, 16, 4, 4)
    assert masks.shape == (2, 3, 16, 16)
    assert iou.shape == (2, 3)
    assert several.shape == (2, 3, 3, 16, 16)
    torch.testing.assert_close(masks[1, 2], alone[0, 0], atol=1e-5, rtol=0)


def test_no_prompt_is_no_mask(tiny: TokenPromptedSam) -> None:
    with torch.inference_mode():
        masks, iou = tiny.decode(torch.zeros(2, 16, 4, 4), torch.zeros(2, 0, 1, 16))
        several, scores = tiny.decode(torch.zeros(1, 16, 4, 4), torch.zeros(1, 0, 1, 16), multimask=True)
    assert masks.shape == (2, 0, 16, 16)
    assert iou.shape == (2, 0)
    assert several.shape == (1, 0, 3, 16, 16)
    assert scores.shape == (1, 0, 3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_finite(tiny: TokenPromptedSam, dtype: torch.dtype) -> None:
    with torch.inference_mode(), torch.autocast("cpu", dtype=dtype):
        masks, iou = tiny.decode(tiny.encode(torch.randn(1, 3, 64, 64)), torch.randn(1, 2, 1, 16))
    assert masks.isfinite().all()
    assert iou.isfinite().all()


def test_masks_are_cut_from_the_padded_square_in_float32() -> None:
    low = torch.full((1, 16, 16), -5.0, dtype=torch.bfloat16)
    low[:, :8] = 5.0  # the upper half is image, the rest padding
    masks = upscale_masks(low, (32, 64), (40, 80), 64)
    assert masks.shape == (1, 40, 80)
    assert masks.dtype == torch.float32
    assert (masks[:, :36] > 0).all()
    assert upscale_masks(low[:0], (32, 64), (40, 80), 64).shape == (0, 40, 80)


def test_evidence_is_high_for_a_sure_mask_and_low_for_none() -> None:
    logits = torch.full((3, 64, 64), -8.0)
    logits[0, :20, :20] = 8.0
    logits[1, :20, :20] = 0.0
    sure, unsure, empty = mask_evidence(logits).tolist()
    assert sure > 0.99 > 0.6 > unsure > 0.4 > 0.01 > empty
    assert mask_evidence(logits[:0]).shape == (0,)


@given(st.floats(0, 1), st.floats(0, 1))
def test_rejection_scores_stay_probabilities(token: float, evidence: float) -> None:
    for rule in ("mask", "token", "both"):
        assert 0.0 <= rejection_score(token, evidence, rule) <= 1.0
    assert rejection_score(token, evidence, "none") == 0.0
    assert rejection_score(token, evidence, "mask") == 1.0 - evidence


def test_sizes_are_values() -> None:
    assert dataclasses.replace(SamSizes(), layers=32) == SamSizes.vit_h()
    assert SamSizes.vit_h().grid == 64
