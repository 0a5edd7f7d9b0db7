"""VideoLISA, VISA and InstructSeg as learners: what learns, that this is what is saved, and that runs resume."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from unit import tiny_videolisa, tiny_visa
from unit.films import Film, about
from unit.tiny_learners import RECIPES, learner_of, options_of, tiny_checkpoints

import instructseg
from instructseg.core import BadInput
from instructseg.training.finetuning.configuration import DataKeys, RunConfig
from instructseg.training.finetuning.loop import Training
from instructseg.training.finetuning.mixture import source_of
from instructseg.training.finetuning.processes import Processes
from instructseg.training.finetuning.state import states_in
from instructseg.training.learner import Learner, LoraSettings, build_learner
from instructseg.training.merging import merged_state


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums of floats depend on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return tiny_checkpoints(tmp_path_factory.mktemp("tiny"))


def examples(learner: Learner) -> list[Any]:
    """A video, an image, and a question about an image, of which InstructSeg learns words too."""
    still = Film("still", 1)
    samples = about(), about("the red box", still), about("What could be moved?", still, is_sentence=True)
    return [learner.example([sample], random.Random(i)) for i, sample in enumerate(samples)]


def losses_of(learner: Learner, batch: Sequence[Any]) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)  # points of mask losses
    return learner.losses(batch)


@pytest.mark.parametrize("recipe", RECIPES)
def test_it_learns_what_trains_and_what_it_saves_is_what_it_learned(
    recipe: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    base = bases[recipe]
    learner = learner_of(recipe, base, dropout=0.0)
    module, batch, totals = learner.module.eval(), examples(learner), []
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    optimiser = torch.optim.AdamW([module.get_parameter(name) for name in learner.trained], 3e-3)
    for _ in range(6):
        losses = losses_of(learner, batch)
        losses["total"].backward()
        assert {name for name, p in module.named_parameters() if p.grad is not None} <= set(learner.trained)
        optimiser.step()
        optimiser.zero_grad()
        totals.append(float(losses["total"].detach()))
    assert totals[-1] < 0.9 * totals[0], totals
    moved = {name for name, p in module.named_parameters() if not torch.equal(p, before[name])}
    assert moved <= set(learner.trained) and any(".lora_B." in name for name in moved)

    learner.save_adapters(tmp_path / "adapters")
    learner.save_merged(tmp_path / "merged")
    again = learner_of(recipe, base, dropout=0.0)
    again.load_adapters(tmp_path / "adapters")
    merged = learner_of(recipe, base, tmp_path / "merged", dropout=0.0)  # its own LoRA does nothing yet
    with torch.no_grad():
        truth, found, alike = (losses_of(one, batch) for one in (learner, again, merged) if one.module.eval())
    assert all(torch.equal(found[name], truth[name]) for name in truth)
    assert all(torch.allclose(alike[name], truth[name], rtol=1e-4, atol=1e-5) for name in truth)
    with pytest.raises(BadInput, match="belong to another model: lora_rank is 8 there and 2 here"):
        learner_of(recipe, base, rank=2).load_adapters(tmp_path / "adapters")

    frames = {key: value for key, value in options_of(recipe, base).items() if key != "clip"}  # which is in it now
    used = instructseg.load(recipe, tmp_path / "merged", device="cpu", options=frames)
    state = (used.reader.model if recipe == "instructseg" else used.model).state_dict()
    expected = merged_state(module.model if recipe == "videolisa" else module)
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(state[name], tensor, rtol=1e-6, atol=1e-7)


def test_what_training_elsewhere_left_is_where_training_begins(tmp_path: Path) -> None:
    """LoRA beside the weights is merged first; VISA's dump has CLIP among its weights, and so has what is saved."""
    dumps = {
        "videolisa": tiny_videolisa.tiny_checkpoint(tmp_path / "videolisa", "peft"),
        "visa": tiny_visa.tiny_checkpoint(tmp_path / "visa", "dump"),
    }
    for recipe, folder in dumps.items():
        options = options_of(recipe, folder) if recipe == "videolisa" else {}
        learner = build_learner(recipe, folder, torch.device("cpu"), None, options, LoraSettings(rank=3))
        begun = instructseg.load(recipe, folder, device="cpu", options=options).model.state_dict()
        learner.save_merged(tmp_path / "merged" / recipe)
        saved = load_file(tmp_path / "merged" / recipe / "model.safetensors")
        assert any("vision_tower" in name for name in saved) is (recipe == "visa")
        used = instructseg.load(recipe, tmp_path / "merged" / recipe, device="cpu", options=options)
        assert used.load_report.merged == () and learner.report.merged != ()
        for name, tensor in used.model.state_dict().items():
            torch.testing.assert_close(tensor, begun[name])


