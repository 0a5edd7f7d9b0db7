"""Instance ids: the pixel values of the instance mask."""

from __future__ import annotations

from ..core import InstructSegError

LOWEST, HIGHEST = 1, 65535


class InstanceIds:
    """Hands out ids in 1..65535, always the next higher free one, so that a released id is not reused soon: whoever
    still holds an old mask does not mistake a new target for the old one."""

    def __init__(self) -> None:
        self._used: set[int] = set()
        self._next = LOWEST

    def __len__(self) -> int:
        return len(self._used)

    def acquire(self) -> int:
        """A free id. Raises InstructSegError when all 65535 are in use."""
        if len(self._used) > HIGHEST - LOWEST:
            raise InstructSegError(f"all {HIGHEST} instance ids are in use; cancel instructions that are not needed")
        while self._next in self._used:
            self._next = self._after(self._next)
        taken, self._next = self._next, self._after(self._next)
        self._used.add(taken)
        return taken

    def release(self, instance_id: int) -> None:
        """Give an id back; one that is not in use is ignored."""
        self._used.discard(instance_id)

    @staticmethod
    def _after(instance_id: int) -> int:
        return LOWEST if instance_id >= HIGHEST else instance_id + 1
