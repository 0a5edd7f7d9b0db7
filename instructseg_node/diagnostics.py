"""What ``/diagnostics`` says: the stream in figures, and the state of every instruction."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import psutil
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from instructseg.core import State
from instructseg.streaming import EngineStatistics, InstructionStatus

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


@dataclasses.dataclass(frozen=True)
class Health:
    """What the node knows beyond the engine's figures.

    phase: lifecycle state. failure: why the last transition failed, or "". silent: seconds without an image of every
    camera that is overdue. new_faults: exceptions in the model since the last report. notes: what the user must know of
    the checkpoint. spatial: figures of the 3-D outputs.
    """

    phase: str
    recipe: str = ""
    device: str = ""
    failure: str = ""
    enabled: bool = True
    silent: Mapping[str, float] = dataclasses.field(default_factory=dict)
    new_faults: int = 0
    notes: tuple[str, ...] = ()
    spatial: Mapping[str, object] = dataclasses.field(default_factory=dict)


def report(name: str, health: Health, statistics: EngineStatistics | None) -> DiagnosticArray:
    """The whole report, without a stamp. name: the node's; statistics: None while there is no engine."""
    array = DiagnosticArray(status=[stream_status(name, health, statistics)])
    if statistics is not None:
        array.status += [instruction_status(name, status) for status in statistics.instructions]
    return array


def stream_status(name: str, health: Health, statistics: EngineStatistics | None) -> DiagnosticStatus:
    """The status of the node as a whole."""
    level, message = _judge(health, statistics)
    status = DiagnosticStatus(level=level, name=f"{name}: stream", message=message, hardware_id=health.device)
    values: dict[str, object] = {
        "lifecycle": health.phase,
        "recipe": health.recipe,
        "device": health.device,
        "enabled": health.enabled,
        "memory resident MB": f"{psutil.Process().memory_info().rss / 1e6:.1f}",
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
    if health.new_faults:
        return ERROR, f"{health.new_faults} model errors in the last second: {statistics.last_error}"
    if health.silent:
        overdue = ", ".join(f"{camera} for {seconds:.0f} s" for camera, seconds in health.silent.items())
        return STALE, f"no image from {overdue}"
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
