"""``instructseg train``: the project's own training from generated scenes to a finished checkpoint, and, with a
configuration, the published systems on data sets."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

from ..core import BadInput
from ..training.plan import SMOKE, TrainingPlan, joined, plan_of, read_plan, with_settings
from ..training.stopping import StopRequest, TrainingPaused
from .options import positive_number

DESCRIPTION = """With CONFIG: fine-tune a recipe on data sets, as that file says (docs/training.md).
Without: train the default recipe from nothing on scenes that are generated first (docs/training_default.md); every step
resumes where it was stopped, run the same command again; values come from --smoke, then --plan, then --set.
Exit code 75: --stop-after came before the end, 130: SIGTERM did; what is done is saved."""
NOT_FINISHED, SIGNALLED = 75, 130
OWN = ("plan", "settings", "smoke", "stop_after")  # what belongs to the default recipe's training


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "train", help="train the default recipe, or fine-tune any", description=DESCRIPTION
    )
    parser.add_argument("finetuning", type=Path, nargs="?", metavar="CONFIG", help="a YAML file with a key recipe")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="scenes, states, log and checkpoint")
    parser.add_argument("--resume", action="store_true", help="with CONFIG: go on from the last state in --out")
    parser.add_argument("--export", action="store_true", help="with CONFIG: only export the last state in --out")
    parser.add_argument("--plan", type=Path, metavar="FILE", help="YAML; without: config/training/default.yaml")
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="KEY=VALUE",
        help="a value of the plan, as perception.minutes=90 or scenes.tabletop2=600; may be repeated",
    )  # fmt: skip
    parser.add_argument("--smoke", action="store_true", help="a tiny plan that shows that everything works")
    parser.add_argument(
        "--stop-after", type=positive_number(60 * 24 * 365), metavar="MINUTES",
        help="end this call after that time with a saved state; the same command goes on",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if arguments.finetuning is not None:
        return finetune(arguments)
    if arguments.resume or arguments.export:
        raise BadInput("--resume and --export need a CONFIG; the default recipe resumes by itself")
    stop = StopRequest(arguments.stop_after)
    plan = plan_from(arguments)
    if arguments.out.exists() and not arguments.out.is_dir():
        raise BadInput(f"--out {arguments.out} is a file; give a folder")
    arguments.out.mkdir(parents=True, exist_ok=True)
    log_to(arguments.out / "train.log")
    logging.getLogger(__name__).info("training plan: %s", plan.as_table())
    from ..training.run import run_training

    try:
        checkpoint = run_training(arguments.out, plan, stop=stop)
    except TrainingPaused as paused:
        print(f"not finished: {paused}; run the same command again to go on")
        return SIGNALLED if stop.signalled.is_set() else NOT_FINISHED
    print(f"checkpoint: {checkpoint}")
    print(f"next: instructseg eval tabletop2 --checkpoint {checkpoint}")
    return 0


def finetune(arguments: argparse.Namespace) -> int:
    """A published recipe as a configuration says."""
    given = [name for name in OWN if getattr(arguments, name)]
    if given:
        name = given[0].replace("_", "-").replace("settings", "set")
        raise BadInput(f"--{name} belongs to the default recipe's training; with a CONFIG, write what you want there")
    from ..training.finetuning.configuration import read_config as read_run_config

    config = read_run_config(arguments.finetuning)
    if arguments.out.exists() and not arguments.out.is_dir():
        raise BadInput(f"--out {arguments.out} is a file; give a folder")
    from ..training.finetuning.export import export
    from ..training.finetuning.processes import Processes
    from ..training.finetuning.run import finetune as run_finetuning

    processes = Processes(config.distributed, config.device)
    arguments.out.mkdir(parents=True, exist_ok=True)
    log_to(arguments.out / "train.log", quiet=not processes.is_main)
    try:
        if arguments.export:
            checkpoint = export(config, arguments.out) if processes.is_main else arguments.out
        else:
            checkpoint = run_finetuning(config, arguments.out, processes, arguments.resume)
    finally:
        processes.close()
    if not processes.is_main:
        return 0
    if checkpoint is None:
        print(f"stopped with a saved state; go on with --resume and --out {arguments.out}")
        return SIGNALLED
    print(f"checkpoint: {checkpoint}")
    # GSVA's base lies in the checkpoint now; other options are needed as before.
    options = "".join(f" --option {key}={value}" for key, value in config.options.items() if key != "base")
    command = f"instructseg segment IMAGE 'WHAT TO FIND' --out found --recipe {config.recipe}"
    print(f"next: {command} --checkpoint {checkpoint}{options}")
    return 0


def plan_from(arguments: argparse.Namespace) -> TrainingPlan:
    """The plan that --smoke, the file and the settings make together. Raises BadInput."""
    values: dict[str, Any] = dict(SMOKE) if arguments.smoke else {}
    if arguments.plan is not None:
        values = joined(values, read_plan(arguments.plan))
    return plan_of(with_settings(values, arguments.settings))


def log_to(path: Path, quiet: bool = False) -> None:
    """Log lines with time stamps to the terminal and, appended, to a file. quiet: warnings alone, to the file."""
    handlers: list[logging.Handler] = [logging.FileHandler(path, encoding="utf-8")]
    logging.basicConfig(
        level=logging.WARNING if quiet else logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        handlers=handlers if quiet else [logging.StreamHandler(), *handlers],
        force=True,
    )
