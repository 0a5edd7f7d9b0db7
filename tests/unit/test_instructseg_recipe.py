"""InstructSeg as a Segmenter, in miniature: groundings, masks from frame to frame, references, several targets."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from unit.tiny_instructseg import coloured_frame, tiny_checkpoint

import instructseg
from instructseg.core import BadInput, Clip, EncodedFrame, Frame, Instruction, State
from instructseg.recipes.instructseg.checkpoint import load_checkpoint
from instructseg.recipes.instructseg.configuration import InstructSegOptions
from instructseg.recipes.instructseg.history import History
from instructseg.recipes.instructseg.mask_decoder import Prediction
from instructseg.recipes.instructseg.processing import InstructSegSegmenter
from instructseg.recipes.instructseg.query_masks import QueryMasks
from instructseg.streaming import EngineConfig, StreamingEngine
from instructseg.streaming.checks import checked_grounding, checked_masks

MUG, PLATE = Instruction("a", "the red mug"), Instruction("b", "the tall plate")
LOW = {"threshold": "0.01"}  # which even random weights pass


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("instructseg") / "checkpoint")


def load(checkpoint: Path, dtype: str = "float32", **options: str) -> InstructSegSegmenter:
    return instructseg.load("instructseg", checkpoint, "cpu", dtype, {**LOW, **options})


@pytest.fixture(scope="module")
def segmenter(checkpoint: Path) -> InstructSegSegmenter:
    return load(checkpoint)


def film(segmenter: InstructSegSegmenter, count: int, seed: int = 0, **size: int) -> list[EncodedFrame]:
    return segmenter.encode([coloured_frame(0.2 * i, seed=seed, **size) for i in range(count)])


def ground(segmenter: InstructSegSegmenter, frames: list[EncodedFrame], instruction: Instruction = MUG):
    return checked_grounding(segmenter.ground(Clip(tuple(frames)), [instruction]), instruction)


# Loading


def test_every_key_has_its_place(segmenter: InstructSegSegmenter) -> None:
    report = segmenter.load_report
    assert set(report.loaded) == set(segmenter.reader.model.state_dict())
    assert (report.missing, report.unexpected, report.merged) == ((), (), ())
    assert "features are read before it" in report.describe()
    assert any("not calibrated" in note for note in segmenter.notes)


# Grounding and masks


def test_one_target_with_the_scores_of_the_best_query(segmenter: InstructSegSegmenter) -> None:
    frames = film(segmenter, 5)
    first, second = segmenter.ground(Clip(tuple(frames)), [MUG, PLATE])
    assert [g.instruction_id for g in (first, second)] == ["a", "b"]
    assert first.key_stamp_ns == frames[-1].frame.stamp_ns
    assert len(first.frame_stamps_ns) == 5
    answer = first.targets[0].token.answer
    assert answer.score == pytest.approx(answer.class_score * answer.quality)
    assert str(answer) in first.text
    assert 0.5 <= first.targets[0].score == answer.presence
    masks = segmenter.segment(frames[-1], [first.targets[0].token, second.targets[0].token])
    checked_masks(masks, [0, 1], frames[-1].frame)
    assert np.array_equal(masks[0].mask, answer.mask)
    assert ((masks[0].confidence > 128) <= masks[0].mask).all()  # the soft mask of the hard one
    assert ((masks[0].confidence < 127) <= ~masks[0].mask).all()


def test_two_instructions_together_are_as_one_by_one(segmenter: InstructSegSegmenter) -> None:
    frames = film(segmenter, 3)
    together = segmenter.ground(Clip(tuple(frames)), [MUG, PLATE])
    for found, instruction in zip(together, (MUG, PLATE), strict=True):
        alone = ground(segmenter, frames, instruction)
        assert found.targets[0].score == pytest.approx(alone.targets[0].score, abs=1e-5)
        assert np.array_equal(found.targets[0].token.answer.mask, alone.targets[0].token.answer.mask)


def test_the_frame_that_was_reasoned_on_is_not_read_again(segmenter: InstructSegSegmenter, monkeypatch) -> None:
    frames = film(segmenter, 2)
    token = ground(segmenter, frames).targets[0].token
    monkeypatch.setattr(segmenter.reader.model, "read", lambda *a, **k: pytest.fail("a second pass"))
    again = segmenter.segment(frames[-1], [token])[0]
    assert again.token is token and np.array_equal(again.mask, token.answer.mask)


def test_the_next_frame_is_read_with_the_frames_before_it(segmenter: InstructSegSegmenter) -> None:
    """``segment`` on frame five is a grounding on frame five, its references being frames one to four."""
    frames = film(segmenter, 6)
    token = ground(segmenter, frames[:5]).targets[0].token
    followed = segmenter.segment(frames[5], [token])[0]
    fresh = ground(segmenter, frames[1:6]).targets[0].token.answer
    assert followed.score == pytest.approx(fresh.presence, abs=1e-5)
    assert np.array_equal(followed.mask, fresh.mask)
    stamps = [r.stamp_ns for r in followed.token.history.references]
    assert stamps == [f.frame.stamp_ns for f in frames[2:6]]


def test_references_matter_and_none_means_none(checkpoint: Path, segmenter: InstructSegSegmenter) -> None:
    alone = load(checkpoint, references="none")
    assert (alone.sampling.sparse, segmenter.sampling.sparse) == (1, 5)
    for model, differs in ((segmenter, True), (alone, False)):
        past, other = film(model, 4, seed=1), film(model, 4, seed=2)
        key = model.encode([coloured_frame(1.0)])
        scores = [ground(model, [*before, *key]).targets[0].score for before in (past, other)]
        assert (abs(scores[0] - scores[1]) > 1e-6) == differs
    token = ground(alone, film(alone, 1)).targets[0].token
    assert alone.segment(film(alone, 2)[1], [token])[0].token.history.references == ()


def test_a_fast_camera_does_not_crowd_the_references(checkpoint: Path) -> None:
    segmenter = load(checkpoint, reference_seconds="0.8")
    frames = segmenter.encode([coloured_frame(0.02 * i) for i in range(30)])
    token = ground(segmenter, frames[:1]).targets[0].token
    for frame in frames:
        token = segmenter.segment(frame, [token])[0].token
    stamps = np.array([r.stamp_ns for r in token.history.references])
    assert (np.diff(stamps) >= 0.15e9).all() and len(stamps) == 4


def test_tasks_have_their_own_prompts(checkpoint: Path, segmenter: InstructSegSegmenter) -> None:
    reasoning = load(checkpoint, task="reasoning")
    frames = film(segmenter, 1)
    assert ground(segmenter, frames).targets[0].score != ground(reasoning, film(reasoning, 1)).targets[0].score


# Rejection


def test_a_score_below_the_threshold_is_rejected(checkpoint: Path) -> None:
    segmenter = load(checkpoint, threshold="0.98")
    target = ground(segmenter, film(segmenter, 2)).targets[0]
    assert target.rejected and target.token is None and target.rejection_score > 0.5
    assert "the limit is 0.98" in target.reason and "class" in target.reason


def test_without_a_threshold_the_best_mask_is_always_shown(checkpoint: Path) -> None:
    segmenter = load(checkpoint, threshold="0")
    frames = film(segmenter, 2)
    targets = ground(segmenter, frames).targets
    assert len(targets) == 1 and not targets[0].rejected and targets[0].rejection_score == 0.0
    assert segmenter.segment(frames[-1], [targets[0].token])[0].score >= 0.5
    assert "always shown" in segmenter.notes[0]


@pytest.mark.parametrize("threshold", ["0.01", "0"])
def test_numbers_that_overflowed_are_no_target(checkpoint: Path, monkeypatch, threshold: str) -> None:
    """As half floats may in the language model; on the frame that is reasoned on, and on a later one."""
    segmenter = load(checkpoint, threshold=threshold)
    frames = film(segmenter, 3)
    token = ground(segmenter, frames[:2]).targets[0].token
    predict = segmenter.reader.model.predict

    def overflow(*given: object) -> list[Prediction]:
        last = predict(*given)[-1]
        return [Prediction(torch.full_like(last.masks, np.nan), torch.full_like(last.scores, np.nan))]

    monkeypatch.setattr(segmenter.reader.model, "predict", overflow)
    (target,) = ground(segmenter, frames[:2]).targets
    assert target.rejected and target.rejection_score == 1.0
    (mask,) = segmenter.segment(frames[2], [token])
    assert mask.score == 0.0 and not mask.mask.any()


def test_an_empty_mask_is_no_target(checkpoint: Path, monkeypatch) -> None:
    segmenter = load(checkpoint, threshold="0")
    show(monkeypatch, segmenter, [[]])
    target = ground(segmenter, film(segmenter, 1)).targets[0]
    assert target.rejected and target.rejection_score == 1.0


# Several targets


def show(monkeypatch, segmenter: InstructSegSegmenter, plan: list[list[tuple[int, float]]]) -> None:
    """From now on every look finds squares at these columns with these scores; an empty list is an empty mask."""
    frames = iter(plan)

    def look(encoded, histories, floor, limit):
        views = []
        for _ in histories:
            squares = next(frames)
            logits = torch.full((max(1, len(squares)), *encoded.frame.size), -5.0)
            for row, (left, _) in zip(logits, squares, strict=False):
                row[10:20, left : left + 10] = 5.0
            scores = torch.tensor([score for _, score in squares] or [0.9])
            quality = (logits > 0).any(2).any(1).float()
            views.append(QueryMasks(logits, scores, quality))
        return views

    monkeypatch.setattr(segmenter.reader, "look", look)


def test_every_mask_above_the_threshold_is_a_target(segmenter: InstructSegSegmenter, monkeypatch) -> None:
    frames = film(segmenter, 3)
    show(monkeypatch, segmenter, [[(0, 0.9), (40, 0.6)], [(41, 0.95), (1, 0.5)], [(2, 0.7)]])
    targets = ground(segmenter, frames[:1]).targets
    assert [t.score > 0.5 for t in targets] == [True, True]
    tokens = [t.token for t in targets]
    first = segmenter.segment(frames[1], tokens)
    assert [int(np.nonzero(m.mask.any(0))[0][0]) for m in first] == [1, 41]  # by where they were, not by rank
    second = segmenter.segment(frames[2], [m.token for m in first])
    assert second[0].mask.any() and not second[1].mask.any() and second[1].score == 0.0


def test_an_only_target_is_always_the_best_mask(segmenter: InstructSegSegmenter, monkeypatch) -> None:
    frames = film(segmenter, 2)
    show(monkeypatch, segmenter, [[(0, 0.9)], [(40, 0.8), (1, 0.7)]])
    token = ground(segmenter, frames[:1]).targets[0].token
    assert segmenter.segment(frames[1], [token])[0].mask[:, 40:50].any()


def test_at_most_max_targets(checkpoint: Path) -> None:
    many = load(checkpoint, max_targets="5", overlap="1.0")
    found = ground(many, film(many, 2)).targets
    assert len(found) == many.max_targets == 5
    scores = [t.token.answer.score for t in found]
    assert scores == sorted(scores, reverse=True)
    assert len(ground(load(checkpoint, max_targets="1", overlap="1.0"), film(many, 2)).targets) == 1


# Recorded videos and words


def test_a_recorded_video_uses_neighbours_on_both_sides(segmenter: InstructSegSegmenter) -> None:
    frames = [coloured_frame(0.2 * i) for i in range(6)]
    results = segmenter.segment_video(frames, MUG.text)
    encoded = segmenter.encode(frames)
    question = segmenter.reader.question(MUG.text)
    near = tuple(segmenter.reader.reference(encoded[i], question) for i in (0, 1, 3, 4))
    masks = segmenter.reader.look(encoded[2], [History(question, near)], 0.0, 1)[0]
    assert np.array_equal(results[2].mask, masks.hard[0].numpy())
    assert len(results) == 6
    assert all(r.mask.shape == frames[0].size for r in results)
    assert segmenter.segment_video(frames[:1], MUG.text)[0].mask.any()


def test_a_question_is_answered_in_words(segmenter: InstructSegSegmenter) -> None:
    frame = film(segmenter, 1)[0]
    answer = segmenter.answer(frame, "what is on the left?", limit=4)
    assert isinstance(answer, str)
    longer = segmenter.answer(frame, "what is on the left?", limit=8)
    assert longer.startswith(answer.rstrip("\ufffd"))


# Numbers and threads


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_finite_and_near(checkpoint: Path, segmenter: InstructSegSegmenter, dtype) -> None:
    options = InstructSegOptions(threshold=0.01)
    half = InstructSegSegmenter(load_checkpoint(checkpoint), torch.device("cpu"), dtype, options)
    assert any("bfloat16" in note for note in half.notes) == (dtype == torch.float16)
    for model in (half, segmenter):
        frames = film(model, 3)
        target = ground(model, frames).targets[0]
        mask = model.segment(frames[-1], [target.token])[0]
        assert np.isfinite(mask.score)
    assert half.reader.model.decoder.score.layers[0].weight.dtype == torch.float32
    assert frames[0].features.tokens().dtype == torch.float32
    found = [ground(model, film(model, 3)).targets[0].score for model in (half, segmenter)]
    assert found[0] == pytest.approx(found[1], abs=0.05)


def test_autocast_changes_nothing_much(segmenter: InstructSegSegmenter) -> None:
    plain = ground(segmenter, film(segmenter, 2)).targets[0].score
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert ground(segmenter, film(segmenter, 2)).targets[0].score == pytest.approx(plain, abs=0.05)


def test_threads_do_not_disturb_each_other(segmenter: InstructSegSegmenter) -> None:
    frames = film(segmenter, 4)

    def work(instruction: Instruction) -> float:
        token = ground(segmenter, frames[:3], instruction).targets[0].token
        return segmenter.segment(frames[3], [token])[0].score

    asked = [MUG, PLATE] * 4
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(work, asked))
    assert found[::2] == pytest.approx([work(MUG)] * 4, abs=1e-6)
    assert found[1::2] == pytest.approx([work(PLATE)] * 4, abs=1e-6)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (64, 16), (17, 90), (200, 40)])
def test_any_image_shape(segmenter: InstructSegSegmenter, height: int, width: int) -> None:
    frames = film(segmenter, 2, height=height, width=width)
    token = ground(segmenter, frames).targets[0].token
    assert segmenter.segment(frames[-1], [token])[0].mask.shape == (height, width)


def test_nothing_asked_nothing_done(segmenter: InstructSegSegmenter) -> None:
    frame = film(segmenter, 1)[0]
    assert segmenter.ground(Clip((frame,)), []) == segmenter.segment(frame, []) == segmenter.encode([]) == []
    assert not frame.features.tokens.known


def test_an_instruction_that_is_too_long(segmenter: InstructSegSegmenter, monkeypatch) -> None:
    monkeypatch.setattr(segmenter.reader, "_room", 4)
    with pytest.raises(BadInput, match="at most 4 tokens"):
        ground(segmenter, film(segmenter, 1))


@pytest.mark.parametrize("text", ["", "find [SEG] now", "<refer>", "a\u200bb"])
def test_text_that_is_no_instruction(segmenter: InstructSegSegmenter, text: str) -> None:
    with pytest.raises(BadInput):
        segmenter.ground(Clip(tuple(film(segmenter, 1))), [Instruction("x", text)])


# The engine


def test_the_engine_follows_a_target(segmenter: InstructSegSegmenter) -> None:
    engine = StreamingEngine(segmenter, EngineConfig(buffer_s=3.0))
    engine.set_instruction(MUG)
    states = [engine.process(coloured_frame(0.1 * i)).targets for i in range(5)]
    assert all(len(targets) >= 1 and targets[0].state is State.PRESENT for targets in states)
    assert all(targets[0].mask.any() for targets in states)


def test_frames_are_not_kept_by_the_segmenter(segmenter: InstructSegSegmenter) -> None:
    """What was seen lives in frames and tokens alone."""
    import gc
    import weakref

    frame = Frame(coloured_frame().image, 5)
    gone = weakref.ref(frame)
    encoded = segmenter.encode([frame])
    ground(segmenter, encoded)
    del frame, encoded
    gc.collect()
    assert gone() is None
