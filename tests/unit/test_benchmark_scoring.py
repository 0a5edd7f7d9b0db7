"""Figures of benchmarks: the same as the metrics' own functions give, nothing left out, broken files by name."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instructseg.core import BadInput
from instructseg.data.benchmarks import benchmarks
from instructseg.data.samples import Footage, Kind, Sample, Truth, Truths
from instructseg.evaluation.benchmarks import predictions as files
from instructseg.evaluation.benchmarks.bootstrap import intervals
from instructseg.evaluation.benchmarks.davis_metric import DavisObjects
from instructseg.evaluation.benchmarks.image_metrics import ImageIou, Refusal
from instructseg.evaluation.benchmarks.masks import decode_mask, decode_soft, encode_mask, encode_soft
from instructseg.evaluation.benchmarks.metrics import Judged
from instructseg.evaluation.benchmarks.predictions import Prediction, PredictionFile, RunDescription, read_predictions
from instructseg.evaluation.benchmarks.scoring import columns_of, find_metric, score
from instructseg.evaluation.benchmarks.video_metrics import RegionBoundary, Revos
from instructseg.evaluation.image_iou import image_scores
from instructseg.evaluation.refusal import refusal_scores
from instructseg.evaluation.region_boundary import dataset_scores, score_video
from instructseg.evaluation.revos import ExpressionScores, revos_table

SIZE = (24, 32)


@dataclasses.dataclass(eq=False)
class Frames(Footage):
    name: str
    frames: tuple[str, ...]

    def read(self, index: int) -> np.ndarray:
        return np.zeros((*SIZE, 3), np.uint8)


@dataclasses.dataclass(eq=False)
class Drawn(Truths):
    masks: np.ndarray  # (T, H, W)
    all_masks: np.ndarray | None = None
    ignore: np.ndarray | None = None

    def __call__(self, index: int) -> Truth:
        mask = self.masks[index]
        return Truth(mask[None] if mask.any() else np.zeros((0, *SIZE), bool), self.ignore)

    def foreground(self, index: int) -> np.ndarray:
        return self.all_masks[index]


class Listed(list):
    """A data set of samples; an exception in their place is raised."""

    name, split = "listed", "val"

    def __getitem__(self, index: int) -> Sample:
        item = super().__getitem__(index)
        if isinstance(item, Exception):
            raise item
        return item


def random_masks(random: np.random.Generator, count: int, empty: float = 0.0) -> np.ndarray:
    """Rectangles ``(n, H, W)``; a share of them without a pixel."""
    masks = np.zeros((count, *SIZE), bool)
    for mask in masks:
        top, left = random.integers(0, 12, 2)
        if random.random() >= empty:
            mask[top : top + random.integers(3, 12), left : left + random.integers(3, 20)] = True
    return masks


def case(seed: int, count: int, length: int = 1, empty: float = 0.0, ignore: bool = False) -> tuple[Listed, dict]:
    """Samples about ``count // 2`` footages and their predictions."""
    random = np.random.default_rng(seed)
    samples, given = Listed(), {}
    for i in range(count):
        truth, found = random_masks(random, length, empty), random_masks(random, length, empty)
        kind = (Kind.REFERRING, Kind.REASONING, Kind.NO_TARGET)[i % 3]
        everything = truth | random_masks(random, length)
        ignored = random_masks(random, 1)[0] if ignore else None
        footage = Frames(f"footage{i // 2}", tuple(str(t) for t in range(length)))
        samples.append(
            Sample(f"s{i}", footage, "a thing", ("1",), Drawn(truth, everything, ignored), kind, extra={"boxes": []})
        )
        refused = bool(random.random() < 0.4)
        given[i] = Prediction(i, f"s{i}", tuple(encode_mask(mask) for mask in found), refused)
    return samples, given


def decoded(given: dict[int, Prediction]) -> list[np.ndarray]:
    return [np.stack([decode_mask(m, SIZE, "") for m in p.masks]) for p in given.values()]


