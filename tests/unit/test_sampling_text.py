"""Samplers of the target frame: the published question and its answers, and ours."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModelWithProjection
from unit.tiny_unified import noise_frame
from unit.tiny_visa import CLIP, CONFIG, clip_tensors, tiny_checkpoint

import instructseg
from instructseg.core import BadInput, EncodedFrame
from instructseg.modules.clip_text import ClipText, has_text_tower
from instructseg.recipes.visa.frame_samplers import ANSWERERS, ClipSimilarity, StateSimilarity, find_answerer
from instructseg.sampling_text import (
    AskedFrame,
    NewestFrame,
    UniformFrame,
    frame_at,
    mean_position,
    most_similar,
    position,
    question,
)


def frames(count: int) -> list[EncodedFrame]:
    return [EncodedFrame(noise_frame(32, 32, i / 10, i), None) for i in range(count)]


class Answerer:
    """Gives the prepared answers one after the other, and remembers what it was asked."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.asked: list[tuple] = []

    def __call__(self, frames, question: str, *, temperature: float, top_p: float, max_new_tokens: int) -> str:
        self.asked.append((len(frames), question, temperature, top_p, max_new_tokens))
        return self.answers[(len(self.asked) - 1) % len(self.answers)]


# The published sampler


def test_the_question_is_the_published_one() -> None:
    assert question("the dog?") == (
        "If I want to find 'the dog', which percentage mark of the video should I check?\n"
        "             Please choose one answer from 0%, 10%, 20%, 30%, 40%, 50%, 60%, 70%, 80%, 90%, and 100%."
    )


def test_the_mean_of_ten_answers_decides() -> None:
    answerer = Answerer("the 20% mark", "40%", "I cannot tell")
    assert AskedFrame(answerer).choose(frames(10), "the dog") == 2  # (4 * 0.2 + 3 * 0.4) / 7 of 10 frames
    assert len(answerer.asked) == 10
    assert set(answerer.asked) == {(10, question("the dog"), 0.6, 0.9, 1024)}


@pytest.mark.parametrize(
    ("answer", "place"),
    [
        ("30%", 0.3), ("the last 10%", 0.9), ("last 100%", 0.0), ("0%", 0.0), ("100%", 1.0), ("25%", None),
        ("110%", 0.1), ("40% and 20%", 0.2), ("", None), ("10% of the last 30%", 0.7),
    ],
)  # fmt: skip
def test_places_in_answers(answer: str, place: float | None) -> None:
    assert position(answer) == (None if place is None else pytest.approx(place))


def test_without_any_place_the_middle_is_taken() -> None:
    assert mean_position(["no idea", "25%"]) == mean_position([]) == 0.5
    assert [frame_at(0.5, n) for n in (1, 2, 7)] == [0, 1, 3]
    assert frame_at(1.0, 7) == 6
    with pytest.raises(BadInput, match="at least one; got 0"):
        frame_at(0.5, 0)


def test_newest_and_middle() -> None:
    assert NewestFrame().choose(frames(5), "x") == 4
    assert UniformFrame().choose(frames(5), "x") == 2
    assert NewestFrame().choose(frames(1), "x") == UniformFrame().choose(frames(1), "x") == 0


def test_most_similar_takes_the_newest_of_equals() -> None:
    rows = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.1, 5.0], [0.0, 1.0]])
    assert most_similar(rows, torch.tensor([0.0, 1.0])) == 3
    assert most_similar(rows, torch.tensor([3.0, 0.0])) == 0


# By name


class Entry:
    name = "counting"
    answerer = Answerer("0%")

    def load(self) -> Answerer:
        return self.answerer


def test_an_installed_answerer_is_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "entry_points", lambda group: [Entry()] if group == ANSWERERS else [])
    folder = tiny_checkpoint(tmp_path / "visa")
    options = {"frame_sampler": "published", "video_answerer": "counting"}
    segmenter = instructseg.load("visa", folder, "cpu", "float32", options)
    encoded = segmenter.encode([noise_frame(48, 64, i / 10, i) for i in range(3)])
    assert segmenter.frame_sampler.choose(encoded, "the mug") == 0
    assert len(Entry.answerer.asked) == 10
    with pytest.raises(BadInput, match=r"got 'other', installed are \['counting'\]"):
        find_answerer("other")


