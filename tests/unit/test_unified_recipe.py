"""The default recipe without its weights: configuration, checkpoint, text, the three steps of the Segmenter."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from unit.fakes import unhurried
from unit.tiny_unified import TINY, noise_frame, tiny_checkpoint, tiny_model

import instructseg
from instructseg.core import BadInput, Clip, Instruction, Segmenter
from instructseg.language import SPECIAL_TOKENS, clean_instruction
from instructseg.modules.folding import fold_batch_norm
from instructseg.modules.object_latents import GEOMETRY, ObjectLatents
from instructseg.modules.video_perceiver import Association
from instructseg.recipes.unified.configuration import UnifiedConfig
from instructseg.recipes.unified.modeling import prefix_mask, suffix_mask
from instructseg.recipes.unified.processing import TargetToken, UnifiedSegmenter
from instructseg.recipes.unified.tokenizer import CONTROL, build_tokenizer, encode_words

TEXTS = ["the red mug", "the blue ball and the green block", "something to drink from", "banana", "all the red blocks"]
TOKENIZER = build_tokenizer(["the", "red", "mug", "image", "trk", "rej", "pad", "unk", "end"])
UNKNOWN = CONTROL.index("<unk>")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint")


@pytest.fixture(scope="module")
def segmenter() -> UnifiedSegmenter:
    return UnifiedSegmenter(*tiny_model(), torch.device("cpu"), None)


# Configuration


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"hiden": 32}, "unknown key.*hiden.*known are"),
        ({"image_size": [100, 64]}, r"image_size.*multiples of 16.*\(100, 64\)"),
        ({"image_size": [16, 16]}, "image_size"),
        ({"hidden": 30, "heads": 4}, "multiple of twice the heads"),
        ({"slots": 0}, "slots must be in 1..256; got 0"),
        ({"max_targets": 99}, "max_targets"),
        ({"present_threshold": 1.0}, "present_threshold"),
        ([1, 2], "must be a JSON object; got list"),
    ],
)
def test_a_bad_configuration_names_the_key(values, what: str) -> None:
    with pytest.raises(BadInput, match=what):
        UnifiedConfig.from_dict(values)


def test_a_configuration_survives_json() -> None:
    assert UnifiedConfig.from_dict(json.loads(json.dumps(TINY.to_dict()))) == TINY


# Checkpoint


def copy_of(checkpoint: Path, folder: Path) -> Path:
    folder.mkdir()
    for path in checkpoint.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_a_checkpoint_gives_the_same_answers_again(checkpoint: Path, segmenter: UnifiedSegmenter) -> None:
    loaded = instructseg.load("unified", checkpoint, "cpu", "float32")
    frame = noise_frame(48, 64)
    before, after = ([t.score for t in ground(s, frame, TEXTS[0]).targets] for s in (segmenter, loaded))
    assert before == pytest.approx(after, abs=1e-6)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(checkpoint: Path, tmp_path: Path, name: str) -> None:
    folder = copy_of(checkpoint, tmp_path / "c")
    (folder / name).unlink()
    with pytest.raises(BadInput, match=name):
        instructseg.load("unified", folder, "cpu")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize("keep", [0, 100])
def test_a_file_that_was_cut_off_is_named(checkpoint: Path, tmp_path: Path, name: str, keep: int) -> None:
    folder = copy_of(checkpoint, tmp_path / "c")
    (folder / name).write_bytes((folder / name).read_bytes()[:keep])
    with pytest.raises(BadInput, match=name):
        instructseg.load("unified", folder, "cpu")


def test_weights_that_lack_their_last_bytes(checkpoint: Path, tmp_path: Path) -> None:
    folder = copy_of(checkpoint, tmp_path / "c")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-64])
    with pytest.raises(BadInput, match=r"model.safetensors is not a readable safetensors file"):
        instructseg.load("unified", folder, "cpu")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda t: t.pop("answer.bias"), "1 missing.*answer.bias"),
        (lambda t: t.update(extra=torch.zeros(2)), "1 unexpected.*extra"),
        (lambda t: t.update({"answer.bias": torch.zeros(4)}), r"another shape.*answer.bias is \(4,\), the model"),
    ],
)
def test_every_key_is_accounted_for(checkpoint: Path, tmp_path: Path, change, what: str) -> None:
    folder = copy_of(checkpoint, tmp_path / "c")
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(BadInput, match=what):
        instructseg.load("unified", folder, "cpu")


def test_another_recipes_configuration_a_file_and_a_place_that_is_not_there(checkpoint: Path, tmp_path: Path) -> None:
    folder = copy_of(checkpoint, tmp_path / "c")
    (folder / "config.json").write_text('{"recipe": "other"}')
    with pytest.raises(BadInput, match="not a configuration of the recipe 'unified'"):
        instructseg.load("unified", folder, "cpu")
    with pytest.raises(BadInput, match="is a file; give the folder"):
        instructseg.load("unified", folder / "config.json", "cpu")
    with pytest.raises(BadInput, match="does not exist"):
        instructseg.load("unified", tmp_path / "nowhere", "cpu")


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("sa2va", None), "unknown recipe 'sa2va'.*unified"),
        (("unified", None, "gpu"), "device must be auto, cpu, cuda.*'gpu'"),
        (("unified", None, "meta"), "device must be"),
        (("unified", None, "cpu", "float8"), "dtype must be one of.*'float8'"),
    ],
)
def test_load_refuses_what_it_does_not_know(checkpoint: Path, arguments: tuple, what: str) -> None:
    name, _, *rest = arguments
    with pytest.raises(BadInput, match=what):
        instructseg.load(name, checkpoint, *rest)


# Text


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_special_tokens_are_refused_in_any_disguise(token: str) -> None:
    wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in token)
    for text in (f"the mug {token}", token.upper() + " mug", f"a{token.lower()}b", f"{wide} mug"):
        with pytest.raises(BadInput, match="special tokens"):
            clean_instruction(text)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (None, "must be text; got NoneType"), (b"mug", "got bytes"), ("", "words"), (" \t\n", "words"), ("?!", "words"),
        ("x" * 1001, "at most 1000 characters; got 1001"), ("mug\x00", r"U\+0000 at position 3"),
        ("\u202emug", r"U\+202E"), ("a\ud800", r"U\+D800"), ("the <|im_start|> mug", "special tokens"),
    ],
)  # fmt: skip
def test_text_that_cannot_be_used(text: object, what: str) -> None:
    with pytest.raises(BadInput, match=what):
        clean_instruction(text)


def test_clean_text_is_one_plain_line() -> None:
    assert clean_instruction("  the\tred \r\n mug  ") == "the red mug"
    assert clean_instruction("ｔｈｅ ｍｕｇ") == "the mug"


@unhurried
@given(st.text(max_size=80) | st.lists(st.sampled_from(["the", *SPECIAL_TOKENS, "<", ">", "[", "|"])).map("".join))
def test_what_passes_is_stable_harmless_and_never_a_control_token(text: str) -> None:
    try:
        line = clean_instruction(text)
    except BadInput:
        line = None
    if line is not None:
        assert clean_instruction(line) == line
        assert line.isprintable()
        assert not any(token.lower() in line.lower() for token in SPECIAL_TOKENS)
    ids = TOKENIZER.encode(text, add_special_tokens=False).ids  # whatever reaches the tokenizer, cleaned or not
    assert all(i >= UNKNOWN for i in ids)


@pytest.mark.parametrize("token", CONTROL)
def test_no_text_yields_a_control_token(token: str) -> None:
    for text in (token, token.upper(), f"the {token} mug", token * 3):
        assert all(i >= UNKNOWN for i in encode_words(TOKENIZER, text, 99))


def test_too_many_words_are_refused_and_not_cut() -> None:
    assert len(encode_words(TOKENIZER, "the red mug", 3)) == 3
    with pytest.raises(BadInput, match="at most 3 words; got 4"):
        encode_words(TOKENIZER, "the red red mug", 3)


# The three steps


def ground(segmenter: Segmenter, frame, *texts: str):
    encoded = segmenter.encode([frame])[0]
    groundings = segmenter.ground(Clip((encoded,)), [Instruction(str(i), t) for i, t in enumerate(texts)])
    return groundings[0] if len(texts) == 1 else groundings


@pytest.mark.parametrize("size", [(16, 16), (480, 640), (17, 301), (64, 64), (300, 20)])
def test_every_size_of_frame_goes_through(segmenter: UnifiedSegmenter, size: tuple[int, int]) -> None:
    frames = [noise_frame(*size, seconds=t / 10, seed=t) for t in range(3)]
    encoded = segmenter.encode(frames)
    assert [e.frame for e in encoded] == frames
    groundings = segmenter.ground(Clip(tuple(encoded[:2])), [Instruction(str(i), t) for i, t in enumerate(TEXTS)])
    assert [g.instruction_id for g in groundings] == ["0", "1", "2", "3", "4"]
    tokens = []
    for grounding in groundings:
        assert (grounding.key_stamp_ns, grounding.frame_stamps_ns) == (100_000_000, (0, 100_000_000))
        assert 1 <= len(grounding.targets) <= segmenter.max_targets
        for target in grounding.targets:
            assert 0.0 <= target.score <= 1.0
            assert target.score + target.rejection_score == pytest.approx(1.0)
            assert target.rejected == (target.token is None)
            assert not target.rejected or target.reason
            tokens += [] if target.rejected else [target.token]
    assert tokens  # else nothing is shown about masks
    masks = segmenter.segment(encoded[2], tokens)
    assert len(masks) == len(tokens)
    for mask in masks:
        assert mask.mask.shape == size
        assert mask.mask.dtype == bool
        assert 0.0 <= mask.score <= 1.0
        assert mask.token is not None
    assert segmenter.segment(encoded[2], []) == []


def test_nothing_in_nothing_out(segmenter: UnifiedSegmenter) -> None:
    assert segmenter.encode([]) == []
    assert segmenter.ground(Clip(tuple(segmenter.encode([noise_frame(48, 64)]))), []) == []
    with pytest.raises(BadInput, match="at least one frame"):
        Clip(())


def test_several_instructions_in_one_call_equal_one_by_one(segmenter: UnifiedSegmenter) -> None:
    frame = noise_frame(96, 128)
    encoded = segmenter.encode([frame])[0]
    for text, together in zip(TEXTS, ground(segmenter, frame, *TEXTS), strict=True):
        alone = ground(segmenter, frame, text)
        assert [t.rejected for t in alone.targets] == [t.rejected for t in together.targets]
        for a, b in zip(alone.targets, together.targets, strict=True):
            assert a.score == pytest.approx(b.score, abs=1e-4)
            if a.token is not None:
                one, other = segmenter.segment(encoded, [a.token])[0], segmenter.segment(encoded, [b.token])[0]
                np.testing.assert_array_equal(one.mask, other.mask)


def test_frames_in_one_call_equal_one_by_one_even_of_other_sizes(segmenter: UnifiedSegmenter) -> None:
    frames = [noise_frame(96, 128), noise_frame(64, 64, seed=1), noise_frame(20, 90, seed=2)]
    for frame, together in zip(frames, segmenter.encode(frames), strict=True):
        alone = segmenter.encode([frame])[0].features.latents
        for field in dataclasses.fields(alone):
            a, b = getattr(alone, field.name).float(), getattr(together.features.latents, field.name).float()
            torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


def test_segment_finds_again_what_was_grounded_on_the_same_frame(segmenter: UnifiedSegmenter) -> None:
    frame = noise_frame(96, 128)
    encoded = segmenter.encode([frame])[0]
    assert encoded.features.latents.valid.any()
    token = ground(segmenter, frame, TEXTS[0]).targets[0].token
    first = segmenter.segment(encoded, [token])[0]
    again = segmenter.segment(encoded, [token])[0]
    np.testing.assert_array_equal(first.mask, again.mask)  # no state between calls
    assert first.score == again.score


def test_a_smaller_input_gives_masks_of_the_frames_size_and_mixes_with_others_in_a_clip() -> None:
    config = dataclasses.replace(TINY, image_size=(64, 96))
    scaled, frames = UnifiedSegmenter(*tiny_model(config), torch.device("cpu"), None), []
    for index, scale in enumerate((1.0, scaled.reduced_scale, 1.0)):
        scaled.resolution_scale = scale
        frames += scaled.encode([noise_frame(48, 80, index / 10)])
    sizes = [encoded.features.placement.target for encoded in frames]
    assert sizes == [(64, 96), (48, 64), (64, 96)]
    for clip in (Clip(tuple(frames)), Clip(tuple(frames[:2]))):
        targets = scaled.ground(clip, [Instruction("a", "the red mug")])[0].targets
        tokens = [target.token for target in targets if target.token is not None]
        assert tokens
        for encoded in frames:
            assert all(mask.mask.shape == (48, 80) for mask in scaled.segment(encoded, tokens))


def test_likeness_is_agreement_of_colour_and_size(segmenter: UnifiedSegmenter) -> None:
    config = segmenter.model.config
    colors, shapes, sizes = len(config.colors), len(config.shapes), len(config.sizes)

    def token(color: int, size: int) -> TargetToken:
        appearance = torch.zeros(1, config.appearance)
        appearance[0, color] = appearance[0, colors] = appearance[0, colors + shapes + size] = 1.0
        appearance[0, colors + shapes + sizes :] = torch.rand(config.embedding)
        return TargetToken(torch.zeros(1), appearance, torch.zeros(1, GEOMETRY), (0,))

    assert segmenter.likeness(token(0, 0), token(0, 0)) == pytest.approx(1.0)
    assert segmenter.likeness(token(0, 0), token(1, 0)) == 0.0
    assert segmenter.likeness(token(0, 0), token(0, 1)) == 0.0
    several = dataclasses.replace(token(0, 0), appearance=torch.cat([token(c, 0).appearance for c in (1, 0)]))
    assert segmenter.likeness(several, token(0, 0)) == pytest.approx(1.0)


def test_text_that_was_never_cleaned_is_refused_at_the_last_door(segmenter: UnifiedSegmenter) -> None:
    with pytest.raises(BadInput, match="special tokens"):
        ground(segmenter, noise_frame(48, 64), "the <TRK> mug")
    with pytest.raises(BadInput, match="at most 40 words"):
        ground(segmenter, noise_frame(48, 64), "red " * 41)


# Parts


def test_folding_changes_nothing_but_the_speed() -> None:
    model, _ = tiny_model()
    encoder = model.perception.encoder
    folded = fold_batch_norm(encoder)
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        for field in dataclasses.fields(a := encoder(images)):
            whole, fold = getattr(a, field.name), getattr(folded(images), field.name)
            torch.testing.assert_close(whole, fold, atol=1e-4, rtol=1e-4)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in encoder.modules())  # the original is left alone


def test_masks_let_latents_see_latents_words_the_past_and_slots_everything_before() -> None:
    valid = torch.tensor([[True, True, False]])
    said = torch.tensor([[True, True, False]])  # two words and one of padding
    latents = prefix_mask(valid)[0, 0]
    assert latents.tolist() == [[True, True, False], [True, True, False], [True, True, True]]
    mask = suffix_mask(valid, said, 2)[0, 0]  # rows: 3 words, 2 slots; columns: 3 latents, 3 words, 2 slots
    assert mask.shape == (5, 8)
    assert (mask[:, :3] == valid).all()
    assert mask[0, 3:].tolist() == [True, False, False, False, False]
    assert mask[1, 3:].tolist() == [True, True, False, False, False]
    assert mask[3, 3:].tolist() == [True, True, False, True, False]
    assert mask[4, 3:].tolist() == [True, True, False, True, True]
    assert mask.any(1).all()  # no row may be empty


def some_latents(valid: list[bool]) -> ObjectLatents:
    k = len(valid)
    torch.manual_seed(1)
    return ObjectLatents(torch.zeros(1, k, 1, 1), torch.rand(1, k, GEOMETRY), torch.rand(1, k, 9), torch.ones(1, k),
                         torch.tensor([valid]))  # fmt: skip


def test_association_says_nowhere_when_nothing_is_there_and_never_points_at_empty_slots() -> None:
    torch.manual_seed(0)
    association = Association(embedding=4, attributes=5)
    me = some_latents([True, True])
    seconds = torch.tensor([0.5])
    with torch.inference_mode():
        for valid in ([False, False, False], [True, False, True]):
            logits = association.logits(me.appearance, me.geometry, some_latents(valid), seconds)
            assert logits.shape == (1, 2, 4)
            share = logits.softmax(-1)
            assert share[..., :-1][..., ~torch.tensor(valid)].max() == 0.0
        share = association.logits(me.appearance, me.geometry, some_latents([False] * 3), seconds).softmax(-1)
        assert (share[..., -1] == 1.0).all()
        association.nowhere.fill_(50.0)
        share = association.logits(me.appearance, me.geometry, some_latents([True] * 3), seconds).softmax(-1)
        assert (share[..., -1] > 0.99).all()
