"""GSVA, LISA and MLLMSeg as learners: what an example holds, what learns, and that this is what is saved."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from unit import tiny_gsva, tiny_mllmseg
from unit.toy_learning import Picture as ToyPicture
from unit.toy_learning import Squares, SquareTruth

import instructseg
from instructseg.core import BadInput
from instructseg.data.samples import Kind, Sample, Truth
from instructseg.registry import RECIPES as REGISTERED
from instructseg.training.image_samples import has_words, read_picture
from instructseg.training.learner import Learner, LoraSettings, build_learner
from instructseg.training.merging import merged_state

SIZE = (40, 56)
RECIPES = ("gsva", "lisa", "mllmseg-internlm2", "mllmseg-qwen2")


def tiny(kind: str, folder: Path) -> tuple[str, dict[str, str]]:
    """A miniature checkpoint in ``folder``: (recipe, options)."""
    recipe, _, family = kind.partition("-")
    folder.mkdir(parents=True)
    if recipe == "mllmseg":
        tiny_mllmseg.tiny_checkpoint(folder, family, lora=family == "qwen2")
        return recipe, {}
    make = {"gsva": tiny_gsva.tiny_checkpoint, "lisa": tiny_gsva.tiny_lisa_checkpoint}[recipe]
    return recipe, tiny_gsva.tiny_options(make(folder))


def learner_of(kind: str, folder: Path, dtype: torch.dtype | None = torch.float32, **lora: Any) -> Learner:
    if not folder.exists():
        tiny(kind, folder)
    recipe = kind.partition("-")[0]
    options = {} if recipe == "mllmseg" else tiny_gsva.tiny_options(folder)
    torch.manual_seed(0)  # a new LoRA begins at random
    return build_learner(recipe, folder, torch.device("cpu"), dtype, options, LoraSettings(**lora))


def examples(learner: Learner, count: int = 2, absent: Sequence[int] = ()) -> list[Any]:
    """One a picture, over up to three samples of it."""
    data = Squares(count, absent=absent, each=3, size=SIZE)
    return [learner.example(data.samples[3 * i : 3 * i + 3], random.Random(i)) for i in range(count)]


def sample(words: str, absent: bool = False, **more: Any) -> Sample:
    objects = () if absent else ("1",)
    return Sample(words, ToyPicture("one", SIZE), words, objects, SquareTruth("one", SIZE, len(objects)), **more)


@pytest.mark.parametrize("kind", RECIPES)
def test_it_learns_what_trains_and_what_it_saves_is_what_it_learned(kind: str, tmp_path: Path) -> None:
    learner = learner_of(kind, tmp_path / "base", dropout=0.0)
    model = learner.module.train()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimiser = torch.optim.AdamW([model.get_parameter(name) for name in learner.trained], 3e-3)
    batch, totals = examples(learner), []
    for _ in range(6):
        losses = learner.losses(batch)
        losses["total"].backward()
        assert {name for name, p in model.named_parameters() if p.grad is not None} <= set(learner.trained)
        optimiser.step()
        optimiser.zero_grad()
        totals.append(float(losses["total"].detach()))
    assert totals[-1] < totals[0] - 0.3, totals
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved <= set(learner.trained) and any(".lora_B." in name for name in moved)

    learner.save_adapters(tmp_path / "adapters")
    learner.save_merged(tmp_path / "merged")
    again = learner_of(kind, tmp_path / "base", dropout=0.0)
    again.load_adapters(tmp_path / "adapters")
    model.eval(), again.module.eval()
    with torch.no_grad():
        truth, found = learner.losses(batch), again.losses(batch)
    assert all(torch.equal(found[name], truth[name]) for name in truth)

    recipe, options = kind.partition("-")[0], {} if "mllmseg" in kind else tiny_gsva.tiny_options(tmp_path / "base")
    used = instructseg.load(recipe, tmp_path / "merged", device="cpu", options=options).model.state_dict()
    expected = merged_state(model)
    assert used.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(used[name], tensor, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", RECIPES)
def test_adapters_of_another_model_are_refused(kind: str, tmp_path: Path) -> None:
    learner = learner_of(kind, tmp_path / "base", rank=2)
    learner.save_adapters(tmp_path / "adapters")
    weights = {name: tensor.clone() for name, tensor in learner.module.state_dict().items()}
    with pytest.raises(BadInput, match=r"belong to another model: lora_(rank|alpha) is .* there and .* here"):
        learner_of(kind, tmp_path / "base", rank=3).load_adapters(tmp_path / "adapters")
    frozen = next(p for n, p in learner.module.named_parameters() if n not in learner.trained)
    frozen.data += 1
    other = learner_of(kind, tmp_path / "base", rank=2)
    other.belongs_to |= {"frozen": "of another checkpoint"}
    with pytest.raises(BadInput, match="belong to another model: frozen is"):
        other.load_adapters(tmp_path / "adapters")
    (tmp_path / "adapters" / "adapters.safetensors").write_bytes(b"half a file")
    with pytest.raises(BadInput, match="adapters.safetensors cannot be read"):
        learner.load_adapters(tmp_path / "adapters")
    (tmp_path / "adapters" / "adapters.json").write_text("[]")
    with pytest.raises(BadInput, match="must hold a table 'belongs_to'"):
        learner.load_adapters(tmp_path / "adapters")
    frozen.data -= 1
    assert all(torch.equal(t, weights[n]) for n, t in learner.module.state_dict().items() if "lora_" in n)


def test_gsva_asks_about_several_things_at_once_and_rejects_the_absent(tmp_path: Path) -> None:
    learner = learner_of("gsva", tmp_path / "base")
    asked = [sample("the Red mug"), sample("a zebra", absent=True), sample("the ball.")]
    example = learner.example(asked, random.Random(0))
    words = learner.vocabulary
    ((ids, labels),) = example.rows
    assert [int(i) for i in ids if i in words.slot_tokens] == [words.seg, words.rej, words.seg]
    assert [bool(mask.any()) for mask in example.masks] == [True, False, True]
    assert set(labels[labels != -100].tolist()) >= {words.seg, words.rej, words.eos}
    reasoning = [sample("what holds tea?", is_sentence=True), sample("a zebra?", absent=True, is_sentence=True)]
    several = learner.example([*reasoning, asked[0]], random.Random(0))
    assert [[int(i) for i in ids if i in words.slot_tokens] for ids, _ in several.rows] == [[words.seg], [words.rej]]


def test_lisa_gets_a_conversation_for_each_thing_and_nothing_absent(tmp_path: Path) -> None:
    learner = learner_of("lisa", tmp_path / "base")
    asked = [sample("the red mug"), sample("the ball")]
    example = learner.example(asked, random.Random(0))
    assert [int((ids == learner.vocabulary.seg).sum()) for ids, _ in example.rows] == [1, 1] and len(example.masks) == 2
    assert learner.takes(asked[0]) and not learner.takes(sample("a zebra", absent=True))


def test_an_explanation_is_asked_for_and_given_now_and_then(tmp_path: Path) -> None:
    """In one sample of ten it is the whole answer, and nothing is segmented."""
    learner = learner_of("gsva", tmp_path / "base")
    explained = sample("what holds tea?", kind=Kind.REASONING, extra={"explanation": "a mug", "texts": ["what is it?"]})
    made = [learner.example([explained], random.Random(i)) for i in range(40)]
    alone = [example for example in made if not len(example.masks)]
    longer = [example for example in made if len(example.masks) and len(example.rows[0][0]) > 100]
    assert 0 < len(alone) < 12 and longer
    assert learner.losses([alone[0]])["bce"] == 0 and float(learner.losses([alone[0]])["text"].detach()) > 0


def test_mllmseg_asks_about_several_things_at_once(tmp_path: Path) -> None:
    learner = learner_of("mllmseg-internlm2", tmp_path / "base")
    example = learner.example([sample("the red mug"), sample("a zebra", absent=True)], random.Random(3))
    slots = [i for i in example.conversation.ids if i in (learner.tokenizer.seg, learner.tokenizer.rej)]
    assert slots == [learner.tokenizer.seg, learner.tokenizer.rej] and len(example.masks) == 2
    same, other = (learner.example([sample("the red mug")], random.Random(seed)) for seed in (3, 4))
    assert torch.equal(same.pixels, example.pixels) and not torch.equal(other.pixels, example.pixels), "another JPEG"


@pytest.mark.parametrize("kind", ["gsva", "lisa", "mllmseg-qwen2"])
def test_a_token_of_the_model_in_a_samples_words_makes_it_unusable(kind: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"sample a \[SEG\] mug: .*2 slots for 1"):
        learner_of(kind, tmp_path / "base").example([sample("a [SEG] mug", is_sentence=True)], random.Random(0))


def test_an_answer_that_would_be_cut_off_makes_a_sample_unusable(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="a slot of the answer would be cut off"):
        learner_of("lisa", tmp_path / "base").example([sample("very " * 400 + "red mug")], random.Random(0))


def test_activations_computed_twice_give_the_same_gradients(tmp_path: Path) -> None:
    gradients = []
    for twice in (False, True):
        learner = learner_of("gsva", tmp_path / "base", dropout=0.0)
        if twice:
            learner.keep_fewer_activations()
            calls = []
            layer = learner.module.llm.model.layers[0].mlp
            layer.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        learner.module.train()
        learner.losses(examples(learner))["total"].backward()
        gradients.append({n: learner.module.get_parameter(n).grad for n in learner.trained if ".lora_B." in n})
    assert len(calls) == 2, "forward, and once more in the backward pass"
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


@pytest.mark.parametrize("kind", ["gsva", "mllmseg-internlm2"])
def test_bf16_keeps_what_trains_in_float32_and_comes_near_float32(kind: str, tmp_path: Path) -> None:
    full = learner_of(kind, tmp_path / "base", dropout=0.0)
    half = learner_of(kind, tmp_path / "base", dtype=torch.bfloat16, dropout=0.0)
    kinds = {p.dtype for n, p in half.module.named_parameters() if n not in half.trained}
    assert kinds == {torch.bfloat16} and half.belongs_to == full.belongs_to
    assert {half.module.get_parameter(n).dtype for n in half.trained} == {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        rough = half.losses(examples(half))
    rough["total"].backward()
    assert float(rough["total"].detach()) == pytest.approx(
        float(full.losses(examples(full))["total"].detach()), rel=0.05
    )


def test_a_merged_lora_of_another_rank_changes_nothing_at_first(tmp_path: Path) -> None:
    """GSVA's own is trained further where no rank is asked for."""
    own, new = (learner_of("gsva", tmp_path / "base", **lora).module.eval() for lora in ({}, {"rank": 5}))
    first, second = merged_state(own), merged_state(new)
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=1e-5, atol=1e-6)
    shapes = {tuple(p.shape) for n, p in new.named_parameters() if ".lora_A." in n}
    assert shapes == {(5, 32)} and {p.shape[0] for n, p in own.named_parameters() if ".lora_A." in n} == {2}


