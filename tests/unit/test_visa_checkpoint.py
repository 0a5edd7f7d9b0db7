"""Reading both of VISA's published layouts, accounting for full-size ones, and refusing what does not fit."""

from __future__ import annotations

import dataclasses
import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from unit.tiny_unified import noise_frame
from unit.tiny_unified import tiny_checkpoint as tiny_unified
from unit.tiny_videolisa import tiny_checkpoint as tiny_videolisa
from unit.tiny_visa import CLIP, CONFIG, PIECES, clip_tensors, published_shapes, tiny_checkpoint, write_clip

import instructseg
from instructseg.checkpoints import account
from instructseg.core import BadInput, Clip, Instruction
from instructseg.modules.clip_patches import clip_vit_l14, published_clip_shapes
from instructseg.modules.sam_sizes import SamSizes
from instructseg.recipes.visa.checkpoint import IGNORED, PARTS, TOWER
from instructseg.recipes.visa.configuration import PRESETS, VisaConfig
from instructseg.recipes.visa.modeling import VisaModel
from instructseg.recipes.visa.processing import VisaSegmenter

Change = Callable[[Path], None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_checkpoint(tmp_path / "checkpoint")


def load(folder: Path, **options: str) -> VisaSegmenter:
    return instructseg.load("visa", folder, "cpu", "float32", options)


def prompt(segmenter: VisaSegmenter) -> torch.Tensor:
    clip = Clip(tuple(segmenter.encode([noise_frame(48, 64, t / 10, t) for t in range(3)])))
    return segmenter.ground(clip, [Instruction("a", "the red cup")])[0].targets[0].token.prompt


# Layouts


@pytest.mark.parametrize("layout", ["single", "bin"])
def test_one_file_or_many_of_either_kind_give_the_same(tmp_path: Path, folder: Path, layout: str) -> None:
    other = load(tiny_checkpoint(tmp_path / "other", layout))
    torch.testing.assert_close(prompt(other), prompt(load(folder)), atol=0, rtol=0)


def test_every_key_of_a_merged_folder_is_accounted_for(folder: Path) -> None:
    report = load(folder).load_report
    assert not report.missing and not report.unexpected and not report.merged
    reasons = dict(report.ignored)
    rotary = [key for key in reasons if key.endswith("rotary_emb.inv_freq")]
    assert len(rotary) == CONFIG.layers and "stored ones are rounded" in reasons[rotary[0]]
    assert {"logit_scale", "vision_model.embeddings.position_ids"} <= set(reasons)
    assert len(reasons) == CONFIG.layers + 3


def dump_tensors(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "pytorch_model.bin", weights_only=True)


def test_a_training_dump_is_merged_stripped_and_brings_its_own_tower(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "dump", "dump")
    segmenter, dump = load(folder), dump_tensors(folder)
    name = "base_model.model.model.layers.1.self_attn.v_proj"
    down, up = (dump[f"{name}.lora_{half}.default.weight"] for half in "AB")
    merged = segmenter.model.llm.model.layers[1].self_attn.v_proj.weight
    torch.testing.assert_close(merged, dump[f"{name}.weight"] + 2.0 * up @ down, atol=1e-6, rtol=0)
    tower = segmenter.model.clip.clip.embeddings.class_embedding
    assert torch.equal(tower, dump[f"base_model.model.{TOWER}vision_model.embeddings.class_embedding"])
    assert len(segmenter.load_report.merged) == 2 * CONFIG.layers
    assert any("LoRA of 4 layers was merged" in note for note in segmenter.notes)
    assert any("its own CLIP tower" in note for note in segmenter.notes)


def test_the_scale_of_lora_is_an_option(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "dump", "dump")
    off, dump = load(folder, lora_alpha="0"), dump_tensors(folder)
    weight = dump["base_model.model.model.layers.0.self_attn.q_proj.weight"]
    assert torch.equal(off.model.llm.model.layers[0].self_attn.q_proj.weight, weight)


def test_another_tower_may_replace_the_one_in_a_dump(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "dump", "dump")
    other = clip_tensors(torch.Generator().manual_seed(99))
    segmenter = load(folder, clip=str(write_clip(tmp_path / "clip", other)))
    wanted = other["vision_model.embeddings.class_embedding"]
    assert torch.equal(segmenter.model.clip.clip.embeddings.class_embedding, wanted)
    assert "the option clip names another vision tower" in segmenter.load_report.ignored.values()


def test_a_dump_alone_takes_settings_and_tokenizer_from_its_base(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "dump", "dump")
    alone = tmp_path / "alone" / "global_step.bin"
    alone.parent.mkdir()
    shutil.move(folder / "pytorch_model.bin", alone)
    with pytest.raises(BadInput, match=r"config.json is missing.*option base"):
        load(alone)
    edit("config.json", lambda c: c | {"vocab_size": PIECES})(folder)  # the base knows no [SEG]
    (folder / "added_tokens.json").unlink()
    segmenter = load(alone, base=str(folder))
    assert segmenter.seg_id == PIECES and segmenter.model.config.vocabulary == PIECES + 1
    (folder / "added_tokens.json").write_text(json.dumps({"<other>": PIECES}))  # of a base that was not the one
    with pytest.raises(
        BadInput, match=rf"has {PIECES + 1} tokens and no \[SEG\].* {PIECES + 1} rows and not {PIECES + 2}"
    ):
        load(alone, base=str(folder))
    whole = load(tiny_checkpoint(tmp_path / "whole", "dump"))
    torch.testing.assert_close(prompt(segmenter), prompt(whole), atol=0, rtol=0)


@pytest.mark.parametrize("place", ["beside", "option"])
def test_the_tower_is_found_beside_the_checkpoint_or_where_the_option_says(
    tmp_path: Path, folder: Path, place: str
) -> None:
    expected = prompt(load(folder))
    elsewhere = tmp_path / CONFIG.vision_tower if place == "beside" else tmp_path / "elsewhere"
    elsewhere.parent.mkdir(exist_ok=True)
    shutil.move(folder / CONFIG.vision_tower, elsewhere)
    options = {} if place == "beside" else {"clip": str(elsewhere)}
    assert torch.equal(prompt(load(folder, **options)), expected)


# Full size, without weights


@pytest.mark.parametrize("name", sorted(PRESETS))
@pytest.mark.parametrize("inside", [False, True], ids=["merged", "dump"])
def test_every_published_key_has_its_place_at_full_size(name: str, inside: bool) -> None:
    config, clip, sam = PRESETS[name], clip_vit_l14(224), SamSizes.vit_h()
    with torch.device("meta"):
        model = VisaModel(config, clip, sam)
    assert model.tokens_per_frame == 112
    own = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    published = published_shapes(config, sam)
    if inside:
        published |= {TOWER + key: shape for key, shape in published_clip_shapes(clip).items()}
    else:
        own = {key: shape for key, shape in own.items() if not key.startswith("clip.")}
    accounted = account(published, own, PARTS, IGNORED)
    accounted.check(name)
    assert len(accounted.ignored) == config.layers
    taken = set(published) - set(accounted.ignored)
    # One to one, but for the positional matrix, which transformers holds twice.
    assert set(accounted.sources.values()) == taken and len(accounted.sources) == len(taken) + 1


# What does not fit


def edit(file: str, change: Callable[[dict], dict]) -> Change:
    def apply(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps(change(json.loads(path.read_text()))))

    return apply


def shard(change: Callable[[dict], dict]) -> Change:
    def apply(folder: Path) -> None:
        path = folder / "pytorch_model-00001-of-00002.bin"
        torch.save(change(torch.load(path, weights_only=True)), path)

    return apply


def truncate(folder: Path) -> None:
    path = folder / "pytorch_model-00002-of-00002.bin"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def dangerous(folder: Path) -> None:
    class Code:
        def __reduce__(self):
            return print, ("this must not run",)

    (folder / "pytorch_model-00001-of-00002.bin").write_bytes(pickle.dumps(Code(), protocol=2))


def without(*names: str) -> Change:
    return lambda folder: [(folder / name).unlink() for name in names] and None


def fewer_rows(folder: Path) -> None:
    """A vocabulary without room for [SEG], in config.json and weights alike."""
    for path in folder.glob("*.bin"):
        tensors = torch.load(path, weights_only=True)
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            if name in tensors:
                tensors[name] = tensors[name][:-1].clone()
        torch.save(tensors, path)
    edit("config.json", lambda c: c | {"vocab_size": PIECES})(folder)


def extra_key(folder: Path) -> None:
    torch.save({"model.extra.weight": torch.ones(2)}, folder / "extra.bin")
    edit(
        "pytorch_model.bin.index.json", lambda i: {"weight_map": i["weight_map"] | {"model.extra.weight": "extra.bin"}}
    )(folder)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (truncate, "pytorch_model-00002-of-00002.bin is not a readable PyTorch file"),
        (dangerous, "pytorch_model-00001-of-00002.bin holds more than tensors.*could run code"),
        (without("pytorch_model-00002-of-00002.bin"), "pytorch_model-00002-of-00002.bin is missing"),
        (without("tokenizer.model"), "tokenizer.model is missing"),
        (without("config.json"), "config.json is missing.*option base"),
        (lambda f: (f / "tokenizer.model").write_bytes(b"no model") and None, "is not a SentencePiece model"),
        (lambda f: (f / "config.json").write_text("[]") and None, "is no table of settings"),
        (lambda f: (f / "config.json").write_text("{") and None, "is not valid JSON"),
        (fewer_rows, rf"ids up to {PIECES} \(\[SEG\] is {PIECES}\), but the embedding table has {PIECES} rows"),
        (edit("added_tokens.json", lambda a: {"[SEG]": PIECES + 5}), "tokenizer and weights are of different models"),
        (edit("added_tokens.json", lambda a: {"[SEG]": "last"}), "must map added tokens to ids"),
        (
            edit("config.json", lambda c: c | {"vocab_size": PIECES}),
            "2 of another shape: .*model.embed_tokens.weight is",
        ),
        (edit("config.json", lambda c: c | {"num_hidden_layers": 3}), r"missing: llm.model.layers.2"),
        (edit("config.json", lambda c: c | {"num_hidden_layers": 1}), r"unexpected: model.layers.1"),
        (shard(lambda t: {k: v for k, v in t.items() if "lm_head" not in k}), "lacks 1 tensor.*lm_head.weight"),
        (extra_key, "1 unexpected: model.extra.weight"),
        (lambda f: shutil.rmtree(f / "owner"), "vision tower 'owner/clip-tiny'.*option clip"),
        (edit("config.json", lambda c: c | {"mm_vision_tower": "", "vision_tower": ""}), "names no vision tower"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(folder: Path, change: Change, what: str, capfd) -> None:
    change(folder)
    with pytest.raises(BadInput, match=what):
        load(folder)
    assert "this must not run" not in capfd.readouterr().out


def test_checkpoints_of_other_systems_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"model_type 'llava_phi', VISA's is 'ChatUniVi': is it another system's"):
        load(tiny_videolisa(tmp_path / "videolisa"))
    with pytest.raises(BadInput, match=r"config.json"):
        load(tiny_unified(tmp_path / "unified"))
    with pytest.raises(BadInput, match="does not exist"):
        load(tmp_path / "nothing")


def test_a_tower_of_another_width_is_refused(tmp_path: Path, folder: Path) -> None:
    edit("owner/clip-tiny/config.json", lambda c: {"vision_config": c["vision_config"] | {"hidden_size": 24}})(folder)
    with pytest.raises(BadInput, match=r"wants CLIP features of width 16, but .*clip-tiny gives 24.*option clip="):
        load(folder)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"hidden_size": None}, "hidden_size must be a whole number of at least 1; got None"),
        ({"hidden_size": 30}, "num_attention_heads 4 does not divide hidden_size 30"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps must be a number above 0; got 'small'"),
        ({"hidden_act": "relu"}, "hidden_act must be 'silu', as in every Llama; got 'relu'"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling"),
        ({"mm_vision_select_feature": "cls_patch"}, "must be 'patch'; got 'cls_patch'"),
        ({"config": {"use_cluster": False}}, "switches token merging off"),
        ({"config": {"spatial_cluster_rate1": 0}}, "spatial_cluster_rate1 must be a number above 0; got 0"),
        ({"config": {"spatial_cluster_rate0": 17}}, "merging asks for 17 clusters of 16 tokens"),
        ({"out_dim": 64}, "SAM's prompts are 32 wide, VISA's out_dim is 64"),
    ],
)
def test_settings_that_cannot_be_used_are_named(tmp_path: Path, changes: dict, what: str) -> None:
    folder = tiny_checkpoint(tmp_path / "checkpoint", **changes)
    with pytest.raises(BadInput, match=re.compile(what)):
        load(folder)


def test_settings_that_a_base_lacks_are_the_published_ones() -> None:
    plain = {
        "model_type": "ChatUniVi", "vocab_size": 32001, "hidden_size": 4096, "num_attention_heads": 32,
        "num_hidden_layers": 32, "intermediate_size": 11008, "rms_norm_eps": 1e-5, "mm_hidden_size": 1024,
        "mm_vision_tower": "openai/clip-vit-large-patch14",
    }  # fmt: skip
    assert VisaConfig.from_json(plain, Path("config.json")) == PRESETS["VISA-7B"]
    assert dataclasses.replace(CONFIG).levels[0].count(16) == 6 and CLIP.hidden_size == CONFIG.vision_width
