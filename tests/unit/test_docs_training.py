"""docs/training.md and config/training: keys are the code's, examples valid and published, sizes counted."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from instructseg.checkpoints import empty_weights
from instructseg.data.benchmarks import benchmark
from instructseg.modules.clip_patches import ClipPatches, clip_vit_l14
from instructseg.modules.sam_sizes import SamSizes
from instructseg.recipes.gsva.configuration import PRESETS as gsva_sizes
from instructseg.recipes.gsva.lora import add_lora
from instructseg.recipes.gsva.modeling import GsvaModel
from instructseg.recipes.gsva.training import freeze_all_but_trained
from instructseg.recipes.videolisa import training as videolisa_training
from instructseg.recipes.videolisa.configuration import PRESETS as videolisa_sizes
from instructseg.recipes.videolisa.learner import WithTower
from instructseg.recipes.videolisa.modeling import VideoLISA
from instructseg.recipes.visa import training as visa_training
from instructseg.recipes.visa.configuration import PRESETS as visa_sizes
from instructseg.recipes.visa.modeling import VisaModel
from instructseg.registry import RECIPES
from instructseg.training.finetuning.configuration import DataKeys, LoraKeys, RunConfig, keys_of, read_config
from instructseg.training.finetuning.memory import Memory, memory_of
from instructseg.training.finetuning.optimisation import optimisation_of

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
CONFIGURATIONS = sorted((ROOT / "config" / "training").glob("*.yaml"))
EXAMPLES = [path for path in CONFIGURATIONS if not path.stem.startswith("default")]  # those: test_training_plan.py


@pytest.mark.parametrize("table", [RunConfig, DataKeys, LoraKeys])
def test_the_pages_tables_are_the_codes(table: type) -> None:
    rows = [f"| `{name}` | {allowed} | {default} | {text} |" for name, allowed, default, text in keys_of(table)]
    assert "\n".join(rows) in PAGE


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_valid_and_holds_the_published_values(path: Path, tmp_path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for entry in yaml.safe_load(text)["data"]:
        (tmp_path / entry["root"]).mkdir(parents=True, exist_ok=True)
        assert entry["split"] in benchmark(entry["benchmark"]).splits
    (tmp_path / path.name).write_text(text)
    config = read_config(tmp_path / path.name)
    assert config.recipe == path.stem.removesuffix("_large")
    if path.stem.endswith("_large"):  # of which nothing was published
        return
    module = __import__(f"{RECIPES[config.recipe].module.rpartition('.')[0]}.learner", fromlist=["learner"])
    published = module.PUBLISHED
    plan = optimisation_of(config, published)
    for name in ("steps", "batch", "learning_rate", "schedule", "warm_up", "weight_decay", "clip_norm", "betas"):
        assert getattr(plan, name) == getattr(published, name), name


def gsva() -> Memory:
    model = GsvaModel(gsva_sizes["GSVA-7B"].config())
    add_lora(model.llm, gsva_sizes["GSVA-7B"].lora_rank)
    return memory_of(model, freeze_all_but_trained(model))


def videolisa() -> Memory:
    model = VideoLISA(videolisa_sizes["VideoLISA-3.8B"], SamSizes())
    names = videolisa_training.prepare_training(model)
    module = WithTower(model, ClipPatches(clip_vit_l14(336), -2).requires_grad_(False))
    return memory_of(module, [f"model.{name}" for name in names])


def visa(name: str) -> Memory:
    model = VisaModel(visa_sizes[name], clip_vit_l14(224), SamSizes())
    return memory_of(model, visa_training.prepare_training(model))


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("GSVA-7B", gsva),
        ("VideoLISA-3.8B", videolisa),
        ("VISA-7B", lambda: visa("VISA-7B")),
        ("VISA-13B", lambda: visa("VISA-13B")),
    ],
)
def test_the_memory_of_the_page_is_counted_from_shapes(name: str, count: Callable[[], Memory]) -> None:
    with empty_weights():
        memory = count()
    shown = re.search(rf"^\| {name} \| (\d+) M \| ([\d.]+) M \| ([\d.]+) GiB \| ([\d.]+) GiB \|$", PAGE, re.M)
    assert shown is not None
    counted = (memory.frozen + memory.trained) / 1e6, memory.trained / 1e6
    sizes = (memory.bytes(precision) / 2**30 for precision in ("bf16", "fp32"))
    for written, value in zip(shown.groups(), (*counted, *sizes), strict=True):
        assert float(written) == pytest.approx(value, abs=0.5 if "." not in written else 0.05)


def test_bytes_of_what_trains_hold_gradient_and_optimiser() -> None:
    assert Memory(frozen=10, trained=1).bytes("bf16") == 20 + 16
    assert Memory(frozen=10, trained=1).bytes("fp32", average=True) == 40 + 20
