"""The benchmark ``tabletop2``: the scenes and questions of each split, and a fingerprint by which they are known.

``written.yaml`` holds the instructions of the split ``written``, made by hand for its pictures.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import yaml

from ...core import BadInput
from .. import scene
from ..instructions import Slot
from ..tabletop_spec import camera_pose, position
from .absent import IMITATES
from .questions import KINDS, Asked, ask_world
from .things import AXES
from .world import TIMES, World, draw_world

WRITTEN = Path(__file__).with_name("written.yaml")
# Scenes of each split that is evaluated; training draws as many of "train" as it wants.
SIZES: dict[str, int] = {"val": 100, **dict.fromkeys(AXES, 60), "held_out": 200, "written": 42}


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """One scene and what is asked about it."""

    world: World
    questions: tuple[Asked, ...]


def draw_case(split: str, index: int) -> Case:
    """Scene ``index`` of a split with its questions. Raises BadInput for another split, or beyond ``written``'s end."""
    if split == "written" and not 0 <= index < SIZES["written"]:
        raise BadInput(f"the split written has the scenes 0 to {SIZES['written'] - 1}; got {index}")
    world = draw_world(split, index)
    questions = written_questions(world) if split == "written" else ask_world(world)
    return Case(world, tuple(questions))


def size_of(split: str, wanted: int | None = None) -> int:
    """How many scenes to evaluate: all of the split, or ``wanted`` of it. Raises BadInput for more than it has."""
    if split not in SIZES:
        raise BadInput(f"tabletop2 is evaluated on the splits {', '.join(SIZES)}; got {split!r}")
    if wanted is not None and not 1 <= wanted <= SIZES[split]:
        raise BadInput(
            f"the split {split} of tabletop2 has {SIZES[split]} scenes; got {wanted}: ask for 1 to {SIZES[split]}"
        )
    return wanted or SIZES[split]


def written_questions(world: World) -> list[Asked]:
    """The instructions written by hand for a scene of the split ``written``."""
    rows = read_written(WRITTEN).get(world.index, [])
    known = {item.id for item in world.objects if item.shape != scene.CLUTTER}
    questions = []
    for kind, answers, text in rows:
        name, _, detail = kind.partition("/")
        slots = tuple(Slot(frozenset(ids), frozenset(ids)) for ids in answers)
        if not frozenset().union(*(slot.targets for slot in slots)) <= known:
            raise BadInput(
                f"{WRITTEN.name}, scene {world.index}: {text!r} answers {answers}; things are {sorted(known)}"
            )
        questions.append(Asked(text, slots, name, detail, IMITATES.get(detail, detail) if detail else name))
    return questions


@functools.cache
def read_written(path: Path) -> dict[int, list[tuple[str, list[list[int]], str]]]:
    """The file of instructions: scene -> (type, answers, text). Raises BadInput naming the file and the entry."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise BadInput(f"{path} must map scene numbers to lists of instructions; got {type(content).__name__}")
    return {_scene_number(path, key): [_row(path, key, row) for row in _rows(path, key, rows)]
            for key, rows in content.items()}  # fmt: skip


def _rows(path: Path, key: Any, rows: Any) -> list:
    if rows is not None and not isinstance(rows, list):
        raise BadInput(f"{path}, scene {key}: must be a list of instructions; got {rows!r}")
    return rows or []


def _scene_number(path: Path, key: Any) -> int:
    if isinstance(key, bool) or not isinstance(key, int) or key < 0:
        raise BadInput(f"{path}: scene numbers must be whole numbers of at least 0; got {key!r}")
    return key


def _row(path: Path, key: int, row: Any) -> tuple[str, list[list[int]], str]:
    well = isinstance(row, list) and len(row) == 3 and isinstance(row[0], str) and isinstance(row[2], str) and row[2]
    well = well and row[0].partition("/")[0] in KINDS and isinstance(row[1], list) and row[1]
    well = well and all(isinstance(ids, list) and all(type(number) is int for number in ids) for ids in row[1])
    if not well or (row[0].startswith("absent") and any(row[1])):
        raise BadInput(
            f"{path}, scene {key}: {row!r} must be [type, list of lists of ids, text]; types are {', '.join(KINDS)}, "
            "and what is absent has no ids"
        )
    return tuple(row)


def fingerprint(split: str, count: int) -> str:
    """SHA-256 over the first ``count`` scenes and their questions as descriptions: the same on every machine.

    Pixels are left out: they differ between graphics drivers. Lengths are rounded to 0.1 mm.
    """
    digest = hashlib.sha256()
    for index in range(count):
        digest.update(json.dumps(describe(draw_case(split, index)), sort_keys=True).encode())
    return digest.hexdigest()


def describe(case: Case) -> dict[str, Any]:
    """Everything that a scene and its questions depend on, as plain values."""
    world = case.world
    things = [
        [item.object.id, item.thing, item.object.color, item.object.size, item.texture, item.gloss, _round(item.rgb)]
        + [_round(position(item.waypoints, t)) for t in TIMES]
        for item in world.spec.objects
    ]
    cameras = [[_round(part) for part in camera_pose(world.spec, t)[:2]] for t in TIMES]
    return {
        "scene": [world.split, world.index, world.theme, _round([world.spec.fovy]), world.spec.table.texture],
        "things": things,
        "cameras": cameras,
        "supports": sorted([item, *carried] for item, carried in world.supports.items()),
        "events": [[event.kind, event.id, *_round([event.start, event.stop])] for event in world.events],
        "questions": [[q.text, q.kind, q.detail, [sorted(slot.targets) for slot in q.slots]] for q in case.questions],
    }


def _round(values: Any) -> list[float]:
    return [round(float(value), 4) + 0.0 for value in values]  # no negative zero
