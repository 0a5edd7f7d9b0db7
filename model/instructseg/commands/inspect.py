"""``instructseg inspect``: load a checkpoint and say what became of every key, without segmenting anything."""

from __future__ import annotations

import argparse

from .options import add_model_options, load_segmenter

DESCRIPTION = """Load a checkpoint and print the account of its keys: loaded, converted, merged, ignored and why. A
checkpoint that does not fit ends with an error that names the keys."""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("inspect", help="what is in a checkpoint", description=DESCRIPTION)
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    segmenter = load_segmenter(arguments, say_notes=False)
    print(f"recipe {arguments.recipe} from {arguments.checkpoint or 'the shipped checkpoint'} on {segmenter.device}")
    print(segmenter.load_report.describe() if segmenter.load_report else "no account of keys")
    for note in segmenter.notes:
        print(f"note: {note}")
    return 0
