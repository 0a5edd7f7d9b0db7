"""The benchmark of data loading: its own sets are whole, and its figures come from as many samples as it says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bench import data, data_sets, index_cost
from instructseg.data.benchmarks import benchmark, open_dataset
from instructseg.data.checking import check_split


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    draw = np.random.default_rng(3)
    data_sets.write_refcoco(folder, 2, draw)
    data_sets.write_reason_seg(folder, 1, draw)
    return folder


@pytest.mark.parametrize(("name", "samples"), [("refcoco", 12), ("reasonseg", 1)])
def test_the_sets_that_are_read_are_whole(name: str, samples: int, root: Path) -> None:
    report = check_split(benchmark(name), root, "train", images=True)
    assert report.problems == []
    assert report.found["expressions"] == samples


def test_a_photograph_takes_as_much_as_one(root: Path) -> None:
    sizes = [path.stat().st_size for path in (root / "images/mscoco/images/train2014").iterdir()]
    assert all(40_000 < size < 200_000 for size in sizes)


def test_videos_are_read_by_both_layouts(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(data_sets, "VIDEO_FRAMES", 2)
    monkeypatch.setattr(data_sets, "VIDEO_SIZE", (320, 180))
    data_sets.write_videos(tmp_path, 1, np.random.default_rng(0))
    truths = []
    for name in ("ref-youtube-vos", "mevis"):
        dataset = open_dataset(name, tmp_path / name, "train")
        images, masks = data.Loaded(dataset, 2, 3)[1]
        assert (images.shape, images.dtype) == ((2, 180, 320, 3), torch.uint8)
        assert (masks.shape, masks.dtype) == ((2, 180, 320), torch.bool)
        truths.append(torch.stack([data.Loaded(dataset, 2, 3)[i][1] for i in range(3)]))
    assert truths[0].any()
    assert torch.equal(*truths)


def test_rates_are_of_all_samples_and_of_every_pass(root: Path) -> None:
    dataset = open_dataset("refcoco", root, "train")
    values = data.rates(dataset, 1, 5, 2)
    assert len(values) == 2
    assert all(value > 0 for value in values)
    assert len(data.cpu_ms(dataset, 1, 3)) == 3


def test_the_cost_of_an_index_is_of_all_its_annotations(tmp_path: Path) -> None:
    figures, details = index_cost.index_cost(tmp_path, 3, np.random.default_rng(0))
    assert details["index"]["annotations"] == 3 * data_sets.PER_IMAGE
    assert len(json.loads((tmp_path / "large.json").read_text())["annotations"]) == 21
    assert [figure.unit for figure in figures] == ["s", "bytes"]
