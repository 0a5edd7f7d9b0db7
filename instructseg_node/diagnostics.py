"""What ``/diagnostics`` says once a second: the stream in figures, and the state of every instruction.

Level of the stream, the first of these that holds:

    ERROR  the last transition failed
    OK     the node is not active
    ERROR  a step of the model has raised since the last report
    STALE  a camera has sent nothing for longer than ``camera_timeout``
    WARN   something that came in since the last report could not be used
    WARN   results are older than ``max_age``, and something is being done without
    OK     everything else, also a node that ``~/enable`` has switched off

Level of an instruction: OK for GROUNDING, PRESENT and OCCLUDED; WARN for UNCERTAIN, LOST and NO_TARGET; STALE; ERROR.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import psutil
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from instructseg.core import State
from instructseg.streaming import EngineStatistics, InstructionStatus

from .device import hardware_name, memory_figures

OK, WARN, ERROR, STALE = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR, DiagnosticStatus.STALE

_LEVELS = {
    State.GROUNDING: OK,
    State.PRESENT: OK,
    State.OCCLUDED: OK,
    State.UNCERTAIN: WARN,
    State.LOST: WARN,
    State.NO_TARGET: WARN,
    State.STALE: STALE,
    State.ERROR: ERROR,
}


# Frames are left out for these reasons on purpose, or because a newer one was there; the others are trouble.
_ORDINARY_DROPS = frozenset(
    {"replaced", "rate_limit", "degraded", "reset", "paused", "stopped", "not_running", "fault"}
)


@dataclasses.dataclass(frozen=True)
class News:
    """What has happened since the last report: exceptions in the model, and by cause what came in and could not be
    used."""

    faults: int = 0
    refused: Mapping[str, int] = dataclasses.field(default_factory=dict)


class Newsreader:
    """Compares the counters of one engine from report to report; made anew with every engine."""

    def __init__(self) -> None:
        self._faults = 0
        self._drops: Mapping[str, int] = {}

    def read(self, statistics: EngineStatistics | None) -> News:
        """What is new since the last call."""
        if statistics is None:
            return News()
        faults, drops = sum(statistics.faults.values()), statistics.drops
        more = {cause: count - self._drops.get(cause, 0) for cause, count in sorted(drops.items())}
        refused = {cause: count for cause, count in more.items() if count > 0 and cause not in _ORDINARY_DROPS}
        news = News(faults - self._faults, refused)
        self._faults, self._drops = faults, drops
        return news


@dataclasses.dataclass(frozen=True)
class Health:
    """What the node knows beyond the engine's figures.

    phase: lifecycle state. failure: why the last transition failed, or "". silent: seconds without an image of every
    camera that is overdue. news: what has happened since the last report. notes: what the user must know of the
    checkpoint. spatial: figures of the 3-D outputs. waiting: goals and questions that are not answered yet.
    last_refusal: why a goal was last rejected, or "".
    """

    phase: str
    recipe: str = ""
    device: str = ""
    failure: str = ""
    enabled: bool = True
    silent: Mapping[str, float] = dataclasses.field(default_factory=dict)
    news: News = News()
    notes: tuple[str, ...] = ()
    spatial: Mapping[str, object] = dataclasses.field(default_factory=dict)
    waiting: Mapping[str, int] = dataclasses.field(default_factory=dict)
    last_refusal: str = ""


def report(name: str, health: Health, statistics: EngineStatistics | None) -> DiagnosticArray:
    """The whole report, without a stamp. name: the node's; statistics: None while there is no engine."""
    array = DiagnosticArray(status=[stream_status(name, health, statistics)])
    if statistics is not None:
        array.status += [instruction_status(name, status) for status in statistics.instructions]
    return array


def stream_status(name: str, health: Health, statistics: EngineStatistics | None) -> DiagnosticStatus:
    """The status of the node as a whole."""
    level, message = _judge(health, statistics)
    hardware = hardware_name(health.device)
    status = DiagnosticStatus(level=level, name=f"{name}: stream", message=message, hardware_id=hardware)
    values: dict[str, object] = {
        "lifecycle": health.phase,
        "recipe": health.recipe,
        "device": health.device,
        "enabled": health.enabled,
        "memory resident MB": f"{psutil.Process().memory_info().rss / 1e6:.1f}",
        **memory_figures(health.device),
        **health.waiting,
        "last refused goal": health.last_refusal,
    }
    if statistics is not None:
        values |= _figures(statistics)
    values |= {f"seconds without image {camera}": f"{seconds:.1f}" for camera, seconds in health.silent.items()}
    values |= health.spatial
    values |= {f"note {number}": note for number, note in enumerate(health.notes, 1)}
    values["last error"] = health.failure or (statistics.last_error if statistics else "")
    status.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    return status


def instruction_status(name: str, status: InstructionStatus) -> DiagnosticStatus:
    """The status of one instruction: its state as the level, the reason in words."""
    state = status.state.name + (f": {status.reason}" if status.reason else "")
    values = {
        "text": status.instruction.text,
        "state": status.state.name,
        "targets": status.live,
        "score": f"{status.score:.3f}",
        "rejection score": f"{status.rejection_score:.3f}",
        "class id": status.instruction.class_id,
    }
    return DiagnosticStatus(
        level=_LEVELS[status.state],
        name=f"{name}: instruction {status.instruction.id}",
        message=state,
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )


def _judge(health: Health, statistics: EngineStatistics | None) -> tuple[bytes, str]:
    if health.failure:
        return ERROR, health.failure
    if health.phase != "active":
        return OK, health.phase
    if health.news.faults:
        return ERROR, f"{health.news.faults} model errors in the last second: {statistics.last_error}"
    if health.silent:
        overdue = ", ".join(f"{camera} for {seconds:.0f} s" for camera, seconds in health.silent.items())
        return STALE, f"no image from {overdue}"
    if health.news.refused:
        causes = ", ".join(f"{count} {cause}" for cause, count in health.news.refused.items())
        return WARN, f"active, could not be used in the last second: {causes}"
    if health.enabled and statistics is not None and statistics.degradation:
        age = f"age p95 {statistics.age_p95 * 1e3:.0f} ms"
        return WARN, f"active, too slow for max_age ({age}): {', '.join(statistics.degradation)}"
    return OK, "active" if health.enabled else "active, disabled by ~/enable"


def _figures(statistics: EngineStatistics) -> dict[str, str]:
    figures = {
        "frames in": f"{statistics.frames_in}",
        "frames out": f"{statistics.frames_out}",
        "rate in Hz": f"{statistics.rate_in:.2f}",
        "rate out Hz": f"{statistics.rate_out:.2f}",
        "age p50 ms": f"{statistics.age_p50 * 1e3:.1f}",
        "age p95 ms": f"{statistics.age_p95 * 1e3:.1f}",
        "age p99 ms": f"{statistics.age_p99 * 1e3:.1f}",
        "degradation": ", ".join(statistics.degradation) or "none",
        "memory buffered images MB": f"{statistics.memory['buffered_images'] / 1e6:.1f}",
        "instructions": f"{len(statistics.instructions)}",
    }
    groups = {
        "dropped": statistics.drops,
        "reset": statistics.resets,
        "groundings": statistics.groundings,
        "asked": statistics.asked,
        "faults": statistics.faults,
        "queue": statistics.queue_depths,
    }
    for group, counts in groups.items():
        figures |= {f"{group} {cause}": str(count) for cause, count in sorted(counts.items())}
    for step, seconds in sorted(statistics.durations.items()):
        figures[f"median {step.removesuffix('_s')} ms"] = f"{seconds * 1e3:.1f}"
    return figures
