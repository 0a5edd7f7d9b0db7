"""The tabletop benchmark as a camera shows it: latency is charged, a mask is scored on the frame that is current then.

Frame *i* is current from its own stamp until the next one's. Its score is that of the mask a planner holds when it
ends: the newest one published by then, whatever frame it was computed on, unless it was published more than
``hold_s`` before the frame came or a result without a mask has followed it. Where the target is visible and no mask is
held, the score is 0 (streaming perception: Li et al., ECCV 2020, with the end of a frame in place of its beginning, so
that an answer within one frame period loses nothing).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from ..core import BadInput
from .region_boundary import score_video


@dataclasses.dataclass(frozen=True, eq=False)
class PublishedMask:
    """What was published of one target at ``when_ns``: its mask (H, W) bool, None in any state but PRESENT."""

    when_ns: int
    instance_id: int
    mask: np.ndarray | None


@dataclasses.dataclass
class StreamRecord:
    """One target slot over the frames from the instruction on; figures that are not defined are None.

    j, f: means over the frames that show the target. published_j_and_f: mean over those of them in which a mask was
    published. visible, fresh: how many frames show the target, how many of these saw a mask published. false_masks:
    frames that do not show it and yet a mask is held; hidden: all that do not show it. first_mask_s: from the
    instruction to the first mask, first_j: that mask's J on the frame that was current then. switches: how often the
    instance id changed.
    """

    kind: str
    text: str
    present: bool
    masks: int
    visible: int
    hidden: int
    fresh: int
    false_masks: int
    switches: int
    j: float | None = None
    f: float | None = None
    published_j_and_f: float | None = None
    first_mask_s: float | None = None
    first_j: float | None = None
    episode: int = 0
    slot: int = 0
    targets: tuple[int, ...] = ()

    @property
    def j_and_f(self) -> float | None:
        return None if self.j is None or self.f is None else (self.j + self.f) / 2


def held_masks(
    published: Sequence[PublishedMask], stamps_ns: Sequence[int], end_ns: int, hold_s: float
) -> tuple[list[PublishedMask | None], np.ndarray]:
    """For each frame what is held of a target when the frame ends (None: no mask), and whether it was published then.

    published: in the order of publication. stamps_ns: of the frames, increasing; end_ns: when the last one ends.
    """
    edges = [*stamps_ns, end_ns]
    if any(after <= before for before, after in itertools.pairwise(edges)):
        raise BadInput(f"held_masks needs increasing stamps and a later end; got {edges}")
    times = [p.when_ns for p in published]
    if times != sorted(times):
        raise BadInput("held_masks needs publications in the order of their times")
    held: list[PublishedMask | None] = []
    fresh = np.zeros(len(stamps_ns), bool)
    for i, (begin_ns, over_ns) in enumerate(itertools.pairwise(edges)):
        count = int(np.searchsorted(times, over_ns, side="left"))
        newest = published[count - 1] if count else None
        expired = newest is not None and begin_ns - newest.when_ns > hold_s * 1e9
        held.append(None if newest is None or newest.mask is None or expired else newest)
        fresh[i] = held[-1] is not None and newest.when_ns >= begin_ns
    return held, fresh


def score_slot(
    published: Sequence[PublishedMask],
    stamps_ns: Sequence[int],
    end_ns: int,
    truth: np.ndarray,
    hold_s: float = 0.5,
    kind: str = "",
    text: str = "",
    present: bool | None = None,
) -> StreamRecord:
    """Score what was published of one target since the first of these frames.

    truth: (T, H, W) bool, the target on each frame. present: whether the instruction names something that is there;
    by default, whether any frame shows it.
    """
    if len(truth) != len(stamps_ns):
        raise BadInput(f"score_slot needs one truth for each of {len(stamps_ns)} frames; got {len(truth)}")
    held, fresh = held_masks(published, stamps_ns, end_ns, hold_s)
    shown = truth.any(axis=(1, 2))  # (T,)
    masks = [p for p in published if p.mask is not None]
    record = StreamRecord(
        kind,
        text,
        bool(shown.any()) if present is None else present,
        masks=len(masks),
        visible=int(shown.sum()),
        hidden=int((~shown).sum()),
        fresh=int((fresh & shown).sum()),
        false_masks=sum(p is not None for p, seen in zip(held, shown, strict=True) if not seen),
        switches=sum(a.instance_id != b.instance_id for a, b in itertools.pairwise(masks)),
    )
    if shown.any():
        empty = np.zeros(truth.shape[1:], bool)
        given = np.stack([p.mask if p is not None else empty for p, seen in zip(held, shown, strict=True) if seen])
        scores = score_video(given, truth[shown])
        record.j, record.f = scores.j, scores.f
        if (fresh & shown).any():
            now = fresh[shown]
            record.published_j_and_f = float(scores.j_per_frame[now].mean() + scores.f_per_frame[now].mean()) / 2
    if masks:
        first = masks[0]
        record.first_mask_s = (first.when_ns - stamps_ns[0]) / 1e9
        frame = max(0, int(np.searchsorted(stamps_ns, first.when_ns, side="right")) - 1)
        record.first_j = score_video(first.mask[None], truth[frame][None]).j
    return record
