"""``instructseg_replay``: play, record, judge, report; the exit status tells."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from instructseg.core import BadInput, InstructSegError

from .. import dds
from . import arguments as command_line
from . import expectations as expectation_file
from . import pictures
from . import report as reporting
from .arguments import Options
from .commands import Command
from .expectations import Expectation
from .judge import judge
from .processes import RunFailed
from .progress import Progress
from .report import Report
from .session import replay, schedule
from .source import Source
from .windows import Window, place


def run(
    options: Options,
    commands: Sequence[Command] | None = None,
    expectations: Sequence[Expectation] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Replay, judge, and write what the options name. commands, expectations: instead of those in files.

    Everything that can be checked is checked before the node is started. Raises BadInput, RunFailed.
    """
    progress = progress or Progress(quiet=True)
    if expectations is None:
        expectations = expectation_file.load(options.expect) if options.expect else ()
    windows = plan(options, commands, expectations)
    keep_references(options, expectations)
    played = replay(options, commands, progress)
    progress.show("judging")
    report = Report(played, judge(played, windows))
    reporting.write(report, options.report, options.junit)
    if options.pictures is not None:
        with Source(options) as source:
            pictures.write_sheets(played, report.judgements, source, options.pictures)
    progress.clear()
    return report


def plan(
    options: Options, commands: Sequence[Command] | None, expectations: Sequence[Expectation]
) -> tuple[Window, ...]:
    """The windows that will be judged. Raises BadInput naming the line of what does not fit the bag."""
    with Source(options) as source:
        given, _ = schedule(options, source, commands)
        every = options.every_frame
        return place(expectations, given, source.start, source.end, tuple(source.images), options.bag, every)


def keep_references(options: Options, expectations: Sequence[Expectation]) -> None:
    """Refuse to record over what the recording is compared with: it would be compared with itself."""
    out = options.out.resolve()
    for expectation in expectations:
        bag = expectation.reference and expectation.reference.bag
        if bag and (out == bag.resolve() or out in bag.resolve().parents or bag.resolve() in out.parents):
            raise BadInput(f"{expectation.place}: reference: --out {options.out} would change it; choose another place")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0: every expectation met, 1: an expectation failed, 2: the input is wrong or the run broke, 130:
    interrupted."""
    # As a time limit or a closed terminal ends it: the node must not go on without us.
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGTERM, signal.SIGHUP)}
    progress = Progress()
    try:
        options = command_line.parse(arguments)
        progress = Progress(quiet=options.quiet)
        report = run(options, progress=progress)
    except KeyboardInterrupt:
        progress.clear()
        print("instructseg_replay: interrupted; nothing was recorded", file=sys.stderr)
        return 130
    except (InstructSegError, dds.DdsProfileError, OSError) as error:
        progress.clear()
        print(f"instructseg_replay: {error}", file=sys.stderr)
        if isinstance(error, RunFailed):
            print("instructseg_replay: the run broke; nothing was recorded", file=sys.stderr)
        return 2
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if not options.quiet or not report.passed:
        print(reporting.as_table(report))
    return 0 if report.passed else 1