def test_of_a_video_a_frame_with_an_annotation_is_shown() -> None:
    class Film(ToyPicture):
        def __init__(self) -> None:
            super().__init__("film", SIZE)
            self.frames = tuple(map(str, range(6)))

    class Third(SquareTruth):
        def __call__(self, index: int) -> Truth | None:
            return super().__call__(index) if index == 2 else None

    film = Sample("film/0", Film(), "the mug", ("1",), Third("film", SIZE))
    assert read_picture([film], random.Random(0)).masks.shape == (1, *SIZE)
    nowhere = Sample("film/1", Film(), "the mug", ("1",), SquareTruth("film", SIZE, 0))
    with pytest.raises(BadInput, match="sample film/1: no frame on which something is seen was found in film"):
        read_picture([nowhere], random.Random(0), needs_present=True)
    torn = Sample("torn", ToyPicture("torn", SIZE), "the mug", ("1",), SquareTruth("torn", (8, 8)))
    with pytest.raises(BadInput, match="sample torn: the mask is 8 x 8 pixels, the image 56 x 40"):
        read_picture([torn], random.Random(0))


def test_samples_without_words_or_public_truth_are_not_drawn() -> None:
    assert has_words(sample("the mug"))
    assert not has_words(sample(" ")) and not has_words(sample("the mug", kind=Kind.FIRST_FRAME))
    assert not has_words(Sample("hidden", ToyPicture("one", SIZE), "the mug", ("1",), None))


def test_a_recipe_without_a_learner_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REGISTERED, "bare", dataclasses.replace(REGISTERED["gsva"], module="instructseg.recipes.bare"))
    for recipe, said in (("bare", "recipe 'bare' has no learner"), ("sam", "recipe must be one of bare, gsva")):
        with pytest.raises(BadInput, match=said):
            build_learner(recipe, "", torch.device("cpu"), None, {}, LoraSettings())
