"""Four kinds of embeddings into one prompt: words, reference tokens, key frame, instruction and mask queries.

Placeholders are negative ids that no vocabulary holds; each gives way to the rows of its source, in the prompt's order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import torch

from ...core import BadInput

IMAGE, QUERIES, INSTRUCTION, REFERENCES = -200, -201, -204, -205
PLACEHOLDERS = {"<image>": IMAGE, "<seg>": QUERIES, "<refer>": INSTRUCTION, "<temporal>": REFERENCES}
IGNORE_LABEL = -100


@dataclasses.dataclass(frozen=True, eq=False)
class SplicedPrompt:
    """embeddings ``(N, L, D)``; attention_mask ``(N, L)`` bool, False is padding; origin ``(N, L)`` long: the
    placeholder a row came from, 0 for words and padding; labels ``(N, L)`` or None."""

    embeddings: torch.Tensor
    attention_mask: torch.Tensor
    origin: torch.Tensor
    labels: torch.Tensor | None


def splice_prompt(
    input_ids: torch.Tensor,
    sources: Sequence[Mapping[int, torch.Tensor]],
    embed: Callable[[torch.Tensor], torch.Tensor],
    attention_mask: torch.Tensor | None = None,
    labels: torch.Tensor | None = None,
) -> SplicedPrompt:
    """Replace every placeholder of row n by ``sources[n][placeholder]``, a ``(P, D)`` tensor.

    input_ids: ``(N, T)``, right-padded; padding ids are embedded like words and masked. What is inserted is attended
    and never supervised; rows shorter than the longest end in zero vectors. Raises BadInput for a placeholder without
    source, and for a source whose placeholder does not stand exactly once in its row.
    """
    if attention_mask is None:
        attention_mask = torch.ones_like(input_ids, dtype=torch.bool)
    parts = [
        _row(ids, sources[n], embed, attention_mask[n].bool(), None if labels is None else labels[n])
        for n, ids in enumerate(input_ids)
    ]
    rows, masks, origins, targets = zip(*parts, strict=True)
    pad = torch.nn.utils.rnn.pad_sequence
    return SplicedPrompt(
        pad(rows, batch_first=True),  # (N, L, D)
        pad(masks, batch_first=True, padding_value=False),
        pad(origins, batch_first=True),
        None if labels is None else pad(targets, batch_first=True, padding_value=IGNORE_LABEL),
    )


def _row(
    ids: torch.Tensor,
    sources: Mapping[int, torch.Tensor],
    embed: Callable[[torch.Tensor], torch.Tensor],
    mask: torch.Tensor,
    labels: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """One row: embeddings ``(L, D)``, mask, origin and labels ``(L,)``."""
    places = torch.nonzero(ids < 0)[:, 0].tolist()
    found = sorted(int(ids[place]) for place in places)
    if found != sorted(sources):
        raise BadInput(f"a prompt must hold the placeholders {sorted(sources)} once each; got {found}")
    words = embed(ids.clamp_min(0))  # (T, D); what stands at a placeholder is left out below
    labels = torch.full_like(ids, IGNORE_LABEL) if labels is None else labels
    row, masks, origin, targets, begin = [], [], [], [], 0
    for place in [*places, len(ids)]:
        row.append(words[begin:place])
        masks.append(mask[begin:place])
        origin.append(torch.zeros(place - begin, dtype=torch.long, device=ids.device))
        targets.append(labels[begin:place])
        if place < len(ids):
            kind = int(ids[place])
            inserted = sources[kind].to(words.dtype)
            row.append(inserted)
            masks.append(torch.ones(len(inserted), dtype=torch.bool, device=ids.device))
            origin.append(torch.full((len(inserted),), kind, dtype=torch.long, device=ids.device))
            targets.append(torch.full((len(inserted),), IGNORE_LABEL, dtype=torch.long, device=ids.device))
        begin = place + 1
    return torch.cat(row), torch.cat(masks), torch.cat(origin), torch.cat(targets)
