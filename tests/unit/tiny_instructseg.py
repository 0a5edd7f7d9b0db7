"""InstructSeg in miniature: the published layout with small random weights, and a tokenizer trained on the spot."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from instructseg.core import Frame
from instructseg.recipes.instructseg.prompts import END_OF_TEXT, SEG, segmentation_prompt

RECORDED = Path(__file__).parents[1] / "golden" / "instructseg" / "checkpoint"
_WORDS = "the red green blue block mug plate left right behind in front of which one can hold water tall small and a"


@cache
def tiny_tokenizer(pieces: int = 400) -> str:
    """``tokenizer.json`` of a byte-level BPE in Phi-2's manner: an end-of-text token, then ``[SEG]`` as the last id."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=pieces, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    prompts = [re.sub("<[a-z|]+>", " ", segmentation_prompt(task, video)) for task in ("referring", "reasoning")
               for video in (True, False)]  # fmt: skip
    tokenizer.train_from_iterator([*prompts, _WORDS], trainer)
    tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, special=True)])
    tokenizer.add_tokens([AddedToken(SEG, normalized=False)])
    return tokenizer.to_str()


def tiny_tensors(rows: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Published names with the recorded small weights, embeddings and output layer drawn anew for ``rows`` tokens."""
    tensors: dict[str, torch.Tensor] = {}
    for shard in sorted(RECORDED.glob("*.safetensors")):
        tensors.update(load_file(shard))
    generator = torch.Generator().manual_seed(seed)
    hidden = tensors["lm_head.weight"].shape[1]
    tensors["model.embed_tokens.weight"] = torch.randn(rows, hidden, generator=generator)
    tensors["lm_head.weight"] = torch.randn(rows + 8, hidden, generator=generator) * 0.2
    return tensors


def tiny_config() -> dict:
    """``config.json`` in the published style, with the three sizes that no tensor shows."""
    config = json.loads((RECORDED / "config.json").read_text())
    dims = next(
        content
        for content in (json.loads(p.read_text()) for p in sorted(RECORDED.glob("*.json")))
        if "hard_coded_constants_overridden" in content
    )
    constants = dims["hard_coded_constants_overridden"]
    config["instructseg"] = {
        "image_size": dims["mask_config"]["INPUT.IMAGE_SIZE"],
        "perceiver_heads": constants["ovp_heads"],
        "fusion_heads": constants["vmtf_heads"],
    }
    return config


def tiny_checkpoint(folder: Path, shards: int = 1, seed: int = 0) -> Path:
    """A folder as ``save_pretrained`` writes it, in one file or several with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(tiny_tokenizer())
    rows = Tokenizer.from_str(tiny_tokenizer()).get_vocab_size()
    tensors = tiny_tensors(rows, seed)
    (folder / "config.json").write_text(json.dumps({**tiny_config(), "vocab_size": rows}))
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return folder
    names = sorted(tensors)
    places = {name: f"model-{i % shards + 1:05d}-of-{shards:05d}.safetensors" for i, name in enumerate(names)}
    for file in set(places.values()):
        save_file({name: tensors[name] for name in names if places[name] == file}, folder / file)
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def coloured_frame(seconds: float = 0.0, height: int = 48, width: int = 64, seed: int = 0) -> Frame:
    """Blocks of colour that move one pixel every tenth of a second."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 4, 3), np.uint8)
    image = np.kron(coarse, np.ones((-(-height // 4), -(-width // 4), 1), np.uint8))[:height, :width]
    image = np.roll(image, round(seconds * 10), axis=1)
    return Frame(np.ascontiguousarray(image), round(seconds * 1e9))
