"""SAM 2's checkpoints: every published name has its place, and files of both layouts give the same model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import Sam2VideoModel
from unit.tiny_sam2 import (
    original_checkpoint,
    original_tensors,
    published_shapes,
    tiny_config,
    tiny_sam,
    transformers_checkpoint,
)

from instructseg.checkpoints import account, empty_weights, open_tensors
from instructseg.core import BadInput
from instructseg.modules.sam2_keys import ORIGINAL, StackedPoints, is_original
from instructseg.modules.sam2_sizes import SIZES, VERSIONS, config_from_json, sam2_config, size_of, with_image_size
from instructseg.tracking.memory_checkpoint import load_memory_tracker


class Table(dict):
    """Tensors by name, or only their shapes, as the checkpoints package wants them."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(getattr(value, "shape", value)) for name, value in self.items()}


def shapes_of(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("size", SIZES)
def test_published_checkpoints_fit_one_to_one(size: str, version: str) -> None:
    published = Table(published_shapes(size, version))
    assert size_of(published) == (SIZES[size], version)
    with empty_weights():
        sam = Sam2VideoModel(sam2_config(SIZES[size], version))
    assert all(parameter.device.type == "meta" for parameter in sam.parameters())
    accounted = account(StackedPoints(published).shapes, shapes_of(sam), (ORIGINAL,))
    assert (accounted.missing, accounted.unexpected, accounted.misshapen, accounted.ignored) == ((), (), (), {})
    # Four rows of one table, and one matrix that transformers holds twice; else one name for one.
    assert len(accounted.sources) == len(published) - 3 + 1
    used = list(accounted.sources.values())
    assert {name for name in used if used.count(name) > 1} == {
        "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
    }


@pytest.mark.parametrize(("size", "millions"), [("tiny", 38.9), ("small", 46.0), ("base_plus", 80.8), ("large", 224.4)])
def test_sizes_have_the_published_number_of_parameters(size: str, millions: float) -> None:
    with empty_weights():
        sam = Sam2VideoModel(sam2_config(SIZES[size]))
    assert sum(parameter.numel() for parameter in sam.parameters()) / 1e6 == pytest.approx(millions, abs=0.2)


def test_a_wrong_name_or_shape_is_named() -> None:
    published = Table(published_shapes("tiny", "2.1"))
    with empty_weights():
        model = shapes_of(Sam2VideoModel(sam2_config(SIZES["tiny"])))
    published["no_mem_embed_2"] = published.pop("no_mem_embed")
    published["maskmem_tpos_enc"] = (6, 1, 1, 64)
    with pytest.raises(BadInput, match=r"no_memory_embedding.*no_mem_embed_2.*maskmem_tpos_enc is \(6, 1, 1, 64\)"):
        account(StackedPoints(published).shapes, model, (ORIGINAL,)).check("file.pt")


def test_sizes_that_were_never_published_are_refused() -> None:
    shapes = {"image_encoder.trunk.patch_embed.proj.weight": (100, 3, 7, 7), "image_encoder.trunk.blocks.0.x": (1,)}
    with pytest.raises(BadInput, match=r"100 channels and 1 blocks.*tiny \(96 channels, 12 blocks\)"):
        size_of(shapes)
    with pytest.raises(BadInput, match="version must be one of 2.0, 2.1; got '3'"):
        sam2_config(SIZES["tiny"], "3")


@pytest.mark.parametrize("edge", [100, 0, 4096])
def test_image_sizes_that_do_not_fit_are_refused(edge: int) -> None:
    with pytest.raises(BadInput, match=f"multiple of 32 in 64..2048 pixels; got {edge}"):
        with_image_size(tiny_config(), edge)


def test_image_size_changes_no_shape() -> None:
    small, large = tiny_config(image_size=128), with_image_size(tiny_config(image_size=128), 256)
    assert large.vision_config.backbone_feature_sizes == [[64, 64], [32, 32], [16, 16]]
    assert small.image_size == 128  # untouched
    assert shapes_of(Sam2VideoModel(small)) == shapes_of(Sam2VideoModel(large))


@pytest.mark.parametrize("version", VERSIONS)
def test_both_layouts_load_the_same_weights(tmp_path: Path, version: str) -> None:
    sam = tiny_sam(tiny_config(version))
    file = original_checkpoint(tmp_path / "original", sam, version)
    folder = transformers_checkpoint(tmp_path / "transformers", sam)
    for checkpoint in (file, file.parent, folder):
        tracker = load_memory_tracker(checkpoint)
        loaded = tracker.model.sam.state_dict()
        assert loaded.keys() == sam.state_dict().keys()
        for name, tensor in sam.state_dict().items():
            assert torch.equal(loaded[name], tensor), (checkpoint, name)
        report = tracker.load_report
        assert len(report.loaded) == len(loaded)
        assert not report.ignored
        assert bool(report.converted) == (checkpoint != folder)


def test_image_size_and_dtype_are_the_callers(tmp_path: Path) -> None:
    folder = transformers_checkpoint(tmp_path, tiny_sam())
    tracker = load_memory_tracker(folder, "cpu", torch.bfloat16, image_size=192)
    assert tracker.model.image_size == 192
    assert tracker.model.cells == 12
    clicks = tracker.model.sam.prompt_encoder.shared_embedding.positional_embedding
    assert clicks.dtype == torch.float32  # pixels need more than eight bits
    others = {p.dtype for p in tracker.model.parameters()}
    assert others == {torch.bfloat16}


@pytest.mark.parametrize("left_out", ["prompt_encoder.shared_embedding", "shared_image_embedding"])
def test_files_of_earlier_transformers_load(tmp_path: Path, left_out: str) -> None:
    """One of two equal tensors not written, and the base of the rotary code under its former name."""
    sam = tiny_sam()
    folder = transformers_checkpoint(tmp_path, sam)
    tensors = {k: v.clone() for k, v in sam.state_dict().items() if not k.startswith(left_out)}
    assert len(tensors) == len(sam.state_dict()) - 1
    save_file(tensors, folder / "model.safetensors")
    content = json.loads((folder / "config.json").read_text())
    del content["rope_parameters"]
    (folder / "config.json").write_text(json.dumps({**content, "memory_attention_rope_theta": 500}))
    model = load_memory_tracker(folder).model
    assert model.config.rope_parameters["rope_theta"] == 500.0
    assert all(torch.equal(tensor, sam.state_dict()[name]) for name, tensor in model.sam.state_dict().items())


def test_stacked_points_are_the_rows_in_order() -> None:
    sam = tiny_sam()
    stacked = StackedPoints(Table(original_tensors(sam)))
    assert is_original(stacked)
    table = stacked["sam_prompt_encoder.point_embeddings.weight"]
    assert torch.equal(table, sam.prompt_encoder.point_embed.weight)
    assert set(stacked) == set(stacked.shapes)


def test_broken_checkpoints_are_refused_with_their_name(tmp_path: Path) -> None:
    sam = tiny_sam()
    file = original_checkpoint(tmp_path / "original", sam)
    content = file.read_bytes()

    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(BadInput, match=f"{file.name}.*fetched completely"):
        load_memory_tracker(file)

    tensors = original_tensors(sam)
    del tensors["no_obj_ptr"]
    torch.save({"model": tensors}, file)
    with pytest.raises(BadInput, match=f"{file.name} does not fit.*1 missing: no_object_pointer"):
        load_memory_tracker(file)

    torch.save({"model": original_tensors(sam), "hook": print}, file)
    with pytest.raises(BadInput, match=f"{file.name} holds more than tensors.*was not loaded"):
        load_memory_tracker(file)

    with pytest.raises(BadInput, match="holds no weights"):
        load_memory_tracker(tmp_path)
    with pytest.raises(BadInput, match="does not exist"):
        load_memory_tracker(tmp_path / "nothing")


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = transformers_checkpoint(tmp_path, tiny_sam())
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, "model_type": "sam"}))
    with pytest.raises(BadInput, match="model type 'sam'; a memory tracker needs 'sam2_video'"):
        load_memory_tracker(folder)
    (folder / "config.json").write_text("[1]")
    with pytest.raises(BadInput, match="config.json is no JSON object"):
        load_memory_tracker(folder)
    (folder / "config.json").unlink()
    with pytest.raises(BadInput, match="config.json is missing"):
        load_memory_tracker(folder)
    with pytest.raises(BadInput, match="does not describe a SAM 2 video model"):
        config_from_json({**content, "num_maskmem": "seven"})


def test_a_configuration_survives_its_file(tmp_path: Path) -> None:
    folder = transformers_checkpoint(tmp_path, tiny_sam(tiny_config("2.0")))
    config = config_from_json(json.loads((folder / "config.json").read_text()))
    assert shapes_of(Sam2VideoModel(config)) == open_tensors(folder).shapes
    assert not config.enable_occlusion_spatial_embedding
