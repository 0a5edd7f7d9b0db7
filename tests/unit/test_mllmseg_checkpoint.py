"""Published MLLMSeg folders: every layout loads alike, full sizes are accounted for, and what does not fit is named."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from unit.tiny_mllmseg import (
    ADDED,
    Family,
    published_config,
    random_tensors,
    tiny_checkpoint,
    write_tensors,
    write_tokenizer,
)

from instructseg.checkpoints import account, empty_weights, open_tensors
from instructseg.core import BadInput
from instructseg.recipes.mllmseg.checkpoint import SAME_ROWS, converted, load_checkpoint, parts
from instructseg.recipes.mllmseg.configuration import MllmSegConfig, parse_config
from instructseg.recipes.mllmseg.fused_weights import Packing
from instructseg.recipes.mllmseg.modeling import MllmSegModel
from instructseg.recipes.mllmseg.published_layout import published_shapes
from instructseg.recipes.mllmseg.tokenizer import load_tokenizer

VISION = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
# hidden, layers, heads, heads of keys, width between, vocabulary; parameters of the decoder and, in all, in millions
FULL_SIZES = {
    "1B": ("qwen2", 896, 24, 14, 2, 4864, 151676, 27.83, 965),
    "2B": ("internlm2", 2048, 24, 16, 8, 8192, 92555, 30.19, 2236),
    "4B": ("qwen2", 2048, 36, 16, 2, 11008, 151676, 30.19, 3743),
    "8B": ("internlm2", 4096, 32, 32, 8, 14336, 92555, 34.39, 8110),
}


def full_config(size: str) -> MllmSegConfig:
    family, hidden, layers, heads, pairs, wide, vocabulary, *_ = FULL_SIZES[size]
    values = published_config(
        family, vocabulary, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=pairs, intermediate_size=wide,
    )  # fmt: skip
    values["vision_config"] |= VISION | {"image_size": 448}
    return parse_config(values | {"force_image_size": 448}, Path("config.json"))


class Shapes:
    """A checkpoint of which only names and shapes exist."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        self.shapes = shapes


@pytest.mark.parametrize("lora_rank", [0, 64])
@pytest.mark.parametrize("size", FULL_SIZES)
def test_published_sizes_fit_key_by_key(size: str, lora_rank: int) -> None:
    """On the meta device: the whole published layout against the whole model, without its gigabytes."""
    config = full_config(size)
    with empty_weights():
        model = MllmSegModel(config, image_token=config.vocabulary - 9)
    assert all(parameter.is_meta for parameter in model.parameters())
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    published = published_shapes(config, lora_rank)
    view = converted(Shapes(published), config)
    found = account(view.shapes, shapes, parts(config.family))
    found.check(size)
    assert set(found.sources) == set(shapes)
    adapted = 0 if not lora_rank else len([key for key in published if ".lora_A." in key])
    assert len(view.merged) == adapted == (0 if not lora_rank else config.language["num_hidden_layers"] * (
        5 if config.family == "internlm2" else 7
    ))  # fmt: skip
    decoder = sum(parameter.numel() for parameter in model.decoder.parameters()) / 1e6
    everything = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert decoder == pytest.approx(FULL_SIZES[size][7], abs=0.01)
    assert everything == pytest.approx(FULL_SIZES[size][8], rel=0.01)
    assert config.image_tokens == 256


@pytest.mark.parametrize("family", ["internlm2", "qwen2"])
def test_every_layout_gives_the_same_model(family: Family, tmp_path: Path) -> None:
    """LoRA apart or merged, one file or shards: the same numbers."""
    apart = tiny_checkpoint(tmp_path / "apart", family, lora=True, files="shards")
    trained = load_checkpoint(apart).model.state_dict()
    merged_tensors = _merge_by_hand(dict(open_tensors(apart)))
    for files in ("bin", "safetensors", "shards"):
        folder = tmp_path / files
        folder.mkdir()
        write_tokenizer(folder, family)
        (folder / "config.json").write_text((apart / "config.json").read_text())  # still speaks of LoRA: keys decide
        write_tensors(folder, merged_tensors, files)
        loaded = load_checkpoint(folder)
        assert loaded.report.merged == ()
        for name, tensor in loaded.model.state_dict().items():
            assert torch.allclose(tensor, trained[name], atol=1e-6), name


