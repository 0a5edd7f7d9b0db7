"""Feature fusion and the light mask decoder: any size, the image prepared once, training's starting point."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from instructseg.modules.dysample import DySample
from instructseg.modules.feature_fusion import FeatureFusion, FusionSizes
from instructseg.modules.light_mask_decoder import LightMaskDecoder, xavier_initialise
from instructseg.modules.post_norm_block import PostNormBlock


def decoder(sizes: FusionSizes, patch: int = 4) -> LightMaskDecoder:
    torch.manual_seed(0)
    made = LightMaskDecoder(sizes, patch).eval()
    xavier_initialise(made)
    torch.nn.init.normal_(made.fusion.upsample.offset.weight, std=0.5)
    return made


def inputs(sizes: FusionSizes, targets: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Patches ``(1, G^2, D)``, image states ``(1, g^2, C)``, target tokens ``(n, C)``."""
    side = sizes.grid // sizes.shrink
    torch.manual_seed(1)
    return (
        torch.randn(1, sizes.grid**2, sizes.vision_width),
        torch.randn(1, side**2, sizes.language_width),
        torch.randn(targets, sizes.language_width),
    )


@settings(max_examples=12, deadline=None)
@given(
    width=st.sampled_from([16, 32]), language=st.integers(3, 40), side=st.integers(1, 4), shrink=st.integers(1, 3),
    heads=st.sampled_from([2, 8]), groups=st.sampled_from([1, 4]), patch=st.integers(1, 5), targets=st.integers(0, 3),
)  # fmt: skip
@torch.inference_mode()
def test_an_image_prepared_once_gives_the_plain_path(
    width: int, language: int, side: int, shrink: int, heads: int, groups: int, patch: int, targets: int
) -> None:
    sizes = FusionSizes(width, language, side * shrink, shrink, heads, groups)
    made = decoder(sizes, patch)
    patches, states, tokens = inputs(sizes, targets)
    plain = made(patches.expand(targets, -1, -1), states.expand(targets, -1, -1), tokens)
    fast = made.decode(made.prepare(patches, states), tokens)
    assert plain.shape == fast.shape == (targets, sizes.grid * patch, sizes.grid * patch)
    assert torch.allclose(fast, plain, atol=1e-5)


@torch.inference_mode()
def test_several_images_are_decoded_row_by_row() -> None:
    sizes = FusionSizes(16, 12, 4)
    made = decoder(sizes)
    first, second = inputs(sizes, 1), tuple(t.flip(1) for t in inputs(sizes, 1))
    both = [torch.cat(pair) for pair in zip(first, second, strict=True)]
    together = made.decode(made.prepare(*both[:2]), both[2])
    assert torch.allclose(together[:1], made(*first), atol=1e-5)
    assert torch.allclose(together[1:], made(*second), atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


@torch.inference_mode()
def test_every_input_reaches_the_mask() -> None:
    sizes = FusionSizes(16, 12, 4)
    made = decoder(sizes)
    given = inputs(sizes, 1)
    logits = made(*given)
    for changed in range(3):
        other = [t + 1.0 * torch.randn_like(t) if i == changed else t for i, t in enumerate(given)]
        assert (made(*other) - logits).abs().max() > 1e-3


@torch.inference_mode()
def test_sampling_without_offsets_is_bilinear_enlargement() -> None:
    """At its start DySample reads where bilinear interpolation does."""
    module = DySample(8, scale=2, groups=4)
    torch.nn.init.zeros_(module.offset.weight)
    image = torch.randn(2, 8, 3, 5)
    expected = torch.nn.functional.interpolate(image, scale_factor=2, mode="bilinear", align_corners=False)
    assert torch.allclose(module(image), expected, atol=1e-6)


@torch.inference_mode()
def test_sampling_points_do_not_depend_on_the_number_format() -> None:
    """A half float cannot hold the coordinates of a wide map; the points are computed in full precision."""
    module = DySample(8).bfloat16()
    torch.nn.init.zeros_(module.offset.weight)
    ramp = torch.arange(64.0).expand(1, 8, 1, 64).bfloat16()
    steps = module(ramp).float()[0, 0, 0].diff()
    assert torch.equal(steps[2:-2], torch.full_like(steps[2:-2], 0.5))


@torch.no_grad()
def test_training_starts_as_published() -> None:
    made = decoder(FusionSizes(16, 12, 4))
    block = made.prompted
    assert float(block.linear1.bias.abs().max()) == float(block.self_attention.in_proj_bias.abs().max()) == 0.0
    assert float(made.token_down.bias.abs().max()) > 0.0  # the others keep PyTorch's own
    bound = (6 / (12 + 16)) ** 0.5
    assert 0.8 * bound < float(made.token_down.weight.abs().max()) <= bound


def test_the_short_cut_leaves_out_only_dropout() -> None:
    block = PostNormBlock(16, 2, dropout=0.5)
    queries, memory = torch.randn(1, 5, 16), torch.randn(1, 1, 16)
    short = block.eval().finish(block.look_around(queries), block.answer_of(memory[:, 0])[:, None])
    assert torch.allclose(short, block(queries, memory), atol=1e-6)
    torch.manual_seed(0)
    assert not torch.allclose(block.train()(queries, memory), short, atol=1e-2)


def test_gradients_reach_every_parameter() -> None:
    sizes = FusionSizes(16, 12, 4)
    made = decoder(sizes).train()
    patches, states, tokens = inputs(sizes, 2)
    made(patches.expand(2, -1, -1), states.expand(2, -1, -1), tokens).square().mean().backward()
    missing = [name for name, p in made.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert missing == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"grid": 5}, "multiple of shrink"), ({"vision_width": 12}, "divisible by heads 8"), ({"groups": 3}, "groups 3")],
)
def test_sizes_that_do_not_go_together_are_named(changes: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        FeatureFusion(FusionSizes(**({"vision_width": 16, "language_width": 8, "grid": 4} | changes)))
