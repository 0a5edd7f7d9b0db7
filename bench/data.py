"""Reading data sets: samples a second through torch's DataLoader with two workers, and what the index of a COCO file
costs.

The sets are written first, so their files are in memory: what is measured is decoding and masks, not the disk.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from instructseg.data.benchmarks import open_dataset
from instructseg.data.samples import Dataset

from .data_sets import HEIGHT, VIDEO_SIZE, WIDTH, write_reason_seg, write_refcoco, write_videos
from .figures import Figure, Floor, figure
from .index_cost import index_cost
from .options import MeasurementFailed, Options

AHEAD = Floor("at least", 50.0, ">= 50")
WORKERS, BATCH = 2, 4
CASES = (  # benchmark, frames of a sample
    ("refcoco", 1),
    ("reasonseg", 1),
    ("ref-youtube-vos", 1),
    ("mevis", 1),
    ("mevis", 4),
)


class Loaded(TorchDataset):
    """What a training loop asks of a sample: ``frames`` images evenly over it, and the union of their masks."""

    def __init__(self, dataset: Dataset, frames: int, count: int) -> None:
        self.dataset, self.frames, self.count = dataset, frames, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Images ``(frames, H, W, 3)`` uint8 and masks ``(frames, H, W)`` bool."""
        sample = self.dataset[7 * index % len(self.dataset)]  # neighbours are often of the same image
        chosen = np.linspace(0, len(sample.footage) - 1, self.frames).round().astype(int)
        images = np.stack([sample.footage.read(int(i)) for i in chosen])
        masks = np.stack([sample.truth(int(i)).union for i in chosen])
        return torch.from_numpy(images), torch.from_numpy(masks)


def measure(options: Options) -> tuple[list[Figure], dict[str, Any]]:
    images, videos = options.repetitions(120, 8), options.repetitions(6, 1)
    draw = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="instructseg-bench-") as folder:
        root = Path(folder)
        options.say(f"writing {2 * images} images and {videos} videos")
        write_refcoco(root, images, draw)
        write_reason_seg(root, images, draw)
        write_videos(root, videos, draw)
        figures = []
        for name, frames in CASES:
            options.say(f"{name}, {frames} frame{'s' if frames > 1 else ''}")
            dataset = open_dataset(name, root / name if name in ("mevis", "ref-youtube-vos") else root, "train")
            values = rates(dataset, frames, options.repetitions(100, 8), options.repetitions(4, 2))
            words = f"{name}, {frames} frame{'s' if frames > 1 else ''} a sample"
            figures.append(figure(words, "samples/s", values, AHEAD))
            figures.append(figure(f"{words}: CPU", "ms", cpu_ms(dataset, frames, options.repetitions(60, 8))))
        options.say("index of a COCO file")
        found, details = index_cost(root, options.repetitions(8_000, 300), draw)
    details |= {"workers": WORKERS, "images": [WIDTH, HEIGHT], "videos": list(VIDEO_SIZE), "batch": BATCH}
    return figures + found, details


def rates(dataset: Dataset, frames: int, count: int, repetitions: int) -> list[float]:
    """Samples a second of each pass over ``count`` samples, once the workers run."""
    loader = DataLoader(
        Loaded(dataset, frames, count), BATCH, num_workers=WORKERS, persistent_workers=True, collate_fn=list
    )
    values = []
    for repetition in range(repetitions + 1):
        began, seen = time.perf_counter(), sum(len(batch) for batch in loader)
        if seen != count:
            raise MeasurementFailed(f"{dataset.name}: {seen} of {count} samples came")
        if repetition:  # the first pass starts the workers
            values.append(count / (time.perf_counter() - began))
    return values


def cpu_ms(dataset: Dataset, frames: int, count: int) -> list[float]:
    """CPU time of each sample in one process, which the machine's other work disturbs little."""
    loaded, values = Loaded(dataset, frames, count), []
    for index in range(count):
        began = time.process_time()
        loaded[index]
        values.append((time.process_time() - began) * 1e3)
    return values
