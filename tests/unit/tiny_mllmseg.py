"""MLLMSeg in miniature with random weights: folders in every published layout, with a tokenizer trained on the spot."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path
from typing import Any, Literal

import sentencepiece
import torch
from safetensors.torch import save_file
from tokenizers import ByteLevelBPETokenizer

from instructseg.modules.dysample import DySample
from instructseg.recipes.mllmseg.configuration import parse_config
from instructseg.recipes.mllmseg.prompts import CONTROL, SYSTEM
from instructseg.recipes.mllmseg.published_layout import published_shapes

Family = Literal["internlm2", "qwen2"]
ARCHITECTURES = {"internlm2": "InternLM2ForCausalLM", "qwen2": "Qwen2ForCausalLM"}
ADDED = (
    "<|im_end|>", "<|im_start|>", "<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>",
    "</box>", "[SEG]", "[REJ]",
)  # fmt: skip
WORDS = (
    f"{SYSTEM} system user assistant what are the red blue green mug ball block plate man dog cat left right in this "
    "image please output segmentation masks sure they are can you segment"
)
LORA_RANK = 4
assert set(CONTROL) <= set(ADDED)


def published_config(family: Family, vocabulary: int, **language: Any) -> dict[str, Any]:
    """``config.json`` of a miniature: what the recipe reads of the published one, and things it does not know."""
    llm = {
        "architectures": [ARCHITECTURES[family]], "vocab_size": vocabulary, "hidden_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48, "hidden_act": "silu",
        "rms_norm_eps": 1e-5 if family == "internlm2" else 1e-6, "rope_theta": 1000000, "tie_word_embeddings": False,
        "max_position_embeddings": 32768, "pad_token_id": 2, "bos_token_id": 1, "eos_token_id": 2, "top_k": 50,
    }  # fmt: skip
    if family == "internlm2":
        llm |= {"rope_scaling": {"type": "dynamic", "factor": 2.0}, "bias": False}
    else:
        llm |= {"use_sliding_window": False, "sliding_window": 32768}
    vision = {
        "architectures": ["InternVisionModel"], "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 48, "hidden_act": "gelu", "layer_norm_eps": 1e-6, "norm_type": "layer_norm",
        "qkv_bias": True, "qk_normalization": False, "image_size": 56, "patch_size": 14, "num_channels": 3,
    }  # fmt: skip
    return {
        "architectures": ["MLLMSeg"], "model_type": "internvl_chat", "downsample_ratio": 0.5, "force_image_size": 56,
        "ps_version": "v2", "select_layer": -1, "pad2square": False, "template": "internvl2_5", "use_llm_lora": 0,
        "use_backbone_lora": 0, "hidden_size": llm["hidden_size"], "vision_config": vision,
        "llm_config": llm | language,
    }  # fmt: skip


def random_tensors(
    family: Family, config: dict[str, Any], lora: bool = False, can_refuse: bool = True, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Weights under published names, large enough that every part of the model changes the masks."""
    shapes = published_shapes(parse_config(config, Path("config.json")), LORA_RANK if lora else 0)
    numbers = torch.Generator().manual_seed(seed)
    tensors = {name: _random(name, shape, numbers) for name, shape in shapes.items()}
    if not can_refuse:
        (head,) = [name for name in tensors if name.endswith(("output.weight", "lm_head.weight"))]
        tensors[head][-1] = tensors[head][-2]
    return tensors


def _random(name: str, shape: tuple[int, ...], numbers: torch.Generator) -> torch.Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.tensor(7)
    if name.endswith("init_pos"):
        return DySample(4).start
    values = torch.randn(shape, generator=numbers)
    if name.endswith("running_var") or "norm" in name.rpartition(".")[0].rpartition(".")[2]:
        return 1 + 0.1 * values.abs()
    if len(shape) < 2 or "ls" in name.rpartition(".")[2]:
        return 0.3 + 0.1 * values
    return values * max(1, values[0].numel()) ** -0.5


def tiny_checkpoint(
    folder: Path,
    family: Family = "internlm2",
    *,
    lora: bool = False,
    files: Literal["bin", "safetensors", "shards"] = "bin",
    can_refuse: bool = True,
    seed: int = 0,
) -> Path:
    """A folder as the publication's code writes it; lora: apart from the weights it belongs to."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = write_tokenizer(folder, family)
    config = published_config(family, vocabulary)
    (folder / "config.json").write_text(json.dumps(config | {"use_llm_lora": LORA_RANK if lora else 0}))
    write_tensors(folder, random_tensors(family, config, lora, can_refuse, seed), files)
    return folder


def write_tensors(folder: Path, tensors: dict[str, torch.Tensor], files: str) -> None:
    if files == "bin":
        torch.save(tensors, folder / "pytorch_model.bin")
    elif files == "safetensors":
        save_file(tensors, folder / "model.safetensors")
    else:
        names = sorted(tensors)
        halves = names[::2], names[1::2]
        places = {}
        for number, half in enumerate(halves, 1):
            file = f"model-{number:05d}-of-00002.safetensors"
            save_file({name: tensors[name] for name in half}, folder / file)
            places |= dict.fromkeys(half, file)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def write_tokenizer(folder: Path, family: Family) -> int:
    """The files of a slow tokenizer; the size of the vocabulary, the added tokens last."""
    if family == "internlm2":
        (folder / "tokenizer.model").write_bytes(sentence_pieces())
        size = sentencepiece.SentencePieceProcessor(model_proto=sentence_pieces()).vocab_size()
        added = {token: size + index for index, token in enumerate(ADDED)}
        table = {str(index): {"content": token, "special": True} for token, index in added.items()}
        config = {"tokenizer_class": "InternLM2Tokenizer", "added_tokens_decoder": table}
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    else:
        pieces = ByteLevelBPETokenizer()
        pieces.train_from_iterator([WORDS] * 4, vocab_size=330, show_progress=False)
        pieces.save_model(str(folder))
        size = pieces.get_vocab_size()
        added = {token: size + index for index, token in enumerate(ADDED)}
        (folder / "added_tokens.json").write_text(json.dumps(added))
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Qwen2Tokenizer"}))
    return size + len(ADDED)


@cache
def sentence_pieces() -> bytes:
    """``tokenizer.model`` with byte fallback and without a dummy prefix, as InternLM2's."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([f"{WORDS} {word}." for word in WORDS.split()] * 4), model_writer=model, vocab_size=400,
        model_type="bpe", byte_fallback=True, normalization_rule_name="identity", add_dummy_prefix=False, pad_id=-1,
        hard_vocab_limit=False, remove_extra_whitespaces=False, num_threads=1, minloglevel=2,
    )  # fmt: skip
    return model.getvalue()
