"""One replay from start to end: the node in its own process, what is played to it, and what it says recorded."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from instructseg.core import BadInput

from .. import dds
from ..parameters import TABLE
from ..spatial.compressed_depth import RAW
from . import commands as command_file
from . import recorder
from .arguments import Options
from .commands import Command
from .conductor import BagTime, Conductor
from .domains import own_domain
from .node_link import NODE, NodeLink
from .processes import Child, NotDiscovered, RunFailed, child_environment, describe_exit
from .progress import Progress
from .records import Given, Run, timetable
from .source import Source

GAVE_UP = ("configure failed", "activate failed")  # the node's own words; it stays alive then
STOP_S = 20.0
OURS = ("autostart", "use_sim_time", "image_transport", "depth_transport", "cameras")  # set by the replay itself
OURS_EVERY = ("frame_policy", "stale_after")


def replay(options: Options, commands: Sequence[Command] | None = None, progress: Progress | None = None) -> Run:
    """Play the bag to a node and record what it says. commands: instead of those the options name.

    Raises BadInput for what cannot be right, before anything is started; RunFailed where the node did not get through.
    Confines this process's DDS traffic to this host.
    """
    progress = progress or Progress(quiet=True)
    check(options)
    with Source(options) as source:
        given, notes = schedule(options, source, commands)
        prepare_output(options)
        with _log_folder(options) as logs:
            try:
                run = _run(options, source, given, logs, progress)
            except NotDiscovered as failure:  # seen under load: Fast DDS announced only some topics of the node
                progress.done(f"{failure}\nonce more, in another ROS domain")
                run = _run(options, source, given, logs, progress)
    return dataclasses.replace(run, notes=(*notes, *run.notes))


@contextlib.contextmanager
def _log_folder(options: Options) -> Iterator[Path]:
    """Where the node's log goes: the user's folder, or one that stays only where the run broke: the error names it."""
    if options.logs is not None:
        yield options.logs.resolve()
        return
    folder = Path(tempfile.mkdtemp(prefix="instructseg_replay_"))
    try:
        yield folder
    except RunFailed:
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def schedule(
    options: Options, source: Source, commands: Sequence[Command] | None = None
) -> tuple[tuple[Given, ...], tuple[str, ...]]:
    """The commands that will be given, with their times; notes about those that will not."""
    if commands is None:
        commands = command_file.load(options.commands) if options.commands else ()
        commands = source.commands(options.command_topic) if options.command_topic else commands
    return timetable(commands, source.zero_ns, source.start, source.end, command_mode(options))


def check(options: Options) -> None:
    """Refuse parameters and paths that cannot be right."""
    if options.params is not None and not options.params.is_file():
        raise BadInput(f"--params {options.params}: there is no such file")
    ours = (*OURS, *(OURS_EVERY if options.every_frame else ()))
    for name in options.parameters:
        if name in ours:
            raise BadInput(f"--param {name}: the replay sets it itself")
        if name not in TABLE:
            raise BadInput(f"--param {name}: the node has no such parameter; there are: {', '.join(TABLE)}")
    if options.report and options.junit and options.report.resolve() == options.junit.resolve():
        raise BadInput(f"--report and --junit name the same file, {options.report}")
    for name, file in (("--report", options.report), ("--junit", options.junit)):
        if file is not None and file.is_dir():
            raise BadInput(f"{name} {file}: that is a folder; a file is needed")
    out, bag = options.out.resolve(), options.bag.resolve()
    if out == bag or bag in out.parents or out in bag.parents:
        raise BadInput(f"--out {options.out}: that is the bag that is played, or inside it; choose another place")
    if out.exists():
        if not options.overwrite:
            raise BadInput(f"--out {options.out} exists; give another name, or --overwrite")
        if out.is_dir() != (out.suffix != ".mcap") or (out.is_dir() and not (out / "metadata.yaml").exists()):
            raise BadInput(f"--out {options.out} exists and is no bag of that kind: it will not be replaced")
        others = [f.name for f in out.iterdir() if not recorder.is_ours(f)] if out.is_dir() else []
        if others:
            raise BadInput(f"--out {out} holds {others[0]}, which no recording has: it will not be replaced")


def prepare_output(options: Options) -> None:
    """Take away what an earlier run left, so that nothing old is mistaken for a result of a run that broke."""
    for file in (options.report, options.junit):
        if file is not None:
            file.unlink(missing_ok=True)
    if options.out.is_dir():
        shutil.rmtree(options.out)
    else:
        options.out.unlink(missing_ok=True)


def command_mode(options: Options) -> str:
    """What a new command does with the others in the node: its parameter, as it will be."""
    if "command_mode" in options.parameters:
        return options.parameters["command_mode"]
    return str(_from_file(options.params, "command_mode") or TABLE["command_mode"].default)


def node_arguments(options: Options, source: Source) -> list[str]:
    """ROS arguments: the parameter file, the user's parameters, and over both what the replay needs."""
    values = {name: _yaml_value(name, value) for name, value in options.parameters.items()}
    values |= {"autostart": "true", "use_sim_time": "true"}
    values["image_transport"] = "compressed" if source.compressed else "raw"
    values["depth_transport"] = source.depth_transport
    values["cameras"] = (
        "[" + ", ".join(repr(name) for name in (options.images if "" not in options.images else ())) + "]"
    )
    if values["cameras"] == "[]":
        values["cameras"] = '[""]'
    if options.every_frame:
        # Nothing is STALE where time stands still until a frame is answered; how long a gap lasts is up to the bag.
        values |= {"frame_policy": "every", "stale_after": "3600.0"}
    file = ["--params-file", str(options.params.resolve())] if options.params else []
    parameters = [part for name, value in values.items() for part in ("-p", f"{name}:={value}")]
    return ["--ros-args", *file, *parameters, *_remaps(options, source), *options.ros_arguments]


