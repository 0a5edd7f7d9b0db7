"""Readers of video benchmarks on miniature sets: every sample, its frames, its masks; and what bad ones are told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from unit import miniature_videos as mini
from unit.travelling import arrived

from instructseg.core import BadInput
from instructseg.data.benchmarks import benchmark, identify, open_dataset
from instructseg.data.checking import check_split
from instructseg.data.samples import Kind, NotOnDisk, Sample, Truth

WRITERS = {
    "ref-youtube-vos": mini.ref_youtube_vos,
    "ref-davis17": mini.ref_davis17,
    "mevis": mini.mevis,
    "revos": mini.revos,
    "reasonvos": mini.reason_vos,
    "davis2017": mini.davis2017,
    "youtube-vos": mini.youtube_vos,
}
EVERY = [(name, split) for name in WRITERS for split in benchmark(name).splits]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, mini.MiniVideo]]]:
    """Every benchmark once, to be read only."""
    folder = tmp_path_factory.mktemp("whole")
    return {name: (folder / name, write(folder / name)) for name, write in WRITERS.items()}


def truths(sample: Sample) -> list[Truth | None]:
    assert sample.truth is not None
    return [sample.truth(index) for index in range(len(sample.footage))]


def masks_of(sample: Sample) -> np.ndarray:
    """``(n, T, H, W)`` where every frame is annotated."""
    found = truths(sample)
    assert all(truth.masks.dtype == bool for truth in found)
    return np.stack([truth.masks for truth in found], axis=1)


def expected(video: mini.MiniVideo, *numbers: int) -> np.ndarray:
    return np.stack([video.masks[number] for number in numbers])


@pytest.mark.parametrize(("name", "split"), EVERY)
def test_frames_come_in_order_and_the_split_survives_pickling(name: str, split: str, whole) -> None:
    root, videos = whole[name]
    for sample in arrived(open_dataset(name, root, split)):
        video = videos[sample.footage.name]
        assert sample.footage.frames == video.frames
        for index, image in enumerate(video.images):
            assert np.abs(sample.footage.read(index).astype(int) - image).mean() < 5  # JPEG of a drawing
        assert sample.footage.missing() == []


@pytest.mark.parametrize(("name", "split"), EVERY)
def test_truth_is_there_exactly_where_it_is_public(name: str, split: str, whole) -> None:
    given = name == "youtube-vos"  # valid: the masks that a method is given, no others
    for sample in open_dataset(name, whole[name][0], split):
        assert (sample.truth is not None) is (given or split in benchmark(name).local)


@pytest.mark.parametrize("name", WRITERS)
def test_a_root_is_recognised_and_looked_through(name: str, whole) -> None:
    root, _ = whole[name]
    assert identify(root) == [name]
    row = benchmark(name)
    for split in row.splits:
        report = check_split(row, root, split, images=True)
        assert report.on_disk
        assert report.problems == []
        assert set(report.differing) <= {"videos", "expressions"}  # a miniature has fewer than published


def test_ref_youtube_vos(whole) -> None:
    root, videos = whole["ref-youtube-vos"]
    train = open_dataset("ref-youtube-vos", root, "train")
    assert [s.id for s in train] == [f"{v}/{e}" for v in ("0065b171f9", "01baa5a4e1") for e in "0123"]
    assert train[2].instruction == "Thing 2 on the 2. row"
    assert [s.objects for s in train] == [("1",), ("1",), ("2",), ("2",)] * 2
    for sample in train:
        video = videos[sample.footage.name]
        np.testing.assert_array_equal(masks_of(sample), expected(video, int(sample.objects[0])))
    valid = open_dataset("ref-youtube-vos", root, "valid")
    assert {s.footage.name for s in valid} == {"0062f687f1"}  # the file lists the test video, too
    assert [s.objects for s in valid] == [(), ()]


def test_an_object_out_of_view_needs_no_annotation_in_ref_youtube_vos(tmp_path: Path) -> None:
    mini.ref_youtube_vos(tmp_path)
    (tmp_path / "train/Annotations/0065b171f9/00000.png").unlink()
    train = open_dataset("ref-youtube-vos", tmp_path, "train")
    assert train[2].truth(0) is None  # object 2 is listed from the second frame on
    with pytest.raises(BadInput, match=r"00000\.png is missing"):
        train[0].truth(0)


def test_ref_davis17(whole) -> None:
    root, videos = whole["ref-davis17"]
    valid = open_dataset("ref-davis17", root, "valid")
    assert [(s.expression, s.objects, s.extra["annotator"]) for s in valid] == [
        (str(i), ("1",) if i < 4 else ("2",), i % 4) for i in range(8)
    ]
    for sample in valid:
        np.testing.assert_array_equal(masks_of(sample), expected(videos["blackswan"], int(sample.objects[0])))
        ignored = np.stack([truth.ignore for truth in truths(sample)])
        assert np.argwhere(ignored).tolist() == [[1, mini.HEIGHT - 1, mini.WIDTH - 1]]


def test_mevis(whole) -> None:
    root, videos = whole["mevis"]
    for split, video, first in (("train", "e5c8a1b2", 0), ("valid_u", "f07d3c44", 10)):
        both, second = open_dataset("mevis", root, split)
        assert both.objects == (str(first), str(first + 1))
        assert both.extra == {"obj_id": [0, 1]}
        np.testing.assert_array_equal(masks_of(both), expected(videos[video], 1, 2))
        np.testing.assert_array_equal(masks_of(second), expected(videos[video], 2))
        assert second.instruction == "The one that comes later."
    assert [s.id for s in open_dataset("mevis", root, "valid")] == ["a99e0d15/0", "a99e0d15/1"]


def test_mevis_of_2024_may_name_nothing(tmp_path: Path) -> None:
    mini.mevis(tmp_path)
    index = tmp_path / "train/meta_expressions.json"
    change(index, lambda c: c["videos"]["e5c8a1b2"]["expressions"]["1"].update(obj_id=[], anno_id=[]))
    index.rename(index.with_name("meta_expressions_v2.json"))
    sample = open_dataset("mevis", tmp_path, "train")[1]
    assert (sample.kind, sample.objects) == (Kind.NO_TARGET, ())
    assert masks_of(sample).shape == (0, 4, mini.HEIGHT, mini.WIDTH)


def test_revos(whole) -> None:
    root, videos = whole["revos"]
    referring, reasoning, absent = open_dataset("revos", root, "valid")
    video = videos["valid_video"]
    kinds = [(s.kind, s.extra["type_id"]) for s in (referring, reasoning, absent)]
    assert kinds == [(Kind.REFERRING, 0), (Kind.REASONING, 1), (Kind.NO_TARGET, 2)]
    np.testing.assert_array_equal(masks_of(referring), expected(video, 1))
    np.testing.assert_array_equal(masks_of(reasoning), expected(video, 1, 2))
    assert masks_of(absent).shape == (0, 4, mini.HEIGHT, mini.WIDTH)
    for index in range(4):
        foreground = absent.truth.foreground(index)
        np.testing.assert_array_equal(foreground, video.labels[index] > 0)


def test_what_revos_says_of_its_targets_may_differ(tmp_path: Path) -> None:
    """Rows of the table go by type_id, masks by anno_id, whatever the other says; a check names them."""
    mini.revos(tmp_path)

    def disagree(content: Any) -> None:
        referring, reasoning, _ = content["videos"]["valid_video"]["expressions"].values()
        referring["type_id"], reasoning["anno_id"] = 2, []

    change(tmp_path / "meta_expressions_valid_.json", disagree)
    first, second, _ = open_dataset("revos", tmp_path, "valid")
    assert (first.kind, second.kind) == (Kind.NO_TARGET, Kind.REASONING)
    assert masks_of(first).any() and second.objects == ()
    problems = check_split(benchmark("revos"), tmp_path, "valid").problems
    assert [problem.split(": ")[1] for problem in problems] == [
        "the expression should name nothing, but has 1 object(s)",
        "the expression names no object",
    ]


@pytest.mark.parametrize("key", ["../../0", "/0", "..", "a/b", ""])
@pytest.mark.parametrize("name", ["ref-youtube-vos", "mevis", "revos"])
def test_a_name_of_an_expression_does_not_lead_elsewhere(name: str, key: str, tmp_path: Path) -> None:
    """Results are filed under it."""
    WRITERS[name](tmp_path)

    def rename(content: Any) -> None:
        expressions = next(iter(content["videos"].values()))["expressions"]
        expressions[key] = expressions.pop("0")

    change(tmp_path / INDEXES[name], rename)
    (fault,) = open_dataset(name, tmp_path, TRAIN[name]).faults()
    assert "is no name of a file or folder" in fault


def test_reason_vos(whole) -> None:
    root, videos = whole["reasonvos"]
    found = open_dataset("reasonvos", root, "test")
    assert [(s.id, s.is_sentence) for s in found][:4] == [(f"video_1/{i}", i % 2 == 1) for i in range(4)]
    assert {s.kind for s in found} == {Kind.REASONING}
    assert found[5].extra == {"source": "MOSE", "folder": "MOSE_83e0f6a1_1"}
    for sample in found:
        video = videos[sample.footage.name]
        np.testing.assert_array_equal(masks_of(sample), expected(video, int(sample.objects[0])))


def test_frames_of_reason_vos_without_a_file_are_not_scored(tmp_path: Path) -> None:
    mini.reason_vos(tmp_path)
    (tmp_path / "Annotations/BURST_video_1_1/00005.png").unlink()
    shutil.rmtree(tmp_path / "Annotations/BURST_video_1_2")
    found = open_dataset("reasonvos", tmp_path, "test")
    assert [truth is None for truth in truths(found[0])] == [False, True, False, False]
    with pytest.raises(BadInput, match="BURST_video_1_2 is missing"):
        found[2].truth(0)


def test_semi_supervised_samples_say_where_their_object_is_given(whole) -> None:
    root, videos = whole["davis2017"]
    found = open_dataset("davis2017", root, "val")
    assert [(s.id, s.kind, s.extra["key_frame"]) for s in found] == [
        ("blackswan/1", Kind.FIRST_FRAME, 0), ("blackswan/2", Kind.FIRST_FRAME, 0),
    ]  # fmt: skip
    np.testing.assert_array_equal(masks_of(found[1]), expected(videos["blackswan"], 2))

    root, videos = whole["youtube-vos"]
    for split, name, shown in (("train", "003234408d", 4), ("valid", "0062f687f1", 2)):
        first, second = open_dataset("youtube-vos", root, split)
        assert (first.extra["key_frame"], second.extra["key_frame"]) == (0, 1)
        assert (first.instruction, second.instruction) == ("person", "dog")
        known = truths(second)
        assert [truth is None for truth in known] == [False] * shown + [True] * (4 - shown)
        np.testing.assert_array_equal(known[1].masks[0], videos[name].masks[2][1])


# What is wrong is named with its file and key; the other samples of the split stay usable.


def change(path: Path, how: Callable[[Any], Any]) -> None:
    content = json.loads(path.read_text("utf-8"))
    how(content)
    path.write_text(json.dumps(content), "utf-8")


INDEXES = {
    "ref-youtube-vos": "meta_expressions/train/meta_expressions.json",
    "ref-davis17": "meta_expressions/train/meta_expressions.json",
    "mevis": "train/meta_expressions.json",
    "revos": "meta_expressions_train_.json",
    "reasonvos": "meta_expressions.json",
    "youtube-vos": "train/meta.json",
}
TRAIN = {name: benchmark(name).splits[0] for name in WRITERS}


@pytest.mark.parametrize("name", INDEXES)
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda data: data[: data.rindex(b'"')], "cut off"),
        (lambda data: b"", "empty"),
        (lambda data: data.replace(b"videos", b"vid\xe9os", 1), "utf-8"),
        (lambda data: b"[]", "videos"),
        (lambda data: b'{"videos": []}', "videos"),
        (lambda data: b'{"videos": {"a": 3}}', r"videos\['a'\]"),
        (lambda data: b'{"videos": {"../a": {}}}', "no name of a file"),
        (lambda data: b'{"videos": {}}', "no sample"),
    ],
)
def test_a_bad_index_is_named(name: str, spoil: Callable[[bytes], bytes], words: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    path = tmp_path / INDEXES[name]
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(BadInput, match=words) as caught:
        open_dataset(name, tmp_path, TRAIN[name])
    assert path.name in str(caught.value) or "no sample" in str(caught.value)


@pytest.mark.parametrize("name", ["ref-youtube-vos", "ref-davis17", "mevis", "revos", "reasonvos"])
@pytest.mark.parametrize(
    ("how", "words"),
    [
        (lambda video: video.update(frames=[]), r"'frames'\] is empty"),
        (lambda video: video.pop("frames"), "must list the names"),
        (lambda video: video.update(frames=["00000", "../../x"]), "no name of a file"),
        (lambda video: video.update(frames=["00000", "00000"]), "twice"),
        (lambda video: video.update(expressions={}), "one entry an expression"),
    ],
)
def test_a_video_that_cannot_be_used_is_named(name: str, how: Callable[[Any], Any], words: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    path = tmp_path / INDEXES[name]
    whole = len(open_dataset(name, tmp_path, TRAIN[name]))
    change(path, lambda content: how(next(iter(content["videos"].values()))))
    dataset = open_dataset(name, tmp_path, TRAIN[name])
    with pytest.raises(BadInput, match=words) as caught:
        dataset[0]
    assert str(path) in str(caught.value)
    assert set(dataset.faults()) == {str(caught.value)}
    assert len(dataset) == whole or words == "one entry an expression"  # as many samples are lost as it has expressions


@pytest.mark.parametrize(
    ("name", "how", "words"),
    [
        ("ref-youtube-vos", {"obj_id": None}, r"\['0'\]\['obj_id'\] must be a whole number"),
        ("ref-youtube-vos", {"obj_id": "7"}, r"\['obj_id'\] is 7; objects of that video in .*meta.json: 1, 2"),
        ("ref-youtube-vos", {"exp": " "}, r"\['exp'\] must be the words"),
        ("ref-davis17", {"obj_id": "0"}, "from 1"),
        ("mevis", {"anno_id": None}, r"\['anno_id'\] must be a list of ids"),
        ("mevis", {"anno_id": ["one"]}, r"\['anno_id'\]\[0\] must be a whole number"),
        ("mevis", {"anno_id": [0]}, "'obj_id' has 2 entries, 'anno_id' 1"),
        ("revos", {"type_id": 5}, "from 0 to 2"),
    ],
)
def test_an_expression_that_cannot_be_used_is_named(name: str, how: dict, words: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    path = tmp_path / INDEXES[name]
    change(path, lambda content: next(iter(content["videos"].values()))["expressions"]["0"].update(how))
    dataset = open_dataset(name, tmp_path, TRAIN[name])
    with pytest.raises(BadInput, match=words) as caught:
        dataset[0]
    assert str(path) in str(caught.value)
    assert dataset[1].instruction
    assert len(dataset.faults()) == 1


def test_what_is_wrong_in_reason_vos_is_named(tmp_path: Path) -> None:
    mini.reason_vos(tmp_path)

    def spoil(content: Any) -> None:
        content["videos"]["video_1"]["expressions"][1]["is_sent"] = "yes"
        content["videos"]["83e0f6a1"]["source"] = "../MOSE"

    change(tmp_path / "meta_expressions.json", spoil)
    faults = open_dataset("reasonvos", tmp_path, "test").faults()
    assert len(faults) == 5
    assert "['is_sent'] must be true or false" in faults[0]
    assert "['source'] must name a data set" in faults[1]


def test_semi_supervised_faults_are_named(tmp_path: Path) -> None:
    mini.youtube_vos(tmp_path / "y")
    path = tmp_path / "y/train/meta.json"
    change(path, lambda c: c["videos"]["003234408d"]["objects"]["2"].update(frames=["00033"]))
    (fault,) = open_dataset("youtube-vos", tmp_path / "y", "train").faults()
    assert "['2']['frames'] names 00033" in fault

    mini.davis2017(tmp_path / "d")
    mini.write_labels(tmp_path / "d/Annotations/480p/bear", ["00000"], np.zeros((1, 24, 32), np.uint8))
    (fault,) = open_dataset("davis2017", tmp_path / "d", "train").faults()
    assert "bear/00000.png shows no object" in fault
    for image in (tmp_path / "d/JPEGImages/480p/blackswan").iterdir():
        image.unlink()
    (fault,) = open_dataset("davis2017", tmp_path / "d", "val").faults()
    assert "the video blackswan is empty" in fault
    (tmp_path / "d/ImageSets/2017/train.txt").write_text("../../etc\n")
    with pytest.raises(BadInput, match=r"train\.txt: line 1"):
        open_dataset("davis2017", tmp_path / "d", "train")


def test_masks_of_another_size_than_the_frame(tmp_path: Path) -> None:
    mini.ref_davis17(tmp_path / "r")
    small = np.zeros((4, 12, 16), np.uint8)
    mini.write_labels(tmp_path / "r/train/Annotations/bear", ["00002"], small[:1])
    sample = open_dataset("ref-davis17", tmp_path / "r", "train")[0]
    with pytest.raises(BadInput, match=r"bear/00002\.png is 16 x 12 pixels, its frame .*00002\.jpg is 32 x 24"):
        sample.truth(2)

    mini.mevis(tmp_path / "m")
    change(tmp_path / "m/train/mask_dict.json", lambda c: c.update({"1": [None, mini.rle(small[0] == 0), None, None]}))
    sample = open_dataset("mevis", tmp_path / "m", "train")[1]
    assert not sample.truth(0).masks.any()
    with pytest.raises(BadInput, match=r"mask_dict\.json: \['1'\]\[1\]: 'size'.*\[12, 16\].*\[24, 32\]"):
        sample.truth(1)


def test_a_colour_picture_is_no_label_image(tmp_path: Path) -> None:
    videos = mini.ref_youtube_vos(tmp_path)
    path = tmp_path / "train/Annotations/0065b171f9/00005.png"
    Image.fromarray(videos["0065b171f9"].images[1]).save(path)
    with pytest.raises(BadInput, match=r"00005\.png is a RGB image; a label image has one channel"):
        open_dataset("ref-youtube-vos", tmp_path, "train")[0].truth(1)


@pytest.mark.parametrize("spoil", ["missing", "cut off", "text"])
def test_frames_that_are_missing_or_broken_are_named(spoil: str, tmp_path: Path) -> None:
    mini.mevis(tmp_path)
    path = tmp_path / "train/JPEGImages/e5c8a1b2/00010.jpg"
    if spoil == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-300] if spoil == "cut off" else b"no picture")
    sample = open_dataset("mevis", tmp_path, "train")[0]
    assert sample.footage.missing() == ([str(path)] if spoil == "missing" else [])
    with pytest.raises(BadInput, match=r"00010\.jpg"):
        sample.footage.read(2)
    sample.footage.read(1)


@pytest.mark.parametrize("name", WRITERS)
def test_the_root_of_another_benchmark_is_told(name: str, whole, tmp_path: Path) -> None:
    other = "revos" if name != "revos" else "mevis"
    with pytest.raises(BadInput, match=f"holds no {name}.*belongs to: {other}"):
        open_dataset(name, whole[other][0], TRAIN[name])


def test_a_split_that_was_not_fetched_is_told_from_a_broken_one(tmp_path: Path) -> None:
    mini.mevis(tmp_path)
    shutil.rmtree(tmp_path / "valid_u")
    with pytest.raises(NotOnDisk):
        open_dataset("mevis", tmp_path, "valid_u")
    (tmp_path / "train/mask_dict.json").rename(tmp_path / "train/masks.json")
    (tmp_path / "valid_u").mkdir()
    (tmp_path / "valid_u/mask_dict.json").write_text("{}")
    with pytest.raises(BadInput, match=r"train/mask_dict\.json is missing") as caught:
        open_dataset("mevis", tmp_path, "train")
    assert not isinstance(caught.value, NotOnDisk)
