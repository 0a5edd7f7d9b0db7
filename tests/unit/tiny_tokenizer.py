"""A SentencePiece tokenizer of a few hundred pieces, trained on the spot, in the layout of a slow Llama tokenizer."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import sentencepiece

WORDS = (
    "please segment the red blue green white mug ball block plate box in this image video scene sure it is and a left "
    "right behind front chat between curious human artificial intelligence assistant gives helpful detailed polite "
    "answers to human's questions what are can you respond output with segmentation masks mask user system reference "
    "target find out of where does answer"
)


@cache
def trained(pieces: int = 384) -> bytes:
    """The bytes of ``tokenizer.model``: byte fallback, identity normalisation, dummy prefix, as Llama's."""
    text = [f"{WORDS} {word} {word.upper()} {word.title()}." for word in WORDS.split()]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text * 4), model_writer=model, vocab_size=pieces, model_type="bpe", byte_fallback=True,
        normalization_rule_name="identity", add_dummy_prefix=True, pad_id=-1, hard_vocab_limit=False,
        remove_extra_whitespaces=False, num_threads=1, minloglevel=2,
    )  # fmt: skip
    return model.getvalue()


def write_tokenizer(folder: Path, added: Mapping[str, int] | None = None, pieces: int = 384) -> int:
    """``tokenizer.model``, ``added_tokens.json`` and the small files beside them; the size of the vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(trained(pieces))
    size = sentencepiece.SentencePieceProcessor(model_proto=trained(pieces)).vocab_size()
    config = {
        "tokenizer_class": "LlamaTokenizer", "legacy": True, "bos_token": "<s>", "eos_token": "</s>",
        "unk_token": "<unk>", "pad_token": "<unk>", "model_max_length": 2048, "padding_side": "right",
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    special = {name: config[name] for name in ("bos_token", "eos_token", "unk_token", "pad_token")}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    if added:
        (folder / "added_tokens.json").write_text(json.dumps(dict(added)))
    return max([size, *(index + 1 for index in (added or {}).values())])
