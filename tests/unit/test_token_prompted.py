"""What the recipes with a SAM share: features once a frame, masks at the frame's size, half precision, threads."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from transformers import CLIPVisionConfig
from unit.test_sam import TINY
from unit.tiny_unified import noise_frame

from instructseg.core import Clip
from instructseg.modules.clip_patches import ClipPatches
from instructseg.modules.sam import TokenPromptedSam
from instructseg.recipes.token_prompted import Once, PromptToken, TokenPromptedSegmenter

CLIP = CLIPVisionConfig(
    hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
)


class Prompted(TokenPromptedSegmenter):
    def ground(self, clip: Clip, instructions):
        raise NotImplementedError


def prompted(dtype: torch.dtype = torch.float32, weights: torch.dtype = torch.float32) -> Prompted:
    torch.manual_seed(0)
    clip, sam = ClipPatches(CLIP).eval(), TokenPromptedSam(TINY).eval()
    return Prompted(clip.to(weights), sam.to(weights), torch.device("cpu"), dtype)


def tokens(count: int, seed: int = 1) -> list[PromptToken]:
    return [PromptToken(row[None]) for row in torch.randn(count, 16, generator=torch.manual_seed(seed))]


def test_masks_come_at_the_size_of_the_frame_in_the_order_of_the_tokens() -> None:
    segmenter = prompted()
    encoded = segmenter.encode([noise_frame(48, 80)])[0]
    asked = tokens(3)
    masks = segmenter.segment(encoded, asked)
    assert [mask.token for mask in masks] == asked
    for mask, token in zip(masks, asked, strict=True):
        alone = segmenter.segment(encoded, [token])[0]
        assert mask.mask.shape == mask.confidence.shape == (48, 80)
        assert (mask.mask.dtype, mask.confidence.dtype) == (bool, np.uint8)
        assert (mask.confidence[mask.mask] >= 127).all()
        assert (mask.mask == alone.mask).mean() > 0.999
        assert mask.score == pytest.approx(alone.score, abs=1e-5)
    assert segmenter.segment(encoded, []) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_features_are_kept_in_the_type_of_the_weights(dtype: torch.dtype) -> None:
    """Also where autocast makes them float32 on the way, as it does behind the norms on a GPU."""
    segmenter = prompted(dtype, dtype)
    for module in (segmenter.clip, segmenter.sam.sam.vision_encoder.neck):
        module.register_forward_hook(lambda _module, _inputs, found: found.float())
    features = segmenter.encode([noise_frame(48, 80)])[0].features
    assert features.clip().dtype == features.sam().dtype == dtype


def test_features_are_computed_on_demand_and_once() -> None:
    segmenter = prompted()
    frames = segmenter.encode([noise_frame(48, 80, seed=i) for i in range(3)])
    assert not any(encoded.features.clip.known or encoded.features.sam.known for encoded in frames)
    features = segmenter.clip_features(frames[:2])
    assert features.shape == (2, 16, 16)
    assert [encoded.features.clip.known for encoded in frames] == [True, True, False]
    assert frames[0].features.clip() is frames[0].features.clip()
    assert not frames[0].features.sam.known


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("weights", [torch.float32, None], ids=["autocast", "cast"])
def test_half_precision_gives_finite_scores_and_nearly_the_same_masks(dtype: torch.dtype, weights) -> None:
    exact, half = prompted(), prompted(dtype, weights or dtype if dtype == torch.bfloat16 else torch.float32)
    frame = noise_frame(48, 80)
    full = exact.segment(exact.encode([frame])[0], tokens(2))
    fast = half.segment(half.encode([frame])[0], tokens(2))
    for a, b in zip(full, fast, strict=True):
        assert np.isfinite(b.score)
        assert abs(a.score - b.score) < 0.02
        assert (a.mask == b.mask).mean() > 0.95
    assert half.sam_dtype == (torch.float32 if dtype == torch.float16 else dtype)


def test_once_computes_once_for_all_threads_and_again_after_a_failure() -> None:
    calls, gate = [], threading.Event()

    def compute() -> int:
        gate.wait(5.0)
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("no memory")
        return 7

    once = Once(compute)
    gate.set()
    with pytest.raises(RuntimeError, match="no memory"):
        once()
    assert not once.known
    threads = [threading.Thread(target=once) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5.0)
    assert once() == 7
    assert len(calls) == 2
