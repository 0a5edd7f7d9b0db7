"""The published inference: a whole conversation with the answer already in it, its slots decided and segmented.

For evaluation against published figures. On a robot nobody knows the answer; there every slot reads ``[SEG]`` and one
pass gives decisions and masks (:mod:`.processing`).
"""

from __future__ import annotations

import dataclasses

import torch

from .modeling import MllmSegModel


@dataclasses.dataclass(frozen=True, eq=False)
class Answer:
    """masks: ``(n, S, S)`` probabilities. refused: ``(n,)`` bool, per slot. slots: ``(n,)`` positions in the ids.
    decided: ``(N,)`` ids with every slot overwritten by its decision."""

    masks: torch.Tensor
    refused: torch.Tensor
    slots: torch.Tensor
    decided: torch.Tensor


def answer(model: MllmSegModel, pixels: torch.Tensor, ids: torch.Tensor, seg: int, rej: int, ask_again: bool) -> Answer:
    """``pixels`` ``(1, 3, S, S)``, ``ids`` ``(N,)`` with ``[SEG]`` or ``[REJ]`` in every slot.

    ask_again: as in the generalised benchmark (gRefCOCO), decide with the answer as given, then put ``[SEG]`` in every
    slot and take all masks from a second pass. Without it the masks come from the ``[SEG]`` slots alone.
    """
    slots = torch.nonzero((ids == seg) | (ids == rej))[:, 0]
    reading = model(pixels, ids[None])
    refused = refusals(model.logits(reading.states[0, slots - 1]), rej)
    decided = ids.clone()
    decided[slots] = torch.where(refused, rej, seg)
    shown = slots
    if not ask_again:
        shown = torch.nonzero(ids == seg)[:, 0]
    elif bool((ids == rej).any()):
        reading = model(pixels, torch.where(ids == rej, seg, ids)[None])
    return Answer(model.masks(reading, 0, shown.tolist()).float().sigmoid(), refused, slots, decided)


def refusals(logits: torch.Tensor, rej: int) -> torch.Tensor:
    """``(n, V)`` logits before each slot to ``(n,)`` bool: refused where ``[REJ]`` is the likeliest of all words."""
    return logits.argmax(-1) == rej


def refusal_probability(logits: torch.Tensor, rej: int) -> torch.Tensor:
    """``(n,)`` in [0, 1]: ``[REJ]`` against the likeliest other word, so that it passes 0.5 where the published
    decision is to refuse."""
    others = logits.clone()
    others[:, rej] = float("-inf")
    return torch.sigmoid(logits[:, rej] - others.amax(-1))
