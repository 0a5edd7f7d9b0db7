"""User text and special tokens: what may reach a language model, and how it gets there.

Text from people, speech recognisers and agents is data. It never becomes a control token: recipes insert ``<TRK>``,
``[SEG]`` or image markers by id, and text that contains one is refused before any tokenizer sees it.
"""

from __future__ import annotations

import re
import unicodedata

from .core import BadInput

SPECIAL_TOKENS = (
    "<TRK>", "[TRK]", "<SEG>", "[SEG]", "<REJ>", "[REJ]", "<image>", "<video>", "<im_start>", "<im_end>",
    "<vid_start>", "<vid_end>",
    "<IMG_CONTEXT>", "<img>", "</img>", "<pad>", "<unk>", "<s>", "</s>", "<end>", "[INST]", "[/INST]", "[PAD]",
    "<refer>", "<region>",
)  # fmt: skip
_SPECIAL = re.compile("|".join(re.escape(t) for t in SPECIAL_TOKENS) + r"|<\|[^|<>]{1,40}\|>", re.IGNORECASE)
MAX_CHARACTERS = 1000


def clean_instruction(text: object, max_characters: int = MAX_CHARACTERS) -> str:
    """The instruction as one line of plain text, or :class:`BadInput` saying what is wrong with it.

    Refused: anything but a string, empty text, more than ``max_characters``, control characters (tab and line breaks
    count as spaces), text containing a model's own special tokens. Unicode is normalised (NFKC) first, so look-alike
    brackets do not slip through; runs of white space become one space.
    """
    if not isinstance(text, str):
        raise BadInput(f"an instruction must be text; got {type(text).__name__}")
    if len(text) > max_characters:
        raise BadInput(f"an instruction may have at most {max_characters} characters; got {len(text)}")
    line = unicodedata.normalize("NFKC", re.sub(r"[\t\r\n]+", " ", text))
    for position, character in enumerate(line):
        if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn"):
            raise BadInput(
                f"an instruction may not contain control characters; got U+{ord(character):04X} at position {position}"
            )
    found = _SPECIAL.search(line)
    if found:
        raise BadInput(
            f"an instruction may not contain the model's special tokens; got {found.group()!r}: leave it out"
        )
    line = " ".join(line.split())
    if not any(c.isalnum() for c in line):
        raise BadInput(f"an instruction must contain words; got {text[:40]!r}")
    return line
