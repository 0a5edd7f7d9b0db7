"""docs/replay.md: its tables are the code's, its example is run, and run twice it gives the same bytes of masks."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rosbags.rosbag2 import Reader

from instructseg_node.replay import commands, expectations
from instructseg_node.replay.arguments import parser

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "replay.md").read_text(encoding="utf-8")
TABLES = {
    "times": commands.TIMES,
    "actions": commands.ACTIONS,
    "instruction": commands.INSTRUCTION_KEYS,
    "notes": commands.NOTES,
    "windows": expectations.WINDOW_KEYS,
    "checks": expectations.CHECK_KEYS,
    "reference": expectations.REFERENCE_KEYS,
    "source": expectations.SOURCE_KEYS,
}


def blocks(language: str) -> list[str]:
    """The page's code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page's files, in which its commands are run."""
    folder = tmp_path_factory.mktemp("page")
    for block in [*blocks("yaml"), *blocks("python")]:
        name = re.match(r"# (\S+\.(?:yaml|py))\n", block).group(1)
        (folder / name).write_text(block, encoding="utf-8")
    (folder / "data").symlink_to(ROOT / "data")
    return folder


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    path = f"{ROOT}{os.pathsep}{ROOT / 'model'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}".rstrip(os.pathsep)
    return {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture(scope="module")
def by_command(place: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess:
    (line,) = blocks("sh")
    words = shlex.split(line)
    assert words[0] == "instructseg_replay"
    call = [sys.executable, "-m", "instructseg_node.replay", *words[1:]]
    return subprocess.run(call, cwd=place, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.process
def test_the_example_on_the_demo_recording_is_met(place: Path, by_command: subprocess.CompletedProcess) -> None:
    assert by_command.returncode == 0, by_command.stdout + by_command.stderr
    assert "1 of 1 expectations met" in by_command.stdout
    report = json.loads((place / "report.json").read_text(encoding="utf-8"))
    (found,) = report["expectations"]
    assert (report["passed"], report["frames_played"]) == (True, 23)
    assert (found["state"], found["drops"], found["false_masks"], found["held"]) == ("PRESENT", 0, 0, 1.0)
    assert found["mean_iou"] > 0.9
    assert ElementTree.parse(place / "report.xml").getroot().get("failures") == "0"
    assert not list((place / "failed").iterdir()), "a contact sheet of something that did not fail"


@pytest.mark.process
def test_the_fixture_gives_the_same_masks_byte_for_byte(
    place: Path, environment: Mapping[str, str], by_command: subprocess.CompletedProcess
) -> None:
    call = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", "again"]
    done = subprocess.run(call, cwd=place, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
    (again,) = (place / "again").glob("*0/replay_1")
    first, second = masks(place / "results"), masks(again)
    assert len(first) == 23
    assert first == second


def masks(bag: Path) -> list[bytes]:
    with Reader(bag) as reader:
        wanted = [c for c in reader.connections if c.topic == "/instructseg/instance_mask/compressed"]
        return [bytes(data) for _, _, data in reader.messages(wanted)]


@pytest.mark.parametrize("name", TABLES)
def test_every_key_has_its_line(name: str) -> None:
    for key, meaning in TABLES[name].items():
        assert f"\n| `{key}` | {meaning} |\n" in PAGE


def test_every_argument_has_its_line() -> None:
    named = {}
    for action in parser()._actions:
        if action.dest != "help":
            named[" ".join(action.option_strings) or action.metavar] = action.help
    rows = re.findall(r"^\| `(BAG|--[a-z-]+)[^`]*` \| (.*) \|$", PAGE, re.M)
    assert dict(rows) == named


def test_all_verdicts_are_named() -> None:
    assert all(f"`{name}`" in PAGE for name in expectations.VERDICTS)
