"""A split whose samples were made from its index file, and those entries of it that are not usable."""

from __future__ import annotations

from collections.abc import Iterable

from ...core import BadInput
from ..samples import Dataset, Sample


class SampleList(Dataset):
    """Samples in the index's order. Where an entry is broken, looking at it raises BadInput with the file and the key;
    the others stay usable."""

    def __init__(self, name: str, split: str, items: Iterable[Sample | BadInput]) -> None:
        self.name, self.split = name, split
        self._items = tuple(items)
        if not self._items:
            raise BadInput(f"{name}: the split {split!r} holds no sample")

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Sample:
        item = self._items[index]
        if isinstance(item, BadInput):
            raise BadInput(str(item))  # a new one: a raised error keeps the frames it came through
        return item

    def faults(self) -> list[str]:
        """What is wrong with the entries that cannot be used, in order."""
        return [str(item) for item in self._items if isinstance(item, BadInput)]
