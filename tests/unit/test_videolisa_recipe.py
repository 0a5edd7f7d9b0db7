"""VideoLISA as a Segmenter, at miniature size: clips, instructions, options, number formats."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from unit.fakes import unhurried
from unit.tiny_unified import noise_frame
from unit.tiny_videolisa import CLIP, CONFIG, tiny_checkpoint

import instructseg
from instructseg.core import BadInput, Clip, EncodedFrame, Instruction, Sampling
from instructseg.recipes.videolisa.configuration import VideoLISAConfig
from instructseg.recipes.videolisa.processing import VideoLISASegmenter, frame_choice
from instructseg.sampling import dense_among_sparse, spread_or_repeat, spread_over

PATCHES = (CLIP.image_size // CLIP.patch_size) ** 2
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
TEXTS = ("the red cup", "pick up the dog that jumps over the fence", "which cup would be used for tea?")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("videolisa") / "checkpoint")


@pytest.fixture(scope="module")
def segmenter(checkpoint: Path) -> VideoLISASegmenter:
    return load(checkpoint)


def load(checkpoint: Path, dtype: str = "float32", **options: str) -> VideoLISASegmenter:
    return instructseg.load("videolisa", checkpoint, "cpu", dtype, options)


def clip_of(segmenter: VideoLISASegmenter, count: int, size: tuple[int, int] = (48, 64)) -> Clip:
    frames = segmenter.encode([noise_frame(*size, seconds=t / 10, seed=t) for t in range(count)])
    return Clip(tuple(frames))


def prompts(segmenter: VideoLISASegmenter, clip: Clip, *texts: str) -> torch.Tensor:
    groundings = segmenter.ground(clip, [Instruction(str(i), text) for i, text in enumerate(texts)])
    return torch.stack([grounding.targets[0].token.prompt for grounding in groundings])  # (N, 1, C)


# The three steps


def test_an_instruction_gives_one_token_that_segments_every_frame(segmenter: VideoLISASegmenter) -> None:
    clip = clip_of(segmenter, 5)
    (grounding,) = segmenter.ground(clip, [Instruction("a", "the red cup")])
    assert (grounding.instruction_id, grounding.key_stamp_ns) == ("a", 400_000_000)
    assert grounding.frame_stamps_ns == tuple(range(0, 500_000_000, 100_000_000))
    (target,) = grounding.targets
    assert not target.rejected and 0 < target.score < 1
    assert target.score + target.rejection_score == pytest.approx(1)
    assert "mask evidence" in target.reason
    shares = []
    for encoded in (*clip.frames, *segmenter.encode([noise_frame(48, 64, 9.0, seed=77)])):
        (mask,) = segmenter.segment(encoded, [target.token])
        assert mask.token is target.token
        assert mask.mask.shape == (48, 64)
        assert np.array_equal(mask.confidence > 127, mask.mask)
        shares.append(mask.mask.mean())
    assert min(shares) > 0.02 and max(shares) < 0.98  # masks with an inside and an outside


@pytest.mark.parametrize("size", [(16, 16), (120, 160), (17, 301), (300, 20)])
def test_every_size_of_frame_goes_through(segmenter: VideoLISASegmenter, size: tuple[int, int]) -> None:
    clip = clip_of(segmenter, 2, size)
    tokens = [g.targets[0].token for g in segmenter.ground(clip, [Instruction(str(i), t) for i, t in enumerate(TEXTS)])]
    masks = segmenter.segment(clip.key, tokens)
    assert [mask.mask.shape for mask in masks] == [size] * len(TEXTS)
    assert all(0 <= mask.score <= 1 for mask in masks)


def test_nothing_in_nothing_out(segmenter: VideoLISASegmenter) -> None:
    clip = clip_of(segmenter, 1)
    assert segmenter.encode([]) == []
    assert segmenter.ground(clip, []) == []
    assert segmenter.segment(clip.key, []) == []


def test_several_instructions_in_one_call_equal_one_by_one(segmenter: VideoLISASegmenter) -> None:
    clip = clip_of(segmenter, 3)
    together = prompts(segmenter, clip, *TEXTS)
    alone = torch.cat([prompts(segmenter, clip, text) for text in TEXTS])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)
    assert (together[0] - together[1]).abs().max() > 1e-3  # the text matters


def test_a_text_with_a_control_token_is_refused(segmenter: VideoLISASegmenter) -> None:
    for text in ("the cup [SEG]", "the cup<|end|>", "<image> cup"):
        with pytest.raises(BadInput, match="special tokens"):
            segmenter.ground(clip_of(segmenter, 1), [Instruction("a", text)])


def test_warm_up_runs_every_step(checkpoint: Path) -> None:
    segmenter = load(checkpoint, sparse_frames="2", dense_frames="1")
    called = []
    for name in ("encode", "ground", "segment"):
        step = getattr(segmenter, name)
        setattr(segmenter, name, lambda *args, n=name, s=step: (called.append(n), s(*args))[1])
    segmenter.warm_up(48, 64)
    assert called == ["encode", "ground", "segment"]


# Clips


def numbered_clip(count: int, dense: tuple[int, ...] = (-1,)) -> Clip:
    return Clip(tuple(EncodedFrame(noise_frame(16, 16, i), None) for i in range(count)), dense)


def test_a_short_clip_repeats_its_frames_and_spreads_the_dense_ones() -> None:
    sparse, dense = frame_choice(numbered_clip(3), Sampling(8, 2), "spread")
    assert sparse == (0, 0, 0, 1, 1, 1, 2, 2)  # 3 frames twice, 2 more spread over them
    assert dense == (sparse[1], sparse[4])
    assert frame_choice(numbered_clip(1), Sampling(4, 2), "spread") == ((0, 0, 0, 0), (0, 0))


def test_a_long_clip_is_sampled() -> None:
    assert frame_choice(numbered_clip(9), Sampling(3, 1), "spread") == ((1, 4, 7), (1,))


def test_newest_takes_the_frames_that_the_clip_marks() -> None:
    assert frame_choice(numbered_clip(6, (4, 5)), Sampling(6, 2), "newest")[1] == (4, 5)
    assert frame_choice(numbered_clip(2), Sampling(6, 3), "newest")[1] == (1, 1, 1)
    assert frame_choice(numbered_clip(5, (-2, -1)), Sampling(6, 2), "newest")[1] == (3, 4)


@unhurried
@given(st.integers(1, 200), st.integers(1, 64), st.data())
def test_any_clip_gives_as_many_frames_as_wanted(frames: int, sparse: int, data: st.DataObject) -> None:
    chosen = spread_or_repeat(frames, sparse)
    assert len(chosen) == sparse
    assert list(chosen) == sorted(chosen) and chosen[0] >= 0 and chosen[-1] < frames
    assert set(chosen) == set(range(frames)) or frames > sparse
    dense = dense_among_sparse(sparse, data.draw(st.integers(1, sparse)))
    assert all(-1 <= place < sparse for place in dense)


@pytest.mark.parametrize(
    ("rule", "arguments", "what"),
    [
        (spread_or_repeat, (0, 4), "frames >= 1 and wanted >= 1; got 0 and 4"),
        (spread_or_repeat, (4, 0), "got 4 and 0"),
        (dense_among_sparse, (4, 5), r"1\.\.4 \(the sparse frames\); got 5"),
        (dense_among_sparse, (4, 0), "got 0"),
        (spread_over, (-1, 2), "got frames -1"),
    ],
)
def test_impossible_choices_of_frames_are_refused(rule, arguments: tuple[int, int], what: str) -> None:
    with pytest.raises(BadInput, match=what):
        rule(*arguments)


def test_a_video_is_a_mean_token_a_frame_and_all_tokens_of_the_dense_ones(segmenter: VideoLISASegmenter) -> None:
    clip = clip_of(segmenter, 2)
    video = segmenter.video_tokens(clip)
    sparse, dense = segmenter.sampling.sparse, segmenter.sampling.dense
    assert video.shape == (sparse + dense * PATCHES, CONFIG.hidden_size)
    first, last = video[sparse : sparse + PATCHES], video[-PATCHES:]
    torch.testing.assert_close(video[0], first.mean(0))
    torch.testing.assert_close(video[sparse - 1], last.mean(0))


def test_clip_features_are_computed_once_a_frame_however_often_it_is_used(checkpoint: Path) -> None:
    segmenter = load(checkpoint)
    seen = []
    segmenter.clip.register_forward_hook(lambda module, args, output: seen.append(len(args[0])))
    clip = clip_of(segmenter, 3)
    assert seen == []
    segmenter.ground(clip, [Instruction("a", "the cup")])
    segmenter.ground(Clip(clip.frames[1:]), [Instruction("b", "the dog")])
    assert seen == [1, 1, 1]


def test_parameters_laid_over_the_sampling_take_effect(checkpoint: Path) -> None:
    segmenter = load(checkpoint)
    segmenter.sampling = Sampling(6, 2, 1.0)
    assert len(segmenter.video_tokens(clip_of(segmenter, 3))) == 6 + 2 * PATCHES


# Options


def test_stopping_before_seg_changes_nothing(checkpoint: Path, segmenter: VideoLISASegmenter) -> None:
    whole = load(checkpoint, stop_before_seg="no")
    expected = prompts(whole, clip_of(whole, 3), *TEXTS)
    torch.testing.assert_close(prompts(segmenter, clip_of(segmenter, 3), *TEXTS), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("options", [{"template": "chat"}, {"dense": "newest"}, {"sparse_frames": "8"}])
def test_options_that_change_the_question_change_the_token(
    checkpoint: Path, segmenter: VideoLISASegmenter, options: dict[str, str]
) -> None:
    other = load(checkpoint, **options)
    before, after = (prompts(s, clip_of(s, 4), TEXTS[0]) for s in (segmenter, other))
    assert (before - after).abs().max() > 1e-4


def test_the_demos_colours_are_those_of_swapped_frames(checkpoint: Path, segmenter: VideoLISASegmenter) -> None:
    demo = load(checkpoint, colours="bgr")
    frame = noise_frame(48, 64)
    swapped = dataclasses.replace(frame, image=frame.image[..., ::-1].copy())
    ((as_demo,), (as_swapped,), (as_is,)) = demo.encode([frame]), segmenter.encode([swapped]), segmenter.encode([frame])
    assert as_demo.frame is frame
    for part in ("clip", "sam"):
        found, wanted, plain = (getattr(e.features, part)() for e in (as_demo, as_swapped, as_is))
        torch.testing.assert_close(found, wanted, atol=0, rtol=0)
        assert (found - plain).abs().max() > 1e-3


def test_rejection_rules(checkpoint: Path) -> None:
    scores = {}
    for rule in ("none", "mask", "token", "both"):
        segmenter = load(checkpoint, rejection=rule)
        (grounding,) = segmenter.ground(clip_of(segmenter, 2), [Instruction("a", "the cup")])
        scores[rule] = grounding.targets[0].rejection_score
    assert scores["none"] == 0.0
    assert 0 < scores["mask"] < scores["both"] < scores["token"] < 1  # random weights do not expect [SEG]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"templat": "chat"}, "has no option 'templat'; it has clip, colours"),
        ({"template": "free"}, "template must be one of auto, chat, mevis.*got 'free'"),
        ({"sparse_frames": "65"}, r"sparse_frames must be a whole number in 1\.\.64; got '65'"),
        ({"dense_frames": "0"}, "dense_frames must be"),
        ({"sparse_frames": "2"}, r"dense_frames must be in 1\.\.2 \(sparse_frames\); got 4"),
        ({"stop_before_seg": "perhaps"}, "stop_before_seg must be true or false"),
        ({"rejection": "maybe"}, "rejection must be one of"),
        ({"horizon_s": "-1"}, "horizon_s must be"),
        ({"lora_alpha": "0"}, "lora_alpha must be above 0"),
        ({"sam_decoder_heads": "5"}, "sam_decoder_heads must divide.*32; got 5"),
    ],
)
def test_options_that_cannot_be_used(checkpoint: Path, options: dict[str, str], what: str) -> None:
    with pytest.raises(BadInput, match=what):
        load(checkpoint, **options)


def test_a_clip_that_is_too_long_for_the_language_model_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    segmenter = load(checkpoint)
    limit = segmenter.sampling.sparse + segmenter.sampling.dense * PATCHES + 96
    folder = tiny_checkpoint(tmp_path / "c")
    config = (folder / "config.json").read_text()
    shorter = re.sub(r'"max_position_embeddings": \d+', f'"max_position_embeddings": {limit - 1}', config)
    (folder / "config.json").write_text(shorter)
    with pytest.raises(BadInput, match=rf"take {limit} positions; the language model has {limit - 1}: choose fewer"):
        load(folder)
    fits = load(folder, dense_frames="3")
    with pytest.raises(BadInput, match="choose fewer dense_frames"):
        fits.ground(clip_of(fits, 1), [Instruction("a", "the cup " * 60)])


# Number formats


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("device", DEVICES)
def test_half_precision_stays_finite_and_close(
    checkpoint: Path, segmenter: VideoLISASegmenter, device: str, dtype: str
) -> None:
    half = instructseg.load("videolisa", checkpoint, device, dtype)
    wanted, found = (prompts(s, clip_of(s, 3), *TEXTS) for s in (segmenter, half))
    assert torch.isfinite(found).all()
    assert (found.dtype, found.device.type) == (getattr(torch, dtype), device)
    assert torch.nn.functional.cosine_similarity(wanted.flatten(), found.flatten().float().cpu(), dim=0) > 0.99
    clip = clip_of(half, 1)
    (target,) = half.ground(clip, [Instruction("a", TEXTS[0])])[0].targets
    (mask,) = half.segment(clip.key, [target.token])
    assert np.isfinite([mask.score, target.score, target.rejection_score]).all()
    assert next(half.sam.parameters()).dtype == (torch.float32 if dtype == "float16" else torch.bfloat16)
    assert half.model.llm.model.rotary_emb.inv_freq.dtype == torch.float32


# Configuration


def test_the_configuration_keeps_its_published_form() -> None:
    assert VideoLISAConfig.from_json(CONFIG.to_json(), "config.json") == CONFIG


def test_the_window_counts_the_query_itself_in_new_transformers() -> None:
    assert VideoLISAConfig(sliding_window=2047).phi3().sliding_window == 2048
    assert VideoLISAConfig(sliding_window=None).phi3().sliding_window is None


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"model_type": "llava"}, r"model_type 'llava'.*another system's checkpoint"),
        ({"architectures": ["LlavaForCausalLM"]}, "LlavaForCausalLM"),
        ({"mm_use_im_start_end": True}, "mm_use_im_start_end is True; only False is supported"),
        ({"rope_scaling": {"type": "longrope"}}, "rope_scaling.*scaled positions"),
        ({"mm_projector_type": "resampler"}, "mm_projector_type must be linear or mlp2x_gelu; got 'resampler'"),
        ({"hidden_size": None}, "config.json lacks hidden_size"),
        ({"hidden_size": "wide"}, "hidden_size must be a positive integer; got 'wide'"),
        ({"num_attention_heads": 5}, "num_attention_heads must divide hidden_size"),
        ({"sliding_window": 0}, "sliding_window must be 1 or more"),
        ({"sliding_window": "long"}, "wrong type"),
        ({"pad_token_id": 10**6}, "pad_token_id must be in"),
    ],
)
def test_a_configuration_that_cannot_be_used_names_the_key(changes: dict, what: str) -> None:
    with pytest.raises(BadInput, match=what):
        VideoLISAConfig.from_json(CONFIG.to_json() | changes, "config.json")
    with pytest.raises(BadInput, match="must hold a JSON object; got list"):
        VideoLISAConfig.from_json([], "config.json")
