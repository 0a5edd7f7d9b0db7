"""The training in miniature: scenes on disk, losses that fall, a run that resumes, a checkpoint that loads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from unit.tiny_unified import TINY, tiny_checkpoint, tiny_model

import instructseg
from instructseg.core import BadInput, Clip, Frame, Instruction
from instructseg.modules.perception import Perception
from instructseg.training import (
    bank,
    calibration,
    generation,
    language_losses,
    language_stage,
    perception,
    questions,
    run,
    stage,
    state,
)
from instructseg.training.latent_bank import LatentBank, encode_bank
from instructseg.training.plan import plan_of
from instructseg.training.stage import Running
from instructseg.training.stopping import StopRequest, TrainingPaused, TrainingStopped

TABLE = {
    "scenes": {"flat": 5, "drawn2": 2},
    "validation": {"flat": 3},
    "perception": {"steps": 3, "batch": 2, "accumulation": 2, "validate_every": 2, "log_every": 1},
    "language": {"steps": 3, "batch": 4, "questions": 2, "validate_every": 2, "log_every": 1, "mixture": {"flat": 1}},
    "threads": 1,
}
PLAN = plan_of(TABLE)


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
    assert record["plan"] == json.loads((finished / "plan.json").read_text()) == PLAN.as_table()
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

    monkeypatch.setattr(generation, "generate_shard", no_more)
    monkeypatch.setattr(perception, "perception_losses", no_more)
    monkeypatch.setattr(language_stage, "language_losses", no_more)
    before = load_file(finished / "checkpoint" / "model.safetensors")
    config = (finished / "checkpoint" / "config.json").read_text()
    run.run_training(finished, PLAN, TINY)
    torch.testing.assert_close(load_file(finished / "checkpoint" / "model.safetensors"), before, rtol=0, atol=0)
    assert (finished / "checkpoint" / "config.json").read_text() == config


def test_a_run_leaves_curves_of_both_stages(finished: Path) -> None:
    curves = json.loads((finished / "curves.json").read_text())
    for name in ("perception", "language"):
        assert [point["step"] for point in curves[name]["training"]] == [1, 2, 3]
        assert [point["step"] for point in curves[name]["validation"]] == [2]
        assert list((finished / "tensorboard" / name).iterdir())
    assert "recall" in curves["perception"]["validation"][0]
    assert (cv2.imread(str(finished / "curves.png")) < 200).any()


def tensors(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "checkpoint" / "model.safetensors")


def test_a_run_in_many_calls_is_the_run_in_one(finished: Path, tmp_path: Path) -> None:
    """Stopped at every place where it may be: between shards, steps of both stages, shards to encode."""
    shutil.copytree(finished / "scenes", tmp_path / "scenes")
    shutil.rmtree(tmp_path / "scenes" / "train" / "drawn2-0000")
    calls, done = 0, None
    while done is None:
        looks = iter([0.0, 0.0, *[60.0] * 99])  # made, one look that lets it go on, then time is up
        try:
            done = run.run_training(tmp_path, PLAN, TINY, StopRequest(1.0, lambda looks=looks: next(looks)))
        except TrainingPaused:
            calls += 1
        assert calls < 12
    assert calls >= 7
    whole, parts = tensors(finished), tensors(tmp_path)
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    points = [json.loads((out / "curves.json").read_text()) for out in (finished, tmp_path)]
    for name in ("perception", "language"):
        one, other = ([p["loss/total"] for p in point[name]["training"]] for point in points)
        assert one == other


def test_another_plan_in_the_same_folder_is_refused_or_said(finished: Path, tmp_path: Path, caplog) -> None:
    shutil.copy(finished / "plan.json", tmp_path)
    with pytest.raises(BadInput, match=r"holds a training with scenes \{'flat': 5, 'drawn2': 2\}; the plan says"):
        run.run_training(tmp_path, plan_of(TABLE | {"scenes": {"flat": 6}}), TINY)
    with pytest.raises(BadInput, match="a training with seed 0; the plan says 1"):
        run.run_training(tmp_path, plan_of(TABLE | {"seed": 1}), TINY)
    (tmp_path / "plan.json").write_text("[]")
    with pytest.raises(BadInput, match="plan.json is no plan of a training"):
        run.run_training(tmp_path, PLAN, TINY)
    shutil.copy(finished / "plan.json", tmp_path)
    stop = StopRequest()
    stop.signalled.set()
    with pytest.raises(TrainingPaused, match="stopped while scenes were drawn"):
        run.run_training(tmp_path, plan_of(TABLE | {"threads": 2}), TINY, stop)
    assert "the plan's threads was 1" in caplog.text


@pytest.mark.process
def test_several_processes_draw_the_same_scenes(finished: Path, tmp_path: Path) -> None:
    wanted = generation.wanted_shards(tmp_path, {"flat": 5}, {"flat": 3})
    generation.generate(wanted, TINY.image_size, 2, StopRequest())
    for shard in ("train/flat-0000", "val/flat-2000"):
        for name in ("images.npy", "episodes.json"):
            assert (tmp_path / shard / name).read_bytes() == (finished / "scenes" / shard / name).read_bytes()
    stop = StopRequest()
    stop.signalled.set()
    more = generation.wanted_shards(tmp_path, {"flat": 5, "drawn2": 1}, {"flat": 3, "drawn2": 1})
    with pytest.raises(TrainingPaused, match="stopped while scenes were drawn"):
        generation.generate(more, TINY.image_size, 2, stop)


def test_shards_are_whole_but_for_the_last(tmp_path: Path) -> None:
    wanted = list(generation.wanted_shards(tmp_path, {"flat": 301, "tabletop2": 0}, {"drawn2": 150}))
    assert [(path.relative_to(tmp_path).as_posix(), seed, count) for path, _, _, seed, count in wanted] == [
        ("train/flat-0000", 0, 150), ("train/flat-0001", 1, 150), ("train/flat-0002", 2, 1),
        ("val/drawn2-2000", 2000, 150),
    ]  # fmt: skip


def test_a_run_starts_from_a_checkpoint_once(finished: Path, tmp_path: Path, caplog) -> None:
    caplog.set_level("INFO")
    shutil.copytree(finished / "scenes", tmp_path / "out" / "scenes")
    folder = tiny_checkpoint(tmp_path / "before")
    stop = StopRequest()
    stop.signalled.set()
    for said in (True, False):  # before the first state there is, and not again
        with pytest.raises(TrainingPaused, match="perception stopped at step 0"):
            run.run_training(tmp_path / "out", plan_of(TABLE | {"start_from": str(folder)}), TINY, stop)
        assert (f"perception starts from {folder}: " in caplog.text) is said
        caplog.clear()
    begun = torch.load(tmp_path / "out" / "perception.pt", weights_only=True)["model"]
    given = load_file(folder / "model.safetensors")
    assert all(torch.equal(tensor, given[f"perception.{name}"]) for name, tensor in begun.items())


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
    model = Perception(TINY).train()
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


def perception_after(folder: Path, scenes: Path, steps: int, killed_at: int | None = None, **more) -> Perception:
    """Some steps of the real stage from the state in ``folder``. killed_at: interrupt in the middle of that step."""
    torch.manual_seed(3)
    model, losses, done = Perception(TINY), perception.perception_losses, []

    def counted(*words: object) -> dict[str, torch.Tensor]:
        done.append(words)
        if len(done) - 1 == killed_at:
            raise KeyboardInterrupt
        return losses(*words)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(perception, "perception_losses", counted)
        patch.setattr(stage, "SAVE_SECONDS", 0.0)
        try:
            perception.train_perception(model, TINY, [scenes], folder / "p.pt", 1.0, 2, steps=steps, **more)
        except KeyboardInterrupt:
            assert killed_at is not None
    return model


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_killed_perception_goes_on_bit_for_bit(finished: Path, tmp_path: Path, precision: str) -> None:
    scenes = finished / "scenes" / "train"
    (tmp_path / "whole").mkdir()
    more = {"precision": precision, "shares": {"flat": 1.0, "drawn2": 1.0}}
    whole = perception_after(tmp_path / "whole", scenes, 4, **more)
    perception_after(tmp_path, scenes, 4, killed_at=2, **more)
    assert torch.load(tmp_path / "p.pt", weights_only=True)["step"] == 2
    resumed = perception_after(tmp_path, scenes, 4, **more)
    weights = whole.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in resumed.state_dict().items())
    perception_after(tmp_path, scenes, 4, killed_at=0, **more)  # finished is finished: nothing is computed


def test_minutes_are_the_schedule_where_no_steps_are_given(finished: Path, tmp_path: Path, monkeypatch) -> None:
    """As scripts call it: model, configuration, folders, checkpoint, minutes."""
    model = Perception(TINY)
    before = model.state_dict()["encoder.attributes.weight"].clone()
    steps = perception.train_perception(
        model, TINY, [finished / "scenes" / "train"], tmp_path / "p.pt", 0.002, learning_rate=1e-3, seed=8,
        shares={"flat": 0.5},
    )  # fmt: skip
    saved = torch.load(tmp_path / "p.pt", weights_only=True)
    assert saved["step"] == steps >= 1 and saved["seconds"] >= 0.12
    assert not torch.equal(before, model.state_dict()["encoder.attributes.weight"])


def test_a_picture_that_is_not_finite_is_named_with_its_shard(finished: Path, tmp_path: Path, monkeypatch) -> None:
    make_batch = perception.make_batch

    def broken(*words: object, **more: object) -> perception.PerceptionBatch:
        batch = make_batch(*words, **more)
        batch.images[0] = torch.nan
        return batch

    monkeypatch.setattr(perception, "make_batch", broken)
    with pytest.raises(TrainingStopped, match=r"perception step 1 is not finite .* (flat|drawn2)-0000 episode \d"):
        perception_after(tmp_path, finished / "scenes" / "train", 2)


def language_after(folder: Path, latents: LatentBank, steps: int, **more) -> dict[str, torch.Tensor]:
    model, tokenizer = tiny_model()
    language_stage.train_language(model, tokenizer, latents, folder / "l.pt", 1.0, 4, 2, steps=steps, **more)
    return model.state_dict()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_stopped_language_stage_goes_on_bit_for_bit(latents: LatentBank, tmp_path: Path, precision: str) -> None:
    (tmp_path / "whole").mkdir()
    whole = language_after(tmp_path / "whole", latents, 3, precision=precision)
    looks = iter([0.0, 0.0, 0.0, 60.0])
    stop = StopRequest(1.0, lambda: next(looks))
    with pytest.raises(TrainingPaused, match="language stopped at step 2"):
        language_after(tmp_path, latents, 3, precision=precision, running=Running(stop=stop))
    resumed = language_after(tmp_path, latents, 3, precision=precision)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_language_draws_by_share_and_says_where_from(finished: Path, latents: LatentBank, tmp_path: Path, monkeypatch):
    episodes = bank.EpisodeBank([finished / "scenes" / "train"])
    asked, losses = [], language_stage.language_losses

    def seen(model, placed, batch):
        asked.append(batch.rows)
        return losses(model, placed, batch) | ({"spoilt": torch.tensor(torch.nan)} if len(asked) == 3 else {})

    monkeypatch.setattr(language_stage, "language_losses", seen)
    with pytest.raises(TrainingStopped, match=r"language step 3 is not finite \(spoilt nan, .*drawn2-0000 episode \d"):
        language_after(tmp_path, latents, 4, shares={"drawn2": 1.0}, episodes=episodes)
    drawn2 = set(episodes.by_source()["drawn2"].tolist())
    assert {int(row) for rows in asked for row in rows} <= drawn2
    with pytest.raises(BadInput, match="shares of the sources need the episodes"):
        language_after(tmp_path, latents, 4, shares={"drawn2": 1.0})
    with pytest.raises(BadInput, match="7 encoded episodes do not belong to 3 episodes"):
        language_after(tmp_path, latents, 4, episodes=bank.EpisodeBank([finished / "scenes" / "val"]))


def test_every_tensor_of_both_stages_follows_the_device(finished: Path, latents: LatentBank) -> None:
    """With another default device, a tensor that is made without saying where does not go together with the others:
    what a GPU would say, without one."""
    model, tokenizer = tiny_model()
    batch = questions.make_batch(latents, tokenizer, TINY, np.random.default_rng(0), scenes=4, questions=4)
    episodes = list(bank.EpisodeBank([finished / "scenes" / "train"]))[:2]
    pictures = perception.make_batch(episodes, np.random.default_rng(0), TINY)
    cpu = torch.device("cpu")
    chance = {name: getattr(torch, name) for name in ("rand", "randn")}
    with pytest.MonkeyPatch.context() as patch, torch.device("meta"):
        for name, draw in chance.items():  # drawn on the CPU, also for a GPU
            patch.setattr(torch, name, lambda *size, draw=draw, **more: draw(*size, **{"device": "cpu"} | more))
        losses = language_losses.language_losses(model, latents.to(cpu), batch.to(cpu))
        losses |= perception.perception_losses(model.perception.train(), pictures.to(cpu))
    assert {loss.device for loss in losses.values()} == {cpu}


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
    whole = bank.EpisodeBank([finished / "scenes" / "train"])
    assert len(whole) == 7
    assert {name: len(rows) for name, rows in whole.by_source().items()} == {"flat": 5, "drawn2": 2}
    assert whole.by_source() is whole.by_source()  # asked for in every step
    assert [whole.place(row) for row in (0, 2)] == ["drawn2-0000 episode 0", "flat-0000 episode 0"]
    alone = bank.EpisodeBank([finished / "scenes" / "train" / "flat-0000"])  # a shard stands for itself
    assert len(alone) == 5 and alone.paths == whole.paths[1:]
    assert len(bank.EpisodeBank([tmp_path / "nothing"])) == 0


@pytest.mark.parametrize("name", ["images.npy", "instances.npy", "episodes.json"])
@pytest.mark.parametrize("keep", [0, 60, 4000])
def test_a_shard_that_was_cut_off_is_named_with_its_file(scenes: Path, name: str, keep: int) -> None:
    path = (scenes / "train" / "flat-0000") / name
    whole = path.read_bytes()
    path.write_bytes(whole[: min(keep, len(whole) - 2)])
    with pytest.raises(BadInput, match=f"{path.parent.name} are damaged: {name}.*delete this folder"):
        bank.EpisodeBank([scenes / "train"])


def test_a_shard_without_images_or_of_another_length_is_named(scenes: Path) -> None:
    shard = (scenes / "train" / "flat-0000")
    np.save(shard / "instances.npy", np.zeros((1, 6, 64, 64), np.uint8))
    with pytest.raises(BadInput, match=r"instances.npy: shape \(1, 6, 64, 64\) does not fit 5 episodes"):
        bank.EpisodeBank([scenes / "train"])
    (shard / "images.npy").unlink()
    with pytest.raises(BadInput, match="damaged: images.npy"):
        bank.EpisodeBank([scenes / "train"])


def test_an_unknown_source_is_refused() -> None:
    with pytest.raises(BadInput, match="one of flat, tabletop, drawn2, tabletop2; got 'photos'"):
        bank.episode_sampler("photos", 64, 64)
