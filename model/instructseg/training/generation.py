"""The scenes of a training, shard by shard, by one process or several; a shard that is finished stays as it is."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from .bank import generate_shard
from .stopping import StopRequest

log = logging.getLogger(__name__)
SHARD = 150  # episodes
VALIDATION_SEED = 2000  # of a split's first shard; training's is 0

Shard = tuple[Path, str, str, int, int]  # folder, source, split, seed, episodes


def wanted_shards(folder: Path, scenes: Mapping[str, int], validation: Mapping[str, int]) -> Iterator[Shard]:
    """Every shard of a training in ``folder/train`` and ``folder/val``. scenes, validation: episodes by source. The
    n-th scene of a source and split is always the same."""
    for split, counts, first in (("train", scenes, 0), ("val", validation, VALIDATION_SEED)):
        for source, episodes in counts.items():
            for shard in range(-(-episodes // SHARD)):
                number = first + shard
                path = folder / split / f"{source}-{number:04d}"
                yield path, source, split, number, min(SHARD, episodes - shard * SHARD)


def generate(shards: Iterator[Shard], size: tuple[int, int], workers: int, stop: StopRequest) -> None:
    """Write the shards that are not there. size: height and width. Raises TrainingPaused between two shards."""
    missing = [shard for shard in shards if not (shard[0] / "episodes.json").exists()]
    if workers == 1 or len(missing) < 2:
        for shard in missing:
            stop.check("scenes were drawn")
            log.info("scenes: %s %s, %d episodes", shard[2], shard[0].name, shard[4])
            _write(shard, size)
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy the locks of torch's threads
    with ProcessPoolExecutor(min(workers, len(missing)), context) as pool:
        tasks = {pool.submit(_write, shard, size): shard for shard in missing}
        try:
            for task in as_completed(tasks):
                task.result()
                log.info("scenes: %s %s is there", tasks[task][2], tasks[task][0].name)
                stop.check("scenes were drawn")
        except BaseException:
            pool.shutdown(cancel_futures=True)  # shards that were begun are finished
            raise


def _write(shard: Shard, size: tuple[int, int]) -> None:
    path, source, split, seed, episodes = shard
    generate_shard(path, source, split, seed, episodes, size[1], size[0])
