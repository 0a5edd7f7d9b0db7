"""Which buffered frames a reasoner sees: a choice over time stamps only, so that it can be tested without images."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

from .core import BadInput, Sampling


@dataclasses.dataclass(frozen=True)
class Selection:
    """Chosen frames as ``indices`` into the given stamps, oldest first, the last being the key frame; ``dense`` are
    positions in ``indices`` (not in the stamps) of the frames seen in full detail, as ``Clip.dense`` wants them."""

    indices: tuple[int, ...]
    dense: tuple[int, ...]


def sparse_dense(stamps_ns: Sequence[int], sampling: Sampling) -> Selection:
    """Up to ``sampling.sparse`` frames spread over the last ``sampling.horizon_s`` seconds, ending in the newest.

    stamps_ns: strictly increasing time stamps in nanoseconds. With fewer frames inside the horizon than wanted, all of
    them are taken: a clip is never padded. Raises BadInput for an empty or unordered sequence.
    """
    _check_stamps(stamps_ns)
    newest = stamps_ns[-1]
    horizon_ns = round(sampling.horizon_s * 1e9)
    first = next(i for i, stamp in enumerate(stamps_ns) if newest - stamp <= horizon_ns)
    count = min(sampling.sparse, len(stamps_ns) - first)
    chosen = [len(stamps_ns) - 1]
    for step in range(1, count):
        wanted = newest - horizon_ns * step // (count - 1)
        # Bounds that leave one unused frame for every step still to come: uneven stamps never cost a frame.
        low, high = first + (count - 1 - step), chosen[-1] - 1
        chosen.append(min(range(low, high + 1), key=lambda i: (abs(stamps_ns[i] - wanted), -i)))
    indices = tuple(reversed(chosen))
    dense = min(sampling.dense, len(indices))
    return Selection(indices, tuple(range(len(indices) - dense, len(indices))))


def uniform(count: int, wanted: int) -> tuple[int, ...]:
    """``wanted`` indices spread evenly over ``range(count)``, first and last included; all where there are fewer.

    For recorded clips whose end is known. One frame wanted: the middle one. Raises BadInput unless both are positive.
    """
    if count < 1 or wanted < 1:
        raise BadInput(f"uniform sampling needs count >= 1 and wanted >= 1; got count {count}, wanted {wanted}")
    if wanted >= count:
        return tuple(range(count))
    if wanted == 1:
        return (count // 2,)
    return tuple((i * (count - 1) + (wanted - 1) // 2) // (wanted - 1) for i in range(wanted))


def _check_stamps(stamps_ns: Sequence[int]) -> None:
    if len(stamps_ns) == 0:
        raise BadInput("sampling needs at least one time stamp; got none (the frame buffer is empty)")
    for before, after in itertools.pairwise(stamps_ns):
        if after <= before:
            raise BadInput(f"sampling needs strictly increasing time stamps; got {after} ns after {before} ns")
