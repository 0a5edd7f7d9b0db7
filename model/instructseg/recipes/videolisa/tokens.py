"""Text to ids as VideoLISA's slow Phi-3 tokenizer does it (transformers 4.41), from the files beside the weights.

Those files decide three things that moved over time and change the ids just before ``[SEG]``: whether every piece of
text gets a dummy blank in front (``legacy``) or only the first, whether a token such as ``<|assistant|>`` swallows the
line break after it (``rstrip``), and whether a prompt begins with ``<s>``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor

from ...checkpoints import read_json
from ...core import BadInput
from ...modules.splicing import IGNORE_LABEL
from ...sentencepieces import IMAGE_PLACEHOLDER, SentencePieces
from .prompts import IMAGE, SEG

BLANK = "▁"
# The setting normalizer_spec.add_dummy_prefix = false as a message of its own (fields 3 and 3 of SentencePiece's model
# format). Protocol buffers merge what is appended to a message, and the last value of a field holds.
_NO_DUMMY_PREFIX = b"\x1a\x02\x18\x00"
TRAINING_LENGTH = 2048 - 255  # published: ids of a conversation before the video takes its placeholder's place
CONTROL = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")


@dataclasses.dataclass(frozen=True)
class TokenizerFlags:
    """What ``tokenizer_config.json`` says beyond the vocabulary. strip_right, strip_left: added tokens that swallow the
    white space on that side. special: the tokens that drop a lone dummy blank before them at the beginning."""

    legacy: bool = True
    add_bos: bool = True
    strip_right: frozenset[str] = frozenset()
    strip_left: frozenset[str] = frozenset()
    special: frozenset[str] = frozenset({"<s>", "</s>", "<unk>"})


class Phi3Tokens(SentencePieces):
    """``tokenizer.model`` with the added tokens and flags of its folder. ``seg_id``: the id of ``[SEG]``."""

    def __init__(self, model_file: Path, added: dict[str, int], flags: TokenizerFlags):
        super().__init__(model_file, added)
        if SEG not in self.added:
            raise BadInput(
                f"the tokenizer of {model_file.parent} has no token {SEG}; use the tokenizer files of the VideoLISA "
                "checkpoint, not those of its base model"
            )
        self.flags = flags
        self.seg_id = self.added[SEG]
        if not flags.legacy:
            self._pieces = SentencePieceProcessor(model_proto=model_file.read_bytes() + _NO_DUMMY_PREFIX)
        self._unknown = self._pieces.encode("<unk>")

    def encode(self, text: str) -> list[int]:
        """Ids of a fragment, without a beginning-of-sequence token."""
        if not text:
            return []
        prefixed = text if self.flags.legacy else BLANK + text.replace(BLANK, " ")
        parts = self._stripped(self._cut.split(prefixed))
        ids: list[int] = []
        for position, part in enumerate(parts):
            if position % 2:
                ids.append(self.added[part])
            elif part:
                ids += self._encode_text(part)
        if not self.flags.legacy and parts[0] == BLANK and len(parts) > 1 and parts[1] in self.flags.special:
            return ids[len(self._encode_text(BLANK)) :]
        return ids

    def encode_prompt(self, prompt: str) -> list[int]:
        """Ids of a whole conversation with a placeholder for the video."""
        bos = self.bos_id if self.flags.add_bos else None
        return ids_with_images(prompt, lambda text: ([] if bos is None else [bos]) + self.encode(text), bos)

    def encode_labels(self, prompt: str, answer: str, limit: int = TRAINING_LENGTH) -> tuple[list[int], list[int]]:
        """(ids, labels) of a conversation that ends in ``answer``: supervised is the answer with its closing token, all
        before it, the line break after ``<|assistant|>`` included, is ``IGNORE_LABEL`` (training). Both are cut at
        ``limit`` ids, the placeholder counted as one."""
        begin = prompt.rindex(answer)
        ids, before = self.encode_prompt(prompt), self.encode_prompt(prompt[:begin])
        shared = next((i for i, (a, b) in enumerate(zip(ids, before, strict=False)) if a != b), len(before))
        return ids[:limit], ([IGNORE_LABEL] * shared + ids[shared:])[:limit]

    def _stripped(self, parts: list[str]) -> list[str]:
        """Text and tokens in turn, the texts without the white space that a neighbouring token swallows."""
        for position in range(1, len(parts), 2):
            if parts[position] in self.flags.strip_right:
                parts[position + 1] = parts[position + 1].lstrip()
            if parts[position] in self.flags.strip_left:
                parts[position - 1] = parts[position - 1].rstrip()
        return parts

    def _encode_text(self, part: str) -> list[int]:
        if self.flags.legacy or not part.startswith((BLANK, " ")):
            return self._pieces.encode(part)
        # Without its dummy prefix SentencePiece drops leading blanks; behind another text it keeps them.
        return self._pieces.encode("<unk>" + part)[len(self._unknown) :]


def ids_with_images(prompt: str, tokenize: Callable[[str], list[int]], bos_id: int | None) -> list[int]:
    """Ids with ``IMAGE_PLACEHOLDER`` for every ``<image>``: the texts between are tokenised one by one, and of the
    beginning-of-sequence tokens that ``tokenize`` puts before each only the first stays."""
    ids: list[int] = []
    for position, chunk in enumerate(map(tokenize, prompt.split(IMAGE))):
        if position:
            ids.append(IMAGE_PLACEHOLDER)
            chunk = chunk[1:] if bos_id is not None and chunk[:1] == [bos_id] else chunk
        ids += chunk
    return ids


def load_tokens(folder: Path) -> Phi3Tokens:
    """The tokenizer of a checkpoint folder. Raises BadInput that names the file."""
    model_file = folder / "tokenizer.model"
    if not model_file.is_file():
        raise BadInput(
            f"tokenizer.model is missing from the checkpoint {folder}; put the tokenizer files of the published "
            "checkpoint (tokenizer.model, tokenizer_config.json, added_tokens.json) there"
        )
    config = _json_object(folder / "tokenizer_config.json")
    table = _json_object(folder / "added_tokens.json")
    decoder = config.get("added_tokens_decoder") or {}
    try:
        added = {entry["content"]: int(index) for index, entry in decoder.items()}
        added |= {str(text): int(index) for text, index in table.items()}
        flags = TokenizerFlags(
            legacy=config.get("legacy") is not False,  # absent or null means the older behaviour
            add_bos=bool(config.get("add_bos_token", True)),
            strip_right=frozenset(entry["content"] for entry in decoder.values() if entry.get("rstrip")),
            strip_left=frozenset(entry["content"] for entry in decoder.values() if entry.get("lstrip")),
            special=_special(config),
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        raise BadInput(f"the added tokens in {folder} are not tables of texts and ids; fetch the files again") from None
    return Phi3Tokens(model_file, added, flags)


def check_vocabulary(tokens: Phi3Tokens, vocabulary: int, source: Path) -> tuple[str, ...]:
    """Notes on the tokenizer. Raises BadInput where an id would lie outside the embedding table."""
    if tokens.size > vocabulary:
        largest = max(tokens.added, key=tokens.added.__getitem__)
        raise BadInput(
            f"the vocabulary of {source} has {vocabulary} rows, but its tokenizer needs {tokens.size} "
            f"({largest} has id {tokens.added[largest]}, {SEG} {tokens.seg_id}): weights and tokenizer do not belong "
            "together"
        )
    absent = [token for token in CONTROL if token not in tokens.added]
    if absent:
        return (f"the tokenizer of {source} has no token {', '.join(absent)}; it is not the published one",)
    return ()


def _special(config: dict[str, Any]) -> frozenset[str]:
    usual = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    named = [config.get(name) or token for name, token in usual.items()]
    named += config.get("additional_special_tokens") or []
    return frozenset(entry["content"] if isinstance(entry, dict) else entry for entry in named)


def _json_object(path: Path) -> dict[str, Any]:
    content = read_json(path) if path.is_file() else {}
    if not isinstance(content, dict):
        raise BadInput(f"{path} must hold a JSON object; got {type(content).__name__}")
    return content
