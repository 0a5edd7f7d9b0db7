"""Bag to DDS, and DDS to bag: bytes, stamps and clock as they were, and an account of every frame."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.serialization import deserialize_message, serialize_message
from replay.tiny_bag import FRAMES, START_NS, stamp, write_tiny_bag
from rosbags.rosbag2 import Reader, StoragePlugin
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from instructseg.core import BadInput
from instructseg_node.conversions import stamp_ns
from instructseg_node.dds import own_domain_id
from instructseg_node.demo.records import IMAGE
from instructseg_node.replay import player as bag_player
from instructseg_node.replay.bag_types import MissingTypes, message_folder, typestore
from instructseg_node.replay.bags import open_bag
from instructseg_node.replay.node_link import NodeLink
from instructseg_node.replay.player import BagPlayer, NobodyListens, Playback, chosen, message_class
from instructseg_node.replay.recorder import BagFile, Recorder
from instructseg_node.replay.source import Topic


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bag(tmp_path_factory.mktemp("bags") / "tiny")


class Ledger:
    """Stands in for a node: notes what is published, in order."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, object]] = []
        self.context = self

    def ok(self) -> bool:
        return True

    def create_publisher(self, kind: type, topic: str, qos: object) -> Ledger:
        ledger = Ledger()
        ledger.publish = lambda message: self.entries.append((topic, message))
        return ledger


def test_plays_every_byte_to_a_subscriber(ros, bag: Path) -> None:
    listener, deep = ros.node("listener"), QoSProfile(depth=200)
    heard, clock = [], []
    listener.create_subscription(CompressedImage, IMAGE, heard.append, deep, raw=True)
    listener.create_subscription(Clock, "/clock", lambda m: clock.append(stamp_ns(m.clock)), deep)
    playback = Playback(rate=4.0, clock_hz=100.0, topics=("/camera/*",), expect={IMAGE: 1, "/clock": 1})
    player = BagPlayer(ros.node("player"), bag, playback)
    player.wait_for_subscribers()
    started = time.monotonic()
    assert player.play() == FRAMES
    assert time.monotonic() - started >= bag_player.LEAD_S + (FRAMES - 1) / 15 / 4.0
    player.close()
    ros.wait(lambda: len(heard) == FRAMES and clock[-1] >= stamp(FRAMES - 1), "all images and the last tick")
    with Reader(bag) as reader:
        recorded = [bytes(data) for c, _, data in reader.messages() if c.topic == IMAGE]
    assert heard == recorded
    assert clock == sorted(clock)


def test_the_clock_is_set_before_every_message_and_runs_before_and_after(bag: Path) -> None:
    ledger = Ledger()
    player = BagPlayer(ledger, bag, Playback(rate=4.0, clock_hz=200.0, topics=("/camera/*",), tail_s=0.1))
    player.play()
    player.close()
    clock, due = 0, [stamp(index) for index in range(FRAMES)]
    for topic, message in ledger.entries:
        if topic == "/clock":
            assert stamp_ns(message.clock) >= clock, "the clock goes back"
            clock = stamp_ns(message.clock)
        else:
            assert clock >= due.pop(0), "a message from the future"
    assert not due
    first, last = ledger.entries[0], ledger.entries[-1]
    assert START_NS - 4.0 * bag_player.LEAD_S * 1e9 <= stamp_ns(first[1].clock) < START_NS
    assert stamp_ns(last[1].clock) >= stamp(FRAMES - 1) + 4.0 * 0.1e9


def test_plays_sqlite_and_single_files(ros, bag: Path, tmp_path: Path) -> None:
    other = write_tiny_bag(tmp_path / "sqlite", StoragePlugin.SQLITE3)
    said = []
    ros.node("listener").create_subscription(String, "/command", lambda m: said.append(m.data), QoSProfile(depth=10))
    node = ros.node("player")
    for path in (other, bag / "tiny.mcap"):
        player = BagPlayer(node, path, Playback(topics=("/command",), rate=20.0, expect={"/command": 1}))
        player.wait_for_subscribers()
        player.play()
        player.close()
    ros.wait(lambda: len(said) == 4, "two commands of two bags")
    assert said == ["the red square", "the blue square"] * 2


