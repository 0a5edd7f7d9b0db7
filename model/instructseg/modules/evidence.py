"""A rejection score for systems that publish none. Ours: no paper stands behind these numbers.

Two signs are at hand: how probable the language model thinks the mask token is, and how sure the mask decoder is of any
pixel at all. The second separates absent targets better (field's experience with small models), so it is the default.
"""

from __future__ import annotations

from typing import Literal

import torch

Rule = Literal["mask", "token", "both", "none"]
TOP_SHARE = 1 / 1024  # of a mask's pixels; 64 of 256 x 256


def mask_evidence(low_res: torch.Tensor) -> torch.Tensor:
    """``(n,)`` in [0, 1] from logits ``(n, h, w)``: the mean probability of the most probable pixels."""
    pixels = low_res.flatten(1).float()  # (n, h * w)
    if pixels.shape[0] == 0:
        return pixels.new_zeros(0)
    count = max(8, round(pixels.shape[1] * TOP_SHARE))
    return pixels.topk(min(count, pixels.shape[1]), dim=1).values.sigmoid().mean(1)


def rejection_score(token_probability: float, evidence: float, rule: Rule) -> float:
    """Probability-like score in [0, 1] that the target is absent. ``none`` is the published behaviour: never."""
    if rule == "none":
        return 0.0
    if rule == "token":
        return 1.0 - token_probability
    if rule == "mask":
        return 1.0 - evidence
    return 1.0 - (token_probability * evidence) ** 0.5
