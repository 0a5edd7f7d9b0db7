"""GSVA and LISA through the Segmenter interface, at tiny random size."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from unit.tiny_gsva import tiny_checkpoint, tiny_lisa_checkpoint, tiny_options
from unit.tiny_unified import noise_frame

import instructseg
from instructseg import cli
from instructseg.core import BadInput, Clip, Grounding, Instruction
from instructseg.recipes.gsva import processing
from instructseg.recipes.gsva.decoding import (
    Answer,
    ImagePrefix,
    Slot,
    forced_slots,
    free_answer,
    image_prefix_ids,
)
from instructseg.recipes.gsva.processing import GsvaSegmenter
from instructseg.recipes.token_prompted import PromptToken

PAIR = "the red mug and the blue plate"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        "gsva": tiny_checkpoint(tmp_path_factory.mktemp("gsva")),
        "lisa": tiny_lisa_checkpoint(tmp_path_factory.mktemp("lisa")),
    }


@pytest.fixture
def load(folders: dict[str, Path]):
    def build(name: str = "gsva", dtype: str = "float32", **options: str) -> GsvaSegmenter:
        chosen = tiny_options(folders[name]) | options
        return instructseg.load(name, folders[name], device="cpu", dtype=dtype, options=chosen)

    return build


def ground(segmenter: GsvaSegmenter, *texts: str) -> list[Grounding]:
    clip = Clip(tuple(segmenter.encode([noise_frame(48, 80)])))
    return segmenter.ground(clip, [Instruction(f"i{n}", text) for n, text in enumerate(texts)])


# Grounding


def test_each_phrase_gets_one_verdict_in_order(load) -> None:
    (grounding,) = ground(load(reject_threshold="0.5"), "segment the red mug, the blue plate and the box")
    assert [t.phrase for t in grounding.targets] == ["the red mug", "the blue plate", "the box"]
    for target in grounding.targets:
        assert target.score == pytest.approx(1 - target.rejection_score)
        assert target.rejected == (target.rejection_score >= 0.5) == (target.token is None)
    said = ["[REJ]" if t.rejected else "[SEG]" for t in grounding.targets]
    assert grounding.text == ", ".join(f"{t.phrase}: {mark}" for t, mark in zip(grounding.targets, said, strict=True))


@pytest.mark.parametrize(("threshold", "rejected"), [("0", True), ("1", False)])
def test_the_threshold_decides_between_both_tokens(load, threshold: str, rejected: bool) -> None:
    (grounding,) = ground(load(reject_threshold=threshold), PAIR)
    assert [t.rejected for t in grounding.targets] == [rejected] * 2
    assert all(("[REJ]" in t.reason) == rejected for t in grounding.targets)


def test_several_instructions_are_answered_as_if_each_were_alone(load) -> None:
    segmenter = load()
    texts = (PAIR, "what can you drink from?", "the box")
    together = ground(segmenter, *texts)
    assert [g.instruction_id for g in together] == ["i0", "i1", "i2"]
    for text, joint in zip(texts, together, strict=True):
        (alone,) = ground(segmenter, text)
        assert [t.phrase for t in joint.targets] == [t.phrase for t in alone.targets]
        for a, b in zip(joint.targets, alone.targets, strict=True):
            assert a.rejection_score == pytest.approx(b.rejection_score, abs=1e-5)
            if not a.rejected:
                torch.testing.assert_close(a.token.prompt, b.token.prompt, atol=1e-5, rtol=0)


def test_forced_slots_with_the_cache_equal_the_plain_path(load) -> None:
    """Every decision again by one uncached pass over everything written so far."""
    segmenter = load()
    model, vocabulary = segmenter.model, segmenter.vocabulary
    (question,) = segmenter.questions("the red mug, the blue plate, a box")
    encoded = segmenter.encode([noise_frame(48, 80)])[0]
    with torch.inference_mode():
        rows = model.projector(encoded.features.clip())
        prefix = ImagePrefix(model, vocabulary, rows, image_prefix_ids(question.prompt))
        cached = forced_slots(prefix, question.prompt, question.fragments)
        ids = list(question.prompt)
        for slot, fragment in zip(cached, question.fragments, strict=True):
            ids += fragment
            state = model.read(model.splice(torch.tensor([ids]), rows[None]))[0, -1]
            torch.testing.assert_close(slot.state, state, atol=1e-5, rtol=0)
            logits = model.logits(state)
            chance = logits[[vocabulary.seg, vocabulary.rej]].softmax(0)[1].item()
            assert slot.rejection == pytest.approx(chance, abs=1e-5)
            assert slot.probability == pytest.approx(logits.softmax(0)[vocabulary.seg].item(), abs=1e-5)
            assert slot.token == (vocabulary.rej if chance >= 0.5 else vocabulary.seg)
            ids.append(slot.token)
        again = forced_slots(prefix, question.prompt, question.fragments)
    assert [slot.token for slot in again] == [slot.token for slot in cached]


def test_free_answer_with_the_cache_equals_the_plain_path(load) -> None:
    segmenter = load(decoding="generate")
    model = segmenter.model
    (question,) = segmenter.questions(PAIR)
    encoded = segmenter.encode([noise_frame(48, 80)])[0]
    with torch.inference_mode():
        rows = model.projector(encoded.features.clip())
        prefix = ImagePrefix(model, segmenter.vocabulary, rows, image_prefix_ids(question.prompt))
        answer = free_answer(prefix, question.prompt, 6)
        ids = list(question.prompt)
        for token in answer.ids:
            states = model.read(model.splice(torch.tensor([ids]), rows[None]))
            assert int(model.logits(states[0, -1]).argmax()) == token
            ids.append(token)
    assert len(answer.ids) == 6 or answer.ids[-1] == segmenter.vocabulary.eos


def test_a_prefix_takes_only_prompts_that_continue_it(load) -> None:
    segmenter = load()
    rows = torch.zeros(segmenter.clip.num_patches, segmenter.model.config.llama.hidden_size)
    with torch.inference_mode():
        prefix = ImagePrefix(segmenter.model, segmenter.vocabulary, rows, [1, 5, -200])
        with pytest.raises(BadInput, match="does not begin"):
            prefix.rest_of([1, 6, -200, 7])
        with pytest.raises(BadInput, match="placeholder"):
            ImagePrefix(segmenter.model, segmenter.vocabulary, rows, [1, 5])


@pytest.mark.parametrize(
    ("name", "said", "phrases", "rejected"),
    [
        ("gsva", "SR", ["the red mug", "the blue plate"], [False, True]),
        ("gsva", "RSS", ["the red mug", "the blue plate", ""], [True, False, False]),
        ("gsva", "S", ["the red mug", "the blue plate"], [False, True]),
        ("gsva", "", ["the red mug", "the blue plate"], [True, True]),
        ("gsva", "S" * 30, ["the red mug", "the blue plate"] + [""] * 8, [False] * 10),
        ("lisa", "SS", ["the red mug"] * 2 + ["the blue plate"] * 2, [False] * 4),
        ("lisa", "", ["the red mug", "the blue plate"], [True, True]),
    ],
)
def test_free_answers_become_targets_in_order(
    load, monkeypatch: pytest.MonkeyPatch, name: str, said: str, phrases: list[str], rejected: list[bool]
) -> None:
    """One slot a phrase; slots beyond the phrases are nameless; a phrase without a slot is refused and says why."""
    segmenter = load(name, decoding="generate")
    seg, rej = segmenter.vocabulary.seg, segmenter.vocabulary.rej
    state = torch.ones(segmenter.model.config.llama.hidden_size)
    slots = [Slot(seg if letter == "S" else rej, state, 0.25 if letter == "S" else 0.75, 0.5) for letter in said]
    answer = Answer(tuple(slot.token for slot in slots), tuple(slots))
    monkeypatch.setattr(processing, "free_answer", lambda *_: answer)
    (grounding,) = ground(segmenter, PAIR)
    assert [t.phrase for t in grounding.targets] == phrases
    assert [t.rejected for t in grounding.targets] == rejected == [t.token is None for t in grounding.targets]
    if len(said) < 2:
        assert "the model's answer has no [SEG] for it" in grounding.targets[-1].reason
        assert grounding.targets[-1].rejection_score == 1.0
    assert grounding.text.count("[SEG]") == said.count("S") * (2 if name == "lisa" else 1)


def test_long_lists_are_asked_in_several_answers(load) -> None:
    text = "the mug; the plate; the box; the ball; the block"
    few, many = load(answer_targets="2"), load()
    assert [len(q.phrases) for q in few.questions(text)] == [2, 2, 1]
    assert [len(q.phrases) for q in many.questions(text)] == [5]
    (grounding,) = ground(few, text)
    assert [t.phrase for t in grounding.targets] == text.split("; ")


def test_lisa_asks_for_one_target_at_a_time_and_scores_it(load) -> None:
    segmenter = load("lisa", rejection="both")
    assert [q.phrases for q in segmenter.questions(PAIR)] == [("the red mug",), ("the blue plate",)]
    (grounding,) = ground(segmenter, PAIR)
    assert len(grounding.targets) == 2 and segmenter.name == "lisa"
    for target in grounding.targets:
        assert not target.rejected and 0 < target.rejection_score < 1
        assert "[SEG] has probability" in target.reason
    (plain,) = ground(load("lisa", rejection="none"), PAIR)
    assert [t.rejection_score for t in plain.targets] == [0.0, 0.0]
    assert any("not published" in note for note in segmenter.notes)


@pytest.mark.parametrize(
    ("options", "text", "phrases"),
    [
        ({}, "what can hold water and the tea?", ["what can hold water and the tea?"]),
        ({"prompt": "phrase"}, "what you drink from", ["what you drink from"]),
        ({"prompt": "sentence"}, PAIR, [PAIR]),
        ({"split": "off"}, f"segment {PAIR}", [PAIR]),
    ],
)
def test_what_is_asked_for(load, options: dict[str, str], text: str, phrases: list[str]) -> None:
    (grounding,) = ground(load(**options), text)
    assert [t.phrase for t in grounding.targets] == phrases


@pytest.mark.parametrize("template", ["llava_v1", "llava_llama_2"])
def test_both_conversations_share_the_image(load, template: str) -> None:
    segmenter = load(conversation=template)
    prompts = [q.prompt for text in (PAIR, "why is it wet?") for q in segmenter.questions(text)]
    first = image_prefix_ids(prompts[0])
    assert all(list(prompt[: len(first)]) == first for prompt in prompts)
    assert len(ground(segmenter, PAIR, "why is it wet?")) == 2


# Masks


@pytest.mark.parametrize("name", ["gsva", "lisa"])
@pytest.mark.parametrize("size", [(48, 80), (90, 33)])
def test_tokens_prompt_masks_on_any_frame(load, name: str, size: tuple[int, int]) -> None:
    segmenter = load(name, reject_threshold="1")
    (grounding,) = ground(segmenter, PAIR)
    tokens = [t.token for t in grounding.targets]
    frame = noise_frame(*size, seconds=0.1, seed=4)
    masks = segmenter.segment(segmenter.encode([frame])[0], tokens)
    assert [m.token for m in masks] == tokens
    for mask in masks:
        assert mask.mask.shape == size and mask.mask.dtype == bool and 0 <= mask.score <= 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", ["gsva", "lisa"])
def test_every_number_format_stays_finite(load, name: str, dtype: str) -> None:
    segmenter = load(name, dtype=dtype, reject_threshold="1")
    assert segmenter.model.llm.lm_head.weight.dtype == getattr(torch, dtype)
    groundings = ground(segmenter, PAIR, "the box")
    tokens = [t.token for g in groundings for t in g.targets]
    assert len(tokens) == 3 and all(torch.isfinite(t.prompt).all() for t in tokens)
    masks = segmenter.segment(segmenter.encode([noise_frame(48, 80)])[0], tokens)
    assert all(np.isfinite(m.score) for m in masks)


def test_warm_up_and_nothing_to_do(load) -> None:
    segmenter = load()
    segmenter.warm_up(48, 64)
    encoded = segmenter.encode([noise_frame(48, 64)])
    assert segmenter.ground(Clip(tuple(encoded)), []) == [] and segmenter.segment(encoded[0], []) == []
    assert segmenter.encode([]) == [] and segmenter.sampling.sparse == 1


def test_any_prompt_of_sams_width_is_a_token(load) -> None:
    segmenter = load()
    encoded = segmenter.encode([noise_frame(48, 64)])[0]
    (mask,) = segmenter.segment(encoded, [PromptToken(torch.zeros(1, 16))])
    assert mask.mask.shape == (48, 64)


# Commands


@pytest.mark.parametrize("name", ["gsva", "lisa"])
def test_segment_command(folders: dict[str, Path], tmp_path: Path, name: str) -> None:
    image = cv2.cvtColor(noise_frame(48, 80).image, cv2.COLOR_RGB2BGR)
    assert cv2.imwrite(str(tmp_path / "in.png"), image)
    given = [
        f"--option={key}={value}" for key, value in (tiny_options(folders[name]) | {"reject_threshold": "1"}).items()
    ]
    model = ["--recipe", name, "--checkpoint", str(folders[name]), "--device", "cpu", *given]
    assert cli.main(["segment", str(tmp_path / "in.png"), PAIR, "--out", str(tmp_path / "out"), *model]) == 0
    report = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    (frame,) = report["frames"]
    assert len(frame["targets"]) == 2 and (tmp_path / "out" / frame["mask"]).is_file()


def test_inspect_command(folders: dict[str, Path], capsys: pytest.CaptureFixture) -> None:
    given = [f"--option={key}={value}" for key, value in tiny_options(folders["gsva"]).items()]
    assert (
        cli.main(["inspect", "--recipe", "gsva", "--checkpoint", str(folders["gsva"]), "--device", "cpu", *given]) == 0
    )
    said = capsys.readouterr().out
    assert "4 with LoRA merged; 0 ignored, 0 missing, 0 unexpected" in said and "LoRA of rank 2" in said
    assert "note: forced slots are this project's own decoding" in said


# Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoding": "beam"}, "decoding must be one of forced_slot, generate"),
        ({"conversation": "v0"}, "conversation must be one of llava_v1, llava_llama_2"),
        ({"reject_threshold": "2"}, "reject_threshold must be a number in 0..1"),
        ({"no_such": "1"}, "no option 'no_such'"),
        ({"base": "not/there/at/all"}, "does not exist"),
    ],
)
def test_wrong_options_are_named(load, options: dict[str, str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        load(**options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("the [SEG] mug", "special tokens"),
        ("...", "must contain words"),
        (";".join(f"the block {n}" for n in range(11)), "may name 10 targets"),
    ],
)
def test_instructions_that_cannot_be_asked(load, text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        ground(load(), text)


def test_an_instruction_longer_than_the_language_model_reads(load) -> None:
    with pytest.raises(BadInput, match=r"takes \d+ tokens .* room for \d+"):
        ground(load(), "the " + "qzx " * 240 + "mug")
