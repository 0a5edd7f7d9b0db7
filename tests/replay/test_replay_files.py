"""Files of commands and expectations, and arguments: what is read, and what every wrong line is told."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from instructseg.core import BadInput, Mode
from instructseg_node.replay import commands, expectations
from instructseg_node.replay.arguments import Options, parse
from instructseg_node.replay.commands import Command, Request
from instructseg_node.replay.expectations import Expectation, Reference

ROOT = Path(__file__).parents[2]


@pytest.fixture
def file(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "file.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_commands_of_every_kind(file) -> None:
    path = file(
        "- {at: 2, command: the red block}\n"
        "- {stamp: 1700000003.25, cancel: cup}\n"
        "- at: 0.5\n"
        "  instruction: {id: cup, text: the cup, cameras: [left], mode: one_shot, timeout: 1.5, priority: -2}\n"
    )
    first, second, third = commands.load(path)
    assert (first.at, first.text, first.words, first.asks) == (2.0, "the red block", "the red block", True)
    assert (second.stamp_ns, second.cancel, second.words, second.asks) == (
        1_700_000_003_250_000_000,
        "cup",
        "cancel cup",
        False,
    )
    assert second.seconds(1_700_000_000 * 10**9) == 3.25
    assert third.request == Request("cup", "the cup", ("left",), Mode.ONE_SHOT, 1.5, -2)
    assert third.place == f"{path}, line 3"


def test_the_demos_command_file_is_one() -> None:
    found = commands.load(ROOT / "config" / "demo_commands.yaml")
    assert len(found) == 7
    assert (found[0].at, found[0].text) == (0.5, "the red block")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a list 'commands' with at least one entry"),
        ("[]", "at least one entry"),
        ("commands: {}", "line 1: a list 'commands'"),
        ("comands: []", "unknown key 'comands'; allowed: commands"),
        ("- red", "entry 1 must be a mapping"),
        ("- {at: 1}", "one of command, instruction, cancel is needed; got none"),
        ("- {command: red}", "one of at, stamp is needed; got none"),
        ("- {at: 1, time: 2, command: red}", "got at, time"),
        ("- {at: 1, command: red, cancel: all}", "got command, cancel"),
        ("- {at: 0, command: red}\n- {at: -1, command: red}", "line 2: at: a number from 0"),
        ("- {at: .nan, command: red}", "at: a number"),
        ("- {at: yes, command: red}", "at: a number"),
        ("- {at: 1, command: ''}", "command: a text is needed"),
        ("- {at: 1, command: 5}", "command: a text is needed; got 5"),
        ("- {at: 1, command: 'the [SEG] block'}", "command: an instruction may not contain the model's special tokens"),
        ("- {at: 1, command: red, command: blue}", "line 1: command stands twice"),
        ("- {at: 1, command: red, when: 2}", "unknown key 'when'"),
        ("- {at: 1, instruction: red}", "a mapping with id and text is needed"),
        ("- at: 1\n  instruction: {text: red}", "line 2: an instruction needs id"),
        ("- at: 1\n  instruction: {id: a, text: red, mode: often}", "mode: allowed: track, one_shot"),
        ("- at: 1\n  instruction: {id: a, text: red, cameras: left}", "cameras: a list of names"),
        ("- at: 1\n  instruction: {id: a, text: red, timeout: -1}", "timeout: a number from 0"),
        ("- at: 1\n  instruction: {id: a, text: red, priority: 1.5}", "priority: a whole number"),
        ("- at: 1\n  instruction: {id: a, text: red, speed: 1}", "unknown key 'speed'"),
        ("- {1: red}", "a key must be a word"),
        ("- {at: 1, command: [red", "is no YAML"),
        ("- {at: !!python/name:os.system '', command: red}", "is no YAML"),
    ],
)
def test_wrong_commands_are_named(file, text: str, words: str) -> None:
    with pytest.raises(BadInput) as caught:
        commands.load(file(text))
    assert words in str(caught.value)
    assert "file.yaml" in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(BadInput, match="cannot read"):
            commands.load(path)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="cannot read"):
        expectations.load(tmp_path / "bytes.yaml")


def test_pairs_for_tests_are_checked() -> None:
    assert commands.spoken([(1, "red")]) == (Command(at=1.0, text="red", place="command 'red'"),)
    for pair in ((-1.0, "red"), (math.nan, "red"), (1.0, "")):
        with pytest.raises(BadInput):
            commands.spoken([pair])


def test_an_expectation_in_full(file, tmp_path: Path) -> None:
    path = file(
        "reference: /truth\n"
        "expect:\n"
        "- {command: red, verdict: PRESENT}\n"
        "- {id: cup, camera: left, from: 1, to: 2, settle: 0.5, verdict: [NO_TARGET, GONE], ids: [1, 2], min_iou: 0.5,"
        " min_held: 1, max_age: 0.2, max_false_masks: 0, max_drops: 3, stable_id: true, max_first_mask: 1,"
        " reference: {topic: /m, bag: other, tolerance: 0.01}}\n"
    )
    first, second = expectations.load(path)
    assert (first.name, first.verdict, first.reference, first.min_iou) == (
        "red",
        ("PRESENT",),
        Reference("/truth"),
        None,
    )
    assert second == Expectation(
        "", "cup", "left", 1.0, 2.0, 0.5, ("NO_TARGET", "GONE"), 0.5, 1.0, 0.2, 0, 3, True, 1.0,
        Reference("/m", tmp_path / "other", 0.01), (1, 2), f"{path}, line 4",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("{verdict: PRESENT}", "one of command, id is needed"),
        ("{command: a, id: b, verdict: PRESENT}", "one of command, id is needed"),
        ("{command: a}", "nothing is expected; give one of verdict"),
        ("{command: a, verdict: present}", "verdict: allowed: GROUNDING, PRESENT"),
        ("{command: a, verdict: []}", "verdict: allowed"),
        ("{command: a, verdict: [PRESENT, 3]}", "verdict: allowed"),
        ("{command: a, verdict: [LOST]}", "verdict: a list gives an order and needs two states or more; got ['LOST']"),
        ("{command: a, stable_id: false}", "stable_id: only true is an expectation"),
        ("{command: a, minimum_iou: 0.5}", "unknown key 'minimum_iou'"),
        ("{command: a, min_iou: 0.5}", "there is no reference"),
        ("{command: a, verdict: LOST, ids: 1}", "there is no reference"),
        ("{command: a, min_iou: 1.5, reference: /m}", "min_iou: a number from 0 to 1"),
        ("{command: a, min_iou: high, reference: /m}", "got 'high'"),
        ("{command: a, min_iou: 0.5, reference: m}", "a full topic name"),
        ("{command: a, min_iou: 0.5, reference: {bag: x}}", "topic: a full topic name is needed; got None"),
        ("{command: a, min_iou: 0.5, reference: {topic: /m, bags: x}}", "unknown key 'bags'"),
        ("{command: a, min_iou: 0.5, reference: /m, ids: [0]}", "ids: pixel values from 1"),
        ("{command: a, min_iou: 0.5, reference: /m, ids: [1, x]}", "ids: pixel values from 1"),
        ("{command: a, max_drops: 1.5}", "max_drops: a whole number"),
        ("{command: a, stable_id: 1}", "stable_id: true or false"),
        ("{command: a, from: 3, to: 2, max_drops: 0}", "the window ends at 2 s, before it begins"),
        ("{command: a, settle: -1, max_drops: 0}", "settle: a number from 0"),
    ],
)
def test_wrong_expectations_are_named(file, entry: str, words: str) -> None:
    with pytest.raises(BadInput) as caught:
        expectations.load(file(f"expect:\n- {entry}\n"))
    assert words in str(caught.value)
    assert "file.yaml, line 2" in str(caught.value)


def test_arguments() -> None:
    given = parse(
        ["b", "--out", "o", "--every-frame", "--camera", "left=/left/image", "--camera", "arm/right=/right/image",
         "--depth", "left=/left/depth", "--param", "command_mode=add", "--param", "checkpoint=a=b", "--recipe", "lisa",
         "--node-command", "python 'my node.py'"]
    )  # fmt: skip
    assert given.every_frame
    assert given.images == {"left": "/left/image", "arm/right": "/right/image"}
    assert given.depths == {"left": "/left/depth"}
    assert given.parameters == {"command_mode": "add", "checkpoint": "a=b", "recipe": "lisa"}
    assert given.node_command == ("python", "my node.py")
    assert parse(["b", "--out", "o"]) == Options(Path("b"), Path("o"), rate=1.0)
    assert parse(["b", "--out", "o", "--image", "/i"]).images == {"": "/i"}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--rate", "0"), "--rate is 0; allowed: 0.01 to 100"),
        (("--rate", "nan"), "--rate is nan"),
        (("--start", "-1"), "--start is -1"),
        (("--duration", "0"), "--duration is 0"),
        (("--camera", "/left/image"), "NAME=TOPIC is needed"),
        (("--camera", "a=/x", "--camera", "a=/y"), "'a' has /x already"),
        (("--camera", "a=left"), "'left' is no topic"),
        (("--camera", "a=/x", "--depth", "b=/y"), "--depth names the camera 'b'; there are: 'a'"),
        (("--param", "rate"), "NAME=VALUE is needed"),
        (("--commands", "c", "--command-topic", "/c"), "exclude each other"),
        (("--node-command", ""), "--node-command is empty"),
        (("--domain", "102"), "--domain is 102; allowed: 0 to 101"),
    ],
)
def test_wrong_arguments_are_named(more: tuple[str, ...], words: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse(["b", "--out", "o", *more])
    assert words in str(caught.value)
