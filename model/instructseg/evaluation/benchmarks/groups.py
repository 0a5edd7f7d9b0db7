"""Which samples of a split are asked together, and by whom: all about one footage, wherever they stand in the index."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ...core import BadInput
from ...data.samples import Dataset
from .shards import Shard


def footage_groups(dataset: Dataset, count: int) -> list[list[int]]:
    """The first ``count`` samples by footage, in the order in which footages first occur; a sample that cannot be read
    is a group of its own."""
    groups: dict[object, list[int]] = {}
    for index in range(count):
        try:
            key: object = dataset[index].footage.name
        except BadInput:
            key = index
        groups.setdefault(key, []).append(index)
    return list(groups.values())


def whole_groups(dataset: Dataset, limit: int | None) -> int:
    """How many samples are asked where ``limit`` are wanted: up to the end of a footage where its samples follow each
    other, because some protocols score a video as a whole."""
    total = len(dataset)
    count = total if limit is None else min(limit, total)
    while 0 < count < total and _footage(dataset, count - 1) == _footage(dataset, count):
        count += 1
    return count


def still_to_ask(
    groups: Iterable[list[int]], done: Collection[int], shard: Shard, total: int, whole: bool
) -> list[list[int]]:
    """This shard's groups without what is done; a group belongs where its first sample does. whole: sentences of one
    conversation depend on each other, so a group that is not complete is asked again as a whole."""
    part = shard.part(total)
    left = []
    for group in (group for group in groups if group[0] in part):
        missing = [index for index in group if index not in done]
        if missing:
            left.append(group if whole else missing)
    return left


def _footage(dataset: Dataset, index: int) -> str:
    try:
        return dataset[index].footage.name
    except BadInput:
        return f"broken {index}"
