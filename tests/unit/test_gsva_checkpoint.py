"""GSVA's and LISA's checkpoints: full sizes accounted without weights, tiny ones loaded, wrong ones refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from unit.tiny_gsva import (
    LORA_RANK,
    published_shapes,
    tiny_checkpoint,
    tiny_lisa_checkpoint,
    tiny_options,
)

from instructseg.checkpoints import account, merge_lora, open_tensors, strip_prefix
from instructseg.core import BadInput
from instructseg.options import parse_options
from instructseg.recipes.gsva.checkpoint import IGNORED, PEFT_PREFIX, load_checkpoint, parts_of
from instructseg.recipes.gsva.configuration import PRESETS, GsvaOptions
from instructseg.recipes.gsva.lora import add_lora
from instructseg.recipes.gsva.modeling import GsvaModel


class OnlyShapes:
    """A checkpoint of which nothing but names and shapes is known."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]):
        self.shapes = shapes

    def __getitem__(self, name: str) -> torch.Tensor:
        raise AssertionError(f"{name} was read")


def options(folder: Path, **values: str) -> GsvaOptions:
    return parse_options(GsvaOptions, tiny_options(folder) | values, "recipe gsva")


@pytest.fixture
def gsva(tmp_path: Path) -> Path:
    return tiny_checkpoint(tmp_path)


@pytest.fixture
def lisa(tmp_path: Path) -> Path:
    return tiny_lisa_checkpoint(tmp_path)


def rewrite(folder: Path, change) -> None:
    """Change the tensors of a GSVA file in place."""
    (file,) = folder.glob("*.bin")
    torch.save(change(torch.load(file, weights_only=True)), file)


# Full size, without weights


@pytest.mark.parametrize("name", PRESETS)
def test_every_published_key_has_its_place(name: str) -> None:
    preset = PRESETS[name]
    config = preset.config()
    shapes = published_shapes(config, preset.layout, preset.lora_rank)
    with torch.device("meta"):
        model = GsvaModel(config)
    own = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    prefix = PEFT_PREFIX if preset.layout == "gsva" else ""
    if preset.layout == "lisa":  # CLIP comes from its own repository
        own = {key: shape for key, shape in own.items() if not key.startswith("vision.")}
    merged = merge_lora(OnlyShapes(shapes), 16.0)
    found = account(merged.shapes, own, parts_of(prefix), IGNORED)
    found.check(name)
    assert len(merged.merged) == (2 * preset.layers if preset.lora_rank else 0)
    # Every place is filled once; the matrix of SAM's positional encoding twice.
    assert len(set(found.sources.values())) == len(found.sources) - 1 == len(merged.shapes)
    if preset.lora_rank:
        with torch.device("meta"):
            add_lora(model.llm, preset.lora_rank)
        unmerged = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
        account(shapes, unmerged, parts_of(prefix, with_lora=True), IGNORED).check(name)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_agree_with_their_token_ids(name: str) -> None:
    preset = PRESETS[name]
    ids = [preset.seg, preset.image_start, preset.image_end, *([preset.rej] if preset.rej else [])]
    assert len(set(ids)) == len(ids) and max(ids) == preset.rows - 1
    assert (preset.rej is None) == (preset.layout == "lisa")
    assert preset.config().visual_tokens == 256


# Published layouts at tiny size


def test_lora_is_merged_with_its_scale(gsva: Path) -> None:
    loaded = load_checkpoint(gsva, options(gsva))
    (file,) = gsva.glob("*.bin")
    tensors = torch.load(file, weights_only=True)
    layer = PEFT_PREFIX + "model.layers.1.self_attn.v_proj"
    up, down = tensors[f"{layer}.lora_B.default.weight"], tensors[f"{layer}.lora_A.default.weight"]
    expected = tensors[f"{layer}.weight"] + 16 / LORA_RANK * up @ down
    torch.testing.assert_close(loaded.model.llm.model.layers[1].self_attn.v_proj.weight.data, expected)
    assert loaded.layout == "gsva" and len(loaded.report.merged) == 4
    assert loaded.report.remarks == ("LoRA of rank 2 merged with scale 8",)
    assert "rank 2 merged" in loaded.report.describe()


