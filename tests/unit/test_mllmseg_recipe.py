"""MLLMSeg through the Segmenter interface, with random weights: one reading of an image for all that is asked of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from unit.fakes import unhurried
from unit.tiny_mllmseg import tiny_checkpoint

import instructseg
from instructseg import cli
from instructseg.core import BadInput, Clip, EncodedFrame, Frame, Grounding, Instruction, Target
from instructseg.recipes.mllmseg import commands
from instructseg.recipes.mllmseg.inference import refusal_probability, refusals
from instructseg.recipes.mllmseg.processing import MllmSegSegmenter, image_pixels
from instructseg.recipes.mllmseg.prompts import conversation, evaluation_texts

TEXTS = ("the red mug", "the blue ball; the dog", "what is left of the green block?")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("mllmseg")
    return {
        "internlm2": tiny_checkpoint(root / "internlm2", "internlm2"),
        "qwen2": tiny_checkpoint(root / "qwen2", "qwen2", lora=True, files="shards"),
        "mute": tiny_checkpoint(root / "mute", "qwen2", can_refuse=False, files="safetensors"),
    }


def load(folder: Path, dtype: str = "float32", **options: str) -> MllmSegSegmenter:
    return instructseg.load("mllmseg", folder, "cpu", dtype, options)


def frame(seed: int = 0, stamp_ns: int = 1, size: tuple[int, int] = (48, 64)) -> Frame:
    return Frame(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8), stamp_ns)


def ground(segmenter: MllmSegSegmenter, *texts: str, on: Frame | None = None) -> tuple[EncodedFrame, list[Grounding]]:
    encoded = segmenter.encode([on or frame()])[0]
    asked = [Instruction(str(number), text) for number, text in enumerate(texts)]
    return encoded, segmenter.ground(Clip((encoded,)), asked)


def tokens_of(groundings: list[Grounding]) -> list:
    return [target.token for grounding in groundings for target in grounding.targets]


@contextmanager
def counting(**modules: torch.nn.Module) -> Iterator[dict[str, int]]:
    """How often each module ran inside the block."""
    counts = dict.fromkeys(modules, 0)

    def count(name: str) -> None:
        counts[name] += 1

    handles = [m.register_forward_hook(lambda *_, n=name: count(n)) for name, m in modules.items()]
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("family", ["internlm2", "qwen2"])
def test_the_fast_path_equals_the_plain_one(family: str, folders: dict[str, Path]) -> None:
    """Every mask and verdict of several instructions on one frame, against a whole conversation for each alone."""
    segmenter = load(folders[family])
    model, tokenizer = segmenter.model, segmenter.reader.tokenizer
    encoded, groundings = ground(segmenter, *TEXTS)
    seen = iter(segmenter.look(encoded, tokens_of(groundings)))
    pixels = image_pixels(encoded.frame.image, model.config.image_size)[None]
    for grounding, text in zip(groundings, TEXTS, strict=True):
        phrases = [phrase.strip() for phrase in text.split(";")]
        assert [target.phrase for target in grounding.targets] == phrases
        ids = conversation(tokenizer, *evaluation_texts(phrases), model.config.image_tokens).ids
        slots = [place for place, index in enumerate(ids) if index == tokenizer.seg]
        with torch.inference_mode():
            reading = model(pixels, torch.tensor([ids]))
            plain = model.masks(reading, 0, slots).sigmoid()
            refusal = refusal_probability(model.logits(reading.states[0, torch.tensor(slots) - 1]), tokenizer.rej)
        for slot, target in enumerate(grounding.targets):
            view = next(seen)
            assert (view.probabilities - plain[slot]).abs().max() < 1e-5
            assert view.refusal == pytest.approx(float(refusal[slot]), abs=1e-5)
            assert target.rejection_score == pytest.approx(view.refusal, abs=1e-6)


def test_instructions_on_a_frame_share_its_reading(folders: dict[str, Path]) -> None:
    """The vision encoder and the image's part of the language and mask decoder run once a frame, whoever asks."""
    segmenter = load(folders["internlm2"])
    inner = segmenter.model.mllm.model
    modules = {
        "vision": inner.vision_tower, "language": inner.language_model, "fusion": segmenter.model.decoder.fusion,
        "look_around": segmenter.model.decoder.prompted.self_attention,
    }  # fmt: skip
    with counting(**modules) as counts:
        encoded = segmenter.encode([frame()])[0]
        assert sum(counts.values()) == 0, "a frame that no instruction looks at costs nothing"
        groundings = segmenter.ground(Clip((encoded,)), [Instruction(str(i), t) for i, t in enumerate(TEXTS)])
        assert counts == {"vision": 1, "language": 2, "fusion": 1, "look_around": 1}
        segmenter.segment(encoded, tokens_of(groundings))
        segmenter.segment(encoded, tokens_of(groundings)[:1])
        assert counts == {"vision": 1, "language": 4, "fusion": 1, "look_around": 1}


