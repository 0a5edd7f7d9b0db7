"""The training in miniature: scenes on disk, losses that fall, a run that resumes, a checkpoint that loads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from unit.tiny_unified import TINY, tiny_model

import instructseg
from instructseg.core import BadInput, Clip, Frame, Instruction
from instructseg.training import bank, calibration, language_losses, language_stage, perception, questions, run, state
from instructseg.training.latent_bank import LatentBank, encode_bank
from instructseg.training.plan import TrainingPlan

PLAN = TrainingPlan(
    flat_episodes=5,
    tabletop_episodes=0,
    validation_episodes=3,
    perception_minutes=0.01,
    language_minutes=0.01,
    threads=1,
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole training run in miniature."""
    out = tmp_path_factory.mktemp("run")
    assert run.run_training(out, PLAN, TINY) == out / "checkpoint"
    return out


@pytest.fixture
def scenes(finished: Path, tmp_path: Path) -> Path:
    """A copy of the scenes that may be damaged."""
    return Path(shutil.copytree(finished / "scenes", tmp_path / "scenes"))


@pytest.fixture(scope="module")
def latents(finished: Path) -> LatentBank:
    """The training scenes as a random model sees them: slots that cover objects are not a matter of training here."""
    model, _ = tiny_model()
    latents = encode_bank(model.perception, bank.EpisodeBank([finished / "scenes" / "train"]))
    latents.ids = torch.zeros_like(latents.ids)
    for row, facts in enumerate(latents.facts):
        for slot, thing in enumerate(facts.objects[: TINY.slots]):
            latents.ids[row, :, slot] = thing.id * latents.valid[row, :, slot]
    return latents


def test_a_run_leaves_a_checkpoint_that_loads_and_segments(finished: Path) -> None:
    record = json.loads((finished / "training.json").read_text())
    assert record["plan"]["flat_episodes"] == 5
    assert 0.0 <= record["kept"] <= 1.0
    segmenter = instructseg.load("unified", finished / "checkpoint", "cpu")
    frame = Frame(np.full((48, 64, 3), 90, np.uint8), 0)
    encoded = segmenter.encode([frame])[0]
    grounding = segmenter.ground(Clip((encoded,)), [Instruction("1", "the red block")])[0]
    assert grounding.targets
    tokens = [target.token for target in grounding.targets if target.token is not None]
    assert all(mask.mask.shape == (48, 64) for mask in segmenter.segment(encoded, tokens))


