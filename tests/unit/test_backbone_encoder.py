"""The frame encoder on backbones of transformers, and language models' tokenizers renumbered: random and tiny."""

from __future__ import annotations

import dataclasses
import itertools
import json

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedModel
from unit.tiny_unified_large import LANGUAGES, VISION, byte_pairs, vision_values

from instructseg.core import BadInput
from instructseg.modules.backbone_encoder import BackboneEncoder, BackbonePyramid, backbone_config
from instructseg.modules.folding import fold_batch_norm
from instructseg.modules.language_backbone import build_language
from instructseg.recipes.unified.backbones import IMAGENET_MEAN, IMAGENET_STD, Backbone, VisionBackbone
from instructseg.recipes.unified.subwords import renumbered, renumbered_embedding
from instructseg.recipes.unified.tokenizer import CONTROL, build_tokenizer, last_pieces

CHANNELS = (8, 10, 12, 14)


def encoder_of(kind: str) -> BackboneEncoder:
    torch.manual_seed(0)
    config = backbone_config({"model_type": kind, **vision_values(kind)})
    deep = BackbonePyramid(config, IMAGENET_MEAN, IMAGENET_STD, *CHANNELS[2:])
    return BackboneEncoder(deep, CHANNELS, (1, 1, 1, 1), 6, attributes=5)


# Vision


@pytest.mark.parametrize("kind", VISION)
@pytest.mark.parametrize("size", [(64, 96), (48, 80)])
def test_every_backbone_gives_the_maps_of_the_small_encoder(kind: str, size: tuple[int, int]) -> None:
    h, w = size
    encoder = encoder_of(kind).eval()
    with torch.inference_mode():
        maps = encoder(torch.rand(2, 3, h, w))
    shapes = {field.name: tuple(getattr(maps, field.name).shape) for field in dataclasses.fields(maps)}
    assert shapes == {
        "fine": (2, 8, h // 2, w // 2), "shape": (2, 6, h // 4, w // 4), "context": (2, 12, h // 8, w // 8),
        "heat": (2, h // 4, w // 4), "votes": (2, 2, h // 4, w // 4), "objectness": (2, h // 2, w // 2),
        "attributes": (2, 5, h // 4, w // 4),
    }  # fmt: skip


@pytest.mark.parametrize("kind", VISION)
def test_what_the_backbone_sees_reaches_the_objects(kind: str) -> None:
    """The stem cannot do it: only the backbone's input is changed, through its mean."""
    encoder, images = encoder_of(kind).eval(), torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        before = encoder(images)
        encoder.deep.mean = encoder.deep.mean + torch.linspace(-1, 1, 64)
        after = encoder(images)
    assert torch.equal(before.fine, after.fine)
    for name in ("context", "shape", "heat"):
        assert not torch.allclose(getattr(before, name), getattr(after, name), atol=1e-6), name


@pytest.mark.parametrize("kind", ["dinov2_with_registers", "swin"])
def test_the_backbone_is_frozen_and_never_in_training_mode(kind: str) -> None:
    encoder = encoder_of(kind).train()
    assert encoder.stage2.training and not encoder.deep.backbone.training
    maps = encoder(torch.rand(2, 3, 64, 64))
    (maps.heat.sum() + maps.objectness.sum()).backward()
    taught = {name for name, parameter in encoder.named_parameters() if parameter.grad is not None}
    assert not any(name.startswith("deep.backbone.") for name in taught)
    for part in ("deep.to8.", "deep.to16.", "stage2.", "lateral16."):
        assert any(name.startswith(part) for name in taught), part


@pytest.mark.parametrize("kind", ["dinov2", "convnext"])
def test_folding_changes_nothing_and_shares_the_backbone(kind: str) -> None:
    encoder = encoder_of(kind)
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    folded, images = fold_batch_norm(encoder), torch.rand(1, 3, 64, 64)
    encoder.eval()
    with torch.inference_mode():
        for field in dataclasses.fields(a := encoder(images)):
            whole, fold = getattr(a, field.name), getattr(folded(images), field.name)
            torch.testing.assert_close(whole, fold, atol=1e-4, rtol=1e-4)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    assert isinstance(folded.deep.backbone, PreTrainedModel) and folded.deep.backbone is encoder.deep.backbone


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({}, "vision backbone must be one of dinov2.*got None"),
        ({"model_type": "resnet"}, "must be one of .*got 'resnet'"),
        ({"model_type": "convnext", "hidden_sizes": [8, 8], "depths": [1, 1]}, "four stages.*got 2 and 4"),
        ({"model_type": "swin", "patch_size": 2}, "patches of 4 pixels; got 4 and 2"),
        ({"model_type": "dinov2", "num_channels": 1}, "3 channels; got 1"),
    ],
)
def test_a_backbone_of_another_kind_is_refused(values: dict, what: str) -> None:
    with pytest.raises(BadInput, match=what):
        backbone_config(values)


# What config.json holds


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("facebook/dinov2-small", "vision_backbone must be null or a table"),
        ({"origin": "a/b"}, "vision_backbone must be null or a table"),
        ({"origin": "a/b", "config": {}, "more": 1}, "must be null or a table"),
        ({"origin": "a/b", "config": {}}, "vision_backbone: .*key 'model_type'"),
        ({"origin": 3, "config": {"model_type": "swin"}}, "origin .*must be a text; got 3"),
        (
            {"origin": "a/b", "config": {"model_type": "swin"}, "mean": [0.5]},
            r"mean must be three numbers; got \(0.5,\)",
        ),
        ({"origin": "a/b", "config": {"model_type": "swin"}, "std": [1, 1, 0]}, "std must be three numbers above 0"),
        ({"origin": "a/b", "config": {"model_type": "swin"}, "std": "grey"}, "std must be three numbers"),
    ],
)
def test_a_damaged_description_of_a_backbone_is_named(value: object, what: str) -> None:
    with pytest.raises(BadInput, match=what):
        VisionBackbone.from_value("vision_backbone", value)