def test_file_folder_and_newer_names_of_lora_are_the_same_checkpoint(gsva: Path) -> None:
    (file,) = gsva.glob("*.bin")
    by_file = load_checkpoint(file, options(gsva)).model.state_dict()
    projection = re.compile(r"(.*\.model\.layers\.\d+\.self_attn\.[qv]_proj)\.weight")
    read = torch.load(file, weights_only=True)
    newer = {projection.sub(r"\1.base_layer.weight", name): tensor for name, tensor in read.items()}
    file.unlink()  # the first model still looks into it
    torch.save(newer, file)
    by_folder = load_checkpoint(gsva, options(gsva)).model.state_dict()
    assert sum("base_layer" in name for name in newer) == 4
    assert by_file.keys() == by_folder.keys()
    assert all(torch.equal(by_file[name], by_folder[name]) for name in by_file)


def test_a_merged_file_without_peft_names_is_still_gsva(gsva: Path) -> None:
    """As others have converted it: LoRA merged, prefix gone, the base's config.json beside it."""
    published = load_checkpoint(gsva, options(gsva)).model.state_dict()
    (file,) = gsva.glob("*.bin")
    merged = strip_prefix(merge_lora(open_tensors(file), 16.0), PEFT_PREFIX)
    tensors = {name: merged[name].clone() for name in merged}
    file.unlink()
    save_file(tensors, gsva / "model.safetensors")
    loaded = load_checkpoint(gsva, options(gsva))
    assert loaded.layout == "gsva" and loaded.report.merged == ()
    assert all(torch.equal(tensor, published[name]) for name, tensor in loaded.model.state_dict().items())


def test_unmerged_lora_gives_the_same_states_and_can_train(gsva: Path) -> None:
    merged = load_checkpoint(gsva, options(gsva)).model
    kept = load_checkpoint(gsva, options(gsva), keep_lora=True)
    embeddings = torch.randn(1, 7, 32, generator=torch.manual_seed(3))
    with torch.no_grad():
        a = merged.llm.model(inputs_embeds=embeddings).last_hidden_state
        b = kept.model.llm.model(inputs_embeds=embeddings).last_hidden_state
    torch.testing.assert_close(a, b, atol=2e-5, rtol=0)
    assert kept.report.merged == kept.report.remarks == ()


