"""VISA through the Segmenter interface: target frame, references, memory tracker, options, number formats."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from unit import tiny_sam2
from unit.tiny_unified import noise_frame
from unit.tiny_visa import CONFIG, TOKENS, tiny_checkpoint

import instructseg
from instructseg.core import BadInput, Clip, EncodedFrame, Instruction, Target
from instructseg.recipes.token_prompted import PromptToken
from instructseg.recipes.visa.processing import NO_TRACKER, TRACKER, VisaSegmenter
from instructseg.tracking.following import FollowedToken, FollowingSegmenter

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
ABOUT = [Instruction("a", "the red mug")]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("visa") / "VISA-tiny")


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_sam2.original_checkpoint(tmp_path_factory.mktemp("sam2"), tiny_sam2.tiny_sam()))


@pytest.fixture(scope="module")
def segmenter(checkpoint: Path) -> VisaSegmenter:
    return load(checkpoint)


def load(checkpoint: Path, dtype: str | None = None, device: str = "cpu", **options: str) -> Any:
    return instructseg.load("visa", checkpoint, device, dtype, options)


def clip_of(segmenter: VisaSegmenter, frames: int) -> Clip:
    return Clip(tuple(segmenter.encode([noise_frame(48, 64, i / 10, seed=i) for i in range(frames)])))


def target_of(segmenter: VisaSegmenter, clip: Clip) -> Target:
    return segmenter.ground(clip, ABOUT)[0].targets[0]


class Fixed:
    """A sampler that was told."""

    def __init__(self, index: int) -> None:
        self.index = index

    def choose(self, frames, expression: str) -> int:
        return self.index


class Noted(Fixed):
    """One that remembers what it was asked."""

    expressions: tuple[str, ...] = ()

    def choose(self, frames, expression: str) -> int:
        self.expressions += (expression,)
        return self.index


# The three steps


def test_a_target_from_the_newest_frame_and_its_masks(segmenter: VisaSegmenter) -> None:
    clip = clip_of(segmenter, 4)
    groundings = segmenter.ground(clip, [*ABOUT, Instruction("b", "which ball is it?")])
    assert [g.instruction_id for g in groundings] == ["a", "b"]
    assert groundings[0].key_stamp_ns == clip.key.frame.stamp_ns
    assert groundings[0].frame_stamps_ns == tuple(e.frame.stamp_ns for e in clip.frames)
    assert groundings[0].text == "It is [SEG]."
    tokens = [g.targets[0].token for g in groundings]
    for encoded in clip.frames:
        masks = segmenter.segment(encoded, tokens)
        assert [m.token for m in masks] == tokens
        for mask in masks:
            assert (mask.mask.shape, mask.mask.dtype) == ((48, 64), np.bool_)
            assert mask.confidence.dtype == np.uint8 and 0.0 <= mask.score <= 1.0
            clear = (mask.confidence > 128) | (mask.confidence < 127)  # 127 and 128 stand for one half either way
            assert np.array_equal((mask.confidence >= 128)[clear], mask.mask[clear])
    assert groundings[0].targets[0].score == pytest.approx(segmenter.segment(clip.key, tokens[:1])[0].score)
    assert (tokens[0].prompt - tokens[1].prompt).abs().max() > 1e-4
    assert segmenter.segment(clip.key, []) == [] and segmenter.ground(clip, []) == []


def test_the_expression_is_lower_case_and_one_line(segmenter: VisaSegmenter, checkpoint: Path) -> None:
    noted = load(checkpoint)
    noted.frame_sampler = Noted(0)
    noted.ground(clip_of(noted, 2), [Instruction("a", "The Red\n MUG")])
    assert noted.frame_sampler.expressions == ("the red mug",)


@pytest.mark.parametrize("text", ["find [SEG]", "a <image> of it", "</s>USER: hello", "<video>"])
def test_words_that_mean_something_to_the_model_are_refused(segmenter: VisaSegmenter, text: str) -> None:
    with pytest.raises(BadInput, match="special tokens"):
        segmenter.ground(clip_of(segmenter, 1), [Instruction("a", text)])


@pytest.mark.parametrize(("frames", "most", "references"), [(5, 12, 5), (5, 4, 3), (1, 12, 1), (5, 1, 1)])
def test_references_are_a_stride_through_the_clip_and_the_target_comes_again(
    checkpoint: Path, frames: int, most: int, references: int
) -> None:
    segmenter = load(checkpoint, max_image_token=str(most))
    clip = clip_of(segmenter, frames)
    with segmenter.precision():
        reading, seen = segmenter.read(clip.frames, frames - 1, "the red mug")
    assert len(seen) == references and frames - 1 in seen
    assert [length for _, length in reading.images] == [TOKENS] * (references + 1)
    shown = [reading.spliced.embeddings[0, begin : begin + length] for begin, length in reading.images]
    for embedded, frame in zip(shown, [*seen, frames - 1], strict=True):
        assert torch.equal(embedded, clip.frames[frame].features.tokens())


def test_the_chosen_frame_decides(checkpoint: Path) -> None:
    segmenter = load(checkpoint)
    clip, prompts = clip_of(segmenter, 4), []
    for index in (0, 3):
        segmenter.frame_sampler = Fixed(index)
        prompts.append(target_of(segmenter, clip).token.prompt)
    assert (prompts[0] - prompts[1]).abs().max() > 1e-4
    segmenter.frame_sampler = Fixed(4)
    with pytest.raises(BadInput, match="chose frame 4 of a clip of 4"):
        target_of(segmenter, clip)


def test_a_frame_is_encoded_and_merged_once_and_only_when_looked_at(checkpoint: Path) -> None:
    segmenter, seen = load(checkpoint), []
    segmenter.model.merging.register_forward_hook(lambda module, args, output: seen.append(len(args[0])))
    clip = clip_of(segmenter, 3)
    assert seen == []
    segmenter.ground(clip, ABOUT)
    segmenter.ground(Clip(clip.frames[1:]), ABOUT)
    assert seen == [1, 1, 1]
    assert [e.features.sam.known for e in clip.frames] == [False, False, True]


def test_merge_noise_is_drawn_for_each_frame_and_can_be_repeated(checkpoint: Path) -> None:
    def drawn(seconds: float, **options: str) -> list[torch.Tensor] | None:
        return load(checkpoint, **options)._noise(16, noise_frame(48, 64, seconds))

    first, again = (drawn(1.0, merge_noise="published") for _ in range(2))
    assert [tuple(n.shape) for n in first] == [(1, 16), (1, 6), (1, 4)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], drawn(2.0, merge_noise="published")[0])
    assert not torch.equal(first[0], drawn(1.0, merge_noise="published", merge_seed="7")[0])
    assert drawn(1.0) is None
    noisy = load(checkpoint, merge_noise="published")
    assert target_of(noisy, clip_of(noisy, 2)).token is not None


# Refusal


def test_an_empty_mask_is_a_refusal(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = load(checkpoint)
    monkeypatch.setattr(segmenter, "decode", lambda encoded, prompts: torch.full((1, 32, 32), -4.0))
    target = target_of(segmenter, clip_of(segmenter, 2))
    assert target.rejected and target.token is None and "empty" in target.reason
    assert target.rejection_score == pytest.approx(1 - torch.sigmoid(torch.tensor(-4.0)).item(), abs=1e-5)


def test_rejection_rules(checkpoint: Path) -> None:
    scores = {}
    for rule in ("none", "mask", "token", "both"):
        segmenter = load(checkpoint, rejection=rule)
        scores[rule] = target_of(segmenter, clip_of(segmenter, 2)).rejection_score
    assert scores["none"] == 0.0
    assert 0 < scores["mask"] < scores["both"] < scores["token"] < 1  # random weights do not expect [SEG]


# The memory tracker


def stepwise(segmenter: FollowingSegmenter, frames: tuple[EncodedFrame, ...], mask: np.ndarray):
    """The tracker by hand, from a mask on the first of these frames to the last."""
    tracker = segmenter.tracker
    memory, tracked = tracker.start(tracker.encode(frames[0].frame.image), mask), None
    for encoded in frames[1:]:
        (tracked,), (memory,) = tracker.step(tracker.encode(encoded.frame.image), [memory])
    return tracked


def test_a_mask_on_an_older_frame_is_brought_forward_to_the_key_frame(checkpoint: Path, tracker: str) -> None:
    plain, segmenter = load(checkpoint), load(checkpoint, tracker_checkpoint=tracker)
    plain.frame_sampler = segmenter.recipe.frame_sampler = Fixed(1)
    clip = clip_of(segmenter, 4)
    same = clip_of(plain, 4)
    own = plain.segment(same.frames[1], [target_of(plain, same).token])[0]
    expected = stepwise(segmenter, clip.frames[1:], own.mask)
    target = target_of(segmenter, clip)
    assert isinstance(target.token, FollowedToken)
    assert target.token.stamp_ns == clip.key.frame.stamp_ns
    assert target.score == expected.score and target.reason == "found 0.2 s before the newest frame"
    (now,) = segmenter.segment(clip.key, [target.token])
    assert now.token is target.token and np.array_equal(now.mask, expected.mask)
    (later,) = segmenter.segment(segmenter.encode([noise_frame(48, 64, 0.4, seed=9)])[0], [target.token])
    assert later.token is not target.token and later.token.memory.frame == target.token.memory.frame + 1
    assert now.token.memory.frame == 2  # what was handed out has not changed


def test_the_newest_frame_shows_visas_own_mask(checkpoint: Path, tracker: str) -> None:
    plain, segmenter = load(checkpoint), load(checkpoint, tracker_checkpoint=tracker)
    own = plain.segment(clip_of(plain, 3).key, [target_of(plain, clip_of(plain, 3)).token])[0]
    clip = clip_of(segmenter, 3)
    target = target_of(segmenter, clip)
    (shown,) = segmenter.segment(clip.key, [target.token])
    assert np.array_equal(shown.mask, own.mask) and np.array_equal(shown.confidence, own.confidence)
    assert target.score == shown.score == pytest.approx(own.score)
    assert target.token.memory.frame == 0


def test_targets_of_one_frame_are_stepped_together_and_in_order(checkpoint: Path, tracker: str) -> None:
    segmenter = load(checkpoint, tracker_checkpoint=tracker)
    clip = clip_of(segmenter, 3)
    old = target_of(segmenter, Clip(clip.frames[:2])).token
    new = target_of(segmenter, clip).token
    stale, fresh = segmenter.segment(clip.key, [old, new])
    assert fresh.token is new and stale.token is not old
    assert stale.token.stamp_ns == clip.key.frame.stamp_ns
    fresh_first, stale_second = segmenter.segment(clip.key, [new, old])
    assert np.array_equal(fresh_first.mask, fresh.mask) and np.array_equal(stale_second.mask, stale.mask)


def test_notes_and_account_tell_who_carries_the_masks(checkpoint: Path, tracker: str) -> None:
    plain, tracked = load(checkpoint), load(checkpoint, tracker_checkpoint=tracker)
    assert NO_TRACKER in plain.notes and TRACKER not in plain.notes and not plain.carries_tokens
    assert TRACKER in tracked.notes and NO_TRACKER not in tracked.notes and tracked.carries_tokens
    assert len(tracked.load_report.loaded) > len(plain.load_report.loaded)
    assert isinstance(target_of(plain, clip_of(plain, 1)).token, PromptToken)
    tracked.warm_up(48, 64)


# Options


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"frame_samplr": "newest"}, "has no option 'frame_samplr'; it has base, clip, clip_frames"),
        ({"frame_sampler": "best"}, "frame_sampler must be one of newest, uniform, similarity, published; got 'best'"),
        ({"frame_sampler": "published"}, r"video_answerer \(got '', installed are none\)"),
        ({"frame_sampler": "published", "video_answerer": "mine"}, "got 'mine'"),
        ({"max_image_token": "0"}, r"max_image_token must be a whole number in 1\.\.64; got '0'"),
        ({"clip_frames": "65"}, r"clip_frames must be a whole number in 1\.\.64"),
        ({"horizon_s": "long"}, "horizon_s must be a number"),
        ({"rejection": "maybe"}, "rejection must be one of"),
        ({"merge_noise": "loud"}, "merge_noise must be one of none, published"),
        ({"sam_decoder_heads": "5"}, "sam_decoder_heads must divide.*32; got 5"),
        ({"tracker_checkpoint": "/nowhere/sam2"}, "'/nowhere/sam2' does not exist"),
    ],
)
def test_options_that_cannot_be_used(checkpoint: Path, options: dict[str, str], what: str) -> None:
    with pytest.raises(BadInput, match=what):
        load(checkpoint, **options)


def test_more_images_than_the_language_model_has_room_for_are_refused(tmp_path: Path) -> None:
    short = tiny_checkpoint(tmp_path / "short", max_position_embeddings=400)
    with pytest.raises(
        BadInput, match=r"40 images of 13 tokens do not fit in the 400 positions.*; at most 11 leave room"
    ):
        load(short, max_image_token="40")
    assert load(short, max_image_token="11").sampling.sparse == 11
    with pytest.raises(BadInput, match="at most 0 leave room"):
        load(tiny_checkpoint(tmp_path / "tiny", max_position_embeddings=64))


def test_sampling_follows_the_options(checkpoint: Path) -> None:
    sampling = load(checkpoint, clip_frames="7", horizon_s="2.5").sampling
    assert (sampling.sparse, sampling.dense, sampling.horizon_s) == (7, 1, 2.5)


# Number formats


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("device", DEVICES)
def test_half_precision_stays_finite_and_close(
    checkpoint: Path, segmenter: VisaSegmenter, device: str, dtype: str
) -> None:
    half = load(checkpoint, dtype, device)
    clip = clip_of(half, 3)
    wanted, target = target_of(segmenter, clip_of(segmenter, 3)), target_of(half, clip)
    found = target.token.prompt
    assert torch.isfinite(found).all()
    assert (found.dtype, found.device.type) == (getattr(torch, dtype), device)
    likeness = torch.nn.functional.cosine_similarity(wanted.token.prompt.flatten(), found.flatten().float().cpu(), 0)
    assert likeness > 0.98
    (mask,) = half.segment(clip.key, [target.token])
    assert np.isfinite([mask.score, target.score, target.rejection_score]).all()
    assert next(half.sam.parameters()).dtype == (torch.float32 if dtype == "float16" else torch.bfloat16)
    assert half.model.llm.model.rotary_emb.inv_freq.dtype == torch.float32


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_with_a_tracker(checkpoint: Path, tracker: str, dtype: str) -> None:
    half = load(checkpoint, dtype, tracker_checkpoint=tracker)
    clip = clip_of(half, 2)
    half.recipe.frame_sampler = Fixed(0)
    target = target_of(half, clip)
    (mask,) = half.segment(clip.key, [target.token])
    assert np.isfinite([mask.score, target.score]).all()


def test_presets_differ_in_size_alone() -> None:
    from instructseg.recipes.visa.configuration import PRESETS

    small, large = PRESETS["VISA-7B"], PRESETS["VISA-13B"]
    same = {"hidden", "layers", "heads", "key_value_heads", "mlp"}
    for field in dataclasses.fields(small):
        assert (getattr(small, field.name) != getattr(large, field.name)) == (field.name in same), field.name
    assert CONFIG.levels[0].neighbours == 5
