"""Visual tokens into a text's embeddings: every placeholder id gives way to the rows of its image.

Shared by the LLaVA family (VideoLISA, GSVA, LISA, VISA): ids stay synthetic until here, positions move on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch

from ..core import BadInput
from ..sentencepieces import IMAGE_PLACEHOLDER

IGNORE_LABEL = -100


@dataclasses.dataclass(frozen=True, eq=False)
class Spliced:
    """embeddings ``(N, L, D)``, attention_mask ``(N, L)`` bool (False is padding), labels ``(N, L)`` or None."""

    embeddings: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor | None


def splice(
    input_ids: torch.Tensor,
    visual: Sequence[Sequence[torch.Tensor]],
    embed: Callable[[torch.Tensor], torch.Tensor],
    attention_mask: torch.Tensor | None = None,
    labels: torch.Tensor | None = None,
) -> Spliced:
    """Replace the k-th placeholder of row n by the rows of ``visual[n][k]``, a ``(P, D)`` tensor.

    input_ids: ``(N, T)``, right-padded. Visual rows count as attended and are never supervised. Rows that end up
    shorter than the longest are filled with zero vectors, masked. Raises BadInput where placeholders and images of a
    row differ in number.
    """
    if attention_mask is None:
        attention_mask = torch.ones_like(input_ids, dtype=torch.bool)
    rows, masks, targets = [], [], []
    for n, ids in enumerate(input_ids):
        places = torch.nonzero(ids == IMAGE_PLACEHOLDER)[:, 0].tolist()
        if len(places) != len(visual[n]):
            raise BadInput(f"row {n} has {len(places)} image placeholder(s) for {len(visual[n])} image(s)")
        words = embed(ids.clamp_min(0))  # (T, D); what stands at a placeholder is cut out below
        row, mask, target, begin = [], [], [], 0
        for place, image in zip([*places, len(ids)], [*visual[n], None], strict=True):
            row.append(words[begin:place])
            mask.append(attention_mask[n, begin:place].bool())
            if labels is not None:
                target.append(labels[n, begin:place])
            if image is not None:
                row.append(image.to(words.dtype))
                mask.append(torch.ones(len(image), dtype=torch.bool, device=ids.device))
                target.append(torch.full((len(image),), IGNORE_LABEL, dtype=torch.long, device=ids.device))
            begin = place + 1
        rows.append(torch.cat(row))  # (L_n, D)
        masks.append(torch.cat(mask))
        targets.append(torch.cat(target) if labels is not None else None)
    pad = torch.nn.utils.rnn.pad_sequence
    return Spliced(
        pad(rows, batch_first=True),  # (N, L, D)
        pad(masks, batch_first=True, padding_value=False),
        None if labels is None else pad(targets, batch_first=True, padding_value=IGNORE_LABEL),
    )


def expanded_positions(ids: torch.Tensor, token: int, visual_lengths: Sequence[int]) -> torch.Tensor:
    """Where every ``token`` of one row ``(T,)`` of ids stands after splicing, ``(K,)`` long; ``visual_lengths`` are the
    rows each placeholder of this row becomes."""
    extra = torch.zeros(len(ids), dtype=torch.long, device=ids.device)
    for place, length in zip(torch.nonzero(ids == IMAGE_PLACEHOLDER)[:, 0].tolist(), visual_lengths, strict=True):
        extra[place] = length - 1
    shift = extra.cumsum(0)  # what all placeholders up to here have added
    places = torch.nonzero(ids == token)[:, 0]
    return places + shift[places]


def predicting_positions(ids: torch.Tensor, token: int, visual_lengths: Sequence[int]) -> torch.Tensor:
    """Where the states stand that PREDICT every ``token`` of one row of ids, after splicing.

    The whole LISA family prompts its mask decoder with the state one before ``[SEG]``, not the one at it.
    """
    return expanded_positions(ids, token, visual_lengths) - 1
