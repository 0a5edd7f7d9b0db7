"""What the memory tracker remembers of one object: a bounded, immutable value."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from ..modules.sam2_memory import MemoryBank


@dataclasses.dataclass(frozen=True, eq=False)
class Dated:
    """A tensor that was computed on frame ``frame`` of its track."""

    frame: int
    value: torch.Tensor


@dataclasses.dataclass(frozen=True)
class BankLimits:
    """conditioning: frames with a mask from outside, the first one and the newest. recent: frames before the present
    one whose memories are read; pointers: the same for object pointers (6 and 15 as published)."""

    conditioning: int = 4
    recent: int = 6
    pointers: int = 15


@dataclasses.dataclass(frozen=True, eq=False)
class TrackMemory:
    """One object's memory after frame ``frame`` of its track (0 is the frame it started on).

    conditioning, recent: memories ``(h*w, M)``, oldest first. conditioning_pointers, pointers: object pointers
    ``(C,)``. A step gives a new value and leaves this one as it was, so a track can be resumed from any of them.
    """

    frame: int
    conditioning: tuple[Dated, ...]
    conditioning_pointers: tuple[Dated, ...]
    recent: tuple[Dated, ...] = ()
    pointers: tuple[Dated, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors; each owns its storage."""
        dated = (*self.conditioning, *self.conditioning_pointers, *self.recent, *self.pointers)
        return sum(d.value.untyped_storage().nbytes() for d in dated)

    @staticmethod
    def begin(memory: torch.Tensor, pointer: torch.Tensor) -> TrackMemory:
        return TrackMemory(0, (Dated(0, memory),), (Dated(0, pointer),))

    def tracked(self, memory: torch.Tensor, pointer: torch.Tensor, limits: BankLimits) -> TrackMemory:
        """After one more frame whose mask the tracker found itself."""
        frame = self.frame + 1
        recent = _within((*self.recent, Dated(frame, memory)), frame + 1, limits.recent)
        pointers = _within((*self.pointers, Dated(frame, pointer)), frame + 1, limits.pointers)
        return dataclasses.replace(self, frame=frame, recent=recent, pointers=pointers)

    def conditioned(
        self, memory: torch.Tensor, pointer: torch.Tensor, limits: BankLimits, stepped: bool
    ) -> TrackMemory:
        """After a frame whose mask came from outside. stepped: that frame has been tracked already; what was found
        there is replaced."""
        frame = self.frame if stepped else self.frame + 1
        return TrackMemory(
            frame,
            _first_and_newest((*_without(self.conditioning, frame), Dated(frame, memory)), limits.conditioning),
            _first_and_newest(
                (*_without(self.conditioning_pointers, frame), Dated(frame, pointer)), limits.conditioning
            ),
            _within(_without(self.recent, frame), frame + 1, limits.recent),
            _within(_without(self.pointers, frame), frame + 1, limits.pointers),
        )

    @property
    def lengths(self) -> tuple[int, int, int]:
        """Memories of equal lengths can be read in one batch."""
        return len(self.conditioning), len(self.recent), len(self.pointers)


def stack_memories(memories: Sequence[TrackMemory]) -> MemoryBank:
    """The memories of several objects, of equal lengths, as one batch for their next frame."""
    device = memories[0].conditioning[0].value.device
    spatial = [d.value for m in memories for d in (*m.conditioning, *m.recent)]
    pointers = [d.value for m in memories for d in (*m.conditioning_pointers, *m.pointers)]
    ages = [[0] * len(m.conditioning) + [m.frame + 1 - d.frame for d in m.recent] for m in memories]
    pointer_ages = [[m.frame + 1 - d.frame for d in (*m.conditioning_pointers, *m.pointers)] for m in memories]
    return MemoryBank(
        torch.stack(spatial).unflatten(0, (len(memories), -1)),  # (B, N, h*w, M)
        torch.tensor(ages, device=device),
        torch.stack(pointers).unflatten(0, (len(memories), -1)),  # (B, P, C)
        torch.tensor(pointer_ages, device=device, dtype=torch.float32),
    )


def _within(dated: tuple[Dated, ...], now: int, oldest: int) -> tuple[Dated, ...]:
    """Those of the ``oldest`` frames before frame ``now``; one that a mask from outside replaced leaves a gap."""
    return tuple(d for d in dated if now - d.frame <= oldest)


def _without(dated: tuple[Dated, ...], frame: int) -> tuple[Dated, ...]:
    return tuple(d for d in dated if d.frame != frame)


def _first_and_newest(dated: tuple[Dated, ...], limit: int) -> tuple[Dated, ...]:
    return dated if len(dated) <= limit else (dated[0], *dated[len(dated) - limit + 1 :])
