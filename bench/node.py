"""The node over DDS: frames in, published and dropped, age of the masks, and what the node adds to the model's time.

Two processes on shared memory: the real node, and a camera that is also the listener. The added time is a ratio within
one run. By CPU (run with one torch thread, where the model's share can be told apart): everything the node's process
spends outside the model (receiving, conversion, engine, messages, timers, diagnostics) against encode + segment. By the
clock: engine and publishing on the thread that makes the masks, against encode + segment.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from instructseg.streaming.statistics import percentile
from instructseg_node import dds
from instructseg_node.replay.processes import Child, child_environment, describe_exit

from .figures import Figure, Floor, figure
from .options import MeasurementFailed, Options

ROOT = Path(__file__).resolve().parents[1]
FRAME_RATE = Floor("at least", 15.0, ">= 15 frames/s")
AGE = Floor("at most", 100.0, "median <= 100 ms")
ADDED = Floor("at most", 20.0, "<= 20 % of the model's time")
START_S, SETTLE_S = 180.0, 3.0


@dataclasses.dataclass(frozen=True)
class Run:
    """threads: of torch in the node; 0: as many as it takes by itself."""

    rate: float
    threads: int = 0

    @property
    def label(self) -> str:
        return f"{self.rate:g} Hz" + (f", {self.threads} thread" if self.threads else "")


RUNS = (Run(15.0), Run(30.0), Run(15.0, threads=1))


def measure(options: Options) -> tuple[list[Figure], dict[str, Any]]:
    figures, details = [], {}
    seconds = 20.0 if not options.quick else 5.0
    with tempfile.TemporaryDirectory(prefix="instructseg-bench-") as folder:
        for run in RUNS:
            options.say(f"{run.label}: starting the node")
            node, camera = stream(run, seconds, options, Path(folder))
            new, details[run.label] = evaluate(run, node, camera)
            figures += new
    return figures, details


def stream(run: Run, seconds: float, options: Options, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both processes from start to end; what they noted. Raises MeasurementFailed or RunFailed."""
    dds.use_profile("shm", domain_id=dds.own_domain_id())
    environment = child_environment(folder / "ros")
    if run.threads:
        environment["OMP_NUM_THREADS"] = str(run.threads)
    files = {name: folder / f"{name}.json" for name in ("node", "camera")}
    for file in files.values():
        file.unlink(missing_ok=True)
    parameters = ["-p", "autostart:=true", "-p", "device:=cpu"]
    if options.checkpoint:
        parameters += ["-p", f"checkpoint:={Path(options.checkpoint).resolve()}"]
    commands = {
        "node": ["bench.node_process", str(files["node"]), "--ros-args", *parameters],
        "camera": ["bench.camera", str(files["camera"]), *map(str, (run.rate, seconds, SETTLE_S, START_S))],
    }
    with ExitStack() as stack:
        children = {
            name: stack.enter_context(
                Child(name, [sys.executable, "-m", *command], folder / f"{name}.log", environment, ROOT)
            )
            for name, command in commands.items()
        }
        node, camera = children["node"], children["camera"]
        deadline = time.monotonic() + START_S + 3 * (SETTLE_S + seconds) + 30.0
        while camera.exit_code is None:
            time.sleep(0.1)
            if node.exit_code is not None:
                raise node.failure(describe_exit(node.exit_code))
            if time.monotonic() > deadline:
                raise camera.failure("did not end in time")
        if camera.exit_code:
            raise MeasurementFailed(f"{camera.failure(describe_exit(camera.exit_code))}\n{node.failure('was running')}")
        code = node.stop(30.0)
        if code:
            raise node.failure(describe_exit(code))
    return tuple(json.loads(files[name].read_text(encoding="utf-8")) for name in ("node", "camera"))


def evaluate(run: Run, node: dict[str, Any], camera: dict[str, Any]) -> tuple[list[Figure], dict[str, Any]]:
    """Figures from the notes of both processes; what came while the node settled does not count."""
    sent = camera["sent_ns"]
    begin = sent[0] + round(SETTLE_S * 1e9)
    counted = [stamp for stamp in sent if stamp >= begin]
    rows = [row for row in node["rows"] if row["stamp_ns"] >= begin]
    arrived = [age for stamp, age in camera["arrivals"] if stamp >= begin]
    if len(rows) < 2 or not arrived:
        raise MeasurementFailed(f"{run.label}: the node published {len(rows)} frames, {len(arrived)} masks arrived")
    statistics, label = node["statistics"], run.label
    drops = {"before the node": len(sent) - statistics["frames_in"], **statistics["drops"]}
    rate = len(rows) / (len(counted) / run.rate)
    fast = run.rate > FRAME_RATE.limit and not run.threads
    figures = [
        figure(f"{label}: published", "frames/s", rate, FRAME_RATE if fast else None),
        figure(f"{label}: dropped", "frames", sum(drops.values())),
        figure(f"{label}: encode + segment", "ms", [row["model_s"] * 1e3 for row in rows]),
        *ages(f"{label}: age at publication", [row["age_s"] for row in rows], None),
        *ages(f"{label}: age at arrival", arrived, AGE if not run.threads else None),
        figure(f"{label}: added by the clock", "%", added_wall(rows), ADDED),
    ]
    if node["torch_threads"] == 1:
        figures.append(figure(f"{label}: added CPU", "%", added_cpu(rows), ADDED))
    details = {
        "torch_threads": node["torch_threads"],
        "sent": len(sent),
        "in": statistics["frames_in"],
        "published": statistics["frames_out"],
        "drops": drops,
        "groundings": statistics["groundings"],
        "faults": statistics["faults"],
        "frames_counted": len(rows),
        "lists_with_a_present_target": camera["present"],
        "engine_ms_median": percentile([row["engine_s"] * 1e3 for row in rows], 0.5),
        "publish_ms_median": percentile([row["publish_s"] * 1e3 for row in rows], 0.5),
        "process_cpu_ms_per_frame": 1e3 * _grown(rows, "process_cpu_s") / (len(rows) - 1),
        "model_cpu_ms_per_frame": 1e3 * _grown(rows, "model_cpu_s") / (len(rows) - 1),
    }
    return figures, details


def ages(name: str, seconds: Sequence[float], floor: Floor | None) -> list[Figure]:
    """p50, p95 and p99 in milliseconds; the floor belongs to the median."""
    return [
        figure(f"{name}, p{percent}", "ms", percentile(seconds, percent / 100) * 1e3, floor if percent == 50 else None)
        for percent in (50, 95, 99)
    ]


def added_wall(rows: Sequence[dict[str, float]]) -> float:
    """Percent of the model's time that engine and publishing take on the thread of the masks."""
    return 100.0 * sum(row["engine_s"] + row["publish_s"] for row in rows) / sum(row["model_s"] for row in rows)


def added_cpu(rows: Sequence[dict[str, float]]) -> float:
    """Percent of encode + segment that the process spends outside the model. Valid for one torch thread only."""
    model = _grown(rows, "model_cpu_s")
    return 100.0 * (_grown(rows, "process_cpu_s") - _grown(rows, "ground_cpu_s") - model) / model


def _grown(rows: Sequence[dict[str, float]], name: str) -> float:
    return rows[-1][name] - rows[0][name]