def test_a_second_run_in_the_same_folder_generates_nothing_anew(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more(*_: object) -> None:
        raise AssertionError("this was done before")

    monkeypatch.setattr(bank, "episode_sampler", no_more)
    monkeypatch.setattr(perception, "perception_losses", no_more)
    monkeypatch.setattr(language_stage, "language_losses", no_more)
    before = load_file(finished / "checkpoint" / "model.safetensors")
    config = (finished / "checkpoint" / "config.json").read_text()
    run.run_training(finished, PLAN, TINY)
    torch.testing.assert_close(load_file(finished / "checkpoint" / "model.safetensors"), before, rtol=0, atol=0)
    assert (finished / "checkpoint" / "config.json").read_text() == config


# Losses


def falls(losses_of, parameters, steps: int, rate: float) -> tuple[dict[str, float], dict[str, float]]:
    """Named losses before and after some steps on the very same batch."""
    optimizer = torch.optim.Adam(parameters, lr=rate)
    history = []
    for _ in range(steps):
        losses = losses_of()
        history.append({name: value.item() for name, value in losses.items()})
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    return history[0], history[-1]


def test_perception_losses_fall_on_fixed_scenes(finished: Path) -> None:
    torch.manual_seed(0)
    episodes = list(bank.EpisodeBank([finished / "scenes" / "train"]))[:2]
    batch = perception.make_batch(episodes, np.random.default_rng(0), TINY, augment=False)
    model = run.Perception(TINY).train()
    first, last = falls(lambda: perception.perception_losses(model, batch), model.parameters(), 25, 5e-3)
    assert all(np.isfinite(list(last.values())))
    assert sum(last.values()) < 0.75 * sum(first.values())
    assert last["heat"] < first["heat"]
    assert last["objectness"] < first["objectness"]


def test_language_losses_fall_on_fixed_questions(latents: LatentBank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language_stage.torch, "rand", lambda n: torch.ones(n))  # the whole clip, every time
    model, tokenizer = tiny_model()
    batch = questions.make_batch(latents, tokenizer, TINY, np.random.default_rng(0), scenes=4, questions=4)
    assert (latents.ids > 0).any()
    assert batch.present.any()
    model.perception.requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    first, last = falls(lambda: language_losses.language_losses(model, latents, batch), trained, 25, 5e-3)
    assert all(np.isfinite(list(last.values())))
    assert sum(last.values()) < 0.75 * sum(first.values())
    assert last["answer"] < first["answer"]
    assert last["presence"] < first["presence"]


# Resuming


class Clock:
    """Every look at it takes 30 seconds: two looks, a minute, are one step."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 30.0
        return self.now


def train_for(folder: Path, minutes: float, monkeypatch: pytest.MonkeyPatch, killed_after: int | None = None) -> int:
    """Steps that were computed; ``killed_after``: interrupt in the middle of that step."""
    steps, losses = 0, perception.perception_losses

    def counted(model, batch):
        nonlocal steps
        if steps == killed_after:
            raise KeyboardInterrupt
        steps += 1
        return losses(model, batch)

    clock = Clock()
    with monkeypatch.context() as patch:
        patch.setattr(perception, "perception_losses", counted)
        patch.setattr(perception, "time", SimpleNamespace(monotonic=clock.monotonic))
        patch.setattr(state, "time", SimpleNamespace(monotonic=clock.monotonic))
        model = run.Perception(TINY)
        try:
            perception.train_perception(model, TINY, [folder / "scenes" / "train"], folder / "p.pt", minutes, 1)
        except KeyboardInterrupt:
            assert killed_after is not None
    return steps


def test_a_killed_run_goes_on_where_it_was_saved(finished: Path, tmp_path: Path, monkeypatch) -> None:
    shutil.copytree(finished / "scenes", tmp_path / "scenes")
    done = train_for(tmp_path, 10.0, monkeypatch, killed_after=6)
    saved = torch.load(tmp_path / "p.pt", weights_only=True)
    assert 0 < saved["step"] <= done == 6
    (tmp_path / "p.partial").write_bytes(b"half a file that the kill left behind")
    again = train_for(tmp_path, 10.0, monkeypatch)
    resumed = torch.load(tmp_path / "p.pt", weights_only=True)
    assert 0 < again < 10  # ten would be the whole time over again
    assert resumed["step"] == saved["step"] + again
    assert resumed["seconds"] >= 600.0
    assert train_for(tmp_path, 10.0, monkeypatch) == 0  # finished is finished


def test_the_average_forgets_the_random_start() -> None:
    model = torch.nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.fill_(100.0)
    average = state.weight_average(model, 0.99)
    average.update_parameters(model)
    for _ in range(40):
        with torch.no_grad():
            model.weight.fill_(1.0)
        average.update_parameters(model)
    assert float(state.averaged_weights(average.state_dict())["weight"]) < 1.5


# Calibration


@pytest.mark.parametrize(("low", "high"), [(0.2, 0.8), (0.05, 0.3), (0.7, 0.95)])
def test_the_threshold_parts_what_can_be_parted(low: float, high: float, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.array([low] * 30 + [high] * 50)
    monkeypatch.setattr(calibration, "presence_scores", lambda *_: (scores, scores == high))
    threshold, (kept, rejected) = calibration.calibrate_presence(None, None, None)
    assert low < threshold <= high
    assert (kept, rejected) == (1.0, 1.0)


def test_presence_is_asked_of_every_scene(latents: LatentBank) -> None:
    model, tokenizer = tiny_model()
    scores, labels = calibration.presence_scores(model, tokenizer, latents, questions=6)
    assert len(scores) == len(labels) >= 6 * len(latents)
    assert ((scores >= 0) & (scores <= 1)).all()
    assert 0 < labels.mean() < 1
    threshold, _ = calibration.calibrate_presence(model, tokenizer, latents)
    assert 0.05 <= threshold <= 0.95


# Scenes on disk


def test_a_finished_shard_is_left_alone_and_read_back(finished: Path, tmp_path: Path) -> None:
    bank.generate_shard(tmp_path / "a", "flat", "train", 0, 2, 64, 64)
    bank.generate_shard(tmp_path / "b", "flat", "train", 0, 2, 64, 64)
    first, second = bank.EpisodeBank([tmp_path])[0], bank.EpisodeBank([tmp_path])[2]
    np.testing.assert_array_equal(first.images, second.images)  # the seed decides
    assert first.objects == second.objects
    assert first.images.shape == (len(bank.CLIP_TIMES), 64, 64, 3)
    before = (tmp_path / "a" / "images.npy").stat().st_mtime_ns
    bank.generate_shard(tmp_path / "a", "flat", "train", 0, 2, 64, 64)
    assert (tmp_path / "a" / "images.npy").stat().st_mtime_ns == before
    assert len(bank.EpisodeBank([finished / "scenes" / "train"])) == 5
    assert len(bank.EpisodeBank([tmp_path / "nothing"])) == 0


@pytest.mark.parametrize("name", ["images.npy", "instances.npy", "episodes.json"])
@pytest.mark.parametrize("keep", [0, 60, 4000])
def test_a_shard_that_was_cut_off_is_named_with_its_file(scenes: Path, name: str, keep: int) -> None:
    path = next((scenes / "train").iterdir()) / name
    whole = path.read_bytes()
    path.write_bytes(whole[: min(keep, len(whole) - 2)])
    with pytest.raises(BadInput, match=f"{path.parent.name} are damaged: {name}.*delete this folder"):
        bank.EpisodeBank([scenes / "train"])


def test_a_shard_without_images_or_of_another_length_is_named(scenes: Path) -> None:
    shard = next((scenes / "train").iterdir())
    np.save(shard / "instances.npy", np.zeros((1, 6, 64, 64), np.uint8))
    with pytest.raises(BadInput, match=r"instances.npy: shape \(1, 6, 64, 64\) does not fit 5 episodes"):
        bank.EpisodeBank([scenes / "train"])
    (shard / "images.npy").unlink()
    with pytest.raises(BadInput, match="damaged: images.npy"):
        bank.EpisodeBank([scenes / "train"])


def test_an_unknown_source_is_refused() -> None:
    with pytest.raises(BadInput, match="'flat' or 'tabletop'; got 'photos'"):
        bank.episode_sampler("photos", 64, 64)


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"flat_episodes": -1}, "flat_episodes must be a whole number of at least 0; got -1"),
        ({"flat_episodes": 0, "tabletop_episodes": 0}, "nothing to train on"),
        ({"perception_minutes": 0.0}, "perception_minutes must be a number above 0; got 0.0"),
        ({"language_minutes": float("inf")}, "got inf"),
        ({"validation_episodes": 0}, "validation_episodes must be a whole number of at least 1"),
    ],
)
def test_a_plan_that_cannot_be_run(values: dict, what: str) -> None:
    with pytest.raises(BadInput, match=what):
        TrainingPlan(**values)
