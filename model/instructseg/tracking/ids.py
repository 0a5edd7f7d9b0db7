"""Instance ids: the pixel values of the instance mask."""

from __future__ import annotations

from ..core import InstructSegError

LOWEST, HIGHEST = 1, 65535
TRACKED = (1, 60_000)  # of what is followed from frame to frame
APART = (60_001, HIGHEST)  # of what is segmented beside it: the two never meet in one planner's hands


class InstanceIds:
    """Hands out ids in ``lowest``..``highest``, always the next higher free one, so that a released id is not reused
    soon: whoever still holds an old mask does not mistake a new target for the old one."""

    def __init__(self, lowest: int = LOWEST, highest: int = HIGHEST) -> None:
        self._lowest, self._highest = lowest, highest
        self._used: set[int] = set()
        self._next = lowest

    def __len__(self) -> int:
        return len(self._used)

    def acquire(self) -> int:
        """A free id. Raises InstructSegError when all are in use."""
        count = self._highest - self._lowest + 1
        if len(self._used) >= count:
            raise InstructSegError(f"all {count} instance ids are in use; cancel instructions that are not needed")
        while self._next in self._used:
            self._next = self._after(self._next)
        taken, self._next = self._next, self._after(self._next)
        self._used.add(taken)
        return taken

    def release(self, instance_id: int) -> None:
        """Give an id back; one that is not in use is ignored."""
        self._used.discard(instance_id)

    def _after(self, instance_id: int) -> int:
        return self._lowest if instance_id >= self._highest else instance_id + 1
