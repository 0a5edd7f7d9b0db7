"""Which frames of a video a training sample of VideoLISA shows: some near an anchor, the others from anywhere, as
ReferFormer (arXiv 2201.00487) draws them."""

from __future__ import annotations

import random

from ...core import BadInput

LOCAL_REACH = 3  # how far, in frames, the two neighbours of the anchor may be


def training_frames(
    frames: int, sparse: int, dense: int, anchor: int, draw: random.Random
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(sparse frame numbers, positions among them of the dense frames), both in order; masks are wanted for the latter.

    The anchor, a frame up to three before and one up to three after it (the ends of the video where there is none), and
    the rest drawn from outside that span, with repetition where it has too few frames (and from inside where it has
    none).
    dense: drawn without repetition. Raises BadInput for an anchor outside the video, fewer than three sparse frames, or
    more dense than sparse ones.
    """
    if not 0 <= anchor < frames:
        raise BadInput(f"anchor must be in 0..{frames - 1} for a video of {frames} frames; got {anchor}")
    if sparse < 3 or not 1 <= dense <= sparse:
        raise BadInput(f"training needs 3 or more sparse frames and 1 to as many dense ones; got {sparse} and {dense}")
    first = max(0, anchor - draw.randint(1, LOCAL_REACH))
    last = min(frames - 1, anchor + draw.randint(1, LOCAL_REACH))
    outside = [*range(first), *range(last + 1, frames)]
    wanted = sparse - 3
    rest = draw.sample(outside, wanted) if len(outside) >= wanted else draw.choices(outside or range(frames), k=wanted)
    return tuple(sorted([first, anchor, last, *rest])), tuple(sorted(draw.sample(range(sparse), dense)))
