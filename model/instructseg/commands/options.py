"""Options that several commands share, and the types of their values."""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Callable

from ..core import Segmenter
from ..options import split_assignments
from ..registry import DTYPES, load

log = logging.getLogger(__name__)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """--recipe, --checkpoint, --device, --dtype, --option: what :func:`load_segmenter` reads."""
    group = parser.add_argument_group("model")
    group.add_argument("--recipe", default="unified", help="see `instructseg recipes` (default: %(default)s)")
    group.add_argument("--checkpoint", metavar="DIR", help="folder or hub id (default: the recipe's own)")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    group.add_argument("--dtype", default="auto", choices=DTYPES, help="precision (default: %(default)s)")
    group.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE",
        help="an option of the recipe, see `instructseg recipes NAME`; may be repeated",
    )  # fmt: skip


def load_segmenter(arguments: argparse.Namespace) -> Segmenter:
    """The recipe that the options name, with its weights. Raises BadInput."""
    options = split_assignments(arguments.option, "--option")
    segmenter = load(arguments.recipe, arguments.checkpoint, arguments.device, arguments.dtype, options)
    for note in segmenter.notes:
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