def scored(metric, samples: Listed, given: dict[int, Prediction]) -> dict[str, dict[str, Any]]:
    return score(metric, samples, [[i] for i in range(len(samples))], given, progress=False).table


@pytest.mark.parametrize("ignore", [False, True])
def test_image_figures_are_those_of_the_functions(ignore: bool) -> None:
    samples, given = case(1, 20, ignore=ignore)
    truths = []
    for sample in samples:
        labels = sample.truth(0).union.astype(np.uint8)
        if ignore:
            labels[sample.truth(0).ignore] = 255
        truths.append(labels[None])
    expected = image_scores(list(zip(decoded(given), truths, strict=True)))
    row = scored(ImageIou("cIoU"), samples, given)["overall"]
    assert (row["gIoU"], row["cIoU"]) == pytest.approx((expected.giou, expected.ciou))
    by_image = [(np.concatenate(decoded(given)[i : i + 2]), np.concatenate(truths[i : i + 2])) for i in range(0, 20, 2)]
    assert row["gIoU per image"] == pytest.approx(image_scores(by_image, average="images").giou)


@pytest.mark.parametrize(("form", "name"), [("scored", ""), ("blank", " (refused blank)")])
def test_refusal_figures_are_those_of_the_function(form: Any, name: str) -> None:
    samples, given = case(2, 40, empty=0.3)
    triples = [
        (mask, sample.truth(0).union[None].astype(np.uint8), np.array([p.refused]))
        for mask, sample, p in zip(decoded(given), samples, given.values(), strict=True)
    ]
    expected = refusal_scores(triples, refused_masks=form)
    row = scored(Refusal(), samples, given)["overall"]
    assert (row[f"gIoU{name}"], row[f"cIoU{name}"]) == pytest.approx((expected.giou, expected.ciou))
    assert (row["N-acc"], row["T-acc"]) == pytest.approx((expected.n_acc, expected.t_acc))


def test_video_figures_are_those_of_the_functions() -> None:
    samples, given = case(3, 9, length=3)
    videos = [score_video(found, s.truth.masks) for found, s in zip(decoded(given), samples, strict=True)]
    expected = dataset_scores(videos)
    row = scored(RegionBoundary(), samples, given)["overall"]
    assert (row["J"], row["F"], row["J&F"]) == pytest.approx((expected.j, expected.f, expected.j_and_f))
    listed = [ExpressionScores(i % 3, video.j, video.f) for i, video in enumerate(videos)]
    for name, expected_row in revos_table(listed).items():
        row = scored(Revos(), samples, given)[name]
        assert (row["J"], row["F"]) == pytest.approx((expected_row.j, expected_row.f))


def test_whatever_is_missing_counts_as_zero_in_every_metric() -> None:
    """No prediction, a failed one, one of other data, one of another size, a sample that cannot be read."""
    for metric in (ImageIou("gIoU"), Refusal(), RegionBoundary(), Revos()):
        samples, given = case(4, 12)
        right = {i: dataclasses.replace(p, masks=(encode_mask(s.truth(0).union),), refused=False)
                 for (i, p), s in zip(given.items(), samples, strict=True)}  # fmt: skip
        assert scored(metric, samples, right)["overall"][metric.headline] == pytest.approx(1.0, abs=1e-3)
        del right[0]
        right[1] = Prediction(1, "s1", error="broke")
        right[2] = dataclasses.replace(right[2], id="of other data")
        right[3] = dataclasses.replace(right[3], masks=({"size": [8, 8], "counts": "0T2"},))
        right[4] = dataclasses.replace(right[4], masks=())
        samples[5] = BadInput("file.json: key 'exp' is broken")
        found = score(metric, samples, [[i] for i in range(12)], right, progress=False)
        assert found.missing == ["s0"]
        assert set(found.failed) == {"s1", "s2", "s3", "s4", "sample 5"}
        assert "of another version" in found.failed["s4"] or "0 masks for 1 frames" in found.failed["s4"]
        assert "file.json" in found.failed["sample 5"]
        assert 0.2 < found.table["overall"][metric.headline] < 0.75
        if not isinstance(metric, Revos):  # whose two types weigh alike
            assert found.table["overall"][metric.headline] == pytest.approx(0.5, abs=1e-3)