def test_nobody_listens(ros, bag: Path) -> None:
    player = BagPlayer(ros.node("player"), bag, Playback(expect={IMAGE: 1, "/elsewhere": 2}, timeout_s=0.1))
    with pytest.raises(NobodyListens, match=r"/camera/image/compressed has 0 of 1.*/elsewhere has 0 of 2"):
        player.wait_for_subscribers()
    player.close()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"rate": 0.0}, "rate is 0; allowed"),
        ({"clock_hz": -1.0}, "clock_hz is -1"),
        ({"timeout_s": float("nan")}, "timeout_s is nan"),
        ({"expect": {"relative": 1}}, "full topic name"),
        ({"expect": {"/t": 0}}, "at least 1 subscriber"),
    ],
)
def test_playback_refuses(values: dict, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        Playback(**values)


def test_player_refuses_what_it_cannot_play(ros, bag: Path, tmp_path: Path) -> None:
    node = ros.node("player")
    with pytest.raises(BadInput, match="no message on /nothing; topics: /camera"):
        BagPlayer(node, bag, Playback(topics=("/nothing",)))
    broken = tmp_path / "broken.mcap"
    broken.write_bytes(b"\x89MCAP0\r\n" + bytes(64))
    for path in (tmp_path / "missing", broken, tmp_path):
        with pytest.raises(BadInput, match="cannot read the bag"):
            open_bag(path)
    with pytest.raises(BadInput, match="no_such_msgs/msg/Thing"):
        message_class("no_such_msgs/msg/Thing")
    with pytest.raises(BadInput, match="not installed"):
        message_class("std_msgs/msg/Thing")


def test_command_line_of_the_player(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    path, playback = bag_player.parse(
        ["b", "--rate", "2", "--clock", "100", "--expect", "/a", "/b=3", "--topics", "/c*"]
    )
    assert path == Path("b")
    assert playback == Playback(2.0, 100.0, ("/c*",), {"/a": 1, "/b": 3})
    assert bag_player.main(["play", "b", "--expect", "/a=x"]) == 2
    assert "TOPIC=NUMBER" in capsys.readouterr().err


def test_chosen() -> None:
    assert chosen("/a/b", ())
    assert chosen("/a/b", ("/x", "/a/*"))
    assert not chosen("/a/b", ("/a", "/a/b/c"))


def test_recorder_keeps_bytes_and_takes_the_compressed_sibling(ros, tmp_path: Path) -> None:
    robot, path = ros.node("robot"), tmp_path / "out.mcap"
    wanted = robot.create_publisher(String, "/robot/words", 10)
    robot.create_publisher(Image, "/robot/picture", 1)
    robot.create_publisher(CompressedImage, "/robot/picture/compressed", 1)
    robot.create_publisher(Image, "/robot/plain", 1)
    robot.create_publisher(String, "/robot/skipped", 1)
    robot.create_publisher(String, "/robot/kept", QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL))
    robot.create_publisher(String, "/other/words", 1)
    heard = []
    listen = {"words": lambda data: heard.append(deserialize_message(data, String).data)}
    with BagFile(path) as file:
        node = ros.node("recorder")
        recorder = Recorder(node, file, "/robot", lambda: 1000, ("skipped",), listen)

        def complete() -> bool:
            ros.executor.create_task(recorder.discover)
            return len(recorder.topics) == 4 and wanted.get_subscription_count() == 1

        ros.wait(complete, "the recorder's subscriptions")
        wanted.publish(String(data="a word"))
        ros.wait(lambda: file.messages == 1, "the message")
        ros.stop()
    assert recorder.topics == ["/robot/kept", "/robot/picture/compressed", "/robot/plain", "/robot/words"]
    store = typestore()
    with Reader(path) as reader:
        got = [(t, store.deserialize_cdr(data, c.msgtype).data) for c, t, data in reader.messages()]
        latched = [c.topic for c in reader.connections if c.ext.offered_qos_profiles]
    assert latched == ["/robot/kept"]
    assert got == [(1000, "a word")]
    assert heard == ["a word"], "who asked to hear of a topic does, once it is written"


def test_recording_appears_only_when_complete(tmp_path: Path) -> None:
    path = tmp_path / "out.mcap"
    with pytest.raises(RuntimeError, match="on purpose"), BagFile(path) as file:
        file.add_topic("/words", "std_msgs/msg/String")
        raise RuntimeError("on purpose")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(BadInput, match=r"ends in \.mcap"):
        BagFile(tmp_path / "out.db3")


@pytest.mark.parametrize("name", ["run.v2", "run.mcap"])
def test_recording_is_a_bag_or_a_file_and_replaces_the_one_before(tmp_path: Path, name: str) -> None:
    for text in ("before", "after"):
        with BagFile(tmp_path / name) as file:
            connection = file.add_topic("/words", "std_msgs/msg/String")
            file.write(connection, 5, serialize_message(String(data=text)))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with Reader(tmp_path / name) as reader:
        assert [deserialize_message(bytes(data), String).data for _, _, data in reader.messages()] == ["after"]


def test_recordings_of_one_name_at_a_time_do_not_disturb_each_other(tmp_path: Path) -> None:
    """The folder and the file of one name, or one name twice."""
    with BagFile(tmp_path / "run") as first, BagFile(tmp_path / "run.mcap") as second:
        for file in (first, second):
            file.write(file.add_topic("/words", "std_msgs/msg/String"), 5, serialize_message(String(data="a word")))
    assert {path.name for path in tmp_path.iterdir()} == {"run", "run.mcap"}


def test_a_link_that_cannot_be_made_leaves_no_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(rclpy, "Context", lambda of=rclpy.Context: made.append(of()) or made[-1])
    unknown = Topic("/cam", "no_such_msgs/msg/Thing", "camera", "image")
    with BagFile(tmp_path / "out") as file, pytest.raises(BadInput, match="no_such_msgs"):
        NodeLink(own_domain_id(), (unknown,), file, lambda: 0, lambda: None)
    assert [context.ok() for context in made] == [False]


def test_recorder_wants_a_full_name(ros, tmp_path: Path) -> None:
    with BagFile(tmp_path / "out.mcap") as file:
        for name in ("robot", "/", ""):
            with pytest.raises(BadInput, match="full name"):
                Recorder(ros.node("recorder"), file, name, lambda: 0)


def test_own_messages_are_known_to_the_typestore() -> None:
    assert "instructseg_msgs/msg/TargetArray" in typestore().types
    with pytest.raises(MissingTypes, match="no_such_msgs"):
        message_folder("no_such_msgs")


def test_player_ends_when_rclpy_is_shut_down(bag: Path) -> None:
    ledger = Ledger()
    ledger.ok = lambda: not ledger.entries
    player = BagPlayer(ledger, bag, Playback(rate=0.01))
    with pytest.raises(ExternalShutdownException):
        player.play()
    player.close()
    assert len(ledger.entries) <= 2, "the messages of the first instant, and none of those to come"
