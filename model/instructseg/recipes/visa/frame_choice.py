"""Which frames VISA sees beside the target frame, in evaluation and in training."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence

import numpy as np

from ...core import BadInput

MAX_IMAGE_TOKEN = 12  # published: images of one prompt, the repeated target included
TRAINING_FRAMES = (8, 9, 10, 11, 12)  # how many references a training sample may have


def reference_frames(count: int, target: int, max_image_token: int = MAX_IMAGE_TOKEN) -> tuple[int, ...]:
    """The reference frames of evaluation: a regular stride through ``count`` frames that meets the target frame.

    At most ``max_image_token - 1`` of them, often fewer; the target is one of them and is shown once more at the end
    of the prompt. Raises BadInput for a target outside the frames.
    """
    if max_image_token < 1:
        raise BadInput(f"max_image_token must be at least 1; got {max_image_token}")
    if not 0 <= target < count:
        raise BadInput(f"target frame {target} is not among the {count} frames")
    if max_image_token == 1:
        return (target,)
    step = math.ceil(count / (max_image_token - 1))
    return tuple(range(target % step, count, step))


def training_frames(count: int, wanted: int, draw: random.Random) -> tuple[int, ...]:
    """One random frame of each of ``wanted`` equal stretches of a video of ``count`` frames; all where there are fewer.

    Training then takes one of them as the target.
    """
    if count < 1 or wanted < 1:
        raise BadInput(f"training needs at least one frame; got a video of {count} and {wanted} wanted")
    if count <= wanted:
        return tuple(range(count))
    bounds = np.linspace(0, count, wanted + 1).astype(int).tolist()
    return tuple(draw.randrange(low, high) for low, high in itertools.pairwise(bounds))


def balanced_bytes() -> Iterator[int]:
    """Pseudo-random numbers in 0..255 of the published linear congruential generator; they repeat after 256."""
    state = 0
    while True:
        state = (1103515245 * state + 12345) % 256
        yield state


def balanced_choices(weights: Sequence[float]) -> Iterator[int]:
    """An endless, always equal sequence of indices into ``weights``, each as often as its weight asks (data sets)."""
    if not weights or min(weights) < 0 or sum(weights) <= 0:
        raise BadInput(f"balanced choices need weights that are not negative and not all zero; got {list(weights)}")
    total = sum(weights)
    shares = list(itertools.accumulate(weight / total for weight in weights))
    last = max(i for i, weight in enumerate(weights) if weight > 0)  # rounding may leave the last share just below 1
    for value in balanced_bytes():
        yield next((i for i, share in enumerate(shares) if share > value / 256), last)


def balanced_counts(counts: Sequence[int] = TRAINING_FRAMES) -> Iterator[int]:
    """An endless, always equal sequence of frame counts for training, drawn from consecutive ``counts``."""
    for value in balanced_bytes():
        yield counts[len(counts) * value // 256]
