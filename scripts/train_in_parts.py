#!/usr/bin/env python3
"""The default recipe's training in calls of a few minutes each, as on a GPU that is lent for minutes at a time.

    scripts/train_in_parts.py --out runs/gpu --minutes 9 --carry gpu.tar -- --plan my.yaml

What stands after -- are options of `instructseg train` (docs/training_default.md). Exit code: 0 finished, 75 not yet,
the same call goes on; anything else is that of the training that failed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

from instructseg import cli
from instructseg.commands.train import NOT_FINISHED
from instructseg.core import BadInput

SCENES = "scenes"  # drawn anew where they are missing; too much to carry


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], epilog="Options of `instructseg train` stand behind --."
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="as of `instructseg train`")
    parser.add_argument("--minutes", type=float, required=True, metavar="MINUTES", help="of each part")
    parser.add_argument("--parts", type=int, default=1, metavar="N", help="parts of this call; 0: until it is finished")
    parser.add_argument("--carry", type=Path, metavar="FILE.tar", help="what a machine without --out goes on from")
    parser.add_argument("options", nargs="*", help="options of `instructseg train`")
    arguments = parser.parse_args(argv)
    if arguments.parts < 0:
        parser.error(f"--parts must be at least 0; got {arguments.parts}")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    if arguments.carry is not None and arguments.carry.exists() and not (arguments.out / "plan.json").exists():
        try:
            unpack(arguments.carry, arguments.out)
        except BadInput as error:
            print(f"train_in_parts: {error}", file=sys.stderr)
            return 2
    words = ["train", "--out", str(arguments.out), "--stop-after", str(arguments.minutes), *arguments.options]
    done, code = 0, NOT_FINISHED
    while code == NOT_FINISHED and (arguments.parts == 0 or done < arguments.parts):
        code = cli.main(words)
        done += 1
        if arguments.carry is not None and code in (0, NOT_FINISHED):
            pack(arguments.out, arguments.carry)
    return code


def pack(out: Path, carry: Path) -> None:
    """Everything but the scenes, in one move, so that a part that is cut off leaves the file of the one before."""
    partial = carry.with_name(f"{carry.name}.partial")
    with tarfile.open(partial, "w") as archive:
        for path in sorted(out.iterdir()):
            if path.name != SCENES:
                archive.add(path, path.name)
    os.replace(partial, carry)


def unpack(carry: Path, out: Path) -> None:
    """Raises BadInput where the file is damaged."""
    out.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(carry) as archive:
            archive.extractall(out, filter="data")
    except (tarfile.TarError, EOFError) as error:
        raise BadInput(f"--carry {carry} cannot be read: {error}; remove it to begin anew") from error


if __name__ == "__main__":
    sys.exit(main())
