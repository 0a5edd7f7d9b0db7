"""CLIP's folder: what its configuration may say, and whether it is the tower that a checkpoint was trained with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from unit.tiny_visa import CLIP

from instructseg.core import BadInput
from instructseg.modules.clip_patches import PUBLISHED_TOWERS, check_tower, clip_config, clip_vit_l14, find_clip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "is no configuration of CLIP"),
        ({"vision_config": None}, "is no configuration of CLIP"),
        ({"model_type": "clip"}, "it has no patch_size"),
        (CLIP.to_dict() | {"image_size": "large"}, "image_size must be a whole number above 0; got 'large'"),
        (CLIP.to_dict() | {"patch_size": 0}, "patch_size must be a whole number above 0; got 0"),
        (CLIP.to_dict() | {"num_attention_heads": 3}, "does not describe a CLIP vision tower"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_named(tmp_path: Path, content: object, message: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(BadInput, match=rf"config\.json.* ?{message}"):
        clip_config(tmp_path)


def test_a_tower_alone_and_one_inside_the_whole_of_clip_read_alike(tmp_path: Path) -> None:
    found = []
    for content in (CLIP.to_dict(), {"model_type": "clip", "vision_config": CLIP.to_dict()}):
        (tmp_path / "config.json").write_text(json.dumps(content))
        found.append(clip_config(tmp_path).to_dict())
    assert found[0] == found[1] and found[0]["patch_size"] == CLIP.patch_size


@pytest.mark.parametrize(("name", "pixels"), [(name, sizes[0]) for name, sizes in PUBLISHED_TOWERS.items()])
def test_the_other_published_tower_of_the_same_width_is_refused(name: str, pixels: int) -> None:
    check_tower(clip_vit_l14(pixels), 1024, name, Path("clip"))
    check_tower(clip_vit_l14(448), 1024, "somebody/clip", Path("clip"))  # of which nothing is known
    other = 224 if pixels == 336 else 336
    with pytest.raises(BadInput, match=rf"clip holds a CLIP for {other} pixels.* wants {pixels} and 14.*option clip="):
        check_tower(clip_vit_l14(other), 1024, name, Path("clip"))


def test_an_option_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="option clip: checkpoint '.*nowhere' does not exist"):
        find_clip(str(tmp_path / "nowhere"), "", tmp_path)
