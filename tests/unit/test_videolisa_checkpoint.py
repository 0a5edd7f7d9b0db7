"""Reading VideoLISA's published layout in all its forms, and refusing what does not fit."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from unit.tiny_unified import noise_frame
from unit.tiny_unified import tiny_checkpoint as tiny_unified
from unit.tiny_videolisa import CLIP, CONFIG, SAM, published_shapes, tiny_checkpoint

import instructseg
from instructseg.checkpoints import open_tensors
from instructseg.core import BadInput, Clip, Instruction
from instructseg.recipes.videolisa.processing import VideoLISASegmenter

CLIP_NAME = Path(CONFIG.mm_vision_tower).name
Change = Callable[[Path], None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_checkpoint(tmp_path / "checkpoint")


def load(folder: Path, **options: str) -> VideoLISASegmenter:
    return instructseg.load("videolisa", folder, "cpu", "float32", options)


def prompt(segmenter: VideoLISASegmenter) -> torch.Tensor:
    clip = Clip(tuple(segmenter.encode([noise_frame(48, 64, t / 10, t) for t in range(3)])))
    return segmenter.ground(clip, [Instruction("a", "the red cup")])[0].targets[0].token.prompt


# Layouts


@pytest.mark.parametrize("layout", ["single", "bin"])
def test_one_file_or_many_of_either_kind_give_the_same(tmp_path: Path, folder: Path, layout: str) -> None:
    other = load(tiny_checkpoint(tmp_path / "other", layout))
    torch.testing.assert_close(prompt(other), prompt(load(folder)), atol=0, rtol=0)


def test_sharded_bin_files(tmp_path: Path, folder: Path) -> None:
    expected = prompt(load(folder))
    index = folder / "model.safetensors.index.json"
    places = {name: f"pytorch_{file}.bin" for name, file in json.loads(index.read_text())["weight_map"].items()}
    for file in folder.glob("model-*.safetensors"):
        torch.save(load_file(file), folder / f"pytorch_{file.name}.bin")
        file.unlink()
    index.unlink()
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    torch.testing.assert_close(prompt(load(folder)), expected, atol=0, rtol=0)


def test_what_training_leaves_behind_is_merged_on_reading(tmp_path: Path) -> None:
    """peft's names, LoRA beside the weights: W + alpha / r * B A, with alpha / r = 2 as published."""
    dump = tiny_checkpoint(tmp_path / "dump", "peft")
    raw = open_tensors(dump)
    merged = {}
    for name in raw:
        short = name.removeprefix("base_model.model.")
        if "lora_" in name or "vision_tower" in name:
            continue
        tensor = raw[name]
        if short.endswith("qkv_proj.weight"):
            layer = name.removesuffix(".weight")
            tensor = tensor + 2 * raw[f"{layer}.lora_B.default.weight"] @ raw[f"{layer}.lora_A.default.weight"]
        merged[short] = tensor.clone()
    published = tmp_path / "published"
    shutil.copytree(dump, published, ignore=shutil.ignore_patterns("*.bin"))
    shutil.copytree(dump / CLIP_NAME, published / CLIP_NAME, dirs_exist_ok=True)
    save_file(merged, published / "model.safetensors")

    from_dump, from_published = load(dump, lora_alpha="8"), load(published)
    torch.testing.assert_close(prompt(from_dump), prompt(from_published), atol=1e-5, rtol=0)
    report = from_dump.load_report
    assert len(report.merged) == CONFIG.num_hidden_layers
    (ignored,) = [key for key in report.ignored if "vision_tower" in key]
    assert report.ignored[ignored] == "CLIP is frozen and read from its own checkpoint"
    first, other = (s.model.llm.model.layers[0].self_attn.qkv_proj.weight for s in (from_dump, load(dump)))
    assert (first - other).abs().max() > 1e-3  # alpha matters


def test_the_report_accounts_for_every_key(folder: Path) -> None:
    report = load(folder).load_report
    stored = published_shapes(CONFIG, SAM)
    assert not report.missing and not report.unexpected
    assert set(stored) <= set(report.converted.values())
    assert set(report.ignored) == {"vision_model.embeddings.position_ids", "logit_scale"}
    assert "ignored, CLIP's text half" in report.describe()


# The CLIP tower


def test_clip_lies_inside_beside_or_where_the_option_says(folder: Path, tmp_path: Path) -> None:
    expected = prompt(load(folder))
    shutil.move(folder / CLIP_NAME, folder.parent / CLIP_NAME)
    torch.testing.assert_close(prompt(load(folder)), expected, atol=0, rtol=0)
    shutil.move(folder.parent / CLIP_NAME, tmp_path / "tower")
    torch.testing.assert_close(prompt(load(folder, clip=str(tmp_path / "tower"))), expected, atol=0, rtol=0)
    with pytest.raises(BadInput, match=f"{CONFIG.mm_vision_tower}.*option clip="):
        load(folder)  # nothing is fetched in tests
    with pytest.raises(BadInput, match="does not exist"):
        load(folder, clip=str(tmp_path / "nowhere"))


