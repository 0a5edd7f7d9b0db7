"""Bags as data: what was written is read, by stamp, from every form; and what a bad recording is told."""

from __future__ import annotations

import json
import math
import multiprocessing
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from unit import miniature_videos as mini
from unit.travelling import arrived

from instructseg.core import BadInput
from instructseg.data.benchmarks import identify, open_dataset
from instructseg.data.checking import check_split
from instructseg.data.readers.bag_images import BagImages
from instructseg.data.readers.recording_file import NAMES, RecordedExpression, as_yaml, read_recording
from instructseg.data.readers.recordings import nearest_ns, open_split, write_recording
from instructseg.data.samples import Kind, NotOnDisk

IMAGES = "/camera/image_raw/compressed"
MASKS = "/ground_truth/instance_mask/compressed"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with one recording, to be read only."""
    root = tmp_path_factory.mktemp("run")
    mini.recording(root)
    shutil.rmtree(root / "run_2")
    return root


def frame_of(stamp: str) -> int:
    return (int(stamp) - mini.RECORDED_FIRST) // mini.RECORDED_STEP


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize(("pictures", "masks"), [("jpeg", "png"), ("png", "rle"), ("raw", "raw")])
def test_what_was_written_is_read(storage: str, pictures: str, masks: str, tmp_path: Path) -> None:
    videos = mini.recording(tmp_path, storage=storage, pictures=pictures, masks=masks)
    seen = 0
    for split in ("train", "val"):
        for sample in arrived(open_dataset("recordings", tmp_path, split)):
            video = videos[sample.id.split("/")[0]]
            for index, stamp in enumerate(sample.footage.frames):
                t = frame_of(stamp)
                difference = np.abs(sample.footage.read(index).astype(int) - video.images[t])
                assert difference.mean() < (10 if pictures == "jpeg" else 1e-9)
                truth = sample.truth(index)
                assert (truth is None) is (t == mini.UNANNOTATED)
                if truth is not None:
                    wanted = [video.masks[int(number)][t] for number in sample.objects]
                    assert truth.masks.shape == (len(wanted), mini.HEIGHT, mini.WIDTH)
                    np.testing.assert_array_equal(truth.masks, np.reshape(wanted, truth.masks.shape))
                seen += 1
    assert seen == 2 * (6 + 4 + 6)  # two bags; the second expression holds from 0.1 to 0.5 s


def test_samples_are_expressions_over_the_frames_of_a_split_in_which_they_hold(run: Path) -> None:
    train, val = open_dataset("recordings", run, "train"), open_dataset("recordings", run, "val")
    assert [s.id for s in train] == ["run_1/0", "run_1/1", "run_1/2"]
    assert [[frame_of(f) for f in s.footage.frames] for s in train] == [[0, 1, 2], [1, 2], [0, 1, 2]]
    assert [[frame_of(f) for f in s.footage.frames] for s in val] == [[3, 4, 5], [3, 4], [3, 4, 5]]
    red, both, absent = train
    assert (red.instruction, red.objects, red.kind, red.is_sentence) == ("the red thing", ("1",), Kind.REFERRING, False)
    assert (both.objects, both.kind, both.is_sentence) == (("1", "2"), Kind.REASONING, True)
    assert (absent.objects, absent.kind) == ((), Kind.NO_TARGET)
    assert both.extra["names"] == ["red thing", "blue thing"]
    assert red.footage is absent.footage  # the same frames are one footage
    assert red.footage.name != both.footage.name
    with pytest.raises(NotOnDisk, match="nothing in the split 'test'"):
        open_dataset("recordings", run, "test")


def test_the_root_is_recognised_and_looked_through(run: Path) -> None:
    assert identify(run) == ["recordings"]
    assert identify(run / "run_1") == ["recordings"]
    from instructseg.data.benchmarks import benchmark

    report = check_split(benchmark("recordings"), run, "train", images=True)
    assert report.problems == []
    assert report.found == {"expressions": 3, "videos": 2, "without target": 1}


def _mask_sums(dataset: Any) -> list[int]:
    return [int(s.truth(i).masks.sum()) for s in dataset for i in range(len(s.footage)) if s.footage.read(i).any()]


def test_threads_and_forked_processes_read_at_once(run: Path) -> None:
    dataset = open_dataset("recordings", run, "train")
    alone = _mask_sums(dataset)
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(_mask_sums, [dataset] * 8)) == [alone] * 8
    results = multiprocessing.get_context("fork").SimpleQueue()
    workers = [
        multiprocessing.get_context("fork").Process(target=lambda: results.put(_mask_sums(dataset))) for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    assert _mask_sums(dataset) == alone
    assert [results.get() for _ in workers] == [alone] * 2
    for worker in workers:
        worker.join()


def test_the_file_of_a_recording_survives_writing(run: Path, tmp_path: Path) -> None:
    about = read_recording(run / "run_1/recording.yaml")
    again = tmp_path / "recording.yaml"
    again.write_text(as_yaml(about), "utf-8")
    written = read_recording(again)
    assert (written.expressions, written.splits, written.objects) == (about.expressions, about.splits, about.objects)
    (tmp_path / "recording.json").write_text(json.dumps(yaml.safe_load(again.read_text("utf-8"))), "utf-8")
    assert read_recording(tmp_path / "recording.json").expressions == about.expressions


def test_a_recording_whose_masks_are_in_another_bag_and_whose_split_is_one(tmp_path: Path) -> None:
    mini.recording(tmp_path)
    shutil.move(tmp_path / "run_2/bag", tmp_path / "run_1/labels")
    edit(tmp_path / "run_1", lambda c: (c["masks"].update(bag="labels"), c.pop("splits"), c.update(split="test")))
    shutil.rmtree(tmp_path / "run_2")
    found = open_dataset("recordings", tmp_path, "test")
    assert [len(s.footage) for s in found] == [6, 4, 6]
    assert found[0].footage.name == "run_1"
    assert found[0].truth(0).masks.any()


def edit(folder: Path, how: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / NAMES[0]
    content = yaml.safe_load(path.read_text("utf-8"))
    how(content)
    path.write_text(yaml.safe_dump(content), "utf-8")


def first(content: dict[str, Any]) -> dict[str, Any]:
    return content["expressions"][0]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (lambda c: c.update(recording=2), "'recording' is 2; this program reads form 1"),
        (lambda c: c.update(topic="/x"), "unknown key 'topic'"),
        (lambda c: c.pop("bag"), "'bag' must be a text"),
        (lambda c: c.update(bag="elsewhere"), "elsewhere cannot be read"),
        (lambda c: c.update(image_topic="/camera"), f"has no topic /camera; image topics: {IMAGES}, {MASKS}"),
        (lambda c: c.update(masks={}), "'masks' must have 'topic'"),
        (lambda c: c.update(masks={"topic": "/a", "file": "b"}), "'masks' must have 'topic'"),
        (lambda c: c["masks"].update(topic="/mask"), "has no topic /mask"),
        (lambda c: c.update(masks={"file": "masks.json"}), r"masks\.json is missing"),
        (lambda c: c.update(objects={}), "'objects' must give the ids"),
        (lambda c: c.update(objects={0: "x"}), "ids are whole numbers from 1"),
        (lambda c: c.update(expressions=[]), "at least one expression"),
        (lambda c: first(c).update(objects=[7]), r"expressions\[0\]\['objects'\] names 7; ids in 'objects': 1, 2"),
        (lambda c: first(c).update(objects=[]), "at least one id for the kind 'referring'"),
        (lambda c: first(c).update(kind="no target"), "an empty list for the kind 'no target'"),
        (lambda c: first(c).update(kind="odd"), "allowed: referring, reasoning, no target, semantic"),
        (lambda c: first(c).update(text=" "), "'text' must be a text"),
        (lambda c: first(c).update(to=-1), r"\['to'\] must be seconds"),
        (lambda c: first(c).update({"from": math.nan}), r"\['from'\] must be seconds"),
        (lambda c: first(c).update({"from": 2, "to": 1}), "which is not after"),
        (lambda c: first(c).update({"from": 60}), r"\['from'\] is 60 s, the pictures of .* end after 0\.500 s"),
        (lambda c: first(c).update(is_sentence="yes"), "true or false"),
        (lambda c: c.update(split="train"), "either 'split'"),
        (lambda c: c.update(splits={"training": [[0, 1]]}), "allowed: train, val, test"),
        (lambda c: c.update(splits={"train": [0, 1]}), "must list intervals"),
        (lambda c: c.update(splits={"train": [[0, 2]], "val": [[1, 3]]}), "overlaps with one of 'val' from 1 s"),
        (lambda c: c.update(splits={"train": [[2, 2]]}), "ends before it begins"),
    ],
)
def test_a_bad_file_is_told_with_its_key(how: Callable[[dict[str, Any]], Any], words: str, tmp_path: Path) -> None:
    mini.recording(tmp_path)
    edit(tmp_path / "run_1", how)
    with pytest.raises(BadInput, match=words):
        open_dataset("recordings", tmp_path, "train")


# 2 ** 60 values in two kilobytes: a message must not write them out.
REPEATED = (
    "recording: 1\nbag: b\nimage_topic: /i\nmasks: {topic: /m}\nexpressions: [a]\nobjects: [&a0 [1]"
    + "".join(f", &a{i + 1} [*a{i}, *a{i}]" for i in range(60))
    + "]\n"
).encode()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"recording: [", "no YAML"),
        (b"recording: caf\xe9", "utf-8"),
        (b"- 1", "must have the keys"),
        (b"", "must have the keys"),
        (b"recording: 2024-02-31", "no YAML"),
        (b"!!python/object/apply:os.system [echo]", "no YAML"),
        (REPEATED, "'objects' must have|'objects' must give"),
    ],
)
def test_a_file_that_is_no_recording(data: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / NAMES[0]).write_bytes(data)
    with pytest.raises(BadInput, match=words):
        open_split(tmp_path, "train")


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_damaged_bag_is_named(storage: str, tmp_path: Path) -> None:
    mini.recording(tmp_path, storage=storage)
    (file,) = [path for path in (tmp_path / "run_1/bag").iterdir() if path.suffix in (".mcap", ".db3")]
    whole = file.read_bytes()
    for data in (whole[: len(whole) // 2], b"", b"\0" * 4096, whole[:200] + bytes(len(whole) - 400) + whole[-200:]):
        file.write_bytes(data)
        with pytest.raises(BadInput, match=r"run_1.bag"):
            open_dataset("recordings", tmp_path, "train")


def one_frame(folder: Path, stamps: list[int], masked: list[int], **forms: str) -> Path:
    """Pictures at some stamps, masks at others: as a recorder would leave them."""
    video = mini.draw_video("a")
    everything = sorted({*stamps, *masked})
    about = write_recording(
        folder, ((s, video.images[1], video.labels[1] if s in masked else None) for s in everything),
        [RecordedExpression("a thing", (1,))], {1: "thing"}, {"train": [(0, math.inf)]}, **forms,
    )  # fmt: skip
    return about.parent


def test_stamps_that_do_not_match(tmp_path: Path) -> None:
    one_frame(tmp_path / "a", [10**9], [10**9])
    one_frame(tmp_path / "b", [10**9 + 500_000], [10**9 + 500_000])
    shutil.move(tmp_path / "b/bag", tmp_path / "a/labels")
    edit(tmp_path / "a", lambda c: c["masks"].update(bag="labels"))
    with pytest.raises(BadInput, match=r"none of 1 masks has the stamp of a picture .*nearest: 0\.000500 s away"):
        open_split(tmp_path / "a", "train")


def test_a_bag_without_any_mask(tmp_path: Path) -> None:
    folder = one_frame(tmp_path / "a", [10**9, 2 * 10**9], [])
    with pytest.raises(BadInput, match=f"the topic {MASKS} has no message"):
        open_split(folder, "train")
    folder = one_frame(tmp_path / "b", [10**9], [], masks="rle")
    with pytest.raises(BadInput, match=r"masks\.json: none of 0 masks has the stamp"):
        open_split(folder, "train")


def test_masks_of_another_size_than_the_picture(tmp_path: Path) -> None:
    video = mini.draw_video("a")
    for name, image in (("a", video.images[1]), ("b", np.zeros((16, 16, 3), np.uint8))):
        frames = [(10**9, image, np.ones(image.shape[:2], np.uint8))]
        expression = [RecordedExpression("a thing", (1,))]
        write_recording(tmp_path / name, frames, expression, {1: "thing"}, {"train": [(0, math.inf)]}, masks="rle")
    png = one_frame(tmp_path / "c", [10**9], [10**9])
    shutil.move(tmp_path / "b/bag", tmp_path / "c/small")
    edit(png, lambda c: c["masks"].update(bag="small", topic=IMAGES))
    with pytest.raises(BadInput, match="a label image has uint8 pixels of shape"):  # colours
        open_split(png, "train")[0].truth(0)
    shutil.copy(tmp_path / "b/masks.json", tmp_path / "a/masks.json")
    with pytest.raises(BadInput, match=r"masks\.json: \['1000000000'\]\['1'\]: 'size'.*\[16, 16\].*\[24, 32\]"):
        open_split(tmp_path / "a", "train")[0].truth(0)


def test_a_recording_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    image, mask = np.zeros((24, 32, 3), np.uint8), np.zeros((24, 32), np.uint8)
    expression = RecordedExpression("a thing", (1,))

    def write(frames: list, expressions: tuple = (expression,), **forms: str) -> None:
        write_recording(tmp_path / "new", frames, expressions, {1: "thing"}, {"train": [(0, 1)]}, **forms)

    for frames, words in (
        ([], "at least one frame"),
        ([(5, image, mask), (5, image, mask)], "stamps must ascend"),
        ([(5, image, mask[:4])], "frame's size"),
        ([(5, image, mask - 1.0)], "ids from 0 to 65535"),
        ([(5, image[..., 0], mask)], r"uint8 \(H, W, 3\)"),
        ([(5, image, mask), (6, image[:20], mask[:20])], "of one size"),
    ):
        with pytest.raises(BadInput, match=words):
            write(frames)
    with pytest.raises(BadInput, match="names 3; ids in 'objects': 1"):
        write([(5, image, mask)], (RecordedExpression("x", (3,)),))
    with pytest.raises(BadInput, match="pictures is 'webp'; allowed: jpeg, png, raw"):
        write([(5, image, mask)], pictures="webp")
    assert list(tmp_path.iterdir()) == []
    write([(5, image, mask)])
    with pytest.raises(BadInput, match="exists already"):
        write([(5, image, mask)])


def test_a_stamp_that_is_not_there(run: Path) -> None:
    images = BagImages(run / "run_1/bag", IMAGES)
    assert len(images) == 6
    assert images.size == (mini.HEIGHT, mini.WIDTH)
    assert mini.RECORDED_FIRST in images
    assert mini.RECORDED_FIRST + 1 not in images
    with pytest.raises(BadInput, match="no picture with the stamp 17"):
        images.rgb(17)


IMAGE = "sensor_msgs/msg/CompressedImage"
HEAD = bytes([0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0])  # CDR, little endian, stamp of 1 s
NO_TEXT = bytes([1, 0, 0, 0, 0, 0, 0, 0])


@pytest.mark.parametrize(
    ("kind", "data", "words"),
    [
        ("std_msgs/msg/String", HEAD, f"is of type std_msgs/msg/String; allowed: sensor_msgs/msg/Image or {IMAGE}"),
        (IMAGE, HEAD[:9], "a message of 9 bytes, too short for an image"),
        (IMAGE, HEAD, "/camera at 1000000000: "),
        (IMAGE, HEAD + NO_TEXT + NO_TEXT + bytes(4), "/camera at 1000000000: .*is empty"),
        (IMAGE, HEAD + b"\xff" * 60, "/camera at 1000000000: "),
        ("sensor_msgs/msg/Image", HEAD + NO_TEXT + bytes(8) + NO_TEXT[:5] + bytes(11), "at 1000000000: .*0 x 0"),
    ],
)
def test_messages_that_are_no_pictures(kind: str, data: bytes, words: str, tmp_path: Path) -> None:
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        topic = writer.add_connection("/camera", kind, typestore=get_typestore(Stores.ROS2_JAZZY))
        writer.write(topic, 10**9, data)
    with pytest.raises(BadInput, match=words):
        BagImages(tmp_path / "bag", "/camera").rgb(10**9)


def test_nearest_stamps() -> None:
    stamps = np.array([10, 20, 30])
    assert nearest_ns(np.array([1, 24]), stamps) == 4
    assert nearest_ns(np.array([35]), stamps) == 5
    assert nearest_ns(np.array([20]), stamps[:1]) == 10