class Films(list):
    name, split = "films", "train"


def run(recipe: str, base: Path, out: Path, resume: bool = False) -> Training:
    """Four steps on three videos, one of which cannot be used; a state after each two."""
    films = [Film("one"), Film("two", 7), Film("torn", 6, dict.fromkeys(range(0, 6, 2), (8, 8)))]
    data = Films(about(words, film) for film in films for words in ("the red thing", "what could be moved?"))
    config = RunConfig(
        recipe, str(base), (DataKeys("films", Path("."), "train", 1.0),), batch=2, accumulation=2, steps=4,
        learning_rate=1e-3, save_every=2, workers=0, device="cpu",
    )  # fmt: skip
    learner = learner_of(recipe, base)
    source = source_of(data, 1.0, learner.scene_of, learner.takes)
    return Training(learner, [source], config, Processes("none", "cpu"), out, resume)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_resumed_run_is_the_uninterrupted_one(recipe: str, bases: dict[str, Path], tmp_path: Path) -> None:
    whole = run(recipe, bases[recipe], tmp_path / "whole")
    assert whole.train() and whole.run.failures > 0, "frames of another size make a video unusable"
    (tmp_path / "broken" / "states").mkdir(parents=True)
    first, last = states_in(tmp_path / "whole" / "states")
    (tmp_path / "broken" / "states" / first.name).symlink_to(first)
    again = run(recipe, bases[recipe], tmp_path / "broken", resume=True)
    assert again.run.steps == 2 and again.train() and again.run.failures == whole.run.failures
    for file in ("trained.safetensors", "optimiser.safetensors"):
        expected, found = load_file(last / file), load_file(tmp_path / "broken" / "states" / last.name / file)
        assert expected.keys() == found.keys()
        assert [name for name in expected if not torch.equal(expected[name], found[name])] == []


@pytest.mark.parametrize("recipe", RECIPES)
def test_bf16_keeps_what_trains_in_float32_and_comes_near_float32(recipe: str, bases: dict[str, Path]) -> None:
    full = learner_of(recipe, bases[recipe], dropout=0.0)
    half = learner_of(recipe, bases[recipe], dtype=torch.bfloat16, dropout=0.0)
    assert {half.module.get_parameter(name).dtype for name in half.trained} == {torch.float32}
    frozen = {p.dtype for n, p in half.module.named_parameters() if n not in half.trained}
    assert frozen == {torch.bfloat16} and half.belongs_to == full.belongs_to
    batch = examples(full)
    with torch.autocast("cpu", torch.bfloat16):
        rough = losses_of(half, batch)
    rough["total"].backward()
    assert float(rough["total"].detach()) == pytest.approx(float(losses_of(full, batch)["total"].detach()), rel=0.05)
    assert all(bool(p.grad.isfinite().all()) for p in half.module.parameters() if p.grad is not None)


@pytest.mark.parametrize("recipe", RECIPES)
def test_activations_computed_twice_give_the_same_gradients(recipe: str, bases: dict[str, Path]) -> None:
    gradients = []
    for twice in (False, True):
        learner = learner_of(recipe, bases[recipe], dropout=0.0)
        learner.module.eval()
        if twice:
            learner.keep_fewer_activations()
            for part in learner.module.modules():  # dropout off, checkpointing on
                part.training = hasattr(part, "gradient_checkpointing")
        losses_of(learner, examples(learner))["total"].backward()
        gradients.append({name: learner.module.get_parameter(name).grad for name in learner.trained})
    for name, gradient in gradients[0].items():
        assert (gradient is None) == (gradients[1][name] is None), name
        if gradient is not None:
            torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6)