def _merge_by_hand(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The merge tool's output: scale 2, plain names."""
    merged = {}
    for name, tensor in tensors.items():
        if ".lora_" in name:
            continue
        if name.endswith("base_layer.weight"):
            layer = name.removesuffix("base_layer.weight")
            tensor = tensor + 2 * tensors[f"{layer}lora_B.default.weight"] @ tensors[f"{layer}lora_A.default.weight"]
        merged[name.replace("base_layer.", "").replace("base_model.model.", "")] = tensor.contiguous()
    return merged


def test_fused_rows_go_to_their_heads() -> None:
    """Row by row against the packing's own words: per group its query heads, then its key, then its value."""
    packing = Packing(groups=2, queries=3, rows=2)
    names = [f"{part}{group}{head}{row}" for group in range(2) for part, heads in (("q", 3), ("k", 1), ("v", 1))
             for head in range(heads) for row in range(2)]  # fmt: skip
    fused = torch.arange(len(names), dtype=torch.float32)[:, None].expand(-1, 3)
    assert len(names) == packing.total
    for part in "qkv":
        taken = packing.take(fused, part)
        assert [names[int(i)] for i in taken[:, 0]] == [name for name in names if name.startswith(part)]
        assert taken.shape == (packing.size(part), 3)


def test_identical_rows_are_noticed(tmp_path: Path) -> None:
    mute = load_checkpoint(tiny_checkpoint(tmp_path / "mute", "qwen2", can_refuse=False))
    assert not mute.can_refuse and mute.notes == (SAME_ROWS,)
    assert SAME_ROWS in mute.report.describe()
    able = load_checkpoint(tiny_checkpoint(tmp_path / "able", "qwen2"))
    assert able.can_refuse and able.notes == () and able.report.remarks == ()


def test_weights_take_the_number_format_asked_for(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "tiny")
    assert {p.dtype for p in load_checkpoint(folder, torch.bfloat16).model.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in load_checkpoint(folder).model.parameters()} == {torch.float32}


@pytest.mark.parametrize("family", ["internlm2", "qwen2"])
def test_tokenizers_cut_out_added_tokens(family: Family, tmp_path: Path) -> None:
    size = write_tokenizer(tmp_path, family)
    tokenizer = load_tokenizer(tmp_path, family, size)
    assert [tokenizer.added[token] for token in ADDED] == list(range(size - len(ADDED), size))
    assert (tokenizer.seg, tokenizer.rej) == (size - 2, size - 1)
    red, dot = tokenizer.encode("the red mug:"), tokenizer.encode(".")
    assert tokenizer.encode("the red mug:[SEG].") == [*red, tokenizer.seg, *dot]
    assert tokenizer.bos == (1 if family == "internlm2" else None)
    assert max(tokenizer.encode("万 \N{SNOWMAN}\n")) < size - len(ADDED)  # what no piece covers becomes bytes
    assert tokenizer.control_token("a [REJ] b") == "[REJ]" and tokenizer.control_token("a b") is None


def test_an_id_beyond_the_embedding_is_refused(tmp_path: Path) -> None:
    """The number of tokens alone does not tell."""
    size = write_tokenizer(tmp_path, "qwen2")
    vocabulary = json.loads((tmp_path / "vocab.json").read_text())
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary | {next(iter(vocabulary)): size + 5}))
    with pytest.raises(BadInput, match=f"has {size + 6} ids"):
        load_tokenizer(tmp_path, "qwen2", size)


def test_qwen2_words_are_cut_as_by_transformers(tmp_path: Path) -> None:
    """The same files give the ids of transformers' own class, and as one tokenizer.json too."""
    from transformers import Qwen2Tokenizer

    size = write_tokenizer(tmp_path, "qwen2")
    theirs = Qwen2Tokenizer(vocab=str(tmp_path / "vocab.json"), merges=str(tmp_path / "merges.txt"))
    ours = load_tokenizer(tmp_path, "qwen2", size)
    texts = [
        "What are the man in redin this image?",
        "it's  2 mugs\n\n and 12 plates ",
        "cafe\N{COMBINING ACUTE ACCENT}",
    ]
    for text in texts:
        assert ours.encode(text) == theirs.encode(text)
    theirs.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "vocab.json").unlink()
    whole = load_tokenizer(tmp_path, "qwen2", size)
    for text in texts:
        assert whole.encode(text + "[SEG]") == [*ours.encode(text), ours.seg]