def test_what_cannot_be_read_lowers_every_figure_of_every_row() -> None:
    """Right answers but for one sample, whose truth nobody can read: nothing is 1 any more, cIoU and N-acc neither."""
    for metric in (ImageIou("cIoU"), Refusal(), RegionBoundary()):
        samples, given = case(5, 12, empty=0.4 if not isinstance(metric, ImageIou) else 0.0)
        for i, sample in enumerate(samples):
            samples[i] = dataclasses.replace(sample, is_sentence=i < 6, extra={})
            union = sample.truth(0).union
            given[i] = dataclasses.replace(given[i], masks=(encode_mask(union),), refused=not union.any())
        samples[5] = BadInput("file.json: key 'exp' is broken")
        table = scored(metric, samples, given)
        assert isinstance(metric, Refusal) or {"sentences", "phrases"} < set(table)
        figures = {f"{row} {name}": v for row, some in table.items() for name, v in some.items() if name != "samples"}
        assert len(figures) >= 6
        assert all(0 < value < 0.95 for value in figures.values()), figures


def test_lost_objects_of_ref_davis17_are_zeros_each_for_one_annotator() -> None:
    """Two objects by four annotators are right, as many cannot be read."""
    metric = DavisObjects("first")
    values = [{"j": 1.0, "f": 1.0, "annotator": float(i % 4), "given": 1.0} for i in range(8)]
    judged = [Judged(i, f"bear/{i}", "bear", some, 0.0) for i, some in enumerate(values)]
    judged += [metric.nothing(8 + i, f"swan/{i}") for i in range(8)]
    table = metric.table(columns_of(judged), [()] * 16)
    assert list(table) == ["overall", *(f"annotator {a}" for a in range(4))]
    assert {some["J&F"] for some in table.values()} == {0.5}
    assert [some["samples"] for some in table.values()] == [16, 4, 4, 4, 4]


def test_the_row_overall_of_revos_counts_what_enters_it() -> None:
    samples, given = case(6, 9)
    table = scored(Revos(), samples, given)
    assert [table[row]["samples"] for row in ("overall", "referring", "reasoning", "no target")] == [6, 3, 3, 3]


def test_intervals_are_of_videos_and_the_same_each_time() -> None:
    samples, given = case(5, 40)
    found = score(ImageIou("gIoU"), samples, [[i] for i in range(40)], given, progress=False)
    low, high = found.ranges["gIoU"]
    assert low < found.table["overall"]["gIoU"] < high
    assert high - low < 0.5
    again = score(ImageIou("gIoU"), samples, [[i] for i in range(40)], given, progress=False)
    assert again.ranges == found.ranges
    few = found.judged[:8]  # four videos say nothing
    assert intervals(ImageIou("gIoU"), columns_of(few), [one.labels for one in few]) == {}


def test_every_benchmark_has_its_metric() -> None:
    for row in benchmarks().values():
        assert find_metric(row).headline in ("gIoU", "cIoU", "J&F")


# Files


RUN = RunDescription("refcoco", "val", 10, "known", "a", "published", {"option": "1"})


def write(folder: Path, *indices: int) -> Path:
    with PredictionFile(folder, RUN) as file:
        for index in indices:
            file.write(Prediction(index, f"s{index}", (None, encode_mask(np.eye(20, dtype=bool))), score=0.5))
    return folder / "predictions-0-of-1.jsonl"


