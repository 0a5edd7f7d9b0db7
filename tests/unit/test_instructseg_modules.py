"""The two perceivers of InstructSeg by themselves, and what they must not depend on."""

from __future__ import annotations

import pytest
import torch

from instructseg.modules.object_aware_perceiver import ObjectAwarePerceiver
from instructseg.modules.perceiver_block import Perceiver, PerceiverAttention
from instructseg.modules.text_fusion import TextFusion

B, T, P, W, D = 2, 3, 7, 4, 24


@pytest.fixture(autouse=True)
def repeatable() -> None:
    torch.manual_seed(0)


def test_attention_is_that_of_the_textbook() -> None:
    attention = PerceiverAttention(D, heads=3, head_width=5, own_keys=2)
    context, latents = torch.randn(P, D), torch.randn(W, D)
    x, z = attention.norm_media(context), attention.norm_latents(latents)
    media = torch.cat([x, z[:2]])
    query, (keys, values) = attention.to_q(z), attention.to_kv(media).split(15, -1)
    heads = []
    for h in range(3):
        part = slice(5 * h, 5 * h + 5)
        weights = (query[:, part] @ keys[:, part].T / 5**0.5).softmax(-1)
        heads.append(weights @ values[:, part])
    expected = torch.cat(heads, -1) @ attention.to_out.weight.T
    assert torch.allclose(attention(context, latents), expected, atol=1e-6)


def test_reference_frames_do_not_see_each_other() -> None:
    perceiver = ObjectAwarePerceiver(D, tokens=5, depth=2, heads=2, head_width=8)
    frames, words = torch.randn(B, T, P, D), torch.randn(B, W, D)
    before = perceiver(frames, words)
    assert before.shape == (B, T, 5, D)
    frames[:, 1] = torch.randn(B, P, D)
    after = perceiver(frames, words)
    assert torch.equal(after[:, [0, 2]], before[:, [0, 2]])
    assert not torch.allclose(after[:, 1], before[:, 1])


def test_reference_tokens_know_the_instruction() -> None:
    perceiver = ObjectAwarePerceiver(D, tokens=5, depth=1, heads=2, head_width=8)
    frames = torch.randn(1, T, P, D)
    assert not torch.allclose(perceiver(frames, torch.randn(1, W, D)), perceiver(frames, torch.randn(1, W, D)))


def test_a_frame_keeps_its_tokens_whatever_comes_with_it() -> None:
    perceiver = ObjectAwarePerceiver(D, tokens=5, depth=2, heads=2, head_width=8)
    frames, words = torch.randn(1, T, P, D), torch.randn(1, W, D)
    together = perceiver(frames, words)
    for t in range(T):
        assert torch.allclose(perceiver(frames[:, t : t + 1], words)[:, 0], together[:, t], atol=1e-6)


def test_words_count_through_their_mean() -> None:
    """What forward leaves out changes nothing: no latent but the mean is ever a key."""
    fusion = TextFusion(D, 6, 9, width=16, depth=3, heads=2, head_width=8)
    states, feature_map = torch.randn(W, D), torch.randn(6, 3, 5)
    mean, latents = fusion.latents(states)
    assert latents.shape == (1, 1 + W, 16)
    published = fusion.join(mean, fusion.perceiver(fusion.context(feature_map), latents)[:, 0])
    found = fusion(states, feature_map)
    assert found.shape == (1, 9)
    assert torch.allclose(found, published, atol=1e-6)
    shuffled = states[torch.randperm(W)]
    assert torch.allclose(fusion(shuffled, feature_map), found, atol=1e-6)


def test_the_image_guides_the_fusion() -> None:
    fusion = TextFusion(D, 6, 9, width=16, depth=1, heads=2, head_width=8)
    states = torch.randn(W, D)
    assert not torch.allclose(fusion(states, torch.randn(6, 3, 5)), fusion(states, torch.randn(6, 3, 5)))


def test_context_is_read_row_by_row() -> None:
    fusion = TextFusion(D, 2, 9, width=2, depth=1, heads=1, head_width=8)
    with torch.no_grad():
        fusion.pixels.weight.copy_(torch.eye(2)[..., None, None])
        fusion.pixels.bias.zero_()
    feature_map = torch.arange(12.0).reshape(2, 2, 3)
    assert torch.equal(fusion.context(feature_map)[0, :, 0], torch.arange(6.0))


def test_both_learn() -> None:
    perceiver = Perceiver(D, 2, 2, 8, own_keys=1)
    latents = torch.randn(1, 3, D, requires_grad=True)
    perceiver(torch.randn(1, P, D), latents).square().sum().backward()
    assert all(bool(p.grad.abs().sum() > 0) for p in perceiver.parameters())
    assert bool((latents.grad.abs().sum(-1) > 0).all())
