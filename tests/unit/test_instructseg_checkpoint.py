"""InstructSeg's checkpoint folder: every layout it may have, and everything that may be wrong with it."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from unit.tiny_instructseg import coloured_frame, tiny_checkpoint, tiny_config, tiny_tokenizer
from unit.tiny_unified import tiny_checkpoint as other_system

import instructseg
from instructseg import cli
from instructseg.core import BadInput, Clip, Instruction
from instructseg.recipes.instructseg.sizes import Unseen, read_sizes

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("instructseg") / "checkpoint")


@pytest.fixture(scope="module")
def score(checkpoint: Path) -> float:
    return best_score(checkpoint)


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in checkpoint.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def load(folder: Path, **options: str):
    return instructseg.load("instructseg", folder, "cpu", "float32", {"threshold": "0", **options})


def best_score(folder: Path) -> float:
    segmenter = load(folder)
    clip = Clip(tuple(segmenter.encode([coloured_frame(0.2 * i) for i in range(2)])))
    return segmenter.ground(clip, [Instruction("a", "the red mug")])[0].targets[0].score


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS)


def change_config(folder: Path, change: Callable[[dict], object]) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


# Layouts that load


def test_shards_with_an_index(tmp_path: Path, score: float) -> None:
    assert best_score(tiny_checkpoint(tmp_path / "shards", shards=3)) == pytest.approx(score, abs=1e-6)


def test_pickled_weights_without_code(copy: Path, score: float) -> None:
    torch.save(load_file(copy / WEIGHTS), copy / "pytorch_model.bin")
    (copy / WEIGHTS).unlink()
    assert best_score(copy) == pytest.approx(score, abs=1e-6)


@pytest.mark.parametrize("prefix", ["module.", "base_model.model.", "module.base_model.model."])
def test_prefixes_of_wrappers(copy: Path, score: float, prefix: str) -> None:
    def add(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            tensors[prefix + name] = tensors.pop(name)

    change_weights(copy, add)
    assert best_score(copy) == pytest.approx(score, abs=1e-6)


def test_lora_that_was_not_merged(copy: Path, score: float) -> None:
    """A pair of factors whose product is taken from the base weight first."""
    generator = torch.Generator().manual_seed(0)

    def split(tensors: dict[str, torch.Tensor]) -> None:
        layers = [n.removesuffix(".weight") for n in tensors if n.startswith("model.layers.") and "q_proj.w" in n]
        for layer in layers:
            out, width = tensors[f"{layer}.weight"].shape
            down, up = torch.randn(8, width, generator=generator), torch.randn(out, 8, generator=generator) * 0.1
            tensors[f"{layer}.lora_A.default.weight"], tensors[f"{layer}.lora_B.default.weight"] = down, up
            tensors[f"{layer}.base_layer.weight"] = tensors.pop(f"{layer}.weight") - 2.0 * up @ down  # alpha 16, r 8

    change_weights(copy, split)
    assert load(copy).load_report.merged
    assert best_score(copy) == pytest.approx(score, abs=1e-4)


def test_half_precision_on_disk(copy: Path, score: float) -> None:
    change_weights(
        copy, lambda tensors: tensors.update({n: t.half() for n, t in tensors.items() if t.is_floating_point()})
    )
    assert best_score(copy) == pytest.approx(score, abs=0.02)


# What cannot be used


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", WEIGHTS])
def test_a_missing_file(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BadInput, match=name):
        load(copy)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", WEIGHTS])
@pytest.mark.parametrize("keep", [0, 200])
def test_a_file_cut_off(copy: Path, name: str, keep: int) -> None:
    (copy / name).write_bytes((copy / name).read_bytes()[:keep])
    with pytest.raises(BadInput, match=name if name != "tokenizer.json" else "tokenizer"):
        load(copy)


def test_a_missing_shard(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "shards", shards=2)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(BadInput, match="model-00002-of-00002.safetensors is missing"):
        load(folder)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda t: t.pop("SEG_token_projector.bias"), "1 missing: fusion.out.bias"),
        (lambda t: t.update(extra=torch.zeros(2)), "1 unexpected: extra"),
        (lambda t: t.update({"local_project.bias": torch.zeros(3)}), "of another shape: local_project.bias"),
        (lambda t: t.pop("temporal_query"), "temporal_query"),
        (lambda t: t.pop("model.embed_tokens.weight"), "model.embed_tokens.weight"),
        (lambda t: t["local_project.weight"].fill_(float("nan")), "fusion.pixels.weight.*not finite"),
    ],
)
def test_weights_that_do_not_fit(copy: Path, change, what: str) -> None:
    change_weights(copy, change)
    with pytest.raises(BadInput, match=what):
        load(copy)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda c: c.pop("vision_config"), "vision_config"),
        (lambda c: c.pop("partial_rotary_factor"), "partial_rotary_factor missing"),
        (lambda c: c.update(hidden_act="zelu"), "'zelu' is not known"),
        (lambda c: c.update(num_attention_heads="two"), "num_attention_heads.*'two'"),
        (lambda c: c["vision_config"]["vision_tower"].update(image_size="wide"), "image_size.*'wide'"),
        (lambda c: c["vision_config"]["vision_tower"].update(mm_vision_select_layer="last"), "'last'"),
        (lambda c: c["vision_config"].pop("mm_projector"), "vision_tower and mm_projector"),
        (lambda c: c.update(max_position_embeddings=10), "max_position_embeddings.* is 10"),
        (lambda c: c["vision_config"]["vision_tower"].update(mm_vision_select_layer=-9), "must be in -4..3; got -9"),
        (lambda c: c["vision_config"]["mm_projector"].update(mm_projector_type="qformer"), "qformer"),
        (lambda c: c["instructseg"].update(perceiver_heads=7), "do not divide among 7 heads"),
        (lambda c: c["instructseg"].update(image_size=100), "multiple of 32; got 100"),
        (lambda c: c["instructseg"].update(fusion_heads="4"), "fusion_heads.*got '4'"),
        (lambda c: c["instructseg"].update(heads=4), "may hold"),
    ],
)
def test_a_configuration_that_does_not_fit(copy: Path, change, what: str) -> None:
    change_config(copy, change)
    with pytest.raises(BadInput, match=what) as caught:
        load(copy)
    assert "config.json" in str(caught.value)


def test_published_sizes_where_the_configuration_says_nothing() -> None:
    assert Unseen.of({}) == Unseen(1024, 8, 8)
    assert Unseen.of(tiny_config()).image_size == tiny_config()["instructseg"]["image_size"]


def test_another_systems_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="InstructSeg"):
        load(other_system(tmp_path / "unified"))


def test_a_language_model_without_the_rest(copy: Path) -> None:
    change_weights(copy, lambda t: [t.pop(n) for n in list(t) if n.startswith(("predictor.", "pixel_decoder."))])
    with pytest.raises(BadInput, match="not of InstructSeg.*(pixel_decoder|predictor)"):
        load(copy)


def test_a_pickle_with_code_is_not_run(copy: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Payload:
        def __reduce__(self):
            return (Path.touch, (marker,))

    (copy / WEIGHTS).unlink()
    (copy / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Payload()}, protocol=2))
    with pytest.raises(BadInput, match="pytorch_model.bin"):
        load(copy)
    assert not marker.exists()


def test_no_tokenizer_of_this_system(copy: Path) -> None:
    text = tiny_tokenizer().replace("[SEG]", "[OTHER]")
    (copy / "tokenizer.json").write_text(text)
    with pytest.raises(BadInput, match=r"no token '\[SEG\]'"):
        load(copy)
    (copy / "tokenizer.json").write_text(tiny_tokenizer().replace("<|endoftext|>", "<|end|>"))
    with pytest.raises(BadInput, match="endoftext"):
        load(copy)


def test_a_vocabulary_larger_than_the_embeddings(copy: Path) -> None:
    change_weights(copy, lambda t: t.update({"model.embed_tokens.weight": t["model.embed_tokens.weight"][:97]}))
    with pytest.raises(BadInput, match="the model 97 embeddings"):
        load(copy)


def test_an_id_beyond_the_embeddings(copy: Path) -> None:
    """The number of tokens alone does not tell."""
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["q"] = 10**6
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(BadInput, match="ids up to 1000000"):
        load(copy)


def test_an_odd_tower_of_shapes_is_refused_by_name(copy: Path) -> None:
    shapes = {name: tuple(t.shape) for name, t in load_file(copy / WEIGHTS).items()}
    shapes["seg_query"] = ()
    with pytest.raises(BadInput, match="do not describe an InstructSeg network"):
        read_sizes(tiny_config(), shapes)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"refs": "causal"}, "no option 'refs'; it has .*references"),
        ({"references": "future"}, "causal, published, none; got 'future'"),
        ({"references": "published"}, "two references before the newest"),
        ({"masks": "tracker"}, "tracker_checkpoint"),
        ({"tracker_checkpoint": "x"}, "masks=every_frame"),
        ({"threshold": "1.5"}, r"in 0..0.99; got '1.5'"),
        ({"max_targets": "0"}, "max_targets"),
        ({"reference_seconds": "never"}, "reference_seconds must be a number"),
        ({"masks": "tracker", "tracker_checkpoint": "/no/such/sam2"}, "/no/such/sam2"),
    ],
)
def test_options_that_make_no_sense(checkpoint: Path, options: dict[str, str], what: str) -> None:
    with pytest.raises(BadInput, match=what):
        instructseg.load("instructseg", checkpoint, "cpu", None, options)


def test_half_floats_on_the_cpu_are_refused(checkpoint: Path) -> None:
    with pytest.raises(BadInput, match="float16 works on CUDA"):
        instructseg.load("instructseg", checkpoint, "cpu", "float16")


# From the command line


def test_a_film_from_the_command_line(checkpoint: Path, tmp_path: Path) -> None:
    import cv2

    source = tmp_path / "frames"
    source.mkdir()
    for i in range(3):
        image = cv2.cvtColor(coloured_frame(0.2 * i).image, cv2.COLOR_RGB2BGR)
        assert cv2.imwrite(str(source / f"{i}.png"), image)
    words = ["segment", source, "the red mug", "--recipe", "instructseg", "--checkpoint", checkpoint, "--device", "cpu",
             "--option", "threshold=0", "--out", tmp_path / "out"]  # fmt: skip
    arguments = cli.build_parser().parse_args([str(word) for word in words])
    assert arguments.run(arguments) == 0
    report = json.loads((tmp_path / "out" / "results.json").read_text())
    assert json.dumps(report).count("PRESENT") >= 3
    masks = sorted((tmp_path / "out").rglob("*.png"))
    assert any(np.any(cv2.imread(str(mask), cv2.IMREAD_UNCHANGED)) for mask in masks)