def test_predictions_come_back_as_they_were_written(tmp_path: Path) -> None:
    write(tmp_path, 0, 3)
    found = read_predictions(tmp_path, RUN)
    assert sorted(found) == [0, 3]
    assert (found[3].id, found[3].score, found[3].masks[0]) == ("s3", 0.5, None)
    np.testing.assert_array_equal(decode_mask(found[3].masks[1], (20, 20), ""), np.eye(20, dtype=bool))
    assert files.described_run(tmp_path) == RUN


def test_soft_masks_come_back(tmp_path: Path) -> None:
    confidence = np.arange(20 * 30, dtype=np.uint8).reshape(20, 30)
    np.testing.assert_allclose(decode_soft(encode_soft(confidence), (20, 30), ""), confidence / 255, atol=1e-6)
    assert not decode_soft(None, (20, 30), "").any()
    for text in ("", "no base64!", "aGFsbG8=", 7, encode_soft(confidence[:5])):
        with pytest.raises(BadInput, match="prediction of x must be a grey PNG of 30 x 20 pixels"):
            decode_soft(text, (20, 30), "prediction of x")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"id":"s3"', b'"id":"s3'))


def _no_object(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"[1, 2]\n")


def _beyond(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b'{"index":10,"id":"s10","masks":[]}\n')


def _wrong_kind(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b'{"index":4,"id":"s4","masks":{"0":null}}\n')


def _score_in_words(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b'{"index":4,"id":"s4","masks":[],"score":"high"}\n')


def _foreign(path: Path) -> None:
    path.write_bytes(b'{"some": "file"}\n')


def _binary(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\xff\xfe\x00\n")


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (_cut, "line 3 is no JSON"),
        (_no_object, "line 4 must be an object"),
        (_beyond, "line 4 must have 'index' below 10"),
        (_wrong_kind, "line 4: 'masks' must be a list"),
        (_score_in_words, "line 4: 'score' has a value of the wrong kind"),
        (_foreign, "line 1 must be the header of a predictions file"),
        (_binary, "line 4 is no JSON"),
    ],
)
def test_a_damaged_file_is_named_with_its_line(tmp_path: Path, damage: Callable[[Path], None], what: str) -> None:
    path = write(tmp_path, 0, 3)
    damage(path)
    with pytest.raises(BadInput, match=what) as raised:
        read_predictions(tmp_path, RUN)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"benchmark": "revos"}, "its benchmark is 'refcoco', now it is 'revos'"),
        ({"checkpoint": "b"}, "its checkpoint is 'a', now it is 'b'"),
        ({"settings": {"option": "2"}}, "its settings is"),
    ],
)
def test_predictions_of_another_run_are_not_mixed(tmp_path: Path, change: dict[str, Any], what: str) -> None:
    write(tmp_path, 0)
    with pytest.raises(BadInput, match=what):
        PredictionFile(tmp_path, dataclasses.replace(RUN, **change))


def test_half_a_line_is_dropped_and_half_a_header_too(tmp_path: Path) -> None:
    path = write(tmp_path, 0, 3)
    path.write_bytes(path.read_bytes()[:-7])
    assert sorted(read_predictions(tmp_path, RUN)) == [0]
    write(tmp_path, 5)
    assert sorted(read_predictions(tmp_path, RUN)) == [0, 5]
    path.write_bytes(b'{"instructseg_pred')
    assert read_predictions(tmp_path, RUN) == {}
    write(tmp_path, 1)
    assert sorted(read_predictions(tmp_path, RUN)) == [1]


def test_two_processes_do_not_write_one_file(tmp_path: Path) -> None:
    with PredictionFile(tmp_path, RUN), pytest.raises(BadInput, match="is being written by another process"):
        PredictionFile(tmp_path, RUN)
    write(tmp_path, 0)


def test_nothing_but_json_is_written(tmp_path: Path) -> None:
    lines = write(tmp_path, 0, 3).read_text().splitlines()
    assert [sorted(json.loads(line))[0] for line in lines] == ["benchmark", "id", "id"]
