"""One evaluation from its options: what is asked, of whom, by which process, and what has been answered so far."""

from __future__ import annotations

import argparse
import copy
import importlib.util
from collections.abc import Callable
from pathlib import Path

from ...core import BadInput, Segmenter
from ...data.benchmarks import benchmark, open_dataset
from ...data.samples import Benchmark, Dataset
from ...options import split_assignments
from ...registry import RECIPES
from ..timed_segmenter import Charges
from .archives import SERVERS, check_archive
from .groups import footage_groups, still_to_ask, whole_groups
from .joined import JoinedReferences
from .predictions import (
    Prediction,
    PredictionFile,
    RunDescription,
    check_not_newer,
    described_run,
    read_predictions,
)
from .protocol import Protocol, find_protocol
from .run import ASKED_TOGETHER, Answering, Offline, predict
from .scoring import Scores, find_metric, score
from .shards import Shard, Together, parse_shard
from .streaming import Streaming, check_streaming, streaming_settings

# What a run's settings hold beside the recipe's options.
_SETTINGS = ("rate", "dtype", "tracker", "tracker_weights", "anchor_period", "step_s", "ground_s")


class Evaluation:
    """arguments: as ``commands/evaluate_benchmark.py`` declares them. load: makes the model of such arguments, called
    only where something is left to ask; the second argument says whether its notes go to the log. Raises BadInput for
    what cannot be evaluated, before a model is loaded."""

    def __init__(self, arguments: argparse.Namespace, load: Callable[[argparse.Namespace, bool], Segmenter]) -> None:
        a = arguments
        self.arguments, self._load_segmenter = a, load
        self.row: Benchmark = benchmark(a.benchmark)
        self.has_truth = a.split in self.row.local
        _check_outputs(a, self.row, self.has_truth)
        self.machine = parse_shard(a.shard)
        self.folder = a.out or Path("out/eval") / "-".join((a.benchmark, a.split, a.recipe, a.protocol))
        self.streaming = a.protocol == "streaming"
        self.charges = Charges(*(None if ms is None else ms / 1e3 for ms in (a.step_ms, a.ground_ms)))
        kept = self._kept_run() if a.score else None
        self.own_options = split_assignments(a.option, "--option") if kept is None else self._options_of(kept)
        tracker = a.tracker if kept is None else kept.settings.get("tracker", "token")
        self.protocol = self._protocol(tracker != "token" or bool(self.own_options.get("tracker_checkpoint")))
        dataset = open_dataset(a.benchmark, a.root, a.split)
        self.dataset: Dataset = JoinedReferences(dataset) if self.protocol.joined else dataset
        count = whole_groups(self.dataset, a.limit)
        self.groups = footage_groups(self.dataset, count)
        self.indices = sorted(index for group in self.groups for index in group)
        self.run = self._run(count) if kept is None else kept
        if self.run.samples != count:
            raise BadInput(
                f"{self.folder} holds predictions about the first {self.run.samples} samples, asked for are "
                f"{count}; give the --limit of that run, or the same data"
            )
        self.together = Together(a.device)

    @property
    def is_last_word(self) -> bool:
        """Whether this process reports: the first one of an evaluation that is not one machine's share of it."""
        return self.together.is_main and self.machine.count == 1

    def ask(self) -> None:
        """This process's share of what has no answer yet."""
        if self.arguments.score:
            return
        checkpoint = self.arguments.checkpoint or _shipped(self.arguments.recipe)
        for weights in (checkpoint, self.arguments.tracker_checkpoint):
            check_not_newer(self.folder, weights)
        done = {
            index
            for index, prediction in read_predictions(self.folder, self.run).items()
            if not (prediction.error and self.arguments.retry)
        }
        shard = self.together.shard(self.machine)
        whole = self.protocol.together > 1
        todo = still_to_ask(self.groups, done, shard, len(self.indices), whole)
        if done and self.together.is_main:
            print(f"{len(done)} of {len(self.indices)} answers are in {self.folder} already")
        if todo:
            self._ask(todo, shard)
        self.together.wait()
        if self.together.is_main and self.machine.count > 1:
            print(
                f"shard {self.arguments.shard} is done: {self.folder}. When all shards are, and their files lie in one "
                "folder, the same command without --shard scores them"
            )

    def predictions(self) -> dict[int, Prediction]:
        return read_predictions(self.folder, self.run)

    def score(self, predictions: dict[int, Prediction]) -> Scores:
        metric = find_metric(self.row, self.protocol.fusion)
        return score(metric, self.dataset, self.groups, predictions, jobs=self.arguments.jobs)

    def close(self) -> None:
        self.together.close()

    def _ask(self, todo: list[list[int]], shard: Shard) -> None:
        segmenter = self._load()
        answering: Answering
        if self.streaming:
            answering = Streaming(segmenter, self.arguments.rate, self.charges)
        else:
            answering = Offline(segmenter, self.protocol, self.arguments.rate)
        at_once = max(ASKED_TOGETHER, self.protocol.together)
        # Opened when there is a model: a call with a wrong checkpoint leaves nothing behind.
        with PredictionFile(self.folder, self.run, (shard.index, shard.count)) as file:
            predict(answering, self.dataset, todo, file, at_once, progress=self.together.is_main)

    def _load(self) -> Segmenter:
        given = copy.copy(self.arguments)
        given.option = [f"{key}={value}" for key, value in (self.protocol.options | self.own_options).items()]
        given.device = self.together.device
        return self._load_segmenter(given, self.together.is_main)

    def _protocol(self, tracker: bool) -> Protocol:
        """The published one with the user's own options on top; a stream is asked as the recipe's defaults say."""
        if self.streaming:
            check_streaming(self.row)
            return Protocol("stream")
        return find_protocol(self.arguments.recipe, self.row, tracker).under(self.own_options)

    def _run(self, count: int) -> RunDescription:
        a = self.arguments
        settings = self.protocol.options | self.own_options | {"rate": f"{a.rate:g}", "dtype": a.dtype}
        if a.tracker != "token":
            settings |= {"tracker": a.tracker, "tracker_weights": str(a.tracker_checkpoint)}
            settings |= {"anchor_period": str(a.anchor_period)}
        if self.streaming:
            settings |= streaming_settings(a.rate, self.charges)
        checkpoint = a.checkpoint or "the recipe's own"
        return RunDescription(a.benchmark, a.split, count, a.recipe, checkpoint, a.protocol, settings)

    def _kept_run(self) -> RunDescription:
        """For --score: whoever it was that answered."""
        run, a = described_run(self.folder), self.arguments
        if run is None:
            raise BadInput(f"{self.folder} holds no predictions; leave out --score to make some")
        for name, wanted in (("benchmark", a.benchmark), ("split", a.split), ("protocol", a.protocol)):
            if getattr(run, name) != wanted:
                raise BadInput(
                    f"{self.folder} holds predictions about {run.benchmark} {run.split}, protocol {run.protocol}; "
                    f"asked for is {name} {wanted}"
                )
        if run.recipe != a.recipe:
            raise BadInput(f"{self.folder} holds predictions of {run.recipe}; give --recipe {run.recipe}")
        return run

    def _options_of(self, run: RunDescription) -> dict[str, str]:
        """What the user of a kept run had set otherwise than its protocol does."""
        given = {key: value for key, value in run.settings.items() if key not in _SETTINGS}
        if self.streaming:
            return given
        tracker = "tracker" in run.settings or bool(given.get("tracker_checkpoint"))
        published = find_protocol(run.recipe, self.row, tracker).options
        return {key: value for key, value in given.items() if published.get(key) != value}


