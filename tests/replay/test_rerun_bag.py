"""``instructseg_rerun``: bags of results as recordings for the rerun viewer, read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from replay.tiny_bag import COMPRESSED, compressed, stamp, write_tiny_bag
from rosbags.rosbag2 import StoragePlugin, Writer
from unit.rerun_reading import mask, names, read_recording, texts

from instructseg_node.replay import rerun_bag
from instructseg_node.replay.bag_types import typestore

STORE = typestore()
TARGETS = "instructseg_msgs/msg/TargetArray"
COUNT = 5


def target(state: int, instance: int = 0, reason: str = "") -> Any:
    kinds = STORE.types
    time = kinds["builtin_interfaces/msg/Time"](sec=0, nanosec=0)
    box = kinds["instructseg_msgs/msg/Box"](x=0, y=0, width=0, height=0)
    return kinds["instructseg_msgs/msg/Target"](
        instruction_id="mug", instruction_text="the red square", class_id=1, instance_id=instance, phrase="",
        state=state, score=0.75, rejection_score=0.25, reason=reason, box=box, area=0, centroid_x=0.0, centroid_y=0.0,
        since=time, grounded_stamp=time, age=0.1,
    )  # fmt: skip


def write_results(path: Path, overlay: bool = False, frames: int = COUNT) -> Path:
    """Results on the first frames of the tiny bag: absent, then present."""
    entries: list[tuple[str, str, Any, int]] = []
    for index in range(frames):
        instances = np.zeros((120, 160), np.uint16)
        instances[20:60, 20 + index : 60 + index] = 4 if index >= 2 else 0
        packed = compressed(instances, stamp(index))
        present = target(1, 4, "visible") if index >= 2 else target(4, 0, "not here")
        array = STORE.types[TARGETS](header=packed.header, camera="head", width=160, height=120, targets=[present])
        entries.append(("/instructseg/instance_mask/compressed", COMPRESSED, packed, index))
        if overlay:
            picture = compressed(np.full((120, 160, 3), (0, 0, 200), np.uint8), stamp(index))
            entries.append(("/instructseg/overlay/compressed", COMPRESSED, picture, index))
        entries.append(("/instructseg/targets", TARGETS, array, index))
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        names_of = {"/instructseg/targets": TARGETS} | {topic: kind for topic, kind, _, _ in entries}
        connections = {t: writer.add_connection(t, kind, typestore=STORE) for t, kind in names_of.items()}
        for topic, kind, message, index in entries:
            writer.write(connections[topic], stamp(index) + 40_000_000, STORE.serialize_cdr(message, kind))
    return path


def pictures(rows: dict) -> list[tuple[int, np.ndarray]]:
    found = [row for row in rows["/head/image"] if "blob" in row.values]
    return [(row.time, cv2.imdecode(np.array(row.values["blob"][0], np.uint8), cv2.IMREAD_COLOR)) for row in found]


def test_results_and_the_pictures_of_the_bag_that_was_played(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    played, results, out = write_tiny_bag(tmp_path / "played"), write_results(tmp_path / "results"), tmp_path / "x.rrd"
    assert rerun_bag.main([str(results), "--out", str(out), "--images", str(played)]) == 0
    assert capsys.readouterr().out == f"{out}: {COUNT} frames, {COUNT} masks, {COUNT} images\n"
    rows = read_recording(out)
    times = [stamp(index) for index in range(COUNT)]  # of the frames, whenever they were recorded
    assert [row.time for row in rows["/head/image/masks"]] == times
    assert [int(mask(row).max()) for row in rows["/head/image/masks"]] == [0, 0, 4, 4, 4]
    assert [time for time, _ in pictures(rows)] == times  # and none of the frames that were not processed
    blue, _, red = pictures(rows)[2][1][40, 40]
    assert red > 200 > 60 > blue
    assert texts(rows["/states/mug"]) == [
        "the red square: NO_TARGET: not here",
        "the red square: PRESENT: visible",
    ]
    assert [row.time for row in rows["/states/mug"]] == [times[0], times[2]]
    assert names(rows["/head/image"]) == {0: "nothing", 4: "4: the red square"}
    assert len(rows["/scores/head/mug/4"]) == 3


@pytest.mark.parametrize(("overlay", "expected"), [(True, COUNT), (False, 0)])
def test_without_another_bag_the_overlay_is_the_picture(tmp_path: Path, overlay: bool, expected: int) -> None:
    results = write_results(tmp_path / "results", overlay=overlay)
    counts = rerun_bag.convert(results, tmp_path / "x.rrd")
    assert counts["images"] == expected
    rows = read_recording(tmp_path / "x.rrd")
    assert len(pictures(rows)) == expected


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bag": "nowhere"}, "cannot read the bag"),
        ({"bag": "played"}, "has no message on /instructseg/targets; topics: /camera/"),
        ({"node": "/robot/eyes"}, "has no message on /robot/eyes/targets"),
        ({"image": "/nowhere"}, "has no images on /nowhere; there are: /camera/"),
        ({"bag": "empty"}, "has no message on /instructseg/targets; topics: none"),
    ],
)
def test_bad_input_is_named(tmp_path: Path, capsys: pytest.CaptureFixture, change: dict, words: str) -> None:
    write_tiny_bag(tmp_path / "played")
    write_results(tmp_path / "results")
    write_results(tmp_path / "empty", frames=0)
    given = {"bag": "results", "node": "/instructseg", "image": ""} | change
    arguments = [str(tmp_path / given["bag"]), "--out", str(tmp_path / "x.rrd"), "--node", given["node"]]
    assert rerun_bag.main([*arguments, "--images", str(tmp_path / "played"), "--image", given["image"]]) == 2
    assert words in capsys.readouterr().err


def test_two_cameras_in_a_bag_are_a_choice(tmp_path: Path) -> None:
    topics = rerun_bag.Topics(set(), {"/left/image", "/right/image", "/instructseg/overlay", "/left/depth"})
    with pytest.raises(Exception, match="images on /left/image, /right/image: choose one with --image"):
        rerun_bag.picture_topic(topics, "/instructseg", "", tmp_path)
    assert rerun_bag.picture_topic(topics, "/instructseg", "/left/image", tmp_path) == "/left/image"
