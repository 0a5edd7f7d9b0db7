"""The default recipe on pretrained backbones, at tiny random size: assembled, saved, loaded, run, fine-tuned."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import Dinov2WithRegistersModel
from unit import miniature_data
from unit.test_unified_learner import Films, examples, train_a_little
from unit.tiny_unified import noise_frame, tiny_checkpoint
from unit.tiny_unified_large import PIXELS, byte_pairs, language_folder, large_checkpoint, vision_folder

import instructseg
from instructseg import cli
from instructseg.core import BadInput, Clip, Grounding, Instruction, Segmenter
from instructseg.recipes.unified.assemble import assemble
from instructseg.recipes.unified.backbones import LANGUAGE
from instructseg.recipes.unified.checkpoint import load_checkpoint
from instructseg.recipes.unified.processing import UnifiedSegmenter
from instructseg.recipes.unified.tokenizer import CONTROL, encode_words
from instructseg.training.learner import LoraSettings, build_learner
from instructseg.training.plan import plan_of, read_plan
from instructseg.training.run import run_training

TEXTS = ["the red mug", "the blue ball and the green block", "something to drink from"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``small``, ``vision``, ``language`` and ``large``, assembled of them."""
    place = tmp_path_factory.mktemp("large")
    large_checkpoint(place)
    return place


@pytest.fixture(scope="module")
def segmenter(folder: Path) -> Segmenter:
    return instructseg.load("unified", folder / "large", "cpu")


def copied(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


def ground(segmenter: Segmenter, *texts: str, seed: int = 0) -> list[Grounding]:
    clip = Clip(tuple(segmenter.encode([noise_frame(48, 64, t / 10, seed + t) for t in range(2)])))
    return segmenter.ground(clip, [Instruction(str(i), text) for i, text in enumerate(texts)])


def scores(groundings: list[Grounding]) -> list[float]:
    return [target.score for grounding in groundings for target in grounding.targets]


# Assembled


def test_every_weight_is_the_backbones_or_the_small_models(folder: Path) -> None:
    model, tokenizer, _ = load_checkpoint(folder / "large")
    small, _, _ = load_checkpoint(folder / "small")
    seeing = Dinov2WithRegistersModel.from_pretrained(str(folder / "vision")).state_dict()
    speaking = load_file(folder / "language" / "model.safetensors")
    backbone = model.perception.encoder.deep.backbone.state_dict()
    assert all(torch.equal(backbone[name], tensor) for name, tensor in seeing.items())
    language, words = model.language.state_dict(), speaking.pop("embed_tokens.weight")
    assert all(torch.equal(language[name], tensor) for name, tensor in speaking.items())
    known = byte_pairs().token_to_id("e")
    assert torch.equal(model.language.embed_tokens.weight[tokenizer.token_to_id("e")], words[known])
    ours, theirs = model.state_dict(), small.state_dict()
    shared = [n for n in ours if n.startswith(("perception.", "perceiver.")) and n in theirs]
    assert {name.split(".")[1] for name in shared} >= {"encoder", "appearance", "association"}
    assert all(torch.equal(ours[name], theirs[name]) for name in shared)
    # A latent's and a slot's embedding is about as large as a word's.
    size = float(words.square().mean().sqrt())
    assert float(model.slot_embedding.detach().square().mean().sqrt()) == pytest.approx(size, rel=0.5)


def test_what_config_json_says_is_enough_to_build_it_and_shows_no_folder(folder: Path) -> None:
    values = json.loads((folder / "large" / "config.json").read_text())
    assert values["vision_backbone"]["origin"] == "vision" and values["language_backbone"]["origin"] == "language"
    assert values["vision_backbone"]["config"]["model_type"] == "dinov2_with_registers"
    assert values["vision_backbone"]["mean"] == PIXELS["image_mean"]
    assert (values["hidden"], values["untrained"]) == (16, ["perception", "language"])
    assert str(folder) not in json.dumps(values)
    deep = load_checkpoint(folder / "large")[0].perception.encoder.deep
    assert deep.mean.flatten().tolist() == pytest.approx(PIXELS["image_mean"])
    assert deep.std.flatten().tolist() == pytest.approx(PIXELS["image_std"])


def test_a_checkpoint_gives_the_same_answers_again_without_its_backbones(folder: Path, tmp_path: Path) -> None:
    model, tokenizer = assemble(folder / "vision", folder / "language", folder / "small")
    model.config = dataclasses.replace(model.config, present_threshold=0.01)
    before = UnifiedSegmenter(model, tokenizer, torch.device("cpu"), None)
    alone = copied(folder / "large", tmp_path / "alone")
    loaded = instructseg.load("unified", alone, "cpu")
    assert loaded.load_report.missing == () and loaded.load_report.unexpected == ()
    assert scores(ground(before, *TEXTS)) == pytest.approx(scores(ground(loaded, *TEXTS)), abs=1e-6)


@pytest.mark.parametrize(("vision", "language"), [("swin", None), (None, "llama"), ("convnext", "qwen3")])
def test_either_backbone_or_both(tmp_path: Path, vision: str | None, language: str | None) -> None:
    loaded = instructseg.load("unified", large_checkpoint(tmp_path, vision, language), "cpu")
    config = loaded.model.config
    assert (config.vision_backbone is None, config.language_backbone is None) == (vision is None, language is None)
    assert config.untrained == (("perception",) if vision else ()) + ("language",)
    assert len(scores(ground(loaded, *TEXTS))) >= len(TEXTS)


def test_a_model_that_was_never_trained_says_so(segmenter: Segmenter, folder: Path) -> None:
    assert len(segmenter.notes) == 1 and "not trained yet: perception, language" in segmenter.notes[0]
    assert instructseg.load("unified", folder / "small", "cpu").notes == ()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (
            lambda v: v["vision_backbone"]["config"].update(model_type="resnet"),
            r"config.json: a vision backbone must be",
        ),
        (
            lambda v: v["language_backbone"]["config"].update(model_type="gpt2"),
            r"config.json: a language backbone must",
        ),
        (
            lambda v: v["language_backbone"]["config"].update(num_attention_heads=3),
            "another shape: language.layers.0.self_attn",
        ),
        (
            lambda v: v["language_backbone"]["config"].update(num_hidden_layers=3),
            "config.json: no network can be built.*num_hidden_layers",
        ),
        (
            lambda v: v["vision_backbone"]["config"].update(num_register_tokens=3),
            "another shape: perception.encoder.deep",
        ),
        (lambda v: v.update(hidden=32), "hidden must be the language backbone's hidden_size; got 32 and 16"),
        (lambda v: v.update(language_backbone="Qwen/Qwen2.5-0.5B"), "language_backbone must be null or a table"),
        (lambda v: v.update(untrained=["eyes"]), "untrained may hold perception and language; got .*eyes"),
    ],
)
def test_a_damaged_configuration_is_named(folder: Path, tmp_path: Path, change, what: str) -> None:
    damaged = copied(folder / "large", tmp_path / "damaged")
    values = json.loads((damaged / "config.json").read_text())
    change(values)
    (damaged / "config.json").write_text(json.dumps(values))
    with pytest.raises(BadInput, match=what):
        instructseg.load("unified", damaged, "cpu")


