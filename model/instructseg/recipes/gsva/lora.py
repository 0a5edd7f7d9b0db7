"""LoRA as GSVA and LISA were trained with it: on the language model's query and value projections, nowhere else."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import nn

from ...core import BadInput
from ...training import lora

RANK, ALPHA, DROPOUT = 8, 16.0, 0.05  # 7B; the 13B models have rank 64 with the same alpha
_LORA_A = re.compile(r".*\.self_attn\.[qv]_proj\.lora_A(?:\.default)?\.weight")
LORA_RENAMES = (
    (r"(\.self_attn\.[qv]_proj)\.weight$", r"\1.base_layer.weight"),
    (r"\.lora_([AB])\.weight$", r".lora_\1.default.weight"),
)


def add_lora(llm: nn.Module, rank: int = RANK, alpha: float = ALPHA, dropout: float = DROPOUT) -> None:
    """Replace, in place, every query and value projection of a Llama by one with a LoRA update (initially none).

    The names are given in full: CLIP and SAM have projections of the same short names that must stay as they are.
    """
    lora.add_lora(llm, r"model\.layers\.\d+\.self_attn\.[qv]_proj", rank, alpha, dropout)


def lora_rank(shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """The rank of a checkpoint's LoRA; None where it has none (or it is merged). Raises BadInput for several ranks."""
    ranks = {shape[0] for key, shape in shapes.items() if _LORA_A.fullmatch(key)}
    if len(ranks) > 1:
        raise BadInput(f"the checkpoint's LoRA has several ranks: {sorted(ranks)}; one is expected")
    return ranks.pop() if ranks else None
