"""The default recipe as a learner: new words, which latents a mask means, what learns, what is kept, what is saved."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from unit.films import Film, about
from unit.tiny_unified import TINY, tiny_checkpoint

import instructseg
from instructseg.core import BadInput
from instructseg.data.samples import Kind
from instructseg.modules.object_latents import GEOMETRY, ObjectLatents
from instructseg.recipes.unified.checkpoint import SHIPPED, load_checkpoint
from instructseg.recipes.unified.learner import Example, UnifiedLearner
from instructseg.recipes.unified.rehearsal import rehearsal_texts
from instructseg.recipes.unified.tokenizer import CONTROL, encode_words
from instructseg.recipes.unified.training import covering
from instructseg.recipes.unified.vocabulary import unknown_words
from instructseg.training.finetuning.configuration import DataKeys, RunConfig
from instructseg.training.finetuning.loop import Training
from instructseg.training.finetuning.mixture import source_of
from instructseg.training.finetuning.processes import Processes
from instructseg.training.finetuning.state import states_in
from instructseg.training.learner import LoraSettings, build_learner
from instructseg.training.merging import merged_state

UNKNOWN = CONTROL.index("<unk>")
WORDS = ("the red crate", "the Schäkel!", "the crate")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums of floats depend on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint")


def learner_of(checkpoint: Path, words: Sequence[str] = WORDS, **lora: float) -> UnifiedLearner:
    torch.manual_seed(0)  # a new LoRA begins at random
    learner = build_learner("unified", checkpoint, torch.device("cpu"), None, {}, LoraSettings(**lora))
    learner.meet(about(text) for text in words)
    return learner


def examples(learner: UnifiedLearner) -> list[Example]:
    """A clip with two questions, and an image with one about nothing in view."""
    film, still = Film("film"), Film("still", 1)
    together = [about("the red crate", film), about("the crate", film, (2,))]
    return [
        learner.example(together, random.Random(0)),
        learner.example([about("the red mug", still, ())], random.Random(1)),
    ]


def train_a_little(learner: UnifiedLearner, batch: list[Example]) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Eight steps on the same batch: the total loss of each, and all losses of the last."""
    learner.module.train()
    optimiser = torch.optim.AdamW([learner.module.get_parameter(name) for name in learner.trained], 3e-3)
    totals = []
    for _ in range(8):
        losses = learner.losses(batch)
        losses["total"].backward()
        optimiser.step()
        optimiser.zero_grad()
        totals.append(float(losses["total"].detach()))
    return totals, losses


# Words


def test_unknown_words_are_found_as_the_tokenizer_splits_them(base: Path) -> None:
    tokenizer = load_checkpoint(base)[1]
    texts = [*WORDS, "the red mug; crate?", "", "<TRK> zzz", "\x00 yyy"]  # what is no instruction teaches no words
    assert unknown_words(tokenizer, texts) == ("crate", "schäkel")
    assert unknown_words(tokenizer, ["the red mug"]) == ()


def test_new_words_are_saved_with_the_checkpoint_and_old_ones_stay(base: Path, tmp_path: Path) -> None:
    learner = learner_of(base)
    learner.save_merged(tmp_path / "grown")
    model, tokenizer, report = load_checkpoint(tmp_path / "grown")
    before, known, _ = load_checkpoint(base)
    size = known.get_vocab_size()
    assert report.missing == () and tokenizer.get_vocab_size() == size + 2
    assert encode_words(tokenizer, "the red crate", 9)[:2] == encode_words(known, "the red crate", 9)[:2]
    assert encode_words(tokenizer, "Crate SCHÄKEL thingummy", 9) == [size, size + 1, UNKNOWN]
    grown, old = model.language.embed_tokens.weight, before.language.embed_tokens.weight
    assert torch.equal(grown[:size], old) and not torch.allclose(grown[size], grown[size + 1])
    # Trained once more, it has nothing to learn anew.
    assert learner_of(tmp_path / "grown").words == ()


def test_weights_for_other_words_are_refused(base: Path, tmp_path: Path) -> None:
    learner_of(base).save_adapters(tmp_path)
    with pytest.raises(BadInput, match="belong to another model: words is"):
        learner_of(base, ["the barrel", "the drum"]).load_adapters(tmp_path)


# What a mask means


def latents() -> ObjectLatents:
    """Three things of 4 x 4 cells in a picture of 16 x 32 pixels; the third slot is empty, the fourth a thing again."""
    masks = torch.zeros(1, 4, 8, 16, dtype=torch.bool)
    for slot, left in ((0, 0), (1, 5), (3, 10)):
        masks[0, slot, 2:6, left : left + 4] = True
    valid = torch.tensor([[True, True, False, True]])
    return ObjectLatents(masks, torch.zeros(1, 4, GEOMETRY), torch.zeros(1, 4, 3), valid.float(), valid)


def mask_of(*columns: tuple[int, int]) -> np.ndarray:
    mask = np.zeros((16, 32), bool)
    for first, last in columns:
        mask[4:12, first:last] = True
    return mask


