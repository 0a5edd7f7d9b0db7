"""A replay as a whole with a colour segmenter in the node's place, and its parts where no node is needed."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from replay.made_bags import IMAGE, SECOND, STORE, ZERO, camera, picture, raw, write
from rosbags.rosbag2 import Reader, StoragePlugin

from instructseg.core import BadInput
from instructseg_node.dds import DdsProfileError
from instructseg_node.replay import session
from instructseg_node.replay.arguments import Options
from instructseg_node.replay.commands import Command
from instructseg_node.replay.conductor import BagTime, Conductor
from instructseg_node.replay.domains import own_domain
from instructseg_node.replay.main import main, run
from instructseg_node.replay.processes import Child, RunFailed
from instructseg_node.replay.records import Given
from instructseg_node.replay.results import frame_records, messages
from instructseg_node.replay.source import Sample, Source

COLOUR_NODE = (sys.executable, str(Path(__file__).with_name("colour_node.py")))
NODE = "/instructseg"


def at(index: int) -> int:
    return ZERO + index * SECOND // 10


def frame(topic: str, index: int, stamp: int | None = None, **changes) -> tuple:
    """One red picture; changes: of its message."""
    message = raw(picture(), "rgb8", at(index) if stamp is None else stamp, topic[1:])
    for name, value in changes.items():
        setattr(message, name, value)
    return at(index), topic, IMAGE, message


@pytest.mark.process
def test_faults_of_every_kind_are_counted_and_the_replay_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    left = [frame("/left", i) for i in range(12)]
    left[3] = frame("/left", 3, encoding="rgb99")  # the node cannot read it
    left[5] = frame("/left", 5, stamp=at(4))  # twice
    left[6] = frame("/left", 6, stamp=at(2))  # late
    broken = bytes(STORE.serialize_cdr(left[7][3], IMAGE))
    left[7] = (at(7), "/left", IMAGE, broken[: len(broken) // 2])
    right = [frame("/right", i, stamp=0) for i in range(4)]
    truth = np.zeros((96, 128), np.uint8)
    truth[20:60, 30:70] = 9
    truths = [(at(i), "/truth", IMAGE, raw(truth, "mono8", at(i))) for i in range(12)]
    bag = write(tmp_path / "bag", left + right + truths, StoragePlugin.SQLITE3)
    (tmp_path / "commands.yaml").write_text(
        "- {at: 0, command: please find the red square}\n"
        "- {at: 0.75, cancel: all}\n"
        "- at: 0.85\n"
        "  instruction: {id: one, text: the red thing, cameras: [left]}\n"
    )
    (tmp_path / "expect.yaml").write_text(
        "expect:\n"
        "- {command: please find the red square, camera: left, verdict: PRESENT, min_iou: 0.99, max_drops: 3,"
        " reference: /truth, ids: 9}\n"
        "- {id: one, camera: left, verdict: PRESENT, max_drops: 0, stable_id: true}\n"
        "- {command: please find the red square, camera: left, max_drops: 2}\n"
    )
    arguments = [
        str(bag), "--out", str(tmp_path / "out"), "--every-frame", "--camera", "left=/left", "--camera", "right=/right",
        "--commands", str(tmp_path / "commands.yaml"), "--expect", str(tmp_path / "expect.yaml"),
        "--report", str(tmp_path / "report.json"), "--pictures", str(tmp_path / "sheets"),
        "--node-command", shlex.join(COLOUR_NODE),
    ]  # fmt: skip
    assert main(arguments) == 1
    shown = capsys.readouterr().out
    assert "2 of 3 expectations met" in shown
    assert "[0-0.75 s]: max_drops: expected at most 2, got 3" in shown
    assert "note: 1 messages on /left are broken and were left out" in shown
    assert "note: 4 of 15 frames have the stamp 0" in shown

    report = json.loads((tmp_path / "report.json").read_text())
    silence = "camera_silent"  # is of real time: a busy machine may see some
    dropped = {cause: count for cause, count in report["dropped"].items() if not cause.startswith(silence)}
    assert {cause: dropped[cause] for cause in ("stamp_repeated", "stamp_backwards")} == {
        "stamp_repeated": 1 + 3, "stamp_backwards": 1
    }  # fmt: skip
    assert sum(dropped.values()) == 6, "and the picture that cannot be read"
    assert [command["instruction_ids"] for command in report["commands"]] == [["command-1"], [], ["one"]]
    assert report["expectations"][0]["mean_iou"] == 1.0
    assert [path.name for path in (tmp_path / "sheets").iterdir()] == ["failed_3_please_find_the_red_square.png"]

    answers = list(frame_records(tmp_path / "out", NODE))
    assert [round((a.stamp_ns - ZERO) / 1e8) for a in answers if a.camera == "left"] == [0, 1, 2, 4, 8, 9, 10, 11]
    assert [a.stamp_ns for a in answers if a.camera == "right"] == [0]
    said = [m.data for _, _, m in messages(tmp_path / "out", ("/command",))]
    assert said == ["please find the red square"], "what was said is in the recording too"
    with Reader(tmp_path / "out") as reader:
        assert not any("overlay" in connection.topic for connection in reader.connections)
        assert all(ZERO <= time <= at(12) for _, time, _ in reader.messages()), "recorded under the bag's own time"


@pytest.mark.process
def test_an_interruption_leaves_nothing_behind(tmp_path: Path) -> None:
    bag = write(tmp_path / "bag", camera("/cam", 20, 1.0))
    call = [
        sys.executable, "-m", "instructseg_node.replay", str(bag), "--out", str(tmp_path / "out.mcap"),
        "--node-command", shlex.join(COLOUR_NODE),
    ]  # fmt: skip
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(root), str(root / "model"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        call, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("playing"):
                break
        nodes = psutil.Process(process.pid).children(recursive=True)
        assert nodes, "".join(lines)
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert rest.endswith("instructseg_replay: interrupted; nothing was recorded\n"), rest
    assert not any(node.is_running() and node.status() != psutil.STATUS_ZOMBIE for node in nodes)
    left = {entry.name for entry in tmp_path.iterdir() if not entry.name.endswith(".lock")}
    assert left == {"bag"}, "no recording, no log"


def test_a_node_that_ends_is_named_with_its_log(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    bag = write(tmp_path / "bag", camera("/cam", 2))
    script = "import os; print('out of order in', os.getcwd()); raise SystemExit(3)"
    command = shlex.join([sys.executable, "-c", script])
    arguments = [str(bag), "--out", str(tmp_path / "out"), "--logs", str(tmp_path / "logs"), "--node-command", command]
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert "node ended with exit code 3; its log is" in told
    assert f"out of order in {Path.cwd()}" in told, "relative paths of the user's stay what they are"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"out": "bag"}, "that is the bag that is played"),
        ({"out": "bag/inside"}, "that is the bag that is played, or inside it"),
        ({"out": "there"}, "exists; give another name, or --overwrite"),
        ({"out": "thing", "overwrite": True}, "exists and is no bag of that kind: it will not be replaced"),
        ({"out": "there.mcap", "overwrite": True}, "it will not be replaced"),
        ({"params": Path("/no/params.yaml")}, "there is no such file"),
        ({"parameters": {"recipee": "lisa"}}, "the node has no such parameter; there are: recipe,"),
        ({"parameters": {"use_sim_time": "false"}}, "the replay sets it itself"),
        ({"parameters": {"frame_policy": "latest"}, "rate": None}, "the replay sets it itself"),
        ({"commands": Path("/no/commands.yaml")}, "cannot read /no/commands.yaml"),
        ({"out": "out.db3"}, "the recording is written as MCAP"),
        ({"out": "mine", "overwrite": True}, "holds notes.txt, which no recording has: it will not be replaced"),
        ({"report": Path("/")}, "--report /: that is a folder"),
        ({"report": Path("/no/r"), "junit": Path("/no/r")}, "--report and --junit name the same file, /no/r"),
    ],
)
def test_what_cannot_be_right_is_refused_before_anything_starts(tmp_path: Path, change: dict, words: str) -> None:
    bag = write(tmp_path / "bag", camera("/cam", 2))
    write(tmp_path / "there", camera("/cam", 1))
    (tmp_path / "thing").mkdir()
    (tmp_path / "thing" / "precious").touch()
    (tmp_path / "there.mcap").mkdir()
    write(tmp_path / "mine", camera("/cam", 1))
    (tmp_path / "mine" / "notes.txt").touch()
    options = {"out": "out", "node_command": ("touch", str(tmp_path / "started"))} | change
    with pytest.raises(BadInput, match=words):
        session.replay(Options(bag, **options | {"out": tmp_path / options["out"]}))
    assert (tmp_path / "thing" / "precious").exists()
    assert (tmp_path / "mine" / "notes.txt").exists()
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("out", ["march", "march/inside"])
def test_a_reference_is_not_replaced_by_what_is_compared_with_it(tmp_path: Path, out: str) -> None:
    """Every mask would be right."""
    mask = (ZERO, "/mask", IMAGE, raw(np.zeros((96, 128), np.uint8), "mono8", ZERO))
    bag, march = write(tmp_path / "bag", camera("/cam", 2)), write(tmp_path / "march", [mask])
    (tmp_path / "c.yaml").write_text("- {at: 0, command: the red square}\n")
    (tmp_path / "e.yaml").write_text("- {command: the red square, min_iou: 1, reference: {topic: /mask, bag: march}}\n")
    options = Options(
        bag, tmp_path / out, commands=tmp_path / "c.yaml", expect=tmp_path / "e.yaml", overwrite=True,
        node_command=("false",),
    )  # fmt: skip
    with pytest.raises(BadInput, match=r"e.yaml, line 1: reference: --out .* would change it"):
        run(options)
    assert (march / "metadata.yaml").exists()


def test_a_run_that_breaks_leaves_no_report_of_an_earlier_one(tmp_path: Path) -> None:
    bag = write(tmp_path / "bag", camera("/cam", 2))
    (tmp_path / "r.json").write_text('{"passed": true}')
    (tmp_path / "r.xml").write_text("<testsuites/>")
    options = Options(
        bag, tmp_path / "out", report=tmp_path / "r.json", junit=tmp_path / "r.xml", node_command=("false",),
        logs=tmp_path / "logs",
    )  # fmt: skip
    with pytest.raises(RunFailed):
        run(options)
    assert not (tmp_path / "r.json").exists()
    assert not (tmp_path / "r.xml").exists()


def test_a_second_interruption_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who presses Ctrl-C twice leaves no node behind that does not listen to the first."""
    stubborn = (
        "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    )
    child = Child("node", [sys.executable, "-c", stubborn], tmp_path / "log", os.environ, tmp_path)
    while "up" not in child.log_text():
        assert child.exit_code is None
        time.sleep(0.01)
    wait = child._process.wait

    def interrupted(timeout: float | None = None) -> int:
        if timeout is not None:
            raise KeyboardInterrupt
        return wait()

    monkeypatch.setattr(child._process, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        child.stop(5.0)
    assert child.exit_code == -signal.SIGKILL


def test_what_the_node_is_started_with(tmp_path: Path) -> None:
    bag = write(tmp_path / "bag", camera("/left/image", 1) + camera("/right", 1))
    params = tmp_path / "params.yaml"
    params.write_text("/**:\n  ros__parameters:\n    command_mode: add\n    publish_instance_mask: false\n")
    options = Options(
        bag, tmp_path / "out", rate=None, images={"a": "/left/image", "b": "/right"}, params=params,
        parameters={"checkpoint": "it's 5", "max_targets": "3"},
    )  # fmt: skip
    with Source(options) as source:
        arguments = session.node_arguments(options, source)
    assert arguments[:3] == ["--ros-args", "--params-file", str(params)]
    values = dict(a.split(":=") for a in arguments if ":=" in a)
    assert values == {
        "checkpoint": "'it''s 5'", "max_targets": "3", "autostart": "true", "use_sim_time": "true",
        "image_transport": "raw", "depth_transport": "raw", "cameras": "['a', 'b']",
        "frame_policy": "every", "stale_after": "3600.0",
        "a/image": "/left/image", "b/image": "/right",
    }  # fmt: skip
    assert session.command_mode(options) == "add"
    assert session.command_mode(Options(bag, tmp_path / "out", parameters={"command_mode": "replace"})) == "replace"
    params.write_text("no: [yaml")
    with pytest.raises(BadInput, match="--params"):
        session.command_mode(options)


class StubLink:
    """Stands in for the node: answers frames, or drops those of these numbers, or stays silent from one on."""

    def __init__(self, drops: tuple[int, ...] = (), silent_from: int = 10**9) -> None:
        self.answered: list[tuple[str, int]] = []
        self.dropped: dict[str, int] = {}
        self.reports = 0
        self.working = ()
        self.events: list[str] = []
        self._drops, self._silent_from, self._frames = drops, silent_from, 0

    def play(self, sample: Sample) -> None:
        number, self._frames = self._frames, self._frames + 1
        self.events.append(f"{sample.topic.role} {number}")
        if number in self._drops:
            self.dropped["image"] = self.dropped.get("image", 0) + 1
        elif number < self._silent_from:
            self.answered.append((sample.topic.camera, sample.stamp_ns))

    def say(self, command: Command) -> None:
        self.events.append(command.words)

    def tick(self, bag_ns: int) -> None:
        self.events.append(f"clock {(bag_ns - ZERO) / 1e9:g}")

    def barrier(self, seconds: float) -> None:
        self.events.append("barrier")

    def wait(self, condition: Callable[[], object], seconds: float) -> bool:
        return bool(condition())


def conducted(tmp_path: Path, link: StubLink, stamps: list[int], given: tuple[Given, ...] = ()) -> Conductor:
    bag = write(tmp_path / "bag", [frame("/cam", i, stamp) for i, stamp in enumerate(stamps)])
    with Source(Options(bag, tmp_path / "out")) as source:
        conductor = Conductor(source, link, BagTime(), given, 1.0, lambda seconds, frames: None)
        conductor.play_every_frame()
    return conductor


def test_each_frame_waits_for_the_one_before(tmp_path: Path) -> None:
    link = StubLink()
    given = (Given(Command(at=0.1, text="red"), 0.1, 9.0),)
    conducted(tmp_path, link, [at(0), at(1)], given)
    assert link.events == [
        "clock 0", "clock 0", "barrier", "image 0", "clock 0.1", "red", "barrier", "clock 0.1", "barrier", "image 1",
        "barrier",
    ]  # fmt: skip


def test_refused_frames_hold_nothing_up(tmp_path: Path) -> None:
    link = StubLink(drops=(1,))
    conductor = conducted(tmp_path, link, [at(0), at(1), at(1), at(2), 0, 1])
    assert [event for event in link.events if event.startswith("image")] == [f"image {i}" for i in range(6)]
    assert [f.time for f in conductor.frames] == pytest.approx([i / 10 for i in range(6)])


def test_a_node_that_says_nothing_ends_the_replay(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=r"published nothing on the frame of camera at 0.200 s within 1 s"):
        conducted(tmp_path, StubLink(silent_from=2), [at(0), at(1), at(2)])


def test_runs_side_by_side_have_domains_of_their_own() -> None:
    with own_domain() as first, own_domain() as second:
        assert len({first, second}) == 2
        assert all(1 <= domain <= 101 for domain in (first, second))
        with pytest.raises(DdsProfileError, match=f"ROS domain {first} is taken by another replay"), own_domain(first):
            pass
    with own_domain(first) as again:
        assert again == first
