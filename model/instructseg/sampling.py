"""Which buffered frames a reasoner sees: a choice over time stamps only, so that it can be tested without images."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

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


def spread_over(frames: int, wanted: int) -> tuple[int, ...]:
    """``wanted`` frame numbers out of ``frames``: the middles of equal intervals, in integer arithmetic (VideoLISA).

    Neither end is included. Asked for more intervals than there are frames, an interval may be empty; its middle is
    the number before it, −1 at the start: as in Python, the last frame. Raises BadInput unless frames >= 0 and
    wanted >= 0.
    """
    if frames < 0 or wanted < 0:
        raise BadInput(f"spreading needs frames >= 0 and wanted >= 0; got frames {frames}, wanted {wanted}")
    edges = np.linspace(0, frames, wanted + 1).astype(int)
    return tuple(int(before + after - 1) // 2 for before, after in itertools.pairwise(edges))


def spread_or_repeat(frames: int, wanted: int) -> tuple[int, ...]:
    """Exactly ``wanted`` frame numbers in order, whatever ``frames`` is: VideoLISA's choice of sparse frames.

    More frames than wanted: :func:`spread_over`. Otherwise each is repeated equally often, and what is still lacking is
    filled with further copies of frames spread over the clip.
    """
    if frames < 1 or wanted < 1:
        raise BadInput(f"choosing sparse frames needs frames >= 1 and wanted >= 1; got {frames} and {wanted}")
    if frames > wanted:
        return spread_over(frames, wanted)
    copies = list(range(frames)) * (wanted // frames)
    return tuple(sorted(copies + list(spread_over(frames, wanted % frames))))


def dense_among_sparse(sparse: int, dense: int) -> tuple[int, ...]:
    """Positions in the list of ``sparse`` frames of the ``dense`` ones (VideoLISA): spread over all but the last.

    Where ``dense`` comes near ``sparse`` a position may be −1, which means the last frame, as in Python.
    """
    if not 1 <= dense <= sparse:
        raise BadInput(f"dense frames must be 1..{sparse} (the sparse frames); got {dense}")
    return spread_over(sparse - 1, dense)


def _check_stamps(stamps_ns: Sequence[int]) -> None:
    if len(stamps_ns) == 0:
        raise BadInput("sampling needs at least one time stamp; got none (the frame buffer is empty)")
    for before, after in itertools.pairwise(stamps_ns):
        if after <= before:
            raise BadInput(f"sampling needs strictly increasing time stamps; got {after} ns after {before} ns")