# In use


@pytest.mark.parametrize("size", [(16, 16), (48, 64), (17, 301), (300, 20)])
def test_every_size_of_frame_goes_through(segmenter: Segmenter, size: tuple[int, int]) -> None:
    encoded = segmenter.encode([noise_frame(*size, seconds=t / 10, seed=t) for t in range(3)])
    groundings = segmenter.ground(Clip(tuple(encoded[:2])), [Instruction(str(i), t) for i, t in enumerate(TEXTS)])
    tokens = [target.token for grounding in groundings for target in grounding.targets if target.token is not None]
    assert tokens
    for mask in segmenter.segment(encoded[2], tokens):
        assert mask.mask.shape == size and mask.mask.dtype == bool and 0.0 <= mask.score <= 1.0


def test_several_instructions_in_one_call_equal_one_by_one(segmenter: Segmenter) -> None:
    together = ground(segmenter, *TEXTS)
    for text, of_text in zip(TEXTS, together, strict=True):
        assert scores(ground(segmenter, text)) == pytest.approx(scores([of_text]), abs=1e-4)


def test_words_and_what_is_seen_make_a_difference(segmenter: Segmenter) -> None:
    red, blue = ground(segmenter, "the red mug", "the blue ball")
    assert scores([red]) != pytest.approx(scores([blue]), abs=1e-6)
    assert scores(ground(segmenter, "the red mug", seed=7)) != pytest.approx(scores([red]), abs=1e-6)