def _remaps(options: Options, source: Source) -> list[str]:
    """The node's names of what it listens to, to those of the bag."""
    depth = "depth" if source.depth_transport == RAW else f"depth/{source.depth_transport}"
    own = {"image": "image/compressed" if source.compressed else "image", "depth": depth, "info": "camera_info"}
    remaps = []
    for topic in source.topics:
        name = f"{topic.camera}/{own[topic.role]}" if options.images and "" not in options.images else own[topic.role]
        remaps += ["-r", f"{name}:={topic.name}"]
    return remaps


def _run(options: Options, source: Source, given: tuple[Given, ...], logs: Path, progress: Progress) -> Run:
    """One attempt."""
    began = time.monotonic()
    with own_domain(options.domain) as domain:
        dds.use_profile("shm")
        environment = child_environment(logs / "ros") | {"ROS_DOMAIN_ID": str(domain)}
        command = [*options.node_command, *node_arguments(options, source)]
        with (
            recorder.BagFile(options.out) as file,
            Child("node", command, logs / "node.log", environment, Path.cwd()) as node,
        ):

            def watch() -> None:
                if node.exit_code is not None:
                    raise RunFailed(describe_exit(node.exit_code))

            bag_time = BagTime()
            try:
                with NodeLink(domain, source.topics, file, bag_time.now_ns, watch, options.overlay) as link:
                    dds.assert_loopback_only()
                    conductor = _conduct(options, source, given, node, link, bag_time, progress)
                    dropped = dict(link.dropped)
            except RunFailed as failure:
                kind = NotDiscovered if isinstance(failure, NotDiscovered) else RunFailed
                raise kind(str(node.failure(str(failure)))) from failure
            progress.show("ending the node")
            code = node.stop(STOP_S)
            if code != 0:
                raise node.failure(describe_exit(code))
    return Run(
        bag=options.bag, results=options.out, node=NODE, zero_ns=source.zero_ns, start=source.start, end=source.end,
        rate=options.rate, frames=tuple(conductor.frames), given=conductor.instructions.result(), dropped=dropped,
        notes=_notes(source, conductor), wall_s=time.monotonic() - began,
    )  # fmt: skip


def _conduct(
    options: Options,
    source: Source,
    given: tuple[Given, ...],
    node: Child,
    link: NodeLink,
    bag_time: BagTime,
    progress: Progress,
) -> Conductor:
    """Wait for the node, then play."""
    total = source.end - source.start
    bag_time.fixed_ns = source.log_time(source.start)

    def show(seconds: float, frames: int) -> None:
        progress.played(seconds - source.start, total, frames)

    def gave_up() -> bool:
        return any(words in node.log_text() for words in GAVE_UP)

    link.wait_until_active(time.monotonic() + options.start_timeout, gave_up, progress.show)
    masks = _wanted(options, "publish_instance_mask")
    link.wait_until_matched(("instance_mask/compressed",) if masks else ())
    conductor = Conductor(source, link, bag_time, given, options.frame_timeout, show)
    if options.every_frame:
        conductor.play_every_frame()
    else:
        conductor.play(options.rate)
    return conductor


def _notes(source: Source, conductor: Conductor) -> tuple[str, ...]:
    """What people should know of the input."""
    notes = [f"{count} messages on {topic} are broken and were left out" for topic, count in source.unreadable.items()]
    frames = conductor.frames
    if not frames:
        return (*notes, "no frame was played")
    zero = sum(frame.stamp_ns == 0 for frame in frames)
    if zero:
        notes.append(f"{zero} of {len(frames)} frames have the stamp 0: the node takes the first of them only")
    offsets = sorted(frame.time + (source.zero_ns - frame.stamp_ns) / 1e9 for frame in frames if frame.stamp_ns)
    if offsets and abs(offsets[len(offsets) // 2]) > 1.0:
        notes.append(
            f"header stamps differ from the log times by {offsets[len(offsets) // 2]:.3f} s (median): ages count from "
            "the stamps"
        )
    return tuple(notes)


def _wanted(options: Options, name: str) -> bool:
    """Whether a switch of the node is on."""
    value = options.parameters.get(name, _from_file(options.params, name))
    return TABLE[name].default if value is None else str(value).lower() == "true"


def _from_file(file: Path | None, name: str) -> Any:
    """A parameter's value in a ROS parameter file; None where it is not there."""
    if file is None:
        return None
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"--params {file}: {error}") from error
    sections = content if isinstance(content, dict) else {}
    for node in ("/**", "/instructseg", "instructseg", "/*"):
        section = sections.get(node)
        values = section.get("ros__parameters") if isinstance(section, dict) else None
        if isinstance(values, dict) and name in values:
            return values[name]
    return None


def _yaml_value(name: str, value: str) -> str:
    """A value as ROS arguments take it: texts in quotes, so that a path or a number in one stays a text."""
    return yaml.safe_dump(value, default_style="'").strip() if isinstance(TABLE[name].default, str) else value
