"""The demo recording: command file, expectations, and a bag that can get new commands without new pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag2 import Reader

from instructseg.core import BadInput
from instructseg.data import demo_scene
from instructseg_node.demo import commands as demo_commands
from instructseg_node.demo import record as record_demo

NAMES = {"red_block": 1, "blue_ball": 2}
CONFIG = Path(__file__).parents[2] / "config" / "demo_commands.yaml"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_the_committed_commands_name_objects_of_the_scene() -> None:
    commands = demo_commands.load(CONFIG, demo_scene.NAMES, demo_scene.DURATION)
    assert len(commands) >= 7 and commands[-1].end == demo_scene.DURATION
    assert {"absent", "motion", "relation", "use", "union", "comes_back"} <= {c.kind for c in commands}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "cannot read"),
        ("commands: []", "at least one"),
        ("- 1", "needs a list"),
        ("commands: [{time: -1, text: a, targets: [[]]}]", r"command 1: 'time' must be seconds in \[0, 5.0\); got -1"),
        ("commands: [{time: 5, text: a, targets: [[]]}]", "got 5"),
        ("commands: [{time: .nan, text: a, targets: [[]]}]", "got nan"),
        ("commands: [{time: true, text: a, targets: [[]]}]", "got True"),
        ("commands: [{time: 2, text: a, targets: [[]]}, {time: 2, text: b, targets: [[]]}]", "must ascend"),
        ("commands: [{time: 1, text: ' ', targets: [[]]}]", "'text' must be"),
        ("commands: [{time: 1, text: a, targets: red_block}]", "list of lists"),
        ("commands: [{time: 1, text: a, targets: []}]", "list of lists"),
        ("commands: [{time: 1, text: a, targets: [[spoon]]}]", "no object 'spoon'.*red_block, blue_ball"),
    ],
)
def test_a_bad_command_file_is_refused_with_the_reason(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        demo_commands.load(write(tmp_path / "c.yaml", text), NAMES, 5.0)


def test_a_missing_command_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"gone\.yaml"):
        demo_commands.load(tmp_path / "gone.yaml", NAMES, 5.0)


def test_expectations_follow_what_is_in_view() -> None:
    times = np.arange(6) * 1.0
    areas = np.zeros((6, 256), int)
    areas[:, 1] = 100
    areas[:, 2] = [100, 10, 0, 0, 60, 100]
    commands = (
        demo_commands.DemoCommand(0.0, 5.0, "both", "union", (("red_block",), ("blue_ball",))),
        demo_commands.DemoCommand(5.0, 6.0, "a spoon", "absent", ((),)),
    )
    both, spoon = demo_commands.expectations(commands, NAMES, times, areas)
    assert both["slots"][0]["windows"] == [{"start": 0.0, "end": 5.0, "verdict": "present"}]
    verdicts = [(w["start"], w["end"], w["verdict"]) for w in both["slots"][1]["windows"]]
    assert verdicts == [(0, 1, "present"), (1, 2, "either"), (2, 4, "absent"), (4, 5, "present")]
    assert spoon["slots"][0] == {
        "objects": [],
        "instance_ids": [],
        "windows": [{"start": 5.0, "end": 6.0, "verdict": "absent"}],
    }


def messages(bag: Path) -> list[tuple[int, str, bytes]]:
    with Reader(bag) as reader:
        return [(time, connection.topic, bytes(data)) for connection, time, data in reader.messages()]


def test_new_commands_leave_the_pictures_alone(tmp_path: Path) -> None:
    bag = tmp_path / "demo"
    commands = write(tmp_path / "c.yaml", "commands: [{time: 0.1, text: the red block, targets: [[red_block]]}]")
    camera = list(record_demo.render_camera(duration=0.4))
    record_demo.write(bag, record_demo.add_commands(camera, commands))
    before = messages(bag)
    assert {topic for _, topic, _ in before} == set(record_demo.TYPES)
    assert [time for time, _, _ in before] == sorted(time for time, _, _ in before)
    assert sum(topic == record_demo.IMAGE for _, topic, _ in before) == 6
    fact = json.loads(_text(before, record_demo.EXPECTATIONS))
    assert fact["slots"][0]["windows"] == [{"start": 0.133, "end": 0.4, "verdict": "present"}]

    write(commands, "commands: [{time: 0.2, text: the green cone, targets: [[]]}]")
    record_demo.write(bag, record_demo.add_commands(list(record_demo.read_camera(bag)), commands))
    after = messages(bag)
    own = {record_demo.COMMAND, record_demo.EXPECTATIONS}
    assert [m for m in after if m[1] not in own] == [m for m in before if m[1] not in own]
    assert _text(after, record_demo.COMMAND) == "the green cone"


def test_instance_images_and_depth_are_those_of_the_scene(tmp_path: Path) -> None:
    entries = {entry.topic: entry for entry in record_demo.render_camera(duration=1 / record_demo.RATE)}
    instances = record_demo._instances(entries[record_demo.INSTANCES])
    assert instances.shape == (record_demo.HEIGHT, record_demo.WIDTH)
    assert set(np.unique(instances)) == {0, *demo_scene.NAMES.values()}


@pytest.mark.parametrize("arguments", [["--reuse"], ["--commands", "gone.yaml"]])
def test_bad_input_ends_with_a_message_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert record_demo.main(["--out", str(tmp_path / "demo"), *arguments]) == 2
    assert "record_demo: " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_bag_is_not_replaced(tmp_path: Path) -> None:
    write(tmp_path / "notes.txt", "mine")
    with pytest.raises(BadInput, match="is no bag"):
        record_demo.write(tmp_path, [])
    assert (tmp_path / "notes.txt").exists()


def _text(entries: list[tuple[int, str, bytes]], topic: str) -> str:
    (data,) = [data for _, name, data in entries if name == topic]
    return record_demo._STORE.deserialize_cdr(data, record_demo.TYPES[topic]).data