def test_a_smaller_input_gives_masks_of_the_frames_size(folder: Path) -> None:
    scaled = instructseg.load("unified", folder / "large", "cpu")
    scaled.resolution_scale = scaled.reduced_scale
    encoded = scaled.encode([noise_frame(48, 64)])[0]
    assert encoded.features.placement.target == (48, 48)
    tokens = [t.token for t in scaled.ground(Clip((encoded,)), [Instruction("a", TEXTS[0])])[0].targets if t.token]
    assert [mask.mask.shape for mask in scaled.segment(encoded, tokens)] == [(48, 64)] * len(tokens)


def test_long_words_are_pieces_and_too_many_are_refused(segmenter: Segmenter) -> None:
    ids = encode_words(segmenter.tokenizer, "the Schäkel", 64)
    assert len(ids) > 2 and min(ids) >= len(CONTROL)
    with pytest.raises(BadInput, match="at most 64"):
        ground(segmenter, "frobnitz " * 40)


# Fine-tuned


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As if its perception had been trained already."""
    return large_checkpoint(tmp_path_factory.mktemp("seeing"), untrained=(LANGUAGE,))


def learner_of(checkpoint: Path, **lora: float):
    torch.manual_seed(0)
    learner = build_learner("unified", checkpoint, torch.device("cpu"), None, {}, LoraSettings(**lora))
    learner.meet(Films([]))
    return learner


def test_the_language_backbone_gets_lora_and_the_vision_backbone_stays(seeing: Path, tmp_path: Path) -> None:
    learner = learner_of(seeing)
    module, batch = learner.module, examples(learner)
    assert learner.words == (), "pieces spell every word"
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    totals, losses = train_a_little(learner, batch)
    assert totals[-1] < 0.9 * totals[0], totals
    assert float(losses["forgetting"]) == 0.0, "it knew nothing that it could forget"
    moved = {name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved <= set(learner.trained)
    for part in ("language.layers.1.self_attn.q_proj.lora_B.", "mlp.down_proj.lora_B.", "head.", "answer.",
                 "latent_embedding.", "slot_embedding"):  # fmt: skip
        assert any(part in name for name in moved), part

    learner.save_adapters(tmp_path / "adapters")
    learner.save_merged(tmp_path / "merged")
    again = learner_of(seeing)
    again.load_adapters(tmp_path / "adapters")
    truth, found = learner.losses(batch), again.losses(batch)
    assert all(torch.equal(found[name], truth[name]) for name in truth)
    loaded = instructseg.load("unified", tmp_path / "merged", "cpu")
    assert loaded.notes == () and loaded.model.config.untrained == ()
    merged = learner_of(tmp_path / "merged")
    assert merged.before is not None
    for name in ("answer", "target", "match", "presence", "later"):
        torch.testing.assert_close(merged.losses(batch)[name], truth[name], rtol=1e-4, atol=1e-5)


def test_what_was_trained_once_is_held_to_and_shares_its_large_parts(seeing: Path, tmp_path: Path) -> None:
    values = json.loads((copied(seeing, tmp_path / "trained") / "config.json").read_text())
    (tmp_path / "trained" / "config.json").write_text(json.dumps(values | {"untrained": []}))
    learner = learner_of(tmp_path / "trained")
    batch = examples(learner)
    assert float(learner.losses(batch)["forgetting"].detach()) == pytest.approx(0.0, abs=1e-6)
    q = "language.layers.0.self_attn.q_proj"
    ours, theirs = learner.module.get_parameter(f"{q}.base_layer.weight"), learner.before.get_parameter(f"{q}.weight")
    assert ours.data_ptr() == theirs.data_ptr()
    with torch.no_grad():
        learner.module.get_parameter(f"{q}.lora_B.default.weight").fill_(0.5)
        learner.module.answer.bias[1] += 2.0
    assert float(learner.losses(batch)["forgetting"].detach()) > 0.01


def test_eyes_that_were_never_trained_come_first(folder: Path) -> None:
    with pytest.raises(BadInput, match="perception of this checkpoint has not been trained.*train --set model"):
        learner_of(folder / "large")


def test_train_from_a_file_to_a_checkpoint_that_loads(
    seeing: Path, tmp_path: Path, log_as_before: None, capsys: pytest.CaptureFixture
) -> None:
    miniature_data.refcoco(tmp_path / "images")
    table = {
        "recipe": "unified", "checkpoint": str(seeing), "data": [{"benchmark": "refcoco", "root": "images"}],
        "steps": 2, "batch": 2, "workers": 0, "device": "cpu", "lora": {"rank": 2},
    }  # fmt: skip
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(table))
    assert cli.main(["train", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "out")]) == 0
    assert f"checkpoint: {tmp_path / 'out' / 'checkpoint'}" in capsys.readouterr().out
    loaded = instructseg.load("unified", tmp_path / "out" / "checkpoint", "cpu")
    assert loaded.notes == () and np.isfinite(scores(ground(loaded, *TEXTS))).all()


# Trained on generated scenes


PLAN = {
    "scenes": {"flat": 6}, "validation": {"flat": 3}, "threads": 1, "device": "cpu",
    "perception": {"steps": 3, "batch": 2, "mixture": {}, "validate_every": 3},
    "language": {"steps": 3, "batch": 2, "questions": 3, "validate_every": 3},
}  # fmt: skip


def train_on_scenes(model: Path, out: Path) -> Segmenter:
    checkpoint = run_training(out, plan_of({**PLAN, "model": str(model)}))
    return instructseg.load("unified", checkpoint, "cpu")


def changed(before: Path, after: Path) -> set[str]:
    """Names of the tensors that differ."""
    old, new = (load_file(folder / "model.safetensors") for folder in (before, after))
    assert old.keys() == new.keys()
    return {name for name in old if not torch.equal(old[name], new[name])}


def test_an_assembled_model_goes_through_both_stages(folder: Path, tmp_path: Path) -> None:
    trained = train_on_scenes(folder / "large", tmp_path / "out")
    assert trained.notes == () and trained.model.config.untrained == ()
    assert trained.load_report.missing == () and np.isfinite(scores(ground(trained, *TEXTS))).all()
    moved = changed(folder / "large", tmp_path / "out" / "checkpoint")
    assert not any(name.startswith("perception.encoder.deep.backbone.") for name in moved), "it is frozen"
    assert all(name.endswith("_proj.weight") for name in moved if name.startswith("language.")), (
        "only LoRA trains there"
    )
    for part in ("perception.encoder.deep.to8.", "perception.encoder.stage2.", "slot_embedding", "answer.", "head.",
                 "concepts.", "language.layers.0."):  # fmt: skip
        assert any(name.startswith(part) for name in moved), part
    # The same command again finds everything done, and writes the same weights.
    run_training(tmp_path / "out", plan_of({**PLAN, "model": str(folder / "large")}))
    assert changed(folder / "large", tmp_path / "out" / "checkpoint") == moved


def test_eyes_that_are_trained_are_left_as_they_are(seeing: Path, tmp_path: Path) -> None:
    train_on_scenes(seeing, tmp_path / "out")
    moved = changed(seeing, tmp_path / "out" / "checkpoint")
    assert not any(name.startswith("perception.") for name in moved)
    assert {"latent_embedding.weight", "language.layers.0.self_attn.q_proj.weight"} <= moved
    assert not (tmp_path / "out" / "perception.pt").exists()


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"model": "small"}, "is trained already; a configuration trains it further"),
        ({"model": "nowhere"}, "'nowhere' does not exist"),
        ({"model": " "}, "model must name the folder of an assembled checkpoint"),
        ({"model": "large", "start_from": "shipped"}, "model and start_from cannot both be given"),
    ],
)
def test_what_cannot_be_trained_on_scenes_is_named(
    folder: Path, tmp_path: Path, monkeypatch, values: dict[str, str], what: str
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(BadInput, match=what):
        run_training(tmp_path / "out", plan_of(PLAN | values))


def test_a_model_beside_the_plans_file_is_found(folder: Path, tmp_path: Path, monkeypatch) -> None:
    plan = folder / "plan.yaml"
    plan.write_text("model: large\n")
    monkeypatch.chdir(tmp_path)
    assert read_plan(plan)["model"] == str((folder / "large").resolve())
    plan.write_text("model: owner/name\n")
    assert read_plan(plan)["model"] == "owner/name"


# From the command line


def assemble_by_command(*words: object) -> int:
    return cli.main(["assemble", *map(str, words)])


def test_the_command_writes_a_checkpoint_and_says_that_it_is_untrained(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = ("--vision", folder / "vision", "--language", folder / "language", "--start", folder / "small")
    assert assemble_by_command(*words, "--image-size", "64x96", "--out", tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert f"untrained checkpoint: {tmp_path / 'out'}" in said and f"train --set model={tmp_path / 'out'}" in said
    assert load_checkpoint(tmp_path / "out")[0].config.image_size == (64, 96)
    assert assemble_by_command(*words, "--out", tmp_path / "out") == 2
    assert "must be a new or an empty folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "name a vision backbone, a language backbone or both"),
        (("--vision", "language"), "a vision backbone must be one of dinov2"),
        (("--language", "vision"), "a language backbone must be one of llama"),
        (("--language", "nowhere"), "'nowhere' does not exist; give a folder, or a hub id"),
        (("--language", "language", "--start", "large"), "has backbones already; begin with one of the small model"),
        (("--vision", "vision", "--image-size", "50x64"), "image_size must be (height, width), multiples of 16"),
    ],
)
def test_what_cannot_be_assembled_is_named(
    folder: Path, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture, words: tuple, said: str
) -> None:
    monkeypatch.chdir(folder)
    start = () if "--start" in words else ("--start", "small")
    assert assemble_by_command(*words, *start, "--out", tmp_path / "out") == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_sizes_are_two_numbers(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        assemble_by_command("--image-size", "640", "--out", "unused")
    assert "must be HEIGHTxWIDTH in pixels, such as 480x640; got '640'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("language", lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json is missing from the language backbone"),
        ("language", lambda f: (f / "tokenizer.json").write_text("{}"), "is not a tokenizer.json"),
        (
            "language",
            lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
            "read from safetensors alone",
        ),
        ("language", lambda f: (f / "model.safetensors").write_bytes(b"123"), "cannot be read as a qwen2"),
        ("vision", lambda f: (f / "config.json").write_text("[]"), "config.json must hold a table; got list"),
        ("vision", lambda f: drop_weight(f, "embeddings.cls_token"), "lacks 1 weight.* embeddings.cls_token"),
        ("vision", lambda f: change_values(f / "config.json", hidden_size=18), "vision cannot be read as a dinov2"),
        ("vision", lambda f: change_values(f / "preprocessor_config.json", image_std=[0, 1, 1]), "std must be three"),
        ("vision", lambda f: (f / "preprocessor_config.json").write_text("3"), "mean must be three numbers"),
    ],
)
def test_a_damaged_backbone_is_named(folder: Path, tmp_path: Path, name: str, damage, said: str) -> None:
    damage(copied(folder / name, tmp_path / name))
    with pytest.raises(BadInput, match=said):
        assemble(**{name: tmp_path / name}, start=folder / "small")


def drop_weight(folder: Path, name: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors[name]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def change_values(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_hub_id_is_fetched_by_name_and_only_what_is_safe(folder: Path, monkeypatch) -> None:
    asked = []

    def fetch(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(folder / "vision")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    model, _ = assemble("facebook/dinov2-with-registers-small", start=folder / "small")
    assert asked == [("facebook/dinov2-with-registers-small", ["*.json", "model*.safetensors"])]
    assert model.config.vision_backbone.origin == "facebook/dinov2-with-registers-small"


def test_backbones_without_their_own_pixel_values_get_the_usual_ones(tmp_path: Path) -> None:
    vision = vision_folder(tmp_path / "vision", "swin")
    (vision / "preprocessor_config.json").unlink()
    model, _ = assemble(vision, start=tiny_checkpoint(tmp_path / "small"))
    assert model.config.vision_backbone.mean == (0.485, 0.456, 0.406)


def test_published_configurations_keep_what_older_libraries_wrote(tmp_path: Path) -> None:
    """Keys that transformers no longer has or has moved, as they stand in checkpoints on the hub."""
    language = language_folder(tmp_path / "language", "llama")
    change_values(language / "config.json", rope_theta=100000, is_llama_config=True, rope_interleaved=False,
                  _name_or_path="/home/somebody/model")  # fmt: skip
    vision = vision_folder(tmp_path / "vision", "swin")
    change_values(vision / "config.json", path_norm=True, out_indices=[4], id2label={"0": "tench"})
    model, _ = assemble(vision, language, tiny_checkpoint(tmp_path / "small"))
    text = json.dumps(model.config.to_dict())
    assert "somebody" not in text and "tench" not in text
    assert model.perception.encoder.deep.backbone.config.out_features == ["stage2", "stage3", "stage4"]
