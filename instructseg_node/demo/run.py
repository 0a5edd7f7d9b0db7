"""The demo: the real node on a recorded camera stream, judged against ground truth: python -m instructseg_node.demo.

Three processes talk over DDS on this host alone: the player (the recording and /clock), the node, and a recorder of
everything the node publishes. Then the two bags are compared. Results: overlay.mp4, contact_sheet.png, results.mcap,
report.json and logs/ in the output folder; exit code 0 only if every verdict is the expected one.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from instructseg.core import InstructSegError

from .. import dds
from ..replay.processes import Child, NotDiscovered, RunFailed, child_environment, describe_exit
from . import pictures
from . import report as reporting
from .records import IMAGE, DemoBag, ResultsBag

ROOT = Path(__file__).resolve().parents[2]
NODE = "/instructseg"
NODE_COMMAND = (sys.executable, "-m", "instructseg_node.main")
CLOCK_HZ = 100  # a node's clock stands still between two ticks: its own ages come out up to 10 ms too low
TAIL_S = 1.5  # /clock and the node go on for so long after the last frame: a last diagnostic report is among it
GAVE_UP = ("configure failed", "activate failed")  # the node's own words; it stays alive then


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


class Progress:
    """One line that is rewritten on a terminal; elsewhere a line now and then."""

    def __init__(self, every_s: float = 5.0) -> None:
        self._live = sys.stdout.isatty()
        self._every_s = every_s
        self._said, self._at, self._width = "", -every_s, 0

    def show(self, line: str) -> None:
        if line == self._said:
            return
        if self._live:
            print("\r" + line.ljust(self._width), end="", flush=True)
            self._width = len(line)
        elif time.monotonic() - self._at >= self._every_s:
            print(line, flush=True)
            self._at = time.monotonic()
        self._said = line

    def done(self, line: str) -> None:
        """A line that stays."""
        print(("\r" if self._live else "") + line.ljust(self._width if self._live else 0), flush=True)
        self._said, self._width = "", 0


def run(options: Options, node_command: Sequence[str] = NODE_COMMAND) -> reporting.Report:
    """Play, record, judge, draw. Raises RunFailed or another InstructSegError where that was not possible."""
    started = time.monotonic()
    options = dataclasses.replace(
        options, bag=options.bag.resolve(), out=options.out.resolve(), parameters=options.parameters.resolve()
    )
    check(options)
    demo = DemoBag(options.bag)  # before anything is started: a broken recording is found out here
    progress = Progress()
    results_file = options.out / "results.mcap"
    make_room(options.out)
    domain = dds.own_domain_id()
    try:
        stream(options, demo, node_command, results_file, progress, domain)
    except NotDiscovered as failure:  # seen once under load: Fast DDS announced only some topics of the node
        progress.done(f"{failure}\nonce more, in another ROS domain")
        make_room(options.out)
        stream(options, demo, node_command, results_file, progress, domain % 100 + 1)

    progress.show("judging")
    results = ResultsBag(results_file, NODE)
    report = reporting.make_report(demo, results, results_file.stat().st_size / 1e6)
    reporting.write(report, options.out / "report.json", rate=options.rate, bag=options.bag.name)
    pictures.write_video(demo, results, options.out / "overlay.mp4", progress.show)
    pictures.write_contact_sheet(demo, results, report, options.out / "contact_sheet.png")
    progress.done(f"done in {time.monotonic() - started:.0f} s")
    return report


def stream(
    options: Options, demo: DemoBag, node_command: Sequence[str], results: Path, progress: Progress, domain: int
) -> None:
    """The three processes from start to end, leaving the recording of the node in ``results``."""
    dds.use_profile("shm", domain_id=domain)
    logs = options.out / "logs"
    environment = child_environment(logs / "ros")
    with ExitStack() as stack:

        def start(name: str, command: Sequence[str]) -> Child:
            return stack.enter_context(Child(name, command, logs / f"{name}.log", environment, ROOT))

        recorder = start("recorder", recorder_command(options, results))
        node = start("node", [*node_command, *node_arguments(options)])
        player = start("player", player_command(options))
        watch(options, demo, node, recorder, player, progress)
        progress.show("ending the node")
        code = node.stop(20.0)
        if code != 0:
            raise node.failure(describe_exit(code))
        code = recorder.stop(20.0)
        if code != 0 or not results.exists():
            raise recorder.failure(describe_exit(code))


def watch(options: Options, demo: DemoBag, node: Child, recorder: Child, player: Child, progress: Progress) -> None:
    """Return when the player has played everything; RunFailed as soon as that cannot be any more."""
    length = demo.seconds(demo.stamps[-1]) / options.rate
    deadline = time.monotonic() + options.start_timeout + length + TAIL_S + 30.0
    started, ready = time.monotonic(), False
    while player.exit_code is None:
        time.sleep(0.1)
        for child in (node, recorder):
            if child.exit_code is not None:
                raise child.failure(describe_exit(child.exit_code))
        line = player.last_line()
        if line:
            ready = True
            progress.show(line)
        elif not ready:
            if any(words in node.log_text() for words in GAVE_UP):
                raise node.failure("could not start")
            progress.show(f"waiting for the node to load its model, {time.monotonic() - started:.0f} s")
        if time.monotonic() > deadline:
            raise player.failure(f"did not end within {options.start_timeout + length + TAIL_S + 30:.0f} s")
    if player.exit_code != 0:
        kind = NotDiscovered if "subscribers" in player.log.read_text(errors="replace") else RunFailed
        raise kind(f"{player.failure(describe_exit(player.exit_code))}\nThe node's log is {node.log}")
    progress.done(player.last_line())


def player_command(options: Options) -> list[str]:
    """Everything but the ground truth; first when the node listens and the recorder listens to it."""
    arguments = ["--topics", "/camera/*", "/command", "--expect", IMAGE, "/command", f"{NODE}/targets"]
    arguments += ["--rate", str(options.rate), "--clock", str(CLOCK_HZ), "--tail", str(TAIL_S)]
    return [
        sys.executable, "-m", "instructseg_node.replay.player", str(options.bag), *arguments,
        "--timeout", str(options.start_timeout),
    ]  # fmt: skip


def recorder_command(options: Options, results: Path) -> list[str]:
    arguments = ["--out", str(results), "--node", NODE, "--clock", "--rate", str(options.rate)]
    return [sys.executable, "-m", "instructseg_node.replay.recorder", *arguments]


def node_arguments(options: Options) -> list[str]:
    """ROS arguments: the parameter file, what the demo needs on top of it, and the user's own last."""
    given = {"autostart": "true", "use_sim_time": "true", "image_transport": "compressed"}
    parameters = [part for name, value in given.items() for part in ("-p", f"{name}:={value}")]
    remaps = ["-r", f"image/compressed:={IMAGE}", "-r", "command:=/command"]
    own = list(options.node_arguments)
    return ["--ros-args", "--params-file", str(options.parameters), *parameters, *remaps, *own]


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
    """Command line. Exit code 0: every verdict as expected, 1: not, 2: the demo did not get that far."""
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
        return 2
    except (InstructSegError, dds.DdsProfileError, OSError) as error:
        print(f"\ndemo failed: {error}", file=sys.stderr)
        return 2
    print(reporting.as_table(report))
    print(
        f"{options.out}: overlay.mp4, contact_sheet.png, results.mcap ({report.results_mb:.1f} MB), report.json, logs/"
    )
    return 0 if report.passed else 1
