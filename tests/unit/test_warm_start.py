"""A perception that begins with another one's weights: whole tensors, rows by name, and what does not fit."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from unit.tiny_unified import TINY, tiny_checkpoint

from instructseg.core import BadInput
from instructseg.modules.perception import Perception
from instructseg.recipes.unified.configuration import UnifiedConfig
from instructseg.training.warm_start import NAMED_ROWS, copy_fitting, start_from

# Fewer colours in another order, one that TINY lacks; fewer shapes; other sizes.
OLD = dataclasses.replace(
    TINY, colors=("blue", "red", "teal"), shapes=("mug", "block"), sizes=("large", "small", "tiny")
)


def perception(config: UnifiedConfig, seed: int) -> Perception:
    torch.manual_seed(seed)
    return Perception(config)


def test_rows_of_named_layers_follow_their_names() -> None:
    old, new = perception(OLD, 1), perception(TINY, 2)
    before = {name: tensor.clone() for name, tensor in new.state_dict().items()}
    report = copy_fitting(new, TINY, old.state_dict(), OLD)
    assert {name.rpartition(".")[0] for name in report.by_name} == set(NAMED_ROWS)
    assert not report.left and len(report.copied) + len(report.by_name) == len(before)
    for name in report.copied:
        assert torch.equal(new.state_dict()[name], old.state_dict()[name])
    theirs, own = old.appearance.color[2].weight, new.appearance.color[2].weight
    for color in ("blue", "red"):
        assert torch.equal(own[TINY.colors.index(color)], theirs[OLD.colors.index(color)])
    green = TINY.colors.index("green")
    assert torch.equal(own[green], before["appearance.color.2.weight"][green])
    assert not any(torch.equal(row, theirs[OLD.colors.index("teal")]) for row in own)
    bias, old_bias = new.appearance.form[2].bias, old.appearance.form[2].bias  # shapes, then sizes
    assert bias[TINY.shapes.index("mug")] == old_bias[0]
    assert bias[len(TINY.shapes) + TINY.sizes.index("large")] == old_bias[len(OLD.shapes)]
    dense, old_dense = new.encoder.attributes.weight, old.encoder.attributes.weight  # colours, shapes, sizes
    small = len(TINY.colors) + len(TINY.shapes) + TINY.sizes.index("small")
    assert torch.equal(dense[small], old_dense[len(OLD.colors) + len(OLD.shapes) + 1])


def test_the_same_names_in_another_order_are_no_plain_copy() -> None:
    turned = dataclasses.replace(TINY, colors=TINY.colors[::-1])
    old, new = perception(turned, 1), perception(TINY, 2)
    copy_fitting(new, TINY, old.state_dict(), turned)
    assert torch.equal(new.appearance.color[2].weight, old.appearance.color[2].weight.flip(0))


def test_layers_of_another_size_are_left_and_said(caplog: pytest.LogCaptureFixture) -> None:
    wide = dataclasses.replace(TINY, embedding=8)
    old, new = perception(wide, 1), perception(TINY, 2)
    before = {name: tensor.clone() for name, tensor in new.state_dict().items()}
    report = copy_fitting(new, TINY, old.state_dict(), wide)
    assert set(report.left) == {"appearance.embedding.2.weight", "appearance.embedding.2.bias"}
    assert all(torch.equal(new.state_dict()[name], before[name]) for name in report.left)
    assert str(report) == f"{len(before) - 2} tensors copied, 0 by their rows' names, 2 left"


def test_from_a_checkpoint_folder(tmp_path: Path) -> None:
    folder, new = tiny_checkpoint(tmp_path / "before"), perception(TINY, 5)
    report = start_from(new, TINY, str(folder))
    assert not report.left and not report.by_name
    stored = load_file(folder / "model.safetensors")
    for name, tensor in new.state_dict().items():
        assert torch.equal(tensor, stored[f"perception.{name}"])


def test_the_shipped_weights_can_be_started_from() -> None:
    config = UnifiedConfig()
    new = perception(config, 0)
    report = start_from(new, config, "shipped")
    assert "encoder.stage4.0.weight" in report.copied or len(report.copied) > 50
    assert not any(name.startswith("encoder.stage") for name in report.left)


def test_what_cannot_be_started_from_is_named(tmp_path: Path) -> None:
    new = perception(TINY, 0)
    with pytest.raises(BadInput, match="nowhere"):
        start_from(new, TINY, str(tmp_path / "nowhere"))
    folder = tiny_checkpoint(tmp_path / "a")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    save_file({name: tensor for name, tensor in tensors.items() if not name.startswith("perception.")}, path)
    with pytest.raises(BadInput, match=r"no weight of .*a fits this perception"):
        start_from(new, TINY, str(folder))
    tensors["perception.encoder.attributes.weight"][0] = torch.nan
    save_file(tensors, path)
    with pytest.raises(BadInput, match="perception.encoder.attributes.weight holds values that are not finite"):
        start_from(new, TINY, str(folder))
    (folder / "config.json").write_text(json.dumps({"recipe": "lisa"}))
    with pytest.raises(BadInput, match=r"config.json is not a configuration of the recipe 'unified'"):
        start_from(new, TINY, str(folder))
