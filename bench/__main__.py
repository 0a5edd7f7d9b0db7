"""Command line: ``python -m bench [PART ...] [--quick] [--checkpoint FOLDER] [--out FOLDER]``.

Without names every part runs. Each part prints its table and writes ``<out>/<part>.json``. Exit code 0: everything was
measured, whatever the verdicts; 2: something could not be.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from instructseg.core import InstructSegError

from .figures import Figure, Report, table
from .machine import machine_facts
from .options import RECIPE, MeasurementFailed, Options

PARTS = ("model", "engine", "node", "memory", "mllmseg", "memory_tracker", "data", "data_video", "metrics")
APART = ("gpu", "look_alikes", "ablations")  # run where they are named
RANDOM = {  # parts that do not measure the default recipe
    "mllmseg": "recipe mllmseg, small random weights",
    "memory_tracker": "SAM 2.1, random weights",
    "gpu": "see the figures",
    "metrics": "no model",
    "data_video": "no model",
    "data": "no recipe",
    "ablations": "recipe unified, trained anew",
}
GPU_SIZES = ("miniature", "tiny", "small", "base_plus", "large")
Measure = Callable[[Options], tuple[list[Figure], dict[str, Any]]]


def part(name: str) -> Measure:
    """The ``measure`` of one part; imported only when asked for, because the node's part needs ROS."""
    return importlib.import_module(f"{__package__}.{name}").measure


def run_part(name: str, options: Options, measure: Measure) -> Report:
    """Measure, print and write one part."""
    facts = machine_facts()  # before anything runs: the load average is the others' load
    figures, details = measure(options)
    given = f"recipe {RECIPE}, {Path(options.checkpoint).name if options.checkpoint else 'its own checkpoint'}"
    report = Report(name, options.quick, RANDOM.get(name, given), facts, tuple(figures), details)
    path = report.write(options.out)
    print(f"\n{table(report)}\n  {path}\n", flush=True)
    return report


def parse(arguments: Sequence[str]) -> tuple[list[str], Options]:
    """The parts, in the order in which they run, and the options. Ends the process as argparse does."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all without a name")
    parser.add_argument("--quick", action="store_true", help="few repetitions: to see that it works, not to compare")
    parser.add_argument("--checkpoint", default="", metavar="FOLDER", help="weights other than the recipe's own")
    parser.add_argument("--out", type=Path, default=Path("out/bench"), metavar="FOLDER", help="default: out/bench")
    parser.add_argument("--full", action="store_true", help="memory_tracker: 10,000 frames, and 512 pixels throughout")
    parser.add_argument("--device", default="cpu", help="memory_tracker, gpu: where; default: cpu")
    parser.add_argument("--recipe", default="", metavar="NAME", help="gpu: a recipe, with --checkpoint; else SAM 2")
    parser.add_argument("--size", default="miniature", help=f"gpu: of SAM 2, one of {', '.join(GPU_SIZES)}")
    parser.add_argument(
        "--peak", default="", metavar="TFLOP/S,GB/S", help="gpu: what the device reaches at most; known for some"
    )
    parser.add_argument("--compile", action="store_true", help="gpu: also a compiled step, in CUDA graphs on a GPU")
    group = parser.add_argument_group("ablations")
    group.add_argument("--scenes", default="", metavar="FOLDER", help="with train/ and val/; default: drawn in 2-D")
    group.add_argument(
        "--latents", default="", metavar="FOLDER", help="encoded scenes, kept and read again: train.pt, val.pt"
    )
    group.add_argument("--episodes", type=int, default=0, metavar="N", help="the first N training scenes; default: all")
    group.add_argument("--steps", type=int, default=0, metavar="N", help="of each training; default: 1500")
    group.add_argument("--seeds", type=int, default=1, metavar="N", help="trainings of each variant; default: 1")
    group.add_argument("--without", default="", metavar="NAME,...", help="variants; default: all")
    given = parser.parse_args(arguments)
    unknown = [name for name in given.parts if name not in PARTS + APART]
    if unknown:
        parser.error(f"unknown part(s) {', '.join(unknown)}; there are: {', '.join(PARTS + APART)}")
    chosen = [name for name in PARTS if name in given.parts or not given.parts]
    chosen += [name for name in APART if name in given.parts]
    say = lambda line: print(f"  {line}", flush=True)  # noqa: E731
    options = Options(given.quick, given.checkpoint, given.out, say, given.full, given.device)
    for name, least in (("episodes", 0), ("steps", 0), ("seeds", 1)):
        if getattr(given, name) < least:
            parser.error(f"--{name} must be {least} or more; got {getattr(given, name)}")
    of_parts = ("recipe", "size", "peak", "compile", "scenes", "latents", "episodes", "steps", "seeds", "without")
    own = {name: getattr(given, name) for name in of_parts}
    return chosen, dataclasses.replace(options, **own)


def main(arguments: Sequence[str] | None = None, find: Callable[[str], Measure] = part) -> int:
    names, options = parse(sys.argv[1:] if arguments is None else arguments)
    verdicts: list[str] = []
    for name in names:
        print(f"{name}:", flush=True)
        try:
            report = run_part(name, options, find(name))
        except (InstructSegError, MeasurementFailed) as error:
            print(f"bench: {name}: {error}", file=sys.stderr)
            return 2
        verdicts += [f"{f.verdict}: {name}: {f.name}" for f in report.figures if f.floor]
    print("\n".join(["floors:", *(f"  {line}" for line in sorted(verdicts, reverse=True))]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