def test_base_folder_may_lie_elsewhere_and_old_buffers_are_ignored(gsva: Path, tmp_path_factory) -> None:
    base = tmp_path_factory.mktemp("base")
    for name in ("config.json", "tokenizer.model", "tokenizer_config.json", "added_tokens.json"):
        shutil.move(gsva / name, base / name)
    with pytest.raises(BadInput, match="option base"):
        load_checkpoint(gsva, options(gsva))
    rewrite(gsva, lambda t: t | {PEFT_PREFIX + "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)})
    loaded = load_checkpoint(gsva, options(gsva, base=str(base)))
    assert list(loaded.report.ignored.values()) == ["rotary frequencies, computed anew"]
    assert "ignored, rotary frequencies" in loaded.report.describe()


def test_a_base_without_image_tokens_gets_them_after_the_slots(tmp_path: Path) -> None:
    """As the Llama-2 base: the order of adding decides the ids."""
    folder = tiny_checkpoint(tmp_path)
    first = load_checkpoint(folder, options(folder)).vocabulary
    assert (first.seg, first.rej) == (first.pieces.added["<im_end>"] + 1, first.pieces.added["<im_end>"] + 2)
    (folder / "added_tokens.json").unlink()
    rewrite(
        folder,
        lambda t: {k: v[:-1] if k.endswith(("embed_tokens.weight", "lm_head.weight")) else v for k, v in t.items()},
    )
    second = load_checkpoint(folder, options(folder)).vocabulary
    assert [second.pieces.added[t] for t in ("[SEG]", "[REJ]", "<im_start>", "<im_end>")] == list(
        range(second.seg, second.seg + 4)
    )
    assert second.seg == first.pieces.added["<im_patch>"]


def test_lisa_takes_clip_from_a_folder_of_its_own(lisa: Path) -> None:
    loaded = load_checkpoint(lisa, options(lisa))
    assert loaded.layout == "lisa" and loaded.vocabulary.rej is None
    weights = torch.load(lisa / "clip" / "pytorch_model.bin", weights_only=True)
    expected = weights["vision_model.encoder.layers.0.mlp.fc1.weight"]
    assert torch.equal(loaded.model.vision.clip.encoder.layers[0].mlp.fc1.weight, expected)
    assert not loaded.report.missing and len(loaded.report.loaded) == len(loaded.model.state_dict())


def test_what_training_leaves_of_lisa_is_lisa(gsva: Path) -> None:
    """In the form of GSVA's file; it has no row for ``[REJ]``, and its ``config.json`` is LISA's."""
    tables = ("embed_tokens.weight", "lm_head.weight")
    rewrite(gsva, lambda tensors: {k: t[:-1].clone() if k.endswith(tables) else t for k, t in tensors.items()})
    with pytest.raises(BadInput, match="the tokenizer of .* belongs to another base model"):
        load_checkpoint(gsva, options(gsva))
    config = json.loads((gsva / "config.json").read_text())
    (gsva / "config.json").write_text(json.dumps(config | {"architectures": ["LISAForCausalLM"]}))
    loaded = load_checkpoint(gsva, options(gsva))
    assert loaded.layout == "lisa" and loaded.vocabulary.rej is None and loaded.report.merged
    assert loaded.vocabulary.seg == loaded.model.config.llama.vocab_size - 1


# Bad input


def test_weights_without_their_frozen_part_are_refused(gsva: Path) -> None:
    rewrite(gsva, lambda t: {k: v for k, v in t.items() if "mm_projector" not in k and "vision_tower" not in k})
    with pytest.raises(BadInput, match=r"gsva-tiny.*lacks the projector, CLIP.*frozen"):
        load_checkpoint(gsva, options(gsva))


def test_missing_and_unexpected_keys_are_named(gsva: Path) -> None:
    rewrite(gsva, lambda t: {k.replace("layers.1.mlp.up_proj", "layers.1.mlp.other"): v for k, v in t.items()})
    with pytest.raises(BadInput, match=r"missing: llm.model.layers.1.mlp.up_proj.*unexpected: .*layers.1.mlp.other"):
        load_checkpoint(gsva, options(gsva))


def test_a_truncated_file_is_refused(gsva: Path) -> None:
    (file,) = gsva.glob("*.bin")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(BadInput, match=r"gsva-tiny-ft-gres\.bin"):
        load_checkpoint(gsva, options(gsva))


def test_a_pickle_with_code_is_refused_and_not_run(gsva: Path) -> None:
    class Trap:
        def __reduce__(self):
            return (Path.touch, (gsva / "ran",))

    (file,) = gsva.glob("*.bin")
    torch.save({"weight": Trap()}, file)
    with pytest.raises(BadInput, match=r"gsva-tiny-ft-gres\.bin"):
        load_checkpoint(gsva, options(gsva))
    assert not (gsva / "ran").exists()


def test_a_language_model_alone_is_no_checkpoint_of_this_family(gsva: Path) -> None:
    rewrite(gsva, lambda t: {k: v for k, v in t.items() if "visual_model" not in k})
    with pytest.raises(BadInput, match="not a checkpoint of GSVA or LISA"):
        load_checkpoint(gsva, options(gsva))


def test_another_systems_folder_is_named(lisa: Path) -> None:
    values = json.loads((lisa / "config.json").read_text()) | {"architectures": ["VISAForCausalLM"]}
    (lisa / "config.json").write_text(json.dumps(values))
    with pytest.raises(BadInput, match=r"VISAForCausalLM.*recipe of its own"):
        load_checkpoint(lisa, options(lisa))


def test_one_of_several_models_must_be_chosen(gsva: Path) -> None:
    (file,) = gsva.glob("*.bin")
    shutil.copy(file, gsva / "gsva-tiny-pt.bin")
    with pytest.raises(
        BadInput, match=r"several weight files and no index \(gsva-tiny-ft-gres.bin, gsva-tiny-pt.bin\)"
    ):
        load_checkpoint(gsva, options(gsva))
    assert load_checkpoint(gsva / "gsva-tiny-pt.bin", options(gsva)).layout == "gsva"


def test_a_missing_shard_is_named(lisa: Path) -> None:
    (lisa / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(BadInput, match="pytorch_model-00002-of-00002.bin"):
        load_checkpoint(lisa, options(lisa))


def test_a_folder_without_tokenizer_says_so(lisa: Path) -> None:
    (lisa / "tokenizer.model").unlink()
    with pytest.raises(BadInput, match=r"tokenizer\.model"):
        load_checkpoint(lisa, options(lisa))


def test_a_vocabulary_too_small_for_its_tokens_is_refused(gsva: Path) -> None:
    short = ("embed_tokens.weight", "lm_head.weight")
    rewrite(gsva, lambda t: {k: v[:-2] if k.endswith(short) else v for k, v in t.items()})
    with pytest.raises(BadInput, match=r"has \d+ tokens with \[SEG\].*\d+ rows"):
        load_checkpoint(gsva, options(gsva))


def test_the_base_of_another_size_is_refused(gsva: Path) -> None:
    values = json.loads((gsva / "config.json").read_text()) | {"num_hidden_layers": 3}
    (gsva / "config.json").write_text(json.dumps(values))
    with pytest.raises(BadInput, match=r"config\.json describes .* 3 layers; .* 2 layers"):
        load_checkpoint(gsva, options(gsva))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": None}, "lacks hidden_size"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling"),
        ({"hidden_act": "relu"}, "hidden_act must be 'silu', as in every Llama; got 'relu'"),
        ({"attention_bias": "yes"}, "does not describe a Llama model"),
        ({"rope_theta": "large"}, "does not describe a Llama model: could not convert"),
        ({"mm_vision_select_layer": "last"}, "mm_vision_select_layer must be a whole number"),
    ],
)
def test_a_base_configuration_that_cannot_be_used(gsva: Path, change: dict, message: str) -> None:
    values = json.loads((gsva / "config.json").read_text()) | change
    (gsva / "config.json").write_text(json.dumps({k: v for k, v in values.items() if v is not None}))
    with pytest.raises(BadInput, match=message):
        load_checkpoint(gsva, options(gsva))


