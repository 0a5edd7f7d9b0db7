"""``instructseg_replay``: play, record, judge, report; the exit status tells."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from instructseg.core import InstructSegError

from .. import dds
from . import arguments as command_line
from .progress import Progress
from .session import replay


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0: every expectation met, 1: an expectation failed, 2: the input is wrong or the run broke."""
    # As a time limit ends it: the node must not go on without us.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        options = command_line.parse(arguments)
        print(replay(options, progress=Progress(quiet=options.quiet)))
        return 0
    except KeyboardInterrupt:
        print("\ninstructseg_replay: interrupted", file=sys.stderr)
    except (InstructSegError, dds.DdsProfileError, OSError) as error:
        print(f"instructseg_replay: {error}", file=sys.stderr)
    return 2
