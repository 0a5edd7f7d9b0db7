"""Bags of every kind and in every state: which topics are played, and what is said of a bag that cannot be."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from replay.made_bags import (
    COMPRESSED,
    IMAGE,
    INFO,
    SECOND,
    STORE,
    STRING,
    ZERO,
    T,
    camera,
    camera_info,
    compressed,
    picture,
    raw,
    write,
)
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin

from instructseg.core import BadInput
from instructseg_node.replay import session
from instructseg_node.replay.arguments import Options
from instructseg_node.replay.bags import Decoder, mask_values, message_counts, open_bag
from instructseg_node.replay.results import MaskStream
from instructseg_node.replay.source import Source


def source(bag: Path, **options) -> Source:
    return Source(Options(bag, Path("out"), **options))


def played(bag: Path, **options) -> list[tuple[str, int]]:
    """(topic, tenths of a second after the first image) of everything that would be sent."""
    with source(bag, **options) as found:
        return [(sample.topic.name, round(found.seconds(sample.time_ns) * 10)) for sample in found.samples()]


FILE, MESSAGE = (CompressionMode.FILE, CompressionFormat.ZSTD), (CompressionMode.MESSAGE, CompressionFormat.ZSTD)


@pytest.mark.parametrize(
    ("storage", "options"),
    [
        (StoragePlugin.MCAP, {}),
        (StoragePlugin.SQLITE3, {}),
        (StoragePlugin.SQLITE3, {"compression": FILE}),
        (StoragePlugin.SQLITE3, {"compression": MESSAGE}),
        (StoragePlugin.MCAP, {"compression": (CompressionMode.STORAGE, CompressionFormat.ZSTD)}),
    ],
)
def test_every_storage_is_played(tmp_path: Path, storage: StoragePlugin, options: dict) -> None:
    bag = write(tmp_path / "bag", camera("/cam/image", 3), storage, **options)
    assert played(bag) == [("/cam/image", 0), ("/cam/image", 1), ("/cam/image", 2)]


def test_single_files_and_bags_without_definitions(tmp_path: Path) -> None:
    bag = write(tmp_path / "bag", camera("/cam/image", 2), StoragePlugin.SQLITE3)
    with sqlite3.connect(bag / "bag.db3") as database:
        database.execute("DELETE FROM message_definitions")
    assert len(played(bag)) == len(played(bag / "bag.db3")) == 2
    other = write(tmp_path / "other", camera("/cam/image", 2))
    assert len(played(other / "other.mcap")) == 2


def test_the_only_camera_is_found_among_masks_depth_and_calibration(tmp_path: Path) -> None:
    depth, mask = np.full((96, 128), 800, np.uint16), np.ones((96, 128), np.uint8)
    entries = [
        (ZERO - 5, "/cam/camera_info", INFO, camera_info(ZERO)),
        (ZERO, "/cam/depth/image", IMAGE, raw(depth, "16UC1", ZERO)),
        (ZERO, "/truth", IMAGE, raw(mask, "mono8", ZERO)),
        (ZERO, "/cam/colour", IMAGE, raw(picture(), "rgb8", ZERO)),
        (ZERO, "/cam/colour/compressed", COMPRESSED, compressed(picture(), ZERO)),
        (ZERO, "/cam/depth/compressed", COMPRESSED, compressed(depth, ZERO, "16UC1; png compressed 16UC1")),
        (ZERO + 1, "/said", STRING, T[STRING](data="the red block")),
    ]
    bag = write(tmp_path / "bag", entries)
    with source(bag) as found:
        assert [(t.role, t.name) for t in found.topics] == [
            ("image", "/cam/colour"), ("depth", "/cam/depth/image"), ("info", "/cam/camera_info"),
        ]  # fmt: skip
        assert not found.compressed
        assert [c.text for c in found.commands("/said")] == ["the red block"]
        assert found.commands("/said")[0].seconds(found.zero_ns) == pytest.approx(1e-9)
        with pytest.raises(BadInput, match=r"/none: not in .* topics of that type: /said"):
            found.commands("/none")
    assert next(topic for topic, _ in played(bag)) == "/cam/camera_info", "what came just before the first image too"
    with source(bag, images={"": "/cam/colour/compressed"}) as found:
        assert found.compressed
    grey = write(tmp_path / "grey", [(ZERO, "/cam/grey", IMAGE, raw(mask, "mono8", ZERO)), entries[1]])
    with source(grey) as found:
        assert found.images["camera"].name == "/cam/grey", "a grey camera is one, where there is no other"


@pytest.mark.parametrize(
    ("form", "format", "head"),
    [
        ("compressed", "16UC1; png compressed 16UC1", b""),
        ("compressedDepth", "16UC1; compressedDepth png", bytes(12)),
        ("compressedDepth", "32FC1; compressedDepth png", bytes(12)),
    ],
)
def test_compressed_depth_is_found_beside_the_image(tmp_path: Path, form: str, format: str, head: bytes) -> None:
    depth = compressed(np.full((96, 128), 800, np.uint16), ZERO, format)
    depth.data = np.concatenate([np.frombuffer(head, np.uint8), depth.data])
    labels = compressed(np.ones((96, 128), np.uint8), ZERO, "mono8; png compressed mono8")
    entries = [
        (ZERO, "/cam/image/compressed", COMPRESSED, compressed(picture(), ZERO)),
        (ZERO, f"/cam/depth/{form}", COMPRESSED, depth),
        (ZERO, "/cam/depth_confidence/compressed", COMPRESSED, labels),
        (ZERO, "/other/depth/compressed", COMPRESSED, compressed(np.full((9, 9), 8, np.uint16), ZERO, "16UC1; png")),
    ]
    bag = write(tmp_path / "bag", entries)
    with source(bag, images={"": "/cam/image/compressed"}) as found:
        assert [(t.role, t.name) for t in found.topics][1:] == [("depth", f"/cam/depth/{form}")]
        assert found.depth_transport == form
        arguments = session.node_arguments(Options(bag, Path("out"), images={"": "/cam/image/compressed"}), found)
    assert {f"depth_transport:={form}", f"depth/{form}:=/cam/depth/{form}"} <= set(arguments)


def test_depth_of_two_cameras_has_one_form(tmp_path: Path) -> None:
    depth = np.full((96, 128), 800, np.uint16)
    entries = [
        *camera("/a/image", 1),
        *camera("/b/image", 1),
        (ZERO, "/a/depth", IMAGE, raw(depth, "16UC1", ZERO)),
        (ZERO, "/b/depth/compressed", COMPRESSED, compressed(depth, ZERO, "16UC1; png compressed 16UC1")),
    ]
    bag, images = write(tmp_path / "bag", entries), {"a": "/a/image", "b": "/b/image"}
    with source(bag, images=images) as found:
        assert [t.name for t in found.topics if t.role == "depth"] == ["/a/depth"], "raw before compressed"
    depths = {"a": "/a/depth", "b": "/b/depth/compressed"}
    with pytest.raises(BadInput, match="depth images are packed in different ways"):
        source(bag, images=images, depths=depths)
    with pytest.raises(BadInput, match=r"--depth: /said is not in the bag; topics of that kind: /a/depth, /a/image"):
        source(bag, images=images, depths={"a": "/said"})


def test_several_cameras_have_to_be_named(tmp_path: Path) -> None:
    bag = write(tmp_path / "bag", camera("/left", 2) + camera("/right", 2, colour="blue"))
    with pytest.raises(BadInput, match=r"several image topics: /left, /right; choose with --image"):
        source(bag)
    with source(bag, images={"a": "/left", "b": "/right"}) as found:
        assert {name: topic.name for name, topic in found.images.items()} == {"a": "/left", "b": "/right"}
    for options, words in (
        ({"images": {"": "/none"}}, r"--image: /none is not in the bag; .*: /left, /right"),
        ({"images": {"": "/left"}, "infos": {"": "/right"}}, r"--info: /right is sensor_msgs/msg/Image; allowed"),
        ({"images": {"a": "/left", "b": "/left"}}, r"/left is named twice"),
    ):
        with pytest.raises(BadInput, match=words):
            source(bag, **options)
    mixed = write(tmp_path / "mixed", [*camera("/l", 1), (ZERO, "/r", COMPRESSED, compressed(picture(), ZERO))])
    with pytest.raises(BadInput, match="some cameras are raw and some compressed"):
        source(mixed, images={"a": "/l", "b": "/r"})


def test_a_piece_is_cut_out(tmp_path: Path) -> None:
    bag = write(tmp_path / "bag", camera("/cam", 10))
    assert [at for _, at in played(bag, start=0.2, duration=0.3)] == [2, 3, 4]
    assert [at for _, at in played(bag, start=0.75)] == [8, 9]
    with pytest.raises(BadInput, match=r"--start is 5 s; .* ends 0\.900 s after its first image"):
        source(bag, start=5.0)


def test_broken_messages_are_left_out_and_counted(tmp_path: Path) -> None:
    good = STORE.serialize_cdr(raw(picture(), "rgb8", ZERO), IMAGE)
    entries = [(ZERO + i, "/cam", IMAGE, bytes(good)[: len(good) // (1 + i % 2)]) for i in range(6)]
    with source(write(tmp_path / "bag", entries)) as found:
        assert len(list(found.samples())) == 3
        assert found.unreadable == {"/cam": 3}


def test_bags_that_cannot_be_played(tmp_path: Path) -> None:
    nothing = write(tmp_path / "nothing", [])
    words = write(tmp_path / "words", [(ZERO, "/said", STRING, T[STRING](data="hello"))])
    whole = write(tmp_path / "whole", camera("/cam", 3))
    cut = tmp_path / "cut.mcap"
    cut.write_bytes((whole / "whole.mcap").read_bytes()[:-200])
    folder, text, empty = tmp_path / "folder", tmp_path / "notes.txt", tmp_path / "empty.mcap"
    folder.mkdir()
    text.write_text("no bag")
    empty.touch()
    gone = tmp_path / "gone"
    shutil.copytree(whole, gone)
    (gone / "whole.mcap").unlink()
    for bag, message in (
        (nothing, "is empty: it holds no message"),
        (words, r"holds no camera images; its topics: /said \(std_msgs/msg/String\)"),
        (cut, "cut.mcap: File end magic is invalid.; the recording was cut off: `mcap recover`"),
        (folder, "cannot read the bag .*folder.* a bag's folder holds metadata.yaml"),
        (text, "Unrecognized storage format"),
        (empty, "cannot read the bag .*empty.mcap"),
        (gone, "Some database files are missing"),
        (tmp_path / "none", "does not exist"),
    ):
        with pytest.raises(BadInput, match=message):
            source(bag)


def test_a_bag_broken_in_the_middle_ends_with_its_name(tmp_path: Path) -> None:
    storage = (CompressionMode.STORAGE, CompressionFormat.ZSTD)
    bag = write(tmp_path / "bag", camera("/cam", 40), compression=storage)
    file = bag / "bag.mcap"
    data = bytearray(file.read_bytes())
    inside = data.index(b"\x28\xb5\x2f\xfd") + 32  # of the packed messages
    data[inside : inside + 64] = bytes(range(64))
    file.write_bytes(data)
    with pytest.raises(BadInput, match="the bag .* is broken"), source(bag) as found:
        list(found.samples())


def test_types_that_only_the_bag_knows(tmp_path: Path) -> None:
    kind, definition = "robot_msgs/msg/Words", "string words\n"
    entries = [(ZERO, "/words", kind, b"\0\1\0\0\6\0\0\0hello\0"), (ZERO, "/more", "robot_msgs/msg/More", b"\0\1\0\0")]
    bag = write(tmp_path / "bag", entries, own={kind: definition, "robot_msgs/msg/More": "))(("})
    reader = open_bag(bag)
    try:
        known, unknown = sorted(reader.connections, key=lambda c: c.topic, reverse=True)
        decoder = Decoder(reader.connections)
        assert decoder.decode(known, entries[0][3]).words == "hello"
        with pytest.raises(BadInput, match="/more holds robot_msgs/msg/More, which is not known here"):
            decoder.decode(unknown, entries[1][3])
        with pytest.raises(BadInput, match=r"a message on /words is no robot_msgs/msg/Words \(2 bytes\)"):
            decoder.decode(known, b"\0\1")
    finally:
        reader.close()
    assert message_counts(bag) == {"/words": 1, "/more": 1}


def test_masks_of_every_encoding() -> None:
    values = np.array([[0, 1, 2], [3, 250, 7]])
    for encoding, dtype in (("mono8", "u1"), ("8UC1", "u1"), ("16UC1", "<u2"), ("mono16", "<u2"), ("32SC1", "<i4")):
        assert (mask_values(raw(values.astype(dtype), encoding, 0), "/m") == values).all()
    big = raw(values.astype(">u2"), "16UC1", 0)
    big.is_bigendian = 1
    assert (mask_values(big, "/m") == values).all()
    padded = raw(np.pad(values.astype("u1"), ((0, 0), (0, 5))), "mono8", 0)
    padded.width = 3
    assert (mask_values(padded, "/m") == values).all()
    assert (mask_values(compressed(values.astype(np.uint16), 0), "/m") == values).all()
    short = raw(values.astype("u1"), "mono8", 0)
    short.height = 9
    for message, words in (
        (short, "too few"),
        (raw(picture(), "rgb8", 0), "a mask on /m is 'rgb8'; allowed: mono8"),
        (T[COMPRESSED](header=short.header, format="png", data=np.zeros(9, np.uint8)), "cannot be decoded"),
        (T[COMPRESSED](header=short.header, format="png", data=np.zeros(0, np.uint8)), "cannot be decoded"),
    ):
        with pytest.raises(BadInput, match=words):
            mask_values(message, "/m")


def test_masks_are_found_by_stamp_with_few_in_memory(tmp_path: Path) -> None:
    def mask(index: int, frame_id: str = "a") -> tuple:
        stamp = ZERO + index * SECOND
        return stamp, "/m", IMAGE, raw(np.full((4, 4), index % 250, np.uint8), "mono8", stamp, frame_id)

    bag = write(tmp_path / "bag", [mask(index) for index in range(300)] + [mask(299, "b")])
    stream = MaskStream(bag, "/m")
    assert [stream.at(ZERO + i * SECOND)[0, 0] for i in (0, 3, 3, 2, 299)] == [0, 3, 3, 2, 49]
    assert stream.at(ZERO) is None, "long gone"
    assert len(stream._kept) <= 64
    assert MaskStream(bag, "/m").at(ZERO + 5) is None
    assert MaskStream(bag, "/m", 0.01).at(ZERO + 5)[0, 0] == 0
    assert MaskStream(bag, "/m").at(ZERO + 299 * SECOND, "b") is not None
    assert MaskStream(bag, "/m").at(ZERO + 298 * SECOND, "b") is None
    assert MaskStream(bag, "/none").at(ZERO) is None