def _shipped(recipe: str) -> Path | None:
    """Where the package has a recipe's own weights."""
    row = RECIPES.get(recipe)
    found = importlib.util.find_spec(row.module) if row is not None and row.shipped else None
    return None if found is None or found.origin is None else Path(found.origin).parent / "weights"


def _check_outputs(arguments: argparse.Namespace, row: Benchmark, has_truth: bool) -> None:
    """Before hours of work, not after."""
    a = arguments
    if a.score and parse_shard(a.shard).count > 1:
        raise BadInput(f"--score scores what all machines answered; leave out --shard {a.shard}")
    if a.archive is not None:
        check_archive(row.name, a.archive)
    if not has_truth and a.archive is None and a.rle is None:
        how = (
            "add --archive FILE.zip to make what the server takes"
            if row.name in SERVERS
            else "its masks can be had with --rle FILE.json"
        )
        local = f"; scored here are: {', '.join(row.local)}" if row.local else ""
        raise BadInput(f"the truth of {row.name} {a.split} is on its owners' server: {how}{local}")
    if not has_truth and a.pictures is not None:
        raise BadInput(f"--pictures shows the worst, but {row.name} {a.split} has no public truth to tell which")
    if a.protocol != "streaming" and (a.step_ms, a.ground_ms) != (None, None):
        raise BadInput("--step-ms and --ground-ms charge latency; add --protocol streaming")
    for name, folder in (("--out", a.out), ("--pictures", a.pictures)):
        if folder is not None and folder.exists() and not folder.is_dir():
            raise BadInput(f"{name} {folder} is a file; give a folder")
    if a.rle is not None and a.rle.is_dir():
        raise BadInput(f"--rle {a.rle} is a folder; give a file")