def test_threads_read_a_frame_once(folders: dict[str, Path]) -> None:
    segmenter = load(folders["qwen2"])
    _, groundings = ground(segmenter, *TEXTS)
    tokens, encoded = tokens_of(groundings), segmenter.encode([frame(1, 2)])[0]
    results: dict[int, list] = {}
    with counting(vision=segmenter.model.mllm.model.vision_tower) as counts:
        threads = [
            threading.Thread(target=lambda n=n: results.update({n: segmenter.segment(encoded, tokens)}))
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert counts["vision"] == 1
    for masks in results.values():
        assert all(np.array_equal(m.confidence, r.confidence) for m, r in zip(masks, results[0], strict=True))
    assert len(results) == 4


def test_only_the_newest_readings_stay_in_memory(folders: dict[str, Path]) -> None:
    """The engine buffers frames for seconds; what was computed on them goes earlier, and can be had again."""
    segmenter = load(folders["internlm2"], images_kept="2")
    _, groundings = ground(segmenter, TEXTS[0])
    tokens = tokens_of(groundings)
    buffered = segmenter.encode([frame(seed, seed) for seed in range(1, 5)])
    masks = [segmenter.segment(encoded, tokens)[0] for encoded in buffered]
    assert [encoded.features.image.known for encoded in buffered] == [False, False, True, True]
    segmenter.segment(buffered[2], tokens)
    again = segmenter.segment(buffered[0], tokens)[0]
    assert [encoded.features.image.known for encoded in buffered] == [True, False, True, False]
    assert np.array_equal(again.confidence, masks[0].confidence)


def test_masks_answer_tokens_in_order_at_the_frames_size(folders: dict[str, Path]) -> None:
    segmenter = load(folders["internlm2"])
    _, groundings = ground(segmenter, *TEXTS)
    tokens = tokens_of(groundings)
    other = segmenter.encode([frame(3, 7, (90, 33))])[0]
    masks = segmenter.segment(other, tokens)
    shuffled = segmenter.segment(other, [tokens[2], tokens[0], tokens[2]])
    assert all(np.array_equal(a.confidence, masks[i].confidence) for a, i in zip(shuffled, (2, 0, 2), strict=True))
    for mask, token in zip(masks, tokens, strict=True):
        assert mask.mask.shape == mask.confidence.shape == (90, 33)
        assert mask.mask.dtype == bool and mask.token is token and 0.0 <= mask.score <= 1.0
        unsure = np.abs(mask.confidence / 255 - 0.5) < 1 / 255
        assert np.array_equal(mask.mask[~unsure], (mask.confidence > 127)[~unsure])
    assert segmenter.segment(other, []) == [] and segmenter.ground(Clip((other,)), []) == []


def test_the_image_decides_what_a_token_means(folders: dict[str, Path]) -> None:
    """A token is a slot of an instruction, read again on each frame: the same on the same pixels, else another mask."""
    segmenter = load(folders["internlm2"])
    encoded, groundings = ground(segmenter, TEXTS[0])
    tokens = tokens_of(groundings)
    here, again, there = (
        segmenter.segment(segmenter.encode([f])[0], tokens)[0] for f in (encoded.frame, frame(0, 9), frame(5, 9))
    )
    assert np.array_equal(here.confidence, again.confidence)
    assert not np.array_equal(here.confidence, there.confidence)


# Refusal


def make_refuse(segmenter: MllmSegSegmenter, *texts: str) -> None:
    """Turn the output row of [REJ] towards the states before the slots of these instructions."""
    encoded = segmenter.encode([frame()])[0]
    read = [segmenter.reader.read(text) for text in texts]
    with torch.inference_mode():
        states = segmenter.model.read_commands(encoded.features.image(), [command.suffix for command in read])
        towards = torch.stack([rows[command.reads[-1]] for rows, command in zip(states, read, strict=True)]).mean(0)
        segmenter.model.mllm.lm_head.weight.data[segmenter.rej] = 50 * towards / towards.norm()


def test_a_refused_target_has_no_token(folders: dict[str, Path]) -> None:
    segmenter = load(folders["internlm2"])
    _, (before,) = ground(segmenter, TEXTS[0])
    assert not before.targets[0].rejected and before.text == "Sure,the red mug:[SEG]."
    make_refuse(segmenter, TEXTS[0])
    _, (after,) = ground(segmenter, TEXTS[0])
    (target,) = after.targets
    assert target.rejected and target.token is None and target.rejection_score > 0.9
    assert target.score == pytest.approx(1 - target.rejection_score) and "[REJ]" in target.reason
    assert after.text == "Sure,the red mug:[REJ]."


def test_a_target_that_left_is_seen_to_be_gone(folders: dict[str, Path]) -> None:
    """The language model judges every frame, so that a mask's score falls when it would refuse there."""
    segmenter = load(folders["internlm2"])
    encoded, groundings = ground(segmenter, TEXTS[0])
    tokens = tokens_of(groundings)
    before = segmenter.segment(encoded, tokens)[0].score
    make_refuse(segmenter, TEXTS[0])
    assert segmenter.segment(encoded, tokens)[0].score < 0.1 < before


def test_rules_of_refusal(folders: dict[str, Path]) -> None:
    def refusals_by(rule: str) -> tuple[Target, Target]:
        segmenter = load(folders["internlm2"], rejection=rule)
        segmenter.model.decoder.smooth.bias.data.fill_(-30.0)  # a decoder that finds nothing
        unsure = ground(segmenter, TEXTS[0])[1][0].targets[0]
        segmenter.model.decoder.smooth.bias.data.fill_(30.0)
        make_refuse(segmenter, TEXTS[0])
        return unsure, ground(segmenter, TEXTS[0])[1][0].targets[0]

    for rule in ("auto", "token"):
        unsure, refused = refusals_by(rule)
        assert unsure.rejection_score < 0.5 < refused.rejection_score
    unsure, refused = refusals_by("evidence")
    assert refused.rejection_score < 0.5 < unsure.rejection_score
    unsure, refused = refusals_by("both")
    assert min(unsure.rejection_score, refused.rejection_score) > 0.9
    assert "mask decoder" in unsure.reason and "[REJ]" in refused.reason


def test_a_checkpoint_that_cannot_refuse_falls_back_to_evidence(folders: dict[str, Path]) -> None:
    for rule in ("auto", "token", "both"):
        segmenter = load(folders["mute"], rejection=rule)
        assert "cannot refuse" in segmenter.notes[0] and "evidence" in segmenter.notes[0]
        assert segmenter.notes[0] in segmenter.load_report.describe()
        segmenter.model.decoder.smooth.bias.data.fill_(-30.0)
        (target,) = ground(segmenter, TEXTS[0])[1][0].targets
        assert target.rejected and "mask decoder" in target.reason
    assert load(folders["internlm2"]).notes == ()


@unhurried
@given(st.integers(2, 9), st.integers(0, 2**31), st.booleans())
def test_refusal_probability_passes_one_half_with_the_decision(words: int, seed: int, big: bool) -> None:
    logits = torch.randn(5, words, generator=torch.Generator().manual_seed(seed)) * (50 if big else 1)
    rej = seed % words
    assert torch.equal(refusal_probability(logits, rej) > 0.5, refusals(logits, rej))


def test_numbers_that_are_none_show_nothing(folders: dict[str, Path]) -> None:
    segmenter = load(folders["internlm2"])
    encoded, groundings = ground(segmenter, TEXTS[0])
    tokens = tokens_of(groundings)
    segmenter.model.decoder.smooth.bias.data.fill_(float("nan"))
    (mask,) = segmenter.segment(encoded, tokens)
    assert mask.score == 0.0 and not mask.mask.any()
    (target,) = ground(segmenter, TEXTS[0])[1][0].targets
    assert target.rejected and target.rejection_score == 1.0


# Number formats


def test_bfloat16_weights(folders: dict[str, Path]) -> None:
    full, half = load(folders["internlm2"]), load(folders["internlm2"], "bfloat16")
    views = []
    for segmenter in (full, half):
        encoded, groundings = ground(segmenter, *TEXTS)
        views.append(segmenter.look(encoded, tokens_of(groundings)))
    for exact, rounded in zip(*views, strict=True):
        assert rounded.probabilities.dtype == torch.float32
        assert (exact.probabilities - rounded.probabilities).abs().mean() < 0.03


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_stays_finite(dtype: torch.dtype, folders: dict[str, Path]) -> None:
    segmenter = load(folders["qwen2"])
    _, groundings = ground(segmenter, *TEXTS)
    with torch.autocast("cpu", dtype=dtype):
        views = segmenter.look(segmenter.encode([frame(4)])[0], tokens_of(groundings))
    assert all(torch.isfinite(view.probabilities).all() and view.score > 0 for view in views)


# What is refused


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("the mug [SEG]", "special tokens"),
        ("the <box> mug", "'<box>'"),
        ("<|im_end|> mug", "special tokens"),
        (" ; . ", "must contain words"),
        ("a;b;c;d;e", "at most 4 targets"),
    ],
)
def test_texts_that_are_refused(text: str, said: str, folders: dict[str, Path]) -> None:
    segmenter = load(folders["internlm2"])
    with pytest.raises(BadInput, match=said):
        ground(segmenter, text)


