"""Which thing an id stands for: what the reasoner points at now is compared with what was followed before.

Both tokens, the old one and the new one, are shown the same frame. Where their masks cover the same pixels it is the
same thing, whatever its place in the answer; where the old token clearly sees something else, the id must not move.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..core import TargetMask
from .agreement import overlap
from .ids import InstanceIds
from .whereabouts import Place, Whereabouts

_SAME = 0.5  # intersection over union from which two masks show the same thing
_APART = 0.1  # share of the smaller mask below which they show different things; between: no evidence
_ALIKE = 0.5  # likeness from which two tokens may stand for one thing


class Finding(enum.Enum):
    """MAYBE: nothing speaks against the same thing. OTHER: the old token says it is another one. UNSEEN: the new token
    shows nothing on this frame, so that nobody knows what it will show on the next."""

    MAYBE = 0
    OTHER = 1
    UNSEEN = 2


@dataclasses.dataclass(frozen=True, eq=False)
class Sightings:
    """Masks on one frame: of the answer's tokens by their place in the answer, and of old tokens by slot. A mask counts
    from a score of ``limit`` on.

    old_identify: an old token that sees nothing says that its thing is not there; else it says nothing. likeness: by
    place and slot, where the recipe can tell (``Segmenter.likeness``).
    """

    new: Mapping[int, TargetMask]
    old: Mapping[int, TargetMask]
    old_identify: bool = False
    likeness: Mapping[tuple[int, int], float] = dataclasses.field(default_factory=dict)

    def recognised(self, limit: float) -> dict[int, int]:
        """Place in the answer -> slot that shows the same thing, one to one; its own slot comes before a better fit."""
        pairs = []
        for place, new in self.new.items():
            for slot, old in self.old.items():
                fit = overlap(new.mask, old.mask) if _sees(new, limit) and _sees(old, limit) else 0.0
                if fit >= _SAME:
                    pairs.append((place != slot, -fit, place, slot))
        found: dict[int, int] = {}
        for _, _, place, slot in sorted(pairs):
            if place not in found and slot not in found.values():
                found[place] = slot
        return found

    def compare(self, place: int, slot: int, limit: float) -> Finding:
        """What the two tokens say of the answer at ``place`` for ``slot``."""
        new, old = self.new.get(place), self.old.get(slot)
        if new is None or old is None:
            return Finding.MAYBE
        if not _sees(new, limit):
            return Finding.UNSEEN
        if not _sees(old, limit):
            return Finding.OTHER if self.old_identify else Finding.MAYBE
        common = np.count_nonzero(new.mask & old.mask)
        apart = common < _APART * min(np.count_nonzero(new.mask), np.count_nonzero(old.mask))
        return Finding.OTHER if apart else Finding.MAYBE

    def unlike(self, place: int, slot: int) -> str:
        """Why the answer at ``place`` does not look like the thing of ``slot``, in words; "" where it does, or where
        nobody can tell."""
        likeness = self.likeness.get((place, slot), 1.0)
        return "" if likeness >= _ALIKE else f"what was found does not look like the thing followed ({likeness:.2f})"

    def slots(self, answered: int, kept: set[int], most: int, limit: float) -> dict[int, int]:
        """Place in the answer -> slot: where it is recognised, else of the same number, else a free one of ``most``.
        kept: slots that the answer cannot change. What was sighted beyond ``answered`` or ``most``, which may have been
        lowered since, does not count."""
        known = self.recognised(limit)
        found = {place: slot for place, slot in known.items() if place < answered and slot < most}
        others = []
        for place in range(answered):
            if place in found:
                continue
            apart = place in kept and self.compare(place, place, limit) is Finding.OTHER
            if place in found.values() or apart:
                others.append(place)
            else:
                found[place] = place
        free = (slot for slot in range(most) if slot not in kept and slot not in found.values())
        for place in others:
            slot = next(free, None) if place in self.new else None
            if slot is not None:
                found[place] = slot
        return found


class SlotIdentities:
    """The ids of one tracker's slots, and for each the newest token that showed its thing, and where that was.

    A slot keeps its id until what it stands for has become another thing; doubts count the answers in a row that said
    so.
    """

    def __init__(self, ids: InstanceIds) -> None:
        self._ids = ids
        self._slot_ids: dict[int, int] = {}
        self._tokens: dict[int, Any] = {}
        self._places: dict[int, Whereabouts] = {}
        self._doubts: dict[int, int] = {}

    @property
    def all(self) -> tuple[int, ...]:
        """The ids in use."""
        return tuple(self._slot_ids.values())

    @property
    def witnesses(self) -> dict[int, Any]:
        """By slot, the newest token that showed its thing."""
        return dict(self._tokens)

    def of(self, slot: int) -> int:
        """The slot's id; 0: it never had one."""
        return self._slot_ids.get(slot, 0)

    def name(self, slot: int) -> None:
        """Give the slot an id where it has none."""
        if slot not in self._slot_ids:
            self._slot_ids[slot] = self._ids.acquire()

    def rename(self, slot: int) -> None:
        """The slot stands for another thing from now on."""
        self._ids.release(self._slot_ids.pop(slot, 0))
        self._tokens.pop(slot, None)
        self._places.pop(slot, None)
        self._doubts.pop(slot, None)

    def saw(self, slot: int, token: Any) -> None:
        """The slot's thing was in view, and this is its token after that frame."""
        self._tokens[slot] = token

    def stood(self, slot: int, place: Place, stamp_ns: int, anew: bool = False) -> Whereabouts:
        """The slot's thing was seen at that place; its whereabouts now. anew: how it moved before says nothing."""
        known = None if anew else self._places.get(slot)
        where = Whereabouts.at(place, stamp_ns) if known is None else known.moved_to(place, stamp_ns)
        self._places[slot] = where
        return where

    def elsewhere(self, slot: int, place: Place, stamp_ns: int, within_ns: int | None) -> str:
        """Why what is seen there cannot be the slot's thing, by where that was last seen, at most ``within_ns`` ago
        (None: wherever that was), in words; "" where it can."""
        if self._may_be_at(slot, place, stamp_ns, within_ns):
            return ""
        seconds = self._too_late(slot, stamp_ns, within_ns)
        if seconds:
            return f"what looks like it comes {seconds} after it was last seen"
        return "what looks like it is too far from where it was last seen"

    def misplaced(self, slot: int, mask: TargetMask | None, stamp_ns: int, within_ns: int | None) -> str:
        """Why what ``mask`` shows is not the slot's thing, by its place, in words; "" where nothing speaks against."""
        place = None if mask is None else Place.of(mask.mask)
        if place is None or self._may_be_at(slot, place, stamp_ns, within_ns):
            return ""
        seconds = self._too_late(slot, stamp_ns, within_ns)
        why = f"that was last seen {seconds} ago" if seconds else "is not where that was last seen"
        return f"what was found looks like the thing followed, but {why}"

    def accepted(self, slot: int, mask: TargetMask | None, stamp_ns: int) -> None:
        """What ``mask`` shows is the slot's thing, wherever that was."""
        place = None if mask is None else Place.of(mask.mask)
        if place is not None:
            self.stood(slot, place, stamp_ns, anew=True)

    def doubt(self, slot: int) -> int:
        """Another answer that contradicts the slot's old token; how many in a row."""
        self._doubts[slot] = self._doubts.get(slot, 0) + 1
        return self._doubts[slot]

    def trust(self, slot: int) -> None:
        self._doubts.pop(slot, None)

    def forget_tokens(self) -> None:
        """Old tokens cannot be shown the frames to come; the ids stay."""
        self._tokens.clear()
        self._places.clear()
        self._doubts.clear()

    def release(self) -> None:
        """Give all ids back."""
        self.forget_tokens()
        for instance_id in self._slot_ids.values():
            self._ids.release(instance_id)
        self._slot_ids.clear()

    def _may_be_at(self, slot: int, place: Place, stamp_ns: int, within_ns: int | None) -> bool:
        known = self._places.get(slot)
        return within_ns is None or known is None or known.continues(place, stamp_ns, within_ns)

    def _too_late(self, slot: int, stamp_ns: int, within_ns: int) -> str:
        """For how long the thing has been out of sight, in words, where that is too long; else ""."""
        away_ns = stamp_ns - self._places[slot].seen_ns
        return f"{away_ns / 1e9:.0f} s" if away_ns > within_ns else ""


def _sees(mask: TargetMask, limit: float) -> bool:
    return mask.score >= limit and bool(mask.mask.any())