# Bad input: one clear error each, that names the file and what to do


def edit_config(**changes: object) -> Callable[[Path], None]:
    """Sections are merged, other values replaced."""

    def edit(folder: Path) -> None:
        values = json.loads((folder / "config.json").read_text())
        for name, value in changes.items():
            values[name] = values[name] | value if isinstance(value, dict) else value
        (folder / "config.json").write_text(json.dumps(values))

    return edit


def drop_from_config(*names: str) -> Callable[[Path], None]:
    """The last name, in the section that the others lead to."""

    def edit(folder: Path) -> None:
        values = table = json.loads((folder / "config.json").read_text())
        for name in names[:-1]:
            table = table[name]
        del table[names[-1]]
        (folder / "config.json").write_text(json.dumps(values))

    return edit


def write(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


def edit_tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        tensors = dict(torch.load(folder / "pytorch_model.bin", weights_only=True))
        change(tensors)
        torch.save(tensors, folder / "pytorch_model.bin")

    return edit


def truncate(folder: Path) -> None:
    content = (folder / "pytorch_model.bin").read_bytes()
    (folder / "pytorch_model.bin").write_bytes(content[: len(content) // 2])


class Payload:
    def __reduce__(self) -> tuple:
        return (print, ("code ran",))


def put_code(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"x": Payload()}, protocol=2))


def lose_a_shard(folder: Path) -> None:
    write_tensors(folder, dict(torch.load(folder / "pytorch_model.bin", weights_only=True)), "shards")
    (folder / "pytorch_model.bin").unlink()
    (folder / "model-00002-of-00002.safetensors").unlink()


def put_base_tokenizer(folder: Path) -> None:
    """As the base model's: everything but [SEG] and [REJ]."""
    values = json.loads((folder / "tokenizer_config.json").read_text())
    table = values["added_tokens_decoder"]
    values["added_tokens_decoder"] = {i: e for i, e in table.items() if e["content"] not in ("[SEG]", "[REJ]")}
    (folder / "tokenizer_config.json").write_text(json.dumps(values))


def shorten_vocabulary(tensors: dict[str, torch.Tensor]) -> None:
    for name in ("language_model.model.tok_embeddings.weight", "language_model.output.weight"):
        tensors[name] = tensors[name][:-2].clone()


def rename(old: str, new: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if name.startswith(old)]:
            tensors[new + name.removeprefix(old)] = tensors.pop(name)

    return change


def damage(tensors: dict[str, torch.Tensor]) -> None:
    tensors["language_model.model.norm.weight"].fill_(float("nan"))


BROKEN: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "truncated file": (truncate, ("pytorch_model.bin", "fetched completely")),
    "pickle with code": (put_code, ("pytorch_model.bin",)),
    "missing shard": (lose_a_shard, ("model-00002-of-00002.safetensors",)),
    "no weights": (lambda folder: (folder / "pytorch_model.bin").unlink(), ("no weights", "pytorch_model.bin")),
    "no config": (lambda folder: (folder / "config.json").unlink(), ("config.json is missing",)),
    "no tokenizer": (lambda folder: (folder / "tokenizer.model").unlink(), ("tokenizer.model is missing",)),
    "damaged tokenizer": (lambda folder: (folder / "tokenizer.model").write_text("x"), ("tokenizer.model",)),
    "base model's tokenizer": (put_base_tokenizer, ("[SEG], [REJ]", "published MLLMSeg checkpoint")),
    "vocabulary too small": (edit_tensors(shorten_vocabulary), ("embedding only", "different checkpoints")),
    "another system": (edit_config(architectures=["LISAForCausalLM"]), ("LISAForCausalLM", "choose the recipe")),
    "base model": (edit_config(llm_config={"architectures": ["PhiForCausalLM"]}), ("PhiForCausalLM", "known are")),
    "no language config": (edit_config(llm_config=3), ("llm_config",)),
    "shuffled otherwise": (edit_config(ps_version="v1"), ("ps_version is 'v1'", "'v2'")),
    "shuffled by default": (drop_from_config("ps_version"), ("no ps_version", "'v2'")),
    "no base of the rotation": (drop_from_config("llm_config", "rope_theta"), ("rope_theta", "got None")),
    "no epsilon": (drop_from_config("llm_config", "rms_norm_eps"), ("rms_norm_eps", "got None")),
    "rotation in words": (edit_config(llm_config={"rope_scaling": "dynamic"}), ("rope_scaling", "dynamic kind")),
    "heads in words": (edit_config(llm_config={"num_key_value_heads": "2"}), ("num_key_value_heads must be", "'2'")),
    "size in words": (edit_config(force_image_size="56"), ("force_image_size must be", "'56'")),
    "unknown activation": (edit_config(llm_config={"hidden_act": "zelu"}), ("config.json", "'zelu' is not known")),
    "tokens without ids": (write("added_tokens.json", '{"[SEG]": "last"}'), ("added_tokens.json must map",)),
    "a list of tokens": (write("tokenizer_config.json", "[1]"), ("tokenizer_config.json", "added_tokens_decoder")),
    "tokens of no text": (
        write("tokenizer_config.json", '{"added_tokens_decoder": {"3": 3}}'),
        ("tokenizer_config.json", "added_tokens_decoder"),
    ),
    "another layer": (edit_config(select_layer=-2), ("select_layer is -2",)),
    "query norms": (edit_config(vision_config={"qk_normalization": True}), ("qk_normalization",)),
    "odd grid": (edit_config(force_image_size=42, vision_config={"image_size": 42}), ("multiple of twice its patch",)),
    "no such size": (edit_config(llm_config={"hidden_size": "wide"}), ("hidden_size must be", "'wide'")),
    "heads that do not fit": (edit_config(llm_config={"num_attention_heads": 5}), ("sizes that do not go together",)),
    "heads of another size": (edit_config(llm_config={"num_key_value_heads": 4}), ("wqkv", "different checkpoints")),
    "tied words": (edit_config(llm_config={"tie_word_embeddings": True}), ("ties its embeddings",)),
    "unknown rotation": (edit_config(llm_config={"rope_scaling": {"type": "yarn"}}), ("rope_scaling", "dynamic")),
    "fewer layers than config": (edit_config(llm_config={"num_hidden_layers": 3}), ("missing", "layers.2")),
    "more layers than config": (edit_config(llm_config={"num_hidden_layers": 1}), ("unexpected", "layers.1")),
    "no mask decoder": (
        edit_tensors(lambda t: [t.pop(n) for n in list(t) if n.startswith("res_decoder.")]),
        ("missing", "decoder."),
    ),
    "a stray key": (edit_tensors(lambda t: t.update(grounding=torch.zeros(1))), ("1 unexpected", "grounding")),
    "adapted vision": (edit_tensors(rename("vision_model.", "vision_model.base_model.model.")), ("merge that LoRA",)),
    "no language model": (edit_tensors(rename("language_model.", "llm.")), ("no token embedding", "MLLMSeg")),
    "numbers that are none": (edit_tensors(damage), ("not finite",)),
}  # fmt: skip


@pytest.mark.parametrize("fault", BROKEN)
def test_a_folder_that_does_not_fit_is_refused(fault: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    change, words = BROKEN[fault]
    folder = tiny_checkpoint(tmp_path / "tiny")
    change(folder)
    with pytest.raises(BadInput) as caught:
        load_checkpoint(folder)
    for word in words:
        assert word in str(caught.value), str(caught.value)
    assert str(folder) in str(caught.value)
    assert "code ran" not in capsys.readouterr().out


def test_half_of_an_adapter_is_refused(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "tiny", lora=True)
    edit_tensors(lambda t: t.pop(next(n for n in t if ".lora_B." in n)))(folder)
    with pytest.raises(BadInput, match=rf"{re.escape(str(folder))}.*incomplete"):
        load_checkpoint(folder)


def test_adapters_of_several_ranks_are_refused() -> None:
    config = published_config("qwen2", 60)
    tensors = random_tensors("qwen2", config, lora=True)
    name = next(n for n in tensors if ".lora_A." in n)
    shapes = {n: tuple(t.shape) for n, t in tensors.items()} | {name: (7, 32)}
    with pytest.raises(BadInput, match="ranks \\[4, 7\\]"):
        converted(Shapes(shapes), parse_config(config, Path("config.json")))
