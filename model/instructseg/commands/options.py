"""Options that several commands share, and the types of their values."""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Callable

from ..core import Segmenter
from ..options import split_assignments
from ..registry import DTYPES, TRACKERS, check_tracker, load, with_tracker

log = logging.getLogger(__name__)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """--recipe, --checkpoint, --device, --dtype, --option, --tracker...: what :func:`load_segmenter` reads."""
    group = parser.add_argument_group("model")
    group.add_argument("--recipe", default="unified", help="see `instructseg recipes` (default: %(default)s)")
    group.add_argument("--checkpoint", metavar="DIR", help="folder or hub id (default: the recipe's own)")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    group.add_argument("--dtype", default="auto", choices=DTYPES, help="precision (default: %(default)s)")
    group.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE",
        help="an option of the recipe, see `instructseg recipes NAME`; may be repeated",
    )  # fmt: skip
    group.add_argument(
        "--tracker", default="token", choices=TRACKERS,
        help="what carries masks from frame to frame: the recipe's token, SAM 2's memory, or both, the surer one being "
        "shown (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--tracker-checkpoint", metavar="PATH", help="SAM 2 weights for memory and hybrid: file, folder or hub id"
    )
    group.add_argument(
        "--anchor-period", type=positive_number(3600.0), default=0.0, metavar="SECONDS",
        help="with --tracker memory: the recipe looks at its target again after this time (default: never)",
    )  # fmt: skip


def load_segmenter(arguments: argparse.Namespace, say_notes: bool = True) -> Segmenter:
    """The recipe that the options name, with its weights; its notes go to the log. Raises BadInput."""
    options = split_assignments(arguments.option, "--option")
    check_tracker(arguments.tracker, arguments.tracker_checkpoint)
    recipe = load(arguments.recipe, arguments.checkpoint, arguments.device, arguments.dtype, options)
    segmenter = with_tracker(
        recipe, arguments.tracker, arguments.tracker_checkpoint, arguments.anchor_period, arguments.dtype
    )
    for note in segmenter.notes if say_notes else ():
        log.warning("recipe %s: %s", arguments.recipe, note)
    return segmenter


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """An argparse type: an integer in ``low..high``."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be a whole number in {low}..{high}; got {text!r}")
        return value

    return parse


def positive_number(high: float) -> Callable[[str], float]:
    """An argparse type: a number above 0, at most ``high``."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0.0 < value <= high:
            raise argparse.ArgumentTypeError(f"must be a number above 0, at most {high:g}; got {text!r}")
        return value

    return parse
