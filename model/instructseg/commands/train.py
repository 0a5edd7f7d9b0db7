"""``instructseg train``: the project's own training from generated scenes to a finished checkpoint, and, with a
configuration, the published systems on data sets."""

from __future__ import annotations

import argparse
import dataclasses
import logging
from pathlib import Path
from typing import Any

import yaml

from ..core import BadInput
from ..training.plan import SMOKE, TrainingPlan, is_whole

DESCRIPTION = """With CONFIG: fine-tune a recipe on data sets, as that file says (docs/training.md).
Without: train the default recipe from nothing on scenes that are generated first; every step resumes where it was
stopped, run the same command again; values come from --smoke, then --config, then the plan's options below."""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "train", help="train the default recipe, or fine-tune any", description=DESCRIPTION
    )
    parser.add_argument("finetuning", type=Path, nargs="?", metavar="CONFIG", help="a YAML file with a key recipe")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="scenes, states, log and checkpoint")
    parser.add_argument("--resume", action="store_true", help="with CONFIG: go on from the last state in --out")
    parser.add_argument("--export", action="store_true", help="with CONFIG: only export the last state in --out")
    parser.add_argument("--config", type=Path, metavar="FILE.yaml", help="a plan, with the names below as keys")
    small = ", ".join(f"{name} {value}" for name, value in SMOKE.items())
    parser.add_argument("--smoke", action="store_true", help=f"a tiny run that shows that everything works: {small}")
    group = parser.add_argument_group("training plan")
    for field in dataclasses.fields(TrainingPlan):
        group.add_argument(
            f"--{field.name.replace('_', '-')}",
            dest=field.name,
            type=int if is_whole(field) else float,
            metavar="N" if is_whole(field) else "MIN",
            default=argparse.SUPPRESS,
            help=f"{field.metadata['help']} (default: {field.default})",
        )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if arguments.finetuning is not None:
        return finetune(arguments)
    if arguments.resume or arguments.export:
        raise BadInput("--resume and --export need a CONFIG; the default recipe resumes by itself")
    plan = plan_of(arguments)
    arguments.out.mkdir(parents=True, exist_ok=True)
    log_to(arguments.out / "train.log")
    logging.getLogger(__name__).info("training plan: %s", dataclasses.asdict(plan))
    from ..training.run import run_training

    checkpoint = run_training(arguments.out, plan)
    print(f"checkpoint: {checkpoint}")
    print(f"next: instructseg eval tabletop --checkpoint {checkpoint}")
    return 0


def finetune(arguments: argparse.Namespace) -> int:
    """A published recipe as a configuration says."""
    given = sorted({field.name for field in dataclasses.fields(TrainingPlan)} & set(vars(arguments)))
    if given or arguments.smoke or arguments.config is not None:
        name = given[0].replace("_", "-") if given else "smoke" if arguments.smoke else "config"
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
        return 130
    print(f"checkpoint: {checkpoint}")
    # GSVA's base lies in the checkpoint now; other options are needed as before.
    options = "".join(f" --option {key}={value}" for key, value in config.options.items() if key != "base")
    command = f"instructseg segment IMAGE 'WHAT TO FIND' --out found --recipe {config.recipe}"
    print(f"next: {command} --checkpoint {checkpoint}{options}")
    return 0


def plan_of(arguments: argparse.Namespace) -> TrainingPlan:
    """The plan that the options, the file and --smoke make together. Raises BadInput."""
    values: dict[str, Any] = dict(SMOKE) if arguments.smoke else {}
    if arguments.config is not None:
        values |= read_config(arguments.config)
    given = vars(arguments)
    values |= {f.name: given[f.name] for f in dataclasses.fields(TrainingPlan) if f.name in given}
    return TrainingPlan.from_dict(values)


def read_config(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file. Raises BadInput naming the file."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"--config {path} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise BadInput(f"--config {path} must hold lines of the form 'key: value'; got {type(values).__name__}")
    try:
        TrainingPlan.from_dict({"flat_episodes": 1} | values)
    except BadInput as error:
        raise BadInput(f"--config {path}: {error}") from None
    return values


def log_to(path: Path, quiet: bool = False) -> None:
    """Log lines with time stamps to the terminal and, appended, to a file. quiet: warnings alone, to the file."""
    handlers: list[logging.Handler] = [logging.FileHandler(path, encoding="utf-8")]
    logging.basicConfig(
        level=logging.WARNING if quiet else logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        handlers=handlers if quiet else [logging.StreamHandler(), *handlers],
        force=True,
    )
