"""The command line of ``instructseg_replay``, and the same choices as one checked object."""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from instructseg.core import BadInput

from ..dds import MAX_DOMAIN_ID

NODE_COMMAND = (sys.executable, "-m", "instructseg_node.main")
DESCRIPTION = """Play a rosbag2 bag through the node, record what it says, and judge it.

exit status: 0 every expectation met (or none given), 1 an expectation failed, 2 the input is wrong or the run broke,
130 interrupted"""


@dataclasses.dataclass(frozen=True)
class Options:
    """What to play, with what, where the results go. Raises BadInput.

    bag: folder with metadata.yaml, or one .mcap or .db3 file. out: the bag to write, a folder, or a file where the name
    ends in .mcap. images, depths, infos: topic by camera name ("" for the only one); no images: the only image topic
    is found. commands: a file, or command_topic: a topic of the bag with strings. rate: bag seconds a second; None:
    every frame, one after the other. start, duration: seconds, of the bag. parameters: name -> YAML value, laid over
    the file params. node_command: what starts the node; ros_arguments: further ones of it. domain: of ROS; None: one
    that nobody else is in. timeouts in seconds.
    """

    bag: Path
    out: Path
    commands: Path | None = None
    command_topic: str = ""
    expect: Path | None = None
    rate: float | None = 1.0
    start: float = 0.0
    duration: float = math.inf
    images: Mapping[str, str] = dataclasses.field(default_factory=dict)
    depths: Mapping[str, str] = dataclasses.field(default_factory=dict)
    infos: Mapping[str, str] = dataclasses.field(default_factory=dict)
    params: Path | None = None
    parameters: Mapping[str, str] = dataclasses.field(default_factory=dict)
    overlay: bool = False
    overwrite: bool = False
    report: Path | None = None
    junit: Path | None = None
    pictures: Path | None = None
    logs: Path | None = None
    ros_arguments: tuple[str, ...] = ()
    node_command: tuple[str, ...] = NODE_COMMAND
    domain: int | None = None
    start_timeout: float = 300.0
    frame_timeout: float = 60.0
    quiet: bool = False

    def __post_init__(self) -> None:
        limits = {
            "--rate": (1.0 if self.rate is None else self.rate, 0.01, 100.0),
            "--start": (self.start, 0.0, 1e9),
            "--duration": (self.duration, 0.001, math.inf),
            "--start-timeout": (self.start_timeout, 1.0, 86400.0),
            "--frame-timeout": (self.frame_timeout, 1.0, 86400.0),
        }
        for name, (value, low, high) in limits.items():
            if not low <= value <= high:
                raise BadInput(f"{name} is {value:g}; allowed: {low:g} to {high:g}")
        if self.commands and self.command_topic:
            raise BadInput("--commands and --command-topic exclude each other: give one of them")
        if "" in self.images and len(self.images) > 1:
            raise BadInput("several cameras need names: --camera left=/left/image --camera right=/right/image")
        for option, given in (("--depth", self.depths), ("--info", self.infos)):
            unknown = [name for name in given if self.images and name not in self.images]
            if unknown:
                cameras = ", ".join(repr(name) for name in self.images)
                raise BadInput(f"{option} names the camera {unknown[0]!r}; there are: {cameras}")
        if self.domain is not None and not 0 <= self.domain <= MAX_DOMAIN_ID:
            raise BadInput(f"--domain is {self.domain}; allowed: 0 to {MAX_DOMAIN_ID}")
        if not self.node_command:
            raise BadInput("--node-command is empty; it starts the node, as python -m instructseg_node.main")

    @property
    def every_frame(self) -> bool:
        return self.rate is None


