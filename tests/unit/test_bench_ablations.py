"""The ablations' variants leave out what they say, begin alike, and are compared question by question."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from unit.tiny_unified import TINY, tiny_checkpoint, tiny_model

from bench import __main__ as command
from bench import ablated_models, ablations
from bench.ablated_models import ABLATIONS, WHOLE
from bench.ablations import Judged, Outcome
from bench.options import MeasurementFailed, Options
from instructseg.modules.object_latents import ObjectLatents
from instructseg.training.bank import CLIP_TIMES, KEY, EpisodeBank, generate_shard
from instructseg.training.language_losses import language_losses
from instructseg.training.latent_bank import LatentBank, encode_bank
from instructseg.training.questions import make_batch


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    for split, count in (("train", 4), ("val", 3)):
        generate_shard(folder / split / "flat-0000", "flat", split, 0, count, *TINY.image_size)
    return folder


def encoded(scenes: Path, split: str) -> LatentBank:
    """Scenes as a random model sees them, whose slots cover the things in their order."""
    bank = encode_bank(tiny_model()[0].perception, EpisodeBank([scenes / split]))
    bank.ids = torch.zeros_like(bank.ids)
    for row, facts in enumerate(bank.facts):
        for slot, thing in enumerate(facts.objects[: TINY.slots]):
            bank.ids[row, :, slot] = thing.id * bank.valid[row, :, slot]
    return bank


@pytest.fixture(scope="module")
def latents(scenes: Path) -> LatentBank:
    return encoded(scenes, "train")


def variant(kind: type) -> ablated_models.UnifiedModel:
    torch.manual_seed(1)
    return kind(TINY, tiny_model()[0].language.embed_tokens.num_embeddings).eval()


def inputs() -> tuple[torch.Tensor, ...]:
    """Visual tokens of two scenes (one with an empty slot), words of three instructions of different length."""
    torch.manual_seed(2)
    valid = torch.tensor([[True, True, True, True], [True, True, False, True]])
    words = torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0], [5, 11, 12, 0]])
    return torch.randn(2, 4, TINY.hidden), valid, words, torch.tensor([0, 1, 1])


@torch.inference_mode()
def test_one_sequence_reasons_as_the_shared_prefix_does() -> None:
    _, valid, words, scene = inputs()
    whole, ours = (variant(kind).reason(*inputs()) for kind in (WHOLE.model, ablated_models.InOneSequence))
    torch.testing.assert_close(ours.states, whole.states)
    torch.testing.assert_close(ours.answers, whole.answers)
    torch.testing.assert_close(ours.words[words > 0], whole.words[words > 0])
    torch.testing.assert_close(ours.context[valid[scene]], whole.context[valid[scene]])


@torch.inference_mode()
def test_words_without_fusion_do_not_see_the_latents() -> None:
    visual, valid, words, scene = inputs()
    for kind, sees in ((ablated_models.InOneSequence, True), (ablated_models.WithoutFusion, False)):
        model = variant(kind)
        one, other = (model.reason(picture, valid, words, scene) for picture in (visual, visual + 1))
        assert torch.allclose(one.words[words > 0], other.words[words > 0]) != sees
        assert not torch.allclose(one.states, other.states)


@torch.inference_mode()
def test_text_first_latents_see_the_words() -> None:
    visual, valid, words, scene = inputs()
    for kind, sees in ((ablated_models.WithoutFusion, False), (ablated_models.TextFirst, True)):
        model = variant(kind)
        one = model.reason(visual, valid, words, scene)
        other = model.reason(visual, valid, torch.where(words > 0, 13, 0), scene)
        assert torch.allclose(one.context, other.context) != sees
        again = model.reason(visual, valid, torch.nn.functional.pad(words, (0, 2)), scene)
        torch.testing.assert_close(again.states, one.states)  # padding changes nothing


@torch.inference_mode()
def test_each_perceiver_leaves_its_part_of_the_past_out(latents: LatentBank) -> None:
    rows = torch.arange(3)
    key, past = latents.frames(rows, KEY), [latents.frames(rows, t) for t in range(KEY)]
    seconds = torch.tensor([CLIP_TIMES[KEY] - t for t in CLIP_TIMES[:KEY]]).expand(3, -1)
    moved = [ObjectLatents(f.masks, f.geometry.flip(1), f.appearance.flip(1), f.score, f.valid) for f in past]
    moved = [f if bool(f.valid.all()) else p for f, p in zip(moved, past, strict=True)]
    assert any(f is not p for f, p in zip(moved, past, strict=True))
    perceivers = {a.name: variant(a.model).perceiver for a in (WHOLE, *ABLATIONS)}

    def codes(name: str, frames: list[ObjectLatents]) -> torch.Tensor:
        return perceivers[name](key, frames, seconds)

    assert not torch.allclose(codes("whole", past), codes("whole", past[:1] * 3))
    torch.testing.assert_close(codes("clip", past), perceivers["whole"](key, [], seconds[:, :0]))
    assert not codes("motion", past).any()
    assert codes("objects", past).any() and not torch.allclose(codes("objects", past), codes("whole", past))
    torch.testing.assert_close(codes("objects", moved), codes("objects", past))  # which latent was where does not count
    torch.testing.assert_close(codes("fusion", past), codes("whole", past))


@torch.inference_mode()
def test_without_the_reject_head_presence_is_what_was_said(latents: LatentBank) -> None:
    batch = make_batch(latents, tiny_model()[1], TINY, np.random.default_rng(0), 2, 3)
    whole, ours = (
        ablations.think(variant(kind), latents, batch) for kind in (WHOLE.model, ablated_models.WithoutRejectHead)
    )
    said = (whole.reasoning.answers[..., 0] - whole.reasoning.answers[..., 1]).flatten()
    torch.testing.assert_close(ours.scores.presence, said)
    torch.testing.assert_close(ours.scores.target, whole.scores.target)
    assert not torch.allclose(whole.scores.presence, said)


def test_all_begin_alike_with_the_perception_that_is_there() -> None:
    shipped, _ = tiny_model()
    first, *others = (ablations.build(ablation, shipped, 3).state_dict() for ablation in (WHOLE, *ABLATIONS))
    for other in others:
        torch.testing.assert_close(other, first, rtol=0, atol=0)
    for name, weight in shipped.perception.state_dict().items():
        assert torch.equal(first[f"perception.{name}"], weight)


def test_training_is_repeatable_and_resumes(latents: LatentBank, tmp_path: Path) -> None:
    shipped, tokenizer = tiny_model()

    def trained(state: str) -> dict[str, torch.Tensor]:
        model = ablations.build(WHOLE, shipped, 0)
        losses, seconds = ablations.train(model, tokenizer, latents, 2, 0, tmp_path / state)
        assert seconds > 0 and {"target", "concepts"} <= set(losses)
        return model.state_dict()

    weights, again, read = trained("one"), trained("other"), trained("one")
    torch.testing.assert_close(again, weights, rtol=0, atol=0)
    torch.testing.assert_close(read, weights, rtol=0, atol=0)
    for name, weight in shipped.perception.state_dict().items():
        assert torch.equal(weights[f"perception.{name}"], weight)


def test_concepts_without_supervision_learn_from_answers_alone(latents: LatentBank) -> None:
    batch = make_batch(latents, tiny_model()[1], TINY, np.random.default_rng(0), 3, 6)
    ours, whole = (variant(kind).train() for kind in (ABLATIONS[-1].model, WHOLE.model))
    losses = {}
    for model in (ours, whole):
        torch.manual_seed(4)
        losses[model] = language_losses(model, latents, batch)
    for name, loss in losses[whole].items():
        torch.testing.assert_close(losses[ours][name], loss)
    assert losses[whole]["concepts"].requires_grad and not losses[ours]["concepts"].requires_grad
    losses[ours]["target"].backward()
    assert all(p.grad.any() for p in (ours.concepts.relations.weight, ours.head.choose.weight))
    assert losses[whole]["choice"].requires_grad and not losses[ours]["choice"].requires_grad


def outcome(ablation: ablated_models.Ablation, right: list[bool]) -> Outcome:
    kinds = ["use", "use", "motion", "rejected"]
    return Outcome(ablation, [[Judged(k, i // 2, r) for i, (k, r) in enumerate(zip(kinds, right, strict=True))]])


def test_differences_are_those_of_the_same_questions() -> None:
    whole, other = outcome(WHOLE, [True, True, True, False]), outcome(ABLATIONS[0], [True, False, True, True])
    assert ablations.kinds_of([whole, other]) == ["motion", "use", "all", "rejected"]
    assert ablations.difference(whole, other, "use").value == -0.5
    assert ablations.difference(whole, other, "all").value == pytest.approx(-1 / 3, abs=1e-3)
    assert ablations.difference(whole, other, "rejected").value == 1.0
    head, *lines = ablations.rows([whole, other])
    assert head.split() == ["without", "nothing", "clip"]
    assert [line.split()[:3] for line in lines] == [
        ["motion", "1.000", "+0.000"], ["use", "1.000", "-0.500"], ["all", "1.000", "-0.333"],
        ["rejected", "0.000", "+1.000"],
    ]  # fmt: skip
    assert lines[2].endswith("-0.333 [-0.50,+0.00]")


def test_the_command_writes_every_variant_beside_the_whole(scenes: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "latents").mkdir()
    for split in ("train", "val"):
        bank = vars(encoded(scenes, split))
        torch.save({name: bank[name] for name in bank if torch.is_tensor(bank[name])}, tmp_path / f"latents/{split}.pt")
    words = ["ablations", "--quick", "--steps", "1", "--without", "reject,layout", "--scenes", str(scenes)]
    words += ["--checkpoint", str(tiny_checkpoint(tmp_path / "tiny")), "--out", str(tmp_path / "out")]
    assert command.main([*words, "--latents", str(tmp_path / "latents")]) == 0
    assert "without" in capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "ablations.json").read_text())
    details = report["details"]
    assert [v["name"] for v in details["variants"]] == ["whole", "reject", "layout"]
    assert (details["steps"], details["training scenes"], details["validation scenes"]) == (1, 4, 3)
    names = {f["name"] for f in report["figures"]}
    assert {"whole: all", "reject: rejected", "layout: kept", "a second encoder: parameters"} <= names
    assert not list((tmp_path / "out").rglob("*.pt"))
    assert details["variants"][1]["difference"].keys() == details["variants"][0]["right"].keys()


def test_scenes_are_drawn_and_encoded_once_where_none_are_given(tmp_path: Path) -> None:
    options = Options(True, out=tmp_path, latents=str(tmp_path / "kept"))
    for times in range(2):
        bank = ablations._encoded(dataclasses.replace(options, episodes=times * 4), tiny_model()[0], "train")
        assert len(bank) == (4 if times else ablations.QUICK_DRAWN["train"])
    assert [p.name for p in (tmp_path / "kept").iterdir()] == ["train.pt"]


def test_what_cannot_be_measured_is_said(scenes: Path, tmp_path: Path, capsys) -> None:
    with pytest.raises(MeasurementFailed, match="--without colour: there are clip, motion"):
        ablations.chosen_ablations("clip,colour")
    tiny = str(tiny_checkpoint(tmp_path / "tiny"))
    assert command.main(["ablations", "--checkpoint", tiny, "--scenes", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert f"no finished scenes in {tmp_path / 'train'}" in capsys.readouterr().err
    assert command.main(["ablations", "--checkpoint", tiny, "--scenes", str(scenes), "--out", str(tmp_path)]) == 2
    assert "no latent covers any target" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command.parse(["ablations", "--seeds", "0"])
