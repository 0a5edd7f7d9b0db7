"""The demo: the real node on a recorded camera stream, judged against ground truth: python -m instructseg_node.demo.

The recording is replayed in real time (``instructseg_node.replay``): the node runs in its own process, and all that it
publishes is recorded. Then the two bags are compared. Results: overlay.mp4, contact_sheet.png, results.mcap,
report.json and logs/ in the output folder; exit code 0 only if every verdict is the expected one.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from instructseg.core import InstructSegError

from .. import dds
from ..replay.arguments import NODE_COMMAND
from ..replay.arguments import Options as ReplayOptions
from ..replay.commands import Command
from ..replay.node_link import NODE
from ..replay.processes import RunFailed
from ..replay.progress import Progress
from ..replay.session import replay
from . import pictures
from . import report as reporting
from .records import IMAGE, DemoBag, ResultsBag

ROOT = Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Options:
    """bag: the recording. out: folder of the results. parameters: ROS parameter file. rate: recorded seconds a second.
    start_timeout: seconds for the node to load its model. node_arguments: further ROS arguments of the node."""

    bag: Path = ROOT / "data" / "demo"
    out: Path = Path("out/demo")
    parameters: Path = ROOT / "config" / "unified.yaml"
    rate: float = 1.0
    start_timeout: float = 300.0
    node_arguments: tuple[str, ...] = ()


def run(options: Options, node_command: Sequence[str] = NODE_COMMAND) -> reporting.Report:
    """Play, record, judge, draw. Raises RunFailed or another InstructSegError where that was not possible."""
    started = time.monotonic()
    options = dataclasses.replace(
        options, bag=options.bag.resolve(), out=options.out.resolve(), parameters=options.parameters.resolve()
    )
    check(options)
    demo = DemoBag(options.bag)  # before anything is started: a broken recording is found out here
    progress = Progress()
    make_room(options.out)
    asked = replay_options(options, node_command)
    commands = [Command(at=wanted.start, text=wanted.text) for wanted in demo.expectations]
    replay(asked, commands, progress)

    progress.show("judging")
    results_file = asked.out
    results = ResultsBag(results_file, NODE)
    report = reporting.make_report(demo, results, results_file.stat().st_size / 1e6)
    reporting.write(report, options.out / "report.json", rate=options.rate, bag=options.bag.name)
    pictures.write_video(demo, results, options.out / "overlay.mp4", progress.show)
    pictures.write_contact_sheet(demo, results, report, options.out / "contact_sheet.png")
    progress.done(f"done in {time.monotonic() - started:.0f} s")
    return report


def replay_options(options: Options, node_command: Sequence[str] = NODE_COMMAND) -> ReplayOptions:
    """The demo as a replay: its camera at its rate, everything else as the node does it by itself."""
    return ReplayOptions(
        bag=options.bag,
        out=options.out / "results.mcap",
        rate=options.rate,
        images={"": IMAGE},
        params=options.parameters,
        ros_arguments=options.node_arguments,
        node_command=tuple(node_command),
        logs=options.out / "logs",
        start_timeout=options.start_timeout,
    )


def check(options: Options) -> None:
    """Raise RunFailed for paths that cannot be right."""
    if not options.bag.exists():
        raise RunFailed(f"no recording at {options.bag}; make one with python -m instructseg_node.demo.record")
    if not options.parameters.is_file():
        raise RunFailed(
            f"no parameter file at {options.parameters}; the one of the default recipe is config/unified.yaml"
        )
    if not 0.05 <= options.rate <= 10.0:
        raise RunFailed(f"rate is {options.rate:g}; allowed: 0.05 to 10")


def make_room(out: Path) -> None:
    """Take away what an earlier run left, so that nothing old is mistaken for a result."""
    out.mkdir(parents=True, exist_ok=True)
    for name in ("overlay.mp4", "contact_sheet.png", "results.mcap", "report.json"):
        (out / name).unlink(missing_ok=True)
    shutil.rmtree(out / "logs", ignore_errors=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. Exit code 0: every verdict as expected, 1: not, 2: the demo did not get that far,
    130: interrupted."""
    defaults = Options()
    parser = argparse.ArgumentParser(prog="demo", description=__doc__.splitlines()[0])
    parser.add_argument("--bag", type=Path, default=defaults.bag, help="the recording (default data/demo)")
    parser.add_argument("--out", type=Path, default=defaults.out, help="folder of the results (default out/demo)")
    parser.add_argument("--params", type=Path, default=defaults.parameters, help="parameter file of the node")
    parser.add_argument("--rate", type=float, default=1.0, help="recorded seconds a second (default 1)")
    parser.add_argument("--start-timeout", type=float, default=300.0, help="seconds for the node to load (default 300)")
    parser.add_argument("node_arguments", nargs="*", help="after --: further ROS arguments, as in -- -p device:=cpu")
    given = parser.parse_args(arguments)
    options = Options(given.bag, given.out, given.params, given.rate, given.start_timeout, tuple(given.node_arguments))
    try:
        report = run(options)
    except KeyboardInterrupt:
        print("\ndemo: interrupted", file=sys.stderr)
        return 130
    except (InstructSegError, dds.DdsProfileError, OSError) as error:
        print(f"\ndemo failed: {error}", file=sys.stderr)
        return 2
    print(reporting.as_table(report))
    print(
        f"{options.out}: overlay.mp4, contact_sheet.png, results.mcap ({report.results_mb:.1f} MB), report.json, logs/"
    )
    return 0 if report.passed else 1