@pytest.mark.parametrize(
    ("masks", "whole_class", "chosen", "complete"),
    [
        ([mask_of((0, 8))], False, [0], True),
        ([mask_of((0, 8)), mask_of((20, 28))], False, [0, 3], True),
        ([mask_of((0, 8)), mask_of()], False, [0], True),  # one of two is out of view
        ([mask_of((0, 3))], False, [], False),  # IoU below one half: nothing that was found is it
        ([mask_of((0, 8), (20, 28))], False, [], False),  # one mask over two things is neither
        ([mask_of((0, 8), (20, 28))], True, [0, 3], True),  # but the class of both
        ([mask_of((0, 8), (14, 18))], True, [0], True),  # less than half of a thing is not in it
        ([mask_of()], False, [], True),
        ([], True, [], True),
    ],
)
def test_which_latents_a_mask_is(masks, whole_class: bool, chosen: list[int], complete: bool) -> None:
    stacked = np.stack(masks) if masks else np.zeros((0, 16, 32), bool)
    found, covered = covering(latents(), stacked, whole_class)
    assert (torch.nonzero(found)[:, 0].tolist(), covered) == (chosen, complete)


# Examples


def test_an_example_shows_the_clip_before_its_key_frame_and_a_later_frame(base: Path) -> None:
    learner = learner_of(base)
    example, still = examples(learner)
    assert example.frames.shape[1:] == (64, 64, 3) and len(example.seconds) == len(example.frames) - 2
    assert list(example.seconds) == sorted(example.seconds, reverse=True) and 0 < example.seconds[0] <= 1.5
    shown = [int(frame[32, 32, 2]) for frame in example.frames]  # blue is 8 times the frame's number
    assert shown == sorted(set(shown))
    assert [len(ids) for ids in example.words] == [3, 2] and [m.shape for m in example.masks] == [(1, 64, 64)] * 2
    assert example.masks[0].any() and not (example.masks[0] & example.masks[1]).any()
    assert len(still.frames) == 2 and still.seconds == () and still.masks[0].shape == (0, 64, 64)
    assert (still.frames[0] == still.frames[1]).all(), "an image is its own later frame"


def test_a_class_is_a_class_and_what_has_no_words_or_truth_is_never_drawn(base: Path) -> None:
    learner = learner_of(base)
    example = learner.example([about("crate", kind=Kind.SEMANTIC)], random.Random(0))
    assert example.whole_class == (True,)
    assert learner.takes(about("crate")) and not learner.takes(about(" "))
    assert not learner.takes(about("the crate", kind=Kind.FIRST_FRAME))


def test_what_cannot_be_said_is_named_once_and_never_drawn(base: Path, caplog: pytest.LogCaptureFixture) -> None:
    learner, long = learner_of(base, []), about("crate " * 41)
    learner.meet([long, about("the barrel")])
    assert learner.words == ("barrel",) and not learner.takes(long) and not learner.takes(about("[REJ] it"))
    assert [record.getMessage() for record in caplog.records if "left out" in record.getMessage()] == [
        f"sample left out: sample {long.id}: an instruction for this recipe may have at most 40 words; got 41: say it "
        "shorter"
    ]


@pytest.mark.parametrize(
    ("words", "film", "truth", "said"),
    [
        ("crate " * 41, None, {}, "at most 40 words; got 41"),
        ("<TRK> the crate", None, {}, "may not contain the model's special tokens"),
        ("the crate", None, {"annotated": ()}, "no frame with an annotation was found in film"),
        ("the crate", None, {"size": (7, 9)}, "pixels, its mask 9 x 7"),
        ("the crate", Film("torn", 6, dict.fromkeys(range(0, 6, 2), (8, 8))), {}, "of torn is"),
    ],
)
def test_a_sample_that_cannot_be_used_is_named(base: Path, words: str, film, truth, said: str) -> None:
    sample = about(words, film, truth=truth)
    with pytest.raises(BadInput, match=said) as caught:
        learner_of(base).example([sample], random.Random(1))
    assert sample.id in str(caught.value)


def test_an_empty_video_is_named(base: Path) -> None:
    sample = dataclasses.replace(about("the crate"), footage=Film("empty", 0))
    with pytest.raises(BadInput, match="sample film/the crate: the video empty has no frame"):
        learner_of(base).example([sample], random.Random(0))


# Learning


