"""Every key of a checkpoint has its place or is named; LoRA is merged or refused; a failed load changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from instructseg.checkpoints import (
    Ignored,
    LoadReport,
    Part,
    account,
    empty_weights,
    load_parts,
    merge_lora,
    open_tensors,
    strip_prefix,
)
from instructseg.core import BadInput

WHOLE = (Part("", ""),)


def files(folder: Path, tensors: dict[str, torch.Tensor]):
    save_file(tensors, folder / "model.safetensors")
    return open_tensors(folder)


def linear(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"weight": torch.randn(3, 4, generator=generator), "bias": torch.randn(3, generator=generator)}


# Names


def test_a_part_renames_what_follows_its_prefix():
    part = Part("model.llm.", "language.", renames=((r"^layers\.", "blocks."), (r"gamma$", "weight")))
    assert part.targets("model.llm.layers.0.norm.gamma") == ("language.blocks.0.norm.weight",)


def test_a_part_gives_copies_under_further_names():
    part = Part("sam.", "sam.", copies=((r"pe\.grid", "prompt.pe.grid"),))
    assert part.targets("sam.pe.grid") == ("sam.pe.grid", "sam.prompt.pe.grid")
    assert part.targets("sam.pe.grid_scale") == ("sam.pe.grid_scale",)


def test_every_key_is_accounted_for():
    parts = (Part("a.special.", "s."), Part("a.", "t."))
    source = {"a.special.w": (2,), "a.w": (3,), "a.rope": (4,), "b.w": (5,), "a.extra": (6,)}
    found = account(source, {"s.w": (2,), "t.w": (9,), "t.gone": (1,)}, parts, [Ignored(r".*\.rope", "computed")])
    assert found.sources == {"s.w": "a.special.w", "t.w": "a.w"}
    assert found.ignored == {"a.rope": "computed"}
    assert found.missing == ("t.gone",)
    assert found.unexpected == ("b.w", "a.extra")
    assert found.misshapen == ("a.w is (3,), the model's is (9,)",)
    with pytest.raises(BadInput) as caught:
        found.check("gsva.bin")
    for named in ("gsva.bin", "1 missing: t.gone", "2 unexpected: b.w, a.extra", "a.w is (3,)", "nothing was loaded"):
        assert named in str(caught.value)


def test_a_pattern_of_ignored_keys_must_fit_as_a_whole():
    found = account({"position_ids_x": (1,)}, {}, WHOLE, [Ignored("position_ids", "computed")])
    assert found.unexpected == ("position_ids_x",)


def test_two_keys_for_one_place_are_unexpected():
    parts = (Part("old.", "m."), Part("new.", "m."))
    found = account({"old.w": (1,), "new.w": (1,)}, {"m.w": (1,)}, parts)
    assert found.unexpected == ("new.w",)


def test_many_faults_are_counted_and_some_of_them_named():
    found = account({f"k{i}": (1,) for i in range(100)}, {}, WHOLE)
    with pytest.raises(BadInput, match="100 unexpected: k0, .* and 92 more"):
        found.check("x")


# Loading


def test_what_was_loaded_is_reported(tmp_path):
    tensors = files(tmp_path, {"model.head.weight": torch.ones(3, 4), "model.head.bias": torch.ones(3)})
    module = nn.Linear(4, 3)
    report = load_parts(module, tensors, [Part("model.head.", "")])
    assert torch.equal(module.weight, torch.ones(3, 4))
    assert set(report.loaded) == {"weight", "bias"}
    assert report.converted == {"weight": "model.head.weight", "bias": "model.head.bias"}
    assert str(report).startswith("2 tensors loaded, 2 of them under another name")


def test_reports_of_two_checkpoints_add_up():
    first = LoadReport(("a",), (), (), {"a": "x"}, ("a",), {"r": "computed", "q": "computed"})
    both = first + LoadReport(("b",), (), (), ignored={"t": "text half"})
    assert both.loaded == ("a", "b")
    assert set(both.ignored) == {"r", "q", "t"}
    assert "computed: r, q" in both.describe() and "text half: t" in both.describe()


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_weights_go_into_a_module_without_storage(tmp_path, dtype):
    given = linear() | {"steps": torch.tensor(3)}
    with empty_weights():
        module = nn.Linear(4, 3)
        module.register_buffer("steps", torch.tensor(0))
    assert module.weight.is_meta and not module.steps.is_meta
    report = load_parts(module, files(tmp_path, given), WHOLE, dtype=dtype)
    assert set(report.loaded) == set(given) and not report.converted
    assert module.weight.dtype == (dtype or torch.float32)
    assert torch.equal(module.weight, given["weight"].to(module.weight.dtype))
    assert (module.steps.item(), module.steps.dtype) == (3, torch.int64)  # whole numbers keep their type
    assert module(torch.ones(1, 4, dtype=module.weight.dtype)).shape == (1, 3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bias": None}, "1 missing: bias"),
        ({"extra": torch.zeros(1)}, "1 unexpected: extra"),
        ({"bias": torch.zeros(4)}, r"bias is \(4,\), the model's is \(3,\)"),
        ({"weight": torch.zeros(4, 3)}, r"weight is \(4, 3\), the model's is \(3, 4\)"),
        ({"bias": torch.full((3,), float("nan"))}, "bias holds values that are not finite"),
        ({"bias": torch.full((3,), float("inf"))}, "bias holds values that are not finite"),
        ({"bias": torch.zeros(3, dtype=torch.int8)}, "bias is torch.int8.*quantised"),
        ({"weight": torch.zeros(3, 4, dtype=torch.float8_e4m3fn)}, "weight is torch.float8_e4m3fn.*quantised"),
    ],
)
def test_a_load_that_fails_names_the_keys_and_changes_nothing(tmp_path, change, said):
    given = {k: t for k, t in (linear(1) | change).items() if t is not None}
    module = nn.Linear(4, 3)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(BadInput, match=said) as caught:
        load_parts(module, files(tmp_path, given), WHOLE)
    assert str(tmp_path) in str(caught.value)
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])


# LoRA


def with_lora(rank: int = 2, name: str = "{}.lora_{}.weight", base: str = "q.weight") -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(rank)
    return {
        base: torch.randn(3, 4, generator=generator),
        name.format("q", "A"): torch.randn(rank, 4, generator=generator),
        name.format("q", "B"): torch.randn(3, rank, generator=generator),
        "v.weight": torch.ones(2),
    }


@pytest.mark.parametrize("name", ["{}.lora_{}.weight", "{}.lora_{}.default.weight"])
@pytest.mark.parametrize("base", ["q.weight", "q.base_layer.weight"])
@pytest.mark.parametrize("rank", [1, 2])
def test_lora_is_added_to_its_base(tmp_path, name, base, rank):
    given = with_lora(rank, name, base)
    merged = merge_lora(files(tmp_path, given), alpha=16)
    update = given[name.format("q", "B")] @ given[name.format("q", "A")]
    assert set(merged) == {"q.weight", "v.weight"} and merged.merged == ("q.weight",)
    assert dict(merged.shapes) == {"q.weight": (3, 4), "v.weight": (2,)}
    torch.testing.assert_close(merged["q.weight"], given[base] + 16 / rank * update)
    assert torch.equal(merged["v.weight"], given["v.weight"])


def test_lora_is_added_in_float32_and_cast_back(tmp_path):
    given = {key: tensor.bfloat16() for key, tensor in with_lora().items()}
    merged = merge_lora(files(tmp_path, given), alpha=2)["q.weight"]
    update = given["q.lora_B.weight"].float() @ given["q.lora_A.weight"].float()
    assert torch.equal(merged, (given["q.weight"].float() + update).bfloat16())


def test_a_checkpoint_without_lora_passes(tmp_path):
    merged = merge_lora(files(tmp_path, linear()), alpha=16)
    assert merged.merged == () and set(merged) == {"weight", "bias"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"q.lora_A.weight": None}, "LoRA of 'q' is incomplete"),
        ({"q.lora_B.weight": None}, "LoRA of 'q' is incomplete"),
        ({"q.weight": None}, "LoRA of 'q' is incomplete.*'q.weight'"),
        ({"q.lora_A.weight": torch.zeros(3, 4)}, r"LoRA of 'q' does not fit: A \(3, 4\), B \(3, 2\)"),
        ({"q.lora_B.weight": torch.zeros(3, 5)}, "does not fit"),
        ({"q.lora_A.weight": torch.zeros(2, 5)}, "does not fit"),
        ({"q.lora_B.weight": torch.zeros(4, 2)}, "does not fit"),
        ({"q.lora_A.weight": torch.zeros(8), "q.lora_B.weight": torch.zeros(6)}, "does not fit"),
        ({"q.lora_A.weight": torch.zeros(0, 4), "q.lora_B.weight": torch.zeros(3, 0)}, "does not fit"),
        ({"q.weight": torch.zeros(3, 4, 1)}, "does not fit"),
        ({"q.base_layer.weight": torch.zeros(3, 4)}, "'q.base_layer.weight'.*same weight under two names"),
        ({"q.lora_A.default.weight": torch.zeros(2, 4)}, "same weight under two names"),
    ],
)
def test_lora_that_cannot_be_merged_is_named(tmp_path, change, said):
    given = {k: t for k, t in (with_lora() | change).items() if t is not None}
    with pytest.raises(BadInput, match=said):
        merge_lora(files(tmp_path, given), alpha=16)


def test_merged_weights_are_loaded_and_reported(tmp_path):
    given = {"bias": torch.zeros(3)} | {
        k.replace("q.", ""): t for k, t in with_lora(base="q.base_layer.weight").items() if k.startswith("q.")
    }
    tensors = files(tmp_path, {f"model.{k}": t for k, t in given.items()})
    module = nn.Linear(4, 3)
    merged = merge_lora(strip_prefix(tensors, "base."), alpha=2)
    report = load_parts(module, merged, [Part("model.", "")])
    torch.testing.assert_close(
        module.weight.data, given["base_layer.weight"] + given["lora_B.weight"] @ given["lora_A.weight"]
    )
    assert report.merged == ("model.weight",)


def test_names_that_collide_without_their_prefix_are_refused(tmp_path):
    tensors = files(tmp_path, {"base.w": torch.zeros(1), "w": torch.ones(1)})
    with pytest.raises(BadInput, match="collide without the prefix 'base.'"):
        strip_prefix(tensors, "base.")
    both = strip_prefix(files(tmp_path, {"base.w": torch.zeros(1), "v": torch.ones(1)}), "base.")
    assert set(both) == {"w", "v"} and both["v"].item() == 1
