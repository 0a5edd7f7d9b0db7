"""MLLMSeg's modules, pixels, words and losses one by one against recordings of the published ones."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
from transformers import InternVLModel, LlamaConfig
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaRotaryEmbedding

from instructseg.checkpoints import load_parts, read_json
from instructseg.modules.dysample import DySample
from instructseg.modules.feature_fusion import FusionSizes
from instructseg.modules.light_mask_decoder import LightMaskDecoder
from instructseg.modules.post_norm_block import PostNormBlock
from instructseg.recipes.mllmseg.checkpoint import DECODER_PART
from instructseg.recipes.mllmseg.configuration import rope_parameters
from instructseg.recipes.mllmseg.fused_weights import language_packing
from instructseg.recipes.mllmseg.losses import dice_loss, focal_loss, soft_iou
from instructseg.recipes.mllmseg.processing import image_pixels
from instructseg.recipes.mllmseg.prompts import (
    TRAINING_ANSWERS,
    TRAINING_QUESTIONS,
    conversation,
    evaluation_texts,
    training_texts,
)

from .golden import COMMITTED, Golden, load_case
from .mllmseg_models import Tensors, close, passing

DECODER = 3e-5
MODULE = 1e-5
PROBABILITY = 5e-6
LOSS = 1e-6
ANGLE = 1e-6  # cosines and sines


def load_published(module: torch.nn.Module, place: str, tensors: Tensors, recorded: str, published: str) -> None:
    """Fill ``module``, which stands at ``place`` in the mask decoder, by the recipe's own conversion.

    recorded: prefix of the weights in the case. published: what stands before the same names in a checkpoint.
    """
    weights = {published + k.removeprefix(recorded): v for k, v in tensors.items() if k.startswith(recorded)}
    outer: torch.nn.Module = module
    for name in reversed(["decoder", *place.split(".")] if place else ["decoder"]):
        outer = torch.nn.ModuleDict({name: outer})
    load_parts(outer, Named(weights), (DECODER_PART,))
    module.eval()


class Named(dict):
    """Tensors by name that know their shapes, as a loader wants them."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(tensor.shape) for name, tensor in self.items()}


@pytest.mark.golden("mllmseg", r"dysample\.weights\.offset\.weight", r"dysample\..+\.in", r"dysample\..+\.out")
@torch.inference_mode()
def test_dysample(case: Path) -> None:
    tensors = load_case(case)
    module = DySample(tensors["dysample.weights.offset.weight"].shape[1])
    assert torch.equal(module.start, tensors["dysample.weights.init_pos"]), "the starting points need no checkpoint"
    load_published(module, "fusion.upsample", tensors, "dysample.weights.", "res_decoder.upsample_adapter_l.")
    inputs = [name for name in tensors if re.fullmatch(r"dysample\.\w+\.in", name)]
    assert inputs
    for name in inputs:
        close(name, module(tensors[name]), tensors[f"{name.removesuffix('.in')}.out"], MODULE)


@pytest.mark.golden("mllmseg", r"xformer\.tgt", r"xformer\.memory", r"xformer\.memory1", r"xformer\.out1")
@torch.inference_mode()
def test_post_norm_block(case: Path) -> None:
    """Also with a memory of one token, in full and by the short cut."""
    tensors = load_case(case)
    block = PostNormBlock(tensors["xformer.tgt"].shape[-1])
    load_published(block, "prompted", tensors, "xformer.weights.", "res_decoder.ca_layer_vl.")
    queries, memory, one = (tensors[f"xformer.{n}"].transpose(0, 1) for n in ("tgt", "memory", "memory1"))
    recorded, recorded_one = (tensors[f"xformer.{n}"].transpose(0, 1) for n in ("out", "out1"))  # (B, P, D)
    close("out", block(queries, memory), recorded, MODULE)
    close("out1", block(queries, one), recorded_one, MODULE)
    short = block.finish(block.look_around(queries), block.answer_of(one[:, 0])[:, None])
    close("out1 by the short cut", short, recorded_one, MODULE)