def test_it_learns_what_trains_and_what_it_saves_is_what_it_learned(base: Path, tmp_path: Path) -> None:
    learner = learner_of(base)
    module, batch = learner.module, examples(learner)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    totals, _ = train_a_little(learner, batch)
    assert totals[-1] < 0.8 * totals[0], totals
    assert not any(name.startswith(("perception.", "perceiver.", "concepts.")) for name in learner.trained)
    moved = {name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved <= set(learner.trained), "perception, its batch norm and the known words stay as they are"
    for part in (".lora_B.", "head.", "answer.", "embed_tokens.new_"):
        assert any(part in name for name in moved), part

    learner.save_adapters(tmp_path / "adapters")
    learner.save_merged(tmp_path / "merged")
    again = learner_of(base)
    again.load_adapters(tmp_path / "adapters")
    truth, found = learner.losses(batch), again.losses(batch)
    assert all(torch.equal(found[name], truth[name]) for name in truth)
    merged = learner_of(tmp_path / "merged").losses(batch)
    for name in ("answer", "target", "match", "presence", "later"):  # it has forgotten nothing of what it is now
        torch.testing.assert_close(merged[name], truth[name], rtol=1e-4, atol=1e-5)
    used = instructseg.load("unified", tmp_path / "merged", device="cpu").model.state_dict()
    for name, tensor in merged_state(module).items():
        if "embed_tokens" not in name:
            torch.testing.assert_close(used[name], tensor, rtol=1e-6, atol=1e-7)
    with pytest.raises(BadInput, match="lora_rank is 16 there and 2 here"):
        learner_of(base, rank=2).load_adapters(tmp_path / "adapters")


def test_forgetting_is_nothing_before_training_and_counts_what_changed(base: Path) -> None:
    learner = learner_of(base)
    batch = examples(learner)
    assert float(learner.losses(batch)["forgetting"].detach()) == pytest.approx(0.0, abs=1e-6)
    with torch.no_grad():
        learner.module.answer.bias[1] += 2.0  # more refusals
    changed = learner.losses(batch)
    assert float(changed["forgetting"].detach()) > 0.01
    parts = sum(float(loss.detach()) for name, loss in changed.items() if name != "total")
    assert float(changed["total"].detach()) == pytest.approx(parts)
    assert len(rehearsal_texts()) > 500 and len(batch[0].rehearsed) == 8


def test_questions_of_both_versions_are_rehearsed() -> None:
    said = " ".join(rehearsal_texts())
    for words in ("turquoise", "second", "was left of", "that is not", "between", "banana", "inside"):
        assert words in said, words


def test_rehearsed_questions_are_said_in_ids_that_the_model_of_before_has(base: Path) -> None:
    """New words of the data that old questions have as well were unknown words then."""
    learner = learner_of(base, ["the banana", "the carton that was pushed"])
    size = load_checkpoint(base)[1].get_vocab_size()
    assert learner.tokenizer.get_vocab_size() > size
    assert max(i for ids in learner._rehearsed() for i in ids) < size


def test_a_model_that_reads_few_words_rehearses_short_questions(tmp_path: Path) -> None:
    short = tiny_checkpoint(tmp_path / "short", dataclasses.replace(TINY, max_words=9))
    learner = learner_of(short)
    assert len(learner._rehearsed()) > 100 and max(map(len, learner._rehearsed())) <= 9
    assert len(examples(learner)[0].rehearsed) == 8


def test_weights_that_are_not_finite_are_not_saved(base: Path, tmp_path: Path) -> None:
    learner = learner_of(base)
    with torch.no_grad():
        learner.module.answer.bias[0] = torch.nan
    with pytest.raises(BadInput, match="answer.bias holds values that are not finite"):
        learner.save_merged(tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_the_shipped_checkpoint_has_a_name_and_options_are_refused() -> None:
    device, lora = torch.device("cpu"), LoraSettings()
    learner = build_learner("unified", "shipped", device, None, {}, lora)
    own = build_learner("unified", SHIPPED, device, torch.bfloat16, {}, lora)
    assert learner.belongs_to == own.belongs_to
    assert {parameter.dtype for parameter in own.module.parameters()} == {torch.float32}
    with pytest.raises(BadInput, match="gradient_checkpointing must be false"):
        learner.keep_fewer_activations()
    with pytest.raises(BadInput, match="speed"):
        build_learner("unified", "shipped", device, None, {"speed": "9"}, lora)


class Films(list):
    name, split = "films", "train"


def run(base: Path, out: Path, resume: bool = False) -> Training:
    """Four steps on three videos, one of which cannot be used; a state after each two."""
    films = [Film("one"), Film("two", 7), Film("torn", 6, dict.fromkeys(range(0, 6, 2), (8, 8)))]
    data = Films(about(words, film) for film in films for words in ("the red crate", "the crate"))
    config = RunConfig(
        "unified", str(base), (DataKeys("films", Path("."), "train", 1.0),), batch=2, accumulation=2, steps=4,
        learning_rate=1e-3, save_every=2, workers=0, device="cpu",
    )  # fmt: skip
    learner = learner_of(base, dropout=0.1)
    source = source_of(data, 1.0, learner.scene_of, learner.takes)
    return Training(learner, [source], config, Processes("none", "cpu"), out, resume)


def test_a_resumed_run_is_the_uninterrupted_one(base: Path, tmp_path: Path) -> None:
    whole = run(base, tmp_path / "whole")
    assert whole.train() and whole.run.failures > 0, "frames of another size make a video unusable"
    (tmp_path / "broken" / "states").mkdir(parents=True)
    first, last = states_in(tmp_path / "whole" / "states")
    (tmp_path / "broken" / "states" / first.name).symlink_to(first)
    again = run(base, tmp_path / "broken", resume=True)
    assert again.run.steps == 2 and again.train()
    for file in ("trained.safetensors", "optimiser.safetensors"):
        expected, found = load_file(last / file), load_file(tmp_path / "broken" / "states" / last.name / file)
        assert expected.keys() == found.keys()
        assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
