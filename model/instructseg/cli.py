"""``instructseg``: segment, train, eval, data, inspect and recipes from the command line, without ROS.

Exit codes: 0 done (a refusal by the model is an answer, not an error), 1 the model failed on some frames, 2 the input
or the call was wrong, 75 --stop-after ended a training before it was finished, 130 interrupted. An error is one line
that names the thing, its value and the remedy.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from . import __version__
from .commands import assemble, data, evaluate, inspect, recipes, segment, train
from .core import InstructSegError


class Parser(argparse.ArgumentParser):
    """Errors in one line, without the usage that scrolls the message away."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")


def build_parser() -> Parser:
    parser = Parser(prog="instructseg", description="Masks of what a plain-language instruction names, in any video.")
    parser.add_argument("--version", action="version", version=f"instructseg {__version__}")
    subparsers = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for command in (segment, train, assemble, evaluate, data, inspect, recipes):
        command.add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    parser = build_parser()
    arguments, rest = parser.parse_known_args(argv)
    # argparse cannot join positionals with options in between ("segment a.mp4 --out DIR 'the mug'").
    if rest and arguments.command == "segment" and not any(word.startswith("-") for word in rest):
        arguments.inputs += rest
    elif rest:
        parser.error(f"unrecognised: {' '.join(rest)}")
    try:
        return arguments.run(arguments)
    except InstructSegError as error:
        message = str(error)
    except OSError as error:
        message = f"{error.strerror or type(error).__name__}: {error.filename}" if error.filename else str(error)
    except KeyboardInterrupt:
        print("instructseg: interrupted", file=sys.stderr)
        return 130
    print(f"instructseg {arguments.command}: error: {' '.join(message.split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
