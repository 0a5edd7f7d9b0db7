"""VideoLISA, VISA and InstructSeg as learners: what an example holds, what learns, and that this is what is saved."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from unit import tiny_instructseg, tiny_videolisa, tiny_visa
from unit.miniature_videos import draw_video

import instructseg
from instructseg.core import BadInput
from instructseg.data.samples import Footage, Sample, Truth, Truths
from instructseg.recipes.instructseg.criterion import CriterionSettings
from instructseg.training.finetuning.configuration import DataKeys, RunConfig
from instructseg.training.finetuning.loop import Training
from instructseg.training.finetuning.mixture import source_of
from instructseg.training.finetuning.processes import Processes
from instructseg.training.finetuning.state import states_in
from instructseg.training.learner import Learner, LoraSettings, build_learner
from instructseg.training.merging import merged_state

RECIPES = ("videolisa", "visa", "instructseg")
TINY = {"videolisa": tiny_videolisa, "visa": tiny_visa, "instructseg": tiny_instructseg}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums of floats depend on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A miniature checkpoint of each recipe."""
    return {name: TINY[name].tiny_checkpoint(tmp_path_factory.mktemp(name) / "base") for name in RECIPES}


class Film(Footage):
    """A miniature video. sizes: of frames that have another size than the others."""

    def __init__(self, name: str, count: int = 9, sizes: dict[int, tuple[int, int]] | None = None) -> None:
        self.video, self.sizes = draw_video(name, count), sizes or {}
        self.name, self.frames = name, self.video.frames

    def read(self, index: int) -> np.ndarray:
        image = self.video.images[index]
        return np.resize(image, (*self.sizes[index], 3)) if index in self.sizes else image


@dataclasses.dataclass(frozen=True, eq=False)
class FilmTruth(Truths):
    """visible: frames on which the objects are in view, None for all; annotated: those with an annotation at all."""

    film: Film
    objects: tuple[int, ...]
    visible: tuple[int, ...] | None = None
    annotated: tuple[int, ...] | None = None

    def __call__(self, index: int) -> Truth | None:
        if self.annotated is not None and index not in self.annotated:
            return None
        masks = np.stack([self.film.video.masks[number][index] for number in self.objects or (1,)])
        shown = self.visible is None or index in self.visible
        return Truth(masks[: len(self.objects)] * shown)


def sample(
    words: str = "the red thing",
    film: Film | None = None,
    objects: tuple[int, ...] = (1,),
    truth: dict[str, Any] | None = None,
    **more: Any,
) -> Sample:
    film = film or Film("film")
    names = tuple(map(str, objects))
    return Sample(f"{film.name}/{words}", film, words, names, FilmTruth(film, objects, **truth or {}), **more)


def options_of(recipe: str, base: Path) -> dict[str, str]:
    if recipe == "videolisa":
        return {"clip": str(base / Path(tiny_videolisa.CONFIG.mm_vision_tower).name), "sparse_frames": "4",
                "dense_frames": "2"}  # fmt: skip
    return {"clip": str(base / tiny_visa.CONFIG.vision_tower)} if recipe == "visa" else {}


def learner_of(recipe: str, base: Path, dtype: torch.dtype | None = torch.float32, **lora: Any) -> Learner:
    torch.manual_seed(0)  # a new LoRA begins at random
    device = torch.device("cpu")
    learner = build_learner(recipe, base, device, dtype, options_of(recipe, base), LoraSettings(**lora))
    if recipe == "instructseg":
        learner.settings = CriterionSettings(points=64)
    return learner


def examples(learner: Learner) -> list[Any]:
    """A video and an image."""
    still = sample("the blue thing", Film("still", 1))
    return [learner.example([one], random.Random(i)) for i, one in enumerate((sample(), still))]


def losses_of(learner: Learner, batch: Sequence[Any]) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)  # points of mask losses
    return learner.losses(batch)


@pytest.mark.parametrize("recipe", RECIPES)
def test_it_learns_what_trains_and_what_it_saves_is_what_it_learned(
    recipe: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    learner = learner_of(recipe, bases[recipe], dropout=0.0)
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
    assert totals[-1] < 0.95 * totals[0], totals
    moved = {name for name, p in module.named_parameters() if not torch.equal(p, before[name])}
    assert moved <= set(learner.trained) and any(".lora_B." in name for name in moved)

    learner.save_adapters(tmp_path / "adapters")
    learner.save_merged(tmp_path / "merged")
    again = learner_of(recipe, bases[recipe], dropout=0.0)
    again.load_adapters(tmp_path / "adapters")
    again.module.eval()
    with torch.no_grad():
        truth, found = losses_of(learner, batch), losses_of(again, batch)
    assert all(torch.equal(found[name], truth[name]) for name in truth)
    with pytest.raises(BadInput, match="belong to another model: lora_rank is 8 there and 2 here"):
        learner_of(recipe, bases[recipe], rank=2).load_adapters(tmp_path / "adapters")

    options = options_of(recipe, bases[recipe])
    used = instructseg.load(recipe, tmp_path / "merged", device="cpu", options=options)
    model = used.reader.model if recipe == "instructseg" else used.model
    trained = learner.module.model if recipe == "videolisa" else learner.module
    expected, state = merged_state(trained), model.state_dict()
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(state[name], tensor, rtol=1e-6, atol=1e-7)


class Films(list):
    name, split = "films", "train"


def run(recipe: str, base: Path, out: Path, resume: bool = False) -> Training:
    """Four steps on three videos, one of which cannot be used. A state after each two."""
    films = [Film("one"), Film("two", 7), Film("torn", 6, dict.fromkeys(range(0, 6, 2), (8, 8)))]
    data = Films(sample(words, film) for film in films for words in ("the red thing", "what could be moved?"))
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
