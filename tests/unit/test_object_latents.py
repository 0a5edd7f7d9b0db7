"""Object latents: leaving out the empty slots without gradients changes nothing."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from instructseg.modules.object_latents import fill_slots
from instructseg.modules.perception import Perception
from instructseg.modules.visual_encoder import VisualMaps
from instructseg.recipes.unified.configuration import UnifiedConfig

H, W = 64, 96


def maps_with(config: UnifiedConfig, *peaks: int) -> VisualMaps:
    """One frame for each number of object centres, on a grid and of falling score; features are noise."""
    b, (c2, _, c8, _) = len(peaks), config.channels
    noise = torch.Generator().manual_seed(0)
    heat = torch.full((b, H // 4, W // 4), -6.0)
    for row, count in enumerate(peaks):
        for i in range(count):
            heat[row, 3 + 6 * (i // 4), 3 + 6 * (i % 4)] = 4.0 - 0.2 * i
    return VisualMaps(
        torch.rand(b, c2, H // 2, W // 2, generator=noise),
        torch.rand(b, config.pyramid, H // 4, W // 4, generator=noise),
        torch.rand(b, c8, H // 8, W // 8, generator=noise),
        heat,
        torch.randn(b, 2, H // 4, W // 4, generator=noise),
        torch.full((b, H // 2, W // 2), 3.0),
        torch.zeros(b, 1, H // 4, W // 4),
    )


@pytest.mark.parametrize("peaks", [(0,), (1,), (3,), (6,), (8,), (2, 0, 5)])
def test_latents_are_the_same_with_and_without_gradients(peaks) -> None:
    torch.manual_seed(0)
    config = UnifiedConfig(slots=6)
    perception = Perception(config).eval()
    images, maps = torch.rand(len(peaks), 3, H, W), maps_with(config, *peaks)
    full = perception.latents(images, maps)
    with torch.no_grad():
        packed = perception.latents(images, maps)
    assert full.valid.sum(1).tolist() == [min(count, 6) for count in peaks]
    for field in dataclasses.fields(full):
        torch.testing.assert_close(getattr(packed, field.name), getattr(full, field.name), rtol=1e-5, atol=1e-5)


def test_fill_slots_repeats_the_last_and_leaves_a_full_set_alone() -> None:
    values = torch.arange(4.0).reshape(1, 2, 2)
    assert fill_slots(values, 2) is values
    assert fill_slots(values, 4).tolist() == [[[0, 1], [2, 3], [2, 3], [2, 3]]]