def test_another_clip_is_refused_by_its_width(folder: Path) -> None:
    config = folder / CLIP_NAME / "config.json"
    config.write_text(json.dumps({"vision_config": CLIP.to_dict() | {"hidden_size": 24}}))
    with pytest.raises(BadInput, match=rf"wants CLIP features of width 16, but .*{CLIP_NAME} gives 24.*option clip="):
        load(folder)


def test_a_clip_without_weights_or_of_other_shapes_is_refused(folder: Path) -> None:
    config = folder / CLIP_NAME / "config.json"
    config.write_text(json.dumps(CLIP.to_dict() | {"intermediate_size": 32}))
    with pytest.raises(BadInput, match="of another shape"):
        load(folder)
    (folder / CLIP_NAME / "pytorch_model.bin").unlink()
    with pytest.raises(BadInput, match=f"{CLIP_NAME} holds no weights"):
        load(folder)


# What does not fit


def cut(name: str, keep: int) -> Change:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:keep])


def remove(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


def edit_config(**changes: object) -> Change:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def edit_tensors(edit: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    def change(folder: Path) -> None:
        tensors = {name: tensor.clone() for name, tensor in open_tensors(folder).items()}
        edit(tensors)
        for path in folder.glob("model*"):
            path.unlink()
        save_file(tensors, folder / "model.safetensors")

    return change


class Malicious:
    def __reduce__(self):
        return print, ("code ran",)


def code_in_a_pickle(folder: Path) -> None:
    for path in folder.glob("model*"):
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"model.norm.weight": Malicious()}, 2))


FIRST = "model-00001-of-00002.safetensors"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (remove("config.json"), r"config\.json is missing"),
        (cut("config.json", 40), r"config\.json is not valid JSON"),
        (remove("tokenizer.model"), r"tokenizer\.model is missing"),
        (remove(FIRST), f"{FIRST} is missing"),
        (cut(FIRST, 0), f"{FIRST} is not a readable safetensors file"),
        (cut(FIRST, 3000), f"{FIRST} is not a readable safetensors file.*fetched completely"),
        (cut(FIRST, -64), f"{FIRST} is not a readable safetensors file"),
        (remove("model.safetensors.index.json"), "several weight files and no index"),
        (code_in_a_pickle, r"pytorch_model\.bin holds more than tensors"),
        (edit_tensors(lambda t: t.pop("lm_head.weight")), r"1 missing: llm\.lm_head\.weight"),
        (edit_tensors(lambda t: t.update(extra=torch.zeros(2))), "1 unexpected: extra"),
        (
            edit_tensors(lambda t: [t.pop(k) for k in list(t) if "visual_model" in k]),
            r"no 'image_encoder\.patch_embed\.proj\.weight': SAM's weights are missing",
        ),
        (
            edit_tensors(lambda t: t.update({"model.norm.weight": torch.full((32,), torch.nan)})),
            r"llm\.model\.norm\.weight holds values that are not finite",
        ),
        (edit_config(num_hidden_layers=1), r"unexpected: model\.layers\.1\."),
        (edit_config(hidden_size=64), r"another shape: .*model\.embed_tokens\.weight is \(\d+, 32\), the model's is"),
        (edit_config(rope_theta="large"), r"config\.json: rope_theta must be a number above 0; got 'large'"),
        (edit_config(mm_vision_select_layer="last"), "mm_vision_select_layer must be a whole number; got 'last'"),
        (edit_config(mm_vision_select_layer=-9), "-9 of config.json is outside CLIP's"),
        (edit_config(out_dim=16), "out_dim is 16, but SAM's prompts have width 32"),
        (edit_config(vocab_size=CONFIG.vocab_size - 1), r"vocabulary of .* has \d+ rows.*\[SEG\]"),
        (edit_config(model_type="llava", architectures=["GSVAForCausalLM"]), "another system's checkpoint"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_and_nothing_is_loaded(folder: Path, change: Change, what: str, capsys) -> None:
    change(folder)
    with pytest.raises(BadInput, match=what):
        load(folder)
    assert "code ran" not in capsys.readouterr().out


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"model_type None.*reads 'llava_phi'"):
        load(tiny_unified(tmp_path / "unified"))


def test_a_place_that_is_no_checkpoint_is_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(BadInput, match="does not exist"):
        load(tmp_path / "nowhere")
    with pytest.raises(BadInput, match="is a file; give the folder"):
        load(folder / "config.json")
