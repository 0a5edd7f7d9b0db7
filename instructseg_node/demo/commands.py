"""The command list of the demo recording, and what is expected of every command over time."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from instructseg.core import BadInput

CLEAR_SHARE = (
    0.3  # of an object's largest area: from here on it is expected to be found; below, either verdict is right
)


@dataclasses.dataclass(frozen=True)
class DemoCommand:
    """A command from ``start`` to ``end`` (seconds after the first image); targets: object names for each slot."""

    start: float
    end: float
    text: str
    kind: str
    targets: tuple[tuple[str, ...], ...]


def load(path: Path, names: Mapping[str, int], duration: float) -> tuple[DemoCommand, ...]:
    """Read and check a command file; :class:`BadInput` names the entry and what is wrong with it."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"demo commands: cannot read {path}: {error}") from error
    entries = content.get("commands") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise BadInput(f"demo commands: {path} needs a list 'commands' with at least one entry")
    starts = [_start(entry, f"{path}, command {i + 1}", duration) for i, entry in enumerate(entries)]
    if any(later <= earlier for earlier, later in itertools.pairwise(starts)):
        raise BadInput(f"demo commands: the times in {path} must ascend; got {starts}")
    ends = [*starts[1:], duration]
    return tuple(
        _command(entry, start, end, names, f"{path}, command {i + 1}")
        for i, (entry, start, end) in enumerate(zip(entries, starts, ends, strict=True))
    )


def expectations(
    commands: Sequence[DemoCommand], names: Mapping[str, int], times: np.ndarray, areas: np.ndarray
) -> list[dict[str, Any]]:
    """What is right for each command, ready for JSON.

    times: ``(T,)`` seconds of the images; areas: ``(T, 256)`` pixels of every instance id in each image. Every slot
    gets windows with a verdict: ``present``, ``absent`` (no pixel, or nothing like it in the scene) or ``either``
    (just a sliver is in view).
    """
    largest = areas.max(axis=0)
    result = []
    for index, command in enumerate(commands):
        inside = np.flatnonzero((times >= command.start) & (times < command.end))
        slots = []
        for objects in command.targets:
            ids = [names[name] for name in objects]
            seen, full = areas[np.ix_(inside, ids)].sum(axis=1), largest[ids].sum()
            verdicts = np.where(seen == 0, "absent", np.where(seen >= CLEAR_SHARE * full, "present", "either"))
            windows = _windows(times[inside], verdicts, command.end)
            slots.append({"objects": list(objects), "instance_ids": ids, "windows": windows})
        facts = {"index": index, "text": command.text, "kind": command.kind, "start": command.start, "end": command.end}
        result.append({**facts, "slots": slots})
    return result


def _start(entry: Any, place: str, duration: float) -> float:
    time = entry.get("time") if isinstance(entry, dict) else None
    if isinstance(time, bool) or not isinstance(time, (int, float)) or not 0 <= time < duration:
        raise BadInput(f"demo commands: {place}: 'time' must be seconds in [0, {duration}); got {time!r}")
    return float(time)


def _command(entry: dict, start: float, end: float, names: Mapping[str, int], place: str) -> DemoCommand:
    text, kind, targets = entry.get("text"), entry.get("kind", ""), entry.get("targets")
    if not isinstance(text, str) or not text.strip():
        raise BadInput(f"demo commands: {place}: 'text' must be a sentence; got {text!r}")
    if not isinstance(targets, list) or not targets or not all(isinstance(slot, list) for slot in targets):
        raise BadInput(f"demo commands: {place}: 'targets' must be a list of lists of object names; got {targets!r}")
    unknown = [name for slot in targets for name in slot if name not in names]
    if unknown:
        raise BadInput(f"demo commands: {place}: no object {unknown[0]!r} in the scene; there are {', '.join(names)}")
    return DemoCommand(start, end, text, str(kind), tuple(tuple(slot) for slot in targets))


def _windows(times: np.ndarray, verdicts: np.ndarray, end: float) -> list[dict[str, Any]]:
    """Runs of equal verdicts; each ends where the next begins."""
    if not len(times):
        return []
    starts = [0, *(np.flatnonzero(verdicts[1:] != verdicts[:-1]) + 1).tolist()]
    ends = [*(float(times[i]) for i in starts[1:]), end]
    return [
        {"start": round(float(times[i]), 3), "end": round(stop, 3), "verdict": str(verdicts[i])}
        for i, stop in zip(starts, ends, strict=True)
    ]