@pytest.mark.parametrize("content", [[], {"added_tokens_decoder": []}])
def test_a_tokenizer_configuration_must_be_a_table(lisa: Path, content: object) -> None:
    (lisa / "tokenizer_config.json").write_text(json.dumps(content))
    with pytest.raises(BadInput, match=r"tokenizer_config\.json must hold a JSON table of tokens; got list"):
        load_checkpoint(lisa, options(lisa))


@pytest.mark.parametrize("index", [-1, "x", None])
def test_added_tokens_need_ids(lisa: Path, index: object) -> None:
    (lisa / "added_tokens.json").write_text(json.dumps({"[SEG]": index}))
    with pytest.raises(BadInput, match=r"added_tokens\.json: the id of an added token"):
        load_checkpoint(lisa, options(lisa))


@pytest.mark.parametrize("layout", ["gsva", "lisa"])
def test_a_clip_of_another_width_is_refused(layout: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(layout)
    edit_clip(folder, hidden_size=32)
    with pytest.raises(BadInput, match=r"wants CLIP features of width 16, but .*clip gives 32.*option clip="):
        load_checkpoint(folder, options(folder))


def test_the_settings_of_another_clip_do_not_fit_the_one_in_the_file(gsva: Path) -> None:
    edit_clip(gsva, image_size=64)
    with pytest.raises(BadInput, match=r"own CLIP has position embeddings \(17, 16\), .* has \(65, 16\).*option clip="):
        load_checkpoint(gsva, options(gsva))


def edit_clip(folder: Path, **changes: int) -> None:
    config = folder / "clip" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))


def test_clip_that_is_nowhere_is_asked_for(lisa: Path) -> None:
    with pytest.raises(BadInput, match=r"clip-vit-large-patch14.*option clip"):
        load_checkpoint(lisa, parse_options(GsvaOptions, {"sam_decoder_heads": "2"}, "recipe lisa"))


def test_decoder_heads_that_do_not_divide_are_refused(gsva: Path) -> None:
    with pytest.raises(BadInput, match="sam_decoder_heads"):
        load_checkpoint(gsva, options(gsva, sam_decoder_heads="3"))


def test_lora_needs_projections() -> None:
    with pytest.raises(BadInput, match="no layer like .* to put LoRA on"):
        add_lora(torch.nn.Linear(2, 2))


def test_lora_of_several_ranks_is_refused(gsva: Path) -> None:
    name = PEFT_PREFIX + "model.layers.0.self_attn.q_proj.lora_A.default.weight"
    rewrite(gsva, lambda t: t | {name: torch.zeros(3, 32)})
    with pytest.raises(BadInput, match=r"several ranks: \[2, 3\]"):
        load_checkpoint(gsva, options(gsva))