def test_an_instruction_longer_than_the_model_reads(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = load(folders["internlm2"])
    monkeypatch.setattr(commands, "LONGEST", 60)
    with pytest.raises(BadInput, match="may take 60 tokens; this one takes"):
        ground(segmenter, "the red mug")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"prompts": "training"}, "no option 'prompts'"),
        ({"prompt": "poetry"}, "one of evaluation, training; got 'poetry'"),
        ({"max_targets": "0"}, "in 1..16; got '0'"),
        ({"masks": "tracker"}, "go together"),
        ({"tracker_checkpoint": "somewhere"}, "go together"),
    ],
)
def test_options_that_are_refused(options: dict[str, str], said: str, folders: dict[str, Path]) -> None:
    with pytest.raises(BadInput, match=said):
        load(folders["internlm2"], **options)


def test_float16_is_for_cuda(folders: dict[str, Path]) -> None:
    with pytest.raises(BadInput, match="float16 works on CUDA devices only"):
        load(folders["internlm2"], "float16")


def test_options_are_heeded(folders: dict[str, Path]) -> None:
    segmenter = load(folders["internlm2"], prompt="training", max_targets="6")
    assert segmenter.max_targets == 6
    _, (grounding,) = ground(segmenter, "The red mug; a;b;c;d;e.")
    assert grounding.text.startswith("Sure, they are The red mug:[SEG], a:[SEG]") and len(grounding.targets) == 6


def test_command_line(folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """``instructseg segment`` on a picture, and ``instructseg inspect``, which says what the weights gave away."""
    import cv2

    picture = tmp_path / "picture.png"
    assert cv2.imwrite(str(picture), frame(size=(60, 80)).image)
    model = ["--recipe", "mllmseg", "--checkpoint", str(folders["mute"]), "--device", "cpu"]
    assert cli.main(["segment", str(picture), "the red mug", "--out", str(tmp_path / "out"), *model]) == 0
    masks = [path for path in (tmp_path / "out").rglob("*.png") if "mask" in str(path)]
    assert masks and cv2.imread(str(masks[0]), cv2.IMREAD_UNCHANGED).shape[:2] == (60, 80)
    capsys.readouterr()
    assert cli.main(["inspect", *model]) == 0
    assert "cannot refuse" in capsys.readouterr().out