@pytest.mark.golden("mllmseg", r"resdecoder\.img_llm", r"resdecoder\.img_vit", r"resdecoder\.prob")
@torch.inference_mode()
def test_light_mask_decoder(case: Path) -> None:
    tensors = load_case(case)
    patches, states, tokens = (tensors[f"resdecoder.{n}"] for n in ("img_vit", "img_llm", "text_src"))
    grid, side = math.isqrt(patches.shape[1]), tensors["resdecoder.logits"].shape[-1]
    decoder = LightMaskDecoder(FusionSizes(patches.shape[2], states.shape[2], grid), side // grid)
    load_published(decoder, "", tensors, "resdecoder.weights.", "")
    with passing({"img_vit_l_32": decoder.fusion.detail, "tgt": decoder.prompted}) as seen:
        logits = decoder(patches, states, tokens[:, 0])
    for name, map_ in seen.items():
        if not name.endswith("#in"):
            recorded = tensors[f"resdecoder.{name}"]  # (n, D, G, G)
            close(name, map_.transpose(1, 2).reshape(recorded.shape), recorded, DECODER)
    close("logits", logits[:, None], tensors["resdecoder.logits"], MODULE)
    close("prob", logits.sigmoid()[:, None], tensors["resdecoder.prob"], PROBABILITY)
    fast = decoder.decode(decoder.prepare(patches, states), tokens[:, 0])
    close("logits, image prepared first", fast[:, None], tensors["resdecoder.logits"], MODULE)
    assert decoder(patches[:0], states[:0], tokens[:0, 0]).shape == (0, side, side)


@pytest.mark.golden("mllmseg", r"pixel_shuffle\.in", r"pixel_shuffle\.out_v2")
def test_four_patches_become_one_image_token(case: Path) -> None:
    """transformers' pixel shuffle is the second version, which does not leave the grid transposed."""
    tensors = load_case(case)
    ours = InternVLModel.pixel_shuffle(None, tensors["pixel_shuffle.in"], 0.5)
    assert torch.equal(ours, tensors["pixel_shuffle.out_v2"])
    assert not torch.equal(ours, tensors["pixel_shuffle.out_v1"])


@pytest.mark.golden("mllmseg", r"internlm2_attn\.wqkv\.weight", r"internlm2_attn\.in", r"internlm2_attn\.out")
@torch.inference_mode()
def test_internlm2_attention_as_llama(case: Path) -> None:
    tensors = load_case(case)
    heads, pairs, head = tensors["internlm2_attn.heads_kv_headdim"].tolist()
    states, fused = tensors["internlm2_attn.in"], tensors["internlm2_attn.wqkv.weight"]
    sizes = {"hidden_size": heads * head, "num_attention_heads": heads, "num_key_value_heads": pairs}
    config = LlamaConfig(**sizes, head_dim=head, rope_parameters={"rope_type": "default", "rope_theta": 1e6})
    config._attn_implementation = "sdpa"
    attention = LlamaAttention(config, 0).eval()
    packing = language_packing(sizes)
    weights = {f"{part}_proj.weight": packing.take(fused, part) for part in "qkv"}
    attention.load_state_dict({**weights, "o_proj.weight": tensors["internlm2_attn.wo.weight"]})
    positions = torch.arange(states.shape[1])[None]
    rotary = LlamaRotaryEmbedding(config)(states, positions)
    causal = torch.ones(states.shape[1], states.shape[1], dtype=torch.bool).tril()[None, None]
    ours, _ = attention(states, position_embeddings=rotary, attention_mask=causal)
    close("out", ours, tensors["internlm2_attn.out"], MODULE)


@pytest.mark.golden("mllmseg", r"rope_dyn\.cos\d+", r"rope_dyn\.sin\d+")
def test_rotation_beyond_the_trained_length(case: Path) -> None:
    """Lengths ascend, the first is the trained one; the dynamic factor is InternLM2's 2."""
    tensors = load_case(case)
    lengths = sorted(int(name.removeprefix("rope_dyn.cos")) for name in tensors if name.startswith("rope_dyn.cos"))
    language = {"rope_theta": 1e6, "rope_scaling": {"type": "dynamic", "factor": 2.0}}
    width = tensors[f"rope_dyn.cos{lengths[0]}"].shape[1]
    config = LlamaConfig(
        hidden_size=width, num_attention_heads=1, head_dim=width, max_position_embeddings=lengths[0],
        rope_parameters=rope_parameters(language, case),
    )  # fmt: skip
    rotary = LlamaRotaryEmbedding(config)
    for length in lengths:
        cos, sin = rotary(torch.zeros(1), torch.arange(length)[None])
        close(f"cos{length}", cos[0], tensors[f"rope_dyn.cos{length}"], ANGLE)
        close(f"sin{length}", sin[0], tensors[f"rope_dyn.sin{length}"], ANGLE)


@pytest.mark.golden("mllmseg", r"loss\.pred_prob", r"loss\.gt", r"loss\.sigmoid_focal_loss")
def test_mask_losses(case: Path) -> None:
    tensors = load_case(case)
    probabilities, truth = tensors["loss.pred_prob"], tensors["loss.gt"]
    count = len(truth)
    focal, dice = focal_loss(probabilities, truth) / count, dice_loss(probabilities, truth) / count
    close("focal", focal[None], tensors["loss.sigmoid_focal_loss"], LOSS)
    close("dice", dice[None], tensors["loss.dice_loss_plvl"], LOSS)
    close("iou", soft_iou(probabilities, truth).mean()[None], tensors["loss.mask_iou"], LOSS)


@pytest.mark.golden("mllmseg", r"img\d+\.rgb", r"img\d+\.pixel_values_\d+", committed=False)
def test_pixels(case: Path) -> None:
    tensors = load_case(case)
    names = [name for name in tensors if re.fullmatch(r"img\d+\.pixel_values_\d+", name)]
    for name in names:
        image = tensors[f"{name.split('.')[0]}.rgb"].numpy()
        ours = image_pixels(image, int(name.rpartition("_")[2]))
        close(name, ours, tensors[name], 1e-6)  # one grey level is 0.017


@pytest.mark.golden("mllmseg")
def test_evaluation_wording(golden: Golden) -> None:
    for recorded in prompt_files(golden):
        for entry in recorded["eval"]:
            expressions = [sentence for ref in entry["refs"] for sentence in ref["sentences"]]
            absent = [total == 0 for total in entry["mask_sums"]]
            assert evaluation_texts(expressions, absent) == (entry["human"], entry["gpt"])
            if not any(absent):
                assert evaluation_texts(expressions) == (entry["human"], entry["gpt"])


@pytest.mark.golden("mllmseg")
def test_training_wording(golden: Golden) -> None:
    for recorded in prompt_files(golden):
        for entry in recorded["train"]:
            expressions = [sentence for ref in entry["refs"] for sentence in ref["sentences"]]
            absent = [total == 0 for total in entry["gt_mask_sums"]]
            possible = [
                training_texts(expressions, absent, question, answer)
                for question in range(len(TRAINING_QUESTIONS))
                for answer in range(len(TRAINING_ANSWERS))
            ]
            assert possible.count((entry["human"], entry["gpt"])) == 1


class Letters:
    """One id a character, as the recordings describe it; the beginning is added by the conversation."""

    def __init__(self, special: list[str], bos: int | None) -> None:
        self.special, self.bos = special, bos

    def encode(self, text: str) -> list[int]:
        parts = re.split("(" + "|".join(map(re.escape, self.special)) + ")", text)
        known = {token: 2_000_000 + index for index, token in enumerate(self.special)}
        return [index for part in parts for index in ([known[part]] if part in known else map(ord, part))]


@pytest.mark.golden("mllmseg")
def test_conversations_become_ids_and_labels(golden: Golden) -> None:
    for recorded in prompt_files(golden):
        for entry in recorded["tokenized"]:
            letters = Letters(recorded["special_char_tokenizer"]["special"], 1 if entry["bos"] else None)
            found = conversation(letters, entry["human"], entry["gpt"], recorded["num_image_token"])
            assert list(found.ids) == entry["input_ids"]
            assert list(found.labels) == entry["labels"]


def prompt_files(golden: Golden) -> list[dict]:
    """The wording is the same for every set of recordings, and need not lie in each."""
    keys = ("eval", "train", "tokenized", "num_image_token")
    files = golden.json_files(*keys) or Golden(COMMITTED, golden.system).json_files(*keys)
    return [read_json(path) for path in files]