class Broken:
    name = "broken"

    def load(self):
        raise ImportError("no module named video_model")


class NoFunction:
    name = "number"

    def load(self) -> int:
        return 5


def test_answerers_that_cannot_be_used_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "entry_points", lambda group: [Broken(), NoFunction()])
    with pytest.raises(BadInput, match="'broken' in .* cannot be loaded: no module named video_model"):
        find_answerer("broken")
    with pytest.raises(BadInput, match="'number' in .* must name a function; got int"):
        find_answerer("number")


# Similarity


WORDS = "red mug ball"


def write_text_tower(folder: Path) -> Path:
    """Random text weights beside the tiny vision half, and a tokenizer of single letters and a few words."""
    letters = sorted(set(WORDS) - {" "})
    pieces = ["<|startoftext|>", *letters, *(f"{c}</w>" for c in letters), "re", "red</w>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\nr e\nre d</w>\n")
    text = CLIPTextConfig(
        hidden_size=12, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, vocab_size=len(pieces),
        max_position_embeddings=8, projection_dim=8, bos_token_id=0, eos_token_id=len(pieces) - 1, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    tower = {k: v for k, v in CLIPTextModelWithProjection(text).state_dict().items() if "position_ids" not in k}
    tensors = {k: v for k, v in clip_tensors(torch.Generator().manual_seed(4)).items() if not k.startswith("text_")}
    tensors |= {name: tensor.clone() for name, tensor in tower.items()}
    tensors["visual_projection.weight"] = torch.randn(8, CLIP.hidden_size)
    (folder / "pytorch_model.bin").unlink()
    save_file(tensors, folder / "model.safetensors")
    config = {"model_type": "clip", "vision_config": CLIP.to_dict(), "text_config": text.to_dict(), "projection_dim": 8}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_similarity_uses_the_towers_text_half_where_there_is_one(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "visa")
    clip = folder / CONFIG.vision_tower
    assert not has_text_tower(clip)
    write_text_tower(clip)
    assert has_text_tower(clip)
    segmenter = instructseg.load("visa", folder, "cpu", "float32", {"frame_sampler": "similarity"})
    assert isinstance(segmenter.frame_sampler, ClipSimilarity)
    encoded = segmenter.encode([noise_frame(48, 64, i / 10, i) for i in range(4)])

    text = ClipText.load(clip, torch.device("cpu"))
    with torch.inference_mode():
        words = text.embed("red mug")
        looks = text.project_images(torch.stack([e.features.look() for e in encoded]))
        likeness = torch.cosine_similarity(looks, words[None])
    assert segmenter.frame_sampler.choose(encoded, "red mug") == int(likeness.argmax())
    assert words.shape == (8,) and not torch.equal(words, text.embed("ball"))
    assert torch.isfinite(text.embed("red mug ball " * 30)).all()  # cut to the tower's length
    assert not text.report.missing and "vision_model.embeddings.class_embedding" in text.report.ignored


def test_a_damaged_tokenizer_of_the_text_half_is_named(tmp_path: Path) -> None:
    clip = write_text_tower(tiny_checkpoint(tmp_path / "visa") / CONFIG.vision_tower)
    (clip / "vocab.json").write_text("[")
    with pytest.raises(BadInput, match="tokenizer of CLIP in .* cannot be read"):
        ClipText.load(clip, torch.device("cpu"))


def test_similarity_without_a_text_half_compares_states_of_the_language_model(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "visa")
    options = {"frame_sampler": "similarity", "max_image_token": "3"}
    segmenter = instructseg.load("visa", folder, "cpu", "float32", options)
    assert isinstance(segmenter.frame_sampler, StateSimilarity)
    encoded = segmenter.encode([noise_frame(48, 64, i / 10, i) for i in range(4)])
    with segmenter.precision():
        reading, seen = segmenter.read(encoded, 3, "the red mug")
        states = reading.image_states()[: len(seen)]
    assert seen == (1, 3) and states.shape == (2, CONFIG.hidden)
    common = states.mean(0)
    likeness = torch.cosine_similarity(states - common, (reading.seg_states[0] - common)[None])
    assert segmenter.frame_sampler.choose(encoded, "the red mug") == seen[int(likeness.argmax())]
    assert segmenter.frame_sampler.choose(encoded[:1], "the red mug") == 0