def test_a_description_survives_json() -> None:
    written = VisionBackbone("facebook/dinov2-small", {"model_type": "dinov2", "depth": [1, 2]}, (0.1, 0.2, 0.3))
    read = VisionBackbone.from_value("vision_backbone", json.loads(json.dumps(dataclasses.asdict(written))))
    assert read == written
    assert Backbone.from_value("language_backbone", None) is None


# Language


@pytest.mark.parametrize("kind", LANGUAGES)
def test_a_language_model_takes_embeddings_masks_and_positions_as_they_are(kind: str) -> None:
    """Two texts at once, of which one is padded, and a prefix that is computed once, give what each alone gives."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
             "head_dim": 8, "intermediate_size": 24, "sliding_window": None}  # fmt: skip
    model = build_language({"model_type": kind, **sizes}, 20).eval()
    tokens = torch.randn(1, 5, 16)  # two of a prefix that see each other, three of text that see those before them
    both = torch.ones(5, 5).tril().bool()
    both[0, 1] = True
    positions = torch.tensor([[0, 0, 1, 2, 3]])
    with torch.inference_mode():
        at_once = model(inputs_embeds=tokens, attention_mask=both[None, None], position_ids=positions)
        prefix = model(inputs_embeds=tokens[:, :2], attention_mask=both[None, None, :2, :2],
                       position_ids=positions[:, :2], use_cache=True)  # fmt: skip
        cache = prefix.past_key_values
        cache.batch_select_indices(torch.tensor([0, 0]))
        padded = torch.cat([tokens[:, 2:], tokens[:, 2:]])
        padded[1, 2] = 100.0  # padding, which the mask hides from the others
        mask = both[None, None, 2:].repeat(2, 1, 1, 1)
        after = model(inputs_embeds=padded, attention_mask=mask, position_ids=positions[:, 2:].repeat(2, 1),
                      past_key_values=cache, use_cache=True).last_hidden_state  # fmt: skip
    torch.testing.assert_close(after[:1], at_once.last_hidden_state[:, 2:], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(after[1:, :2], at_once.last_hidden_state[:, 2:4], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", [None, "gpt2", "dinov2"])
def test_a_language_model_of_another_kind_is_refused(kind: str | None) -> None:
    with pytest.raises(BadInput, match=f"must be one of llama.*got {kind!r}"):
        build_language({"model_type": kind}, 20)


# Its tokenizer


def test_renumbered_tokens_are_the_same_pieces_with_control_in_front() -> None:
    before = byte_pairs()
    after, former = renumbered(before)
    assert [after.token_to_id(token) for token in CONTROL] == [0, 1, 2, 3, 4]
    assert after.get_vocab_size() == len(CONTROL) + len(former)
    for text in ("the red mug left of the Schäkel", "Bay 2; pick me!", "\u6c34"):
        old, new = (tokenizer.encode(text, add_special_tokens=False) for tokenizer in (before, after))
        assert new.tokens == old.tokens
        assert [former[i - len(CONTROL)] for i in new.ids] == old.ids
    again = Tokenizer.from_str(after.to_str())
    assert again.encode("the red mug").ids == after.encode("the red mug").ids


@pytest.mark.parametrize("text", [*CONTROL, "<|endoftext|>", "<|im_start|>", "the <pad> mug <TRK>"])
def test_no_text_gives_a_control_token_after_renumbering(text: str) -> None:
    after, former = renumbered(byte_pairs())
    ids = after.encode(text, add_special_tokens=False).ids
    controls = {byte_pairs().token_to_id(token) for token in ("<|endoftext|>", "<pad>", "<|im_start|>")}
    assert ids and all(i >= len(CONTROL) for i in ids)
    assert controls.isdisjoint(former[i - len(CONTROL)] for i in ids)


def test_the_last_piece_of_every_word_is_known() -> None:
    text = "the Schäkel left of  the red mug"
    pieces, _ = renumbered(byte_pairs())
    said = pieces.encode(text, add_special_tokens=False).ids
    ends = last_pieces(pieces, text)
    assert len(ends) == len(text.split()) and ends[-1] == len(said) - 1
    begun = [0, *(end + 1 for end in ends)]
    spelt = [pieces.decode(said[a:b]).strip() for a, b in itertools.pairwise(begun)]
    assert spelt == text.split()
    words = build_tokenizer(["the", "red", "mug"])
    assert last_pieces(words, "the zzz red mug") == [0, 1, 2, 3]
    assert last_pieces(words, "red, mug!") == [1, 3]


def test_embeddings_follow_their_tokens() -> None:
    before = byte_pairs()
    after, former = renumbered(before)
    old = torch.randn(before.get_vocab_size() + 3, 4)
    new = renumbered_embedding(old, former)
    assert new.shape == (after.get_vocab_size(), 4)
    assert not new[0].any()
    for word, index in before.get_vocab().items():
        if after.token_to_id(word) is not None and word not in CONTROL:
            assert torch.equal(new[after.token_to_id(word)], old[index])
    with pytest.raises(BadInput, match="embeddings for 7 tokens.*different checkpoints"):
        renumbered_embedding(old[:7], former)


def test_tokenizers_of_another_kind_are_refused() -> None:
    with pytest.raises(BadInput, match="must be a byte-pair encoding.*got WordLevel"):
        renumbered(Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    whole = Tokenizer(models.BPE({"a": 0}, [], ignore_merges=True))
    whole.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    with pytest.raises(BadInput, match="takes whole words as tokens"):
        renumbered(whole)