def parser() -> argparse.ArgumentParser:
    """All arguments, in groups as --help shows them."""
    top = argparse.ArgumentParser(
        prog="instructseg_replay", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument("bag", type=Path, metavar="BAG", help="folder of the bag, or one .mcap or .db3 file")
    top.add_argument("--out", type=Path, required=True, metavar="BAG", help="what the node published: folder, or .mcap")
    top.add_argument("--overwrite", action="store_true", help="replace what is at --out")

    asked = top.add_argument_group("what is asked and expected")
    asked.add_argument("--commands", type=Path, metavar="FILE", help="commands and when they are given (YAML)")
    asked.add_argument("--command-topic", default="", metavar="TOPIC", help="take the commands from the bag instead")
    asked.add_argument("--expect", type=Path, metavar="FILE", help="what is right (YAML)")

    how = top.add_argument_group("how it is played")
    pace = how.add_mutually_exclusive_group()
    pace.add_argument("--rate", type=float, metavar="R", help="bag seconds a second (default 1)")
    pace.add_argument("--every-frame", action="store_true", help="each frame waits for the one before: deterministic")
    how.add_argument("--start", type=float, default=0.0, metavar="S", help="begin here, seconds from the first image")
    how.add_argument("--duration", type=float, default=math.inf, metavar="S", help="play so much (default: to the end)")

    topics = top.add_argument_group("topics of the bag")
    which = topics.add_mutually_exclusive_group()
    which.add_argument("--image", metavar="TOPIC", help="default: the only image topic there is")
    which.add_argument(
        "--camera", action="append", default=[], metavar="NAME=TOPIC", help="one of several cameras; once for each"
    )
    topics.add_argument(
        "--depth",
        action="append",
        default=[],
        metavar="[NAME=]TOPIC",
        help="depth images (default: those beside the image)",
    )
    topics.add_argument(
        "--info",
        action="append",
        default=[],
        metavar="[NAME=]TOPIC",
        help="camera_info (default: that beside the image)",
    )

    node = top.add_argument_group("the node")
    node.add_argument("--recipe", metavar="NAME", help="as parameter recipe; `instructseg recipes` lists them")
    node.add_argument("--checkpoint", metavar="PATH", help="as parameter checkpoint")
    node.add_argument("--params", type=Path, metavar="FILE", help="ROS parameter file")
    node.add_argument(
        "--param", action="append", default=[], metavar="K=V", help="one parameter, over the file; once for each"
    )
    node.add_argument("--node-command", metavar="COMMAND", help="what starts the node, where it is not ours")
    node.add_argument("--domain", type=int, metavar="ID", help="ROS domain, to watch it (default: one of its own)")
    node.add_argument("--start-timeout", type=float, default=300.0, metavar="S", help="for loading (default 300)")
    node.add_argument("--frame-timeout", type=float, default=60.0, metavar="S", help="for one frame (default 60)")

    results = top.add_argument_group("results")
    results.add_argument("--overlay", action="store_true", help="record the pictures for people too")
    results.add_argument("--report", type=Path, metavar="FILE", help="the report as JSON")
    results.add_argument("--junit", type=Path, metavar="FILE", help="the report as JUnit XML, for CI")
    results.add_argument("--pictures", type=Path, metavar="DIR", help="contact sheets of what failed")
    results.add_argument("--logs", type=Path, metavar="DIR", help="keep the node's log here")
    results.add_argument("--quiet", action="store_true", help="no progress, and the table only where something failed")
    return top


def parse(arguments: Sequence[str] | None = None) -> Options:
    """The command line as Options. Raises BadInput, or ends the process as argparse does (--help, an unknown name)."""
    given = parser().parse_args(arguments)
    images = {"": _topic("--image", given.image)} if given.image else _named("--camera", given.camera, always=True)
    parameters = _parameters(given.param)
    for name in ("recipe", "checkpoint"):
        if getattr(given, name) is not None:
            parameters[name] = getattr(given, name)
    rate = None if given.every_frame else 1.0 if given.rate is None else given.rate
    same = (
        "bag", "out", "commands", "command_topic", "expect", "start", "duration", "params", "overlay", "overwrite",
        "report", "junit", "pictures", "logs", "domain", "start_timeout", "frame_timeout", "quiet",
    )  # fmt: skip
    return Options(
        **{name: getattr(given, name) for name in same},
        rate=rate,
        images=images,
        depths=_named("--depth", given.depth),
        infos=_named("--info", given.info),
        parameters=parameters,
        node_command=NODE_COMMAND if given.node_command is None else tuple(shlex.split(given.node_command)),
    )


def _named(option: str, entries: Sequence[str], always: bool = False) -> dict[str, str]:
    """Topics by camera name, from NAME=TOPIC, or from TOPIC where there is one camera."""
    found: dict[str, str] = {}
    for entry in entries:
        name, equals, topic = entry.rpartition("=")
        if (always and not equals) or (equals and not re.fullmatch(r"[A-Za-z][A-Za-z0-9_/]*", name)):
            raise BadInput(f"{option} {entry}: NAME=TOPIC is needed, as in left=/left/image")
        if name in found:
            raise BadInput(f"{option} {entry}: {name or 'the camera'!r} has {found[name]} already")
        found[name] = _topic(f"{option} {entry}", topic)
    return found


def _topic(option: str, topic: str) -> str:
    if not re.fullmatch(r"(/[A-Za-z_][A-Za-z0-9_]*)+", topic):
        raise BadInput(f"{option}: {topic!r} is no topic; a full name is needed, as in /camera/image")
    return topic


def _parameters(entries: Sequence[str]) -> dict[str, str]:
    values = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", name):
            raise BadInput(f"--param {entry}: NAME=VALUE is needed, as in present_threshold=0.6")
        values[name] = value
    return values
