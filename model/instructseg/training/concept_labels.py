"""What is true of a training scene's things, as labels of the scene concepts, and which concept a question asks for."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from ..data.instructions import Question, SceneFacts, Slot
from ..data.tabletop2.absent import AbsentWriter
from ..data.tabletop2.facts import WorldFacts
from ..data.tabletop2.questions import Asked, Questioner
from ..modules.relational_mask_head import CHOICE
from ..modules.scene_concepts import DOINGS, ORDERS, RELATIONS

IDS = 32  # object ids below this have labels
UNKNOWN = -1  # a person could argue, or nobody knows
_PLAIN = ("attribute", "use", "several", "returns", "plural", "union")  # nothing but noun phrases


@dataclasses.dataclass(frozen=True, eq=False)
class ConceptLabels:
    """Of one scene, by object id: 1, 0 or :data:`UNKNOWN`, int8. Id 0 is no object."""

    relations: np.ndarray  # (IDS, IDS, RELATIONS)
    orders: np.ndarray  # (IDS, IDS, ORDERS)
    doings: np.ndarray  # (IDS, DOINGS)


def concept_labels(facts: SceneFacts | WorldFacts) -> ConceptLabels:
    """Everything that the facts know about the key frame's things."""
    shapes = (IDS, IDS, len(RELATIONS)), (IDS, IDS, len(ORDERS)), (IDS, len(DOINGS))
    labels = ConceptLabels(*(np.full(shape, UNKNOWN, np.int8) for shape in shapes))
    ids = [o.id for o in facts.objects if o.id < IDS]
    old = isinstance(facts, SceneFacts)
    known = ("left", "right", "front", "behind", "near") if old else RELATIONS
    for a, b in itertools.permutations(ids, 2):
        for name in known:
            verdict = facts.relation(a, b, name) if name in _NOW else Questioner.changed(facts, a, b, name)
            if verdict is not None:
                labels.relations[a, b, RELATIONS.index(name)] = verdict
    before = _orders_of_pictures(facts, ids) if old else _orders(facts, ids)
    for name, pairs in before.items():
        for a, b in pairs:  # a comes before b for sure
            labels.orders[a, b, ORDERS.index(name)], labels.orders[b, a, ORDERS.index(name)] = 1, 0
    for column, name in enumerate(DOINGS):
        for number in ids:
            doing = _doing_in_picture(facts, number, name) if old else _doing(facts, number, name)
            if doing is not None:
                labels.doings[number, column] = doing
    return labels


def choice_of(question: Question, slot: Slot, facts: SceneFacts | WorldFacts) -> int:
    """Column of ``relational_mask_head.CHOICES`` that a slot of this question needs; UNKNOWN where it is not told."""
    kind, detail = question.kind, question.detail if isinstance(question, Asked) else ""
    if kind in _PLAIN or (kind == "absent" and detail in ("attribute", "class", "look_alike")):
        return CHOICE["none", "", 0]
    if not isinstance(question, Asked) or kind == "absent":
        return UNKNOWN
    if kind == "negation":
        return CHOICE["without", "", 0]
    if detail == "between":
        return CHOICE["between", "", 0]
    if kind == "ordinal":
        (target,) = slot.targets
        return CHOICE["order", detail, facts.ranked(slot.candidates, detail).index(target)]
    column = next((CHOICE[group, detail, 0] for group in _GROUPS[kind] if (group, detail, 0) in CHOICE), None)
    return UNKNOWN if column is None else column


_NOW = ("left", "right", "front", "behind", "near", "far", "on", "in")
_GROUPS = {
    "superlative": ("order",), "relation": ("relation",), "motion": ("doing", "order"),
    "comparison": ("relation", "order", "doing"),
}  # fmt: skip


def _orders(facts: WorldFacts, ids: list[int]) -> dict[str, list[tuple[int, int]]]:
    """Pairs of which the first comes before the second, for every order."""
    x = {i: facts.now.image[i][0] for i in ids if i in facts.now.image}
    depth = {i: facts.now.ground[i][1] for i in ids}
    bulk = {i: facts.radius[i] ** 2 * facts.height[i] for i in ids}
    way = {i: facts.travelled(i) for i in ids}
    start = {i: facts.events[i].start for i in ids if i in facts.events}
    pairs = list(itertools.permutations(ids, 2))
    return {
        "left": [(a, b) for a, b in pairs if a in x and b in x and x[a] < x[b] - 0.02],
        "front": [(a, b) for a, b in pairs if depth[a] < depth[b] - 0.02],
        "biggest": [(a, b) for a, b in pairs if bulk[a] > 1.5 * bulk[b] and facts.area[a] > facts.area[b]],
        "tallest": [(a, b) for a, b in pairs if facts.height[a] > 1.25 * facts.height[b]],
        "moved_most": [(a, b) for a, b in pairs if way[a] > 0.03 and way[a] > 1.5 * way[b]],
        "first": [(a, b) for a, b in pairs if {a, b} <= start.keys() and start[a] < start[b] - 0.35],
        "last": [(a, b) for a, b in pairs if {a, b} <= start.keys() and start[a] > start[b] + 0.35],
    }


def _orders_of_pictures(facts: SceneFacts, ids: list[int]) -> dict[str, list[tuple[int, int]]]:
    """The same for version 1, whose orders are those of the picture."""
    place = facts.place
    pairs = list(itertools.permutations(ids, 2))
    return {
        "left": [(a, b) for a, b in pairs if place[a][0] < place[b][0] - 0.02],
        "front": [(a, b) for a, b in pairs if place[a][2] > place[b][2] + 0.02],
        "biggest": [(a, b) for a, b in pairs if 0.78 * place[a][3] > place[b][3]],
    }


def _doing(facts: WorldFacts, number: int, name: str) -> bool | None:
    alone = frozenset({number})
    found = Questioner.moved(facts, alone, name) if name == "displaced" else AbsentWriter.doing(facts, alone, name)
    return None if found is None else bool(found)


def _doing_in_picture(facts: SceneFacts, number: int, name: str) -> bool | None:
    if name not in ("any", "left", "right", "toward", "away"):
        return None
    return facts.motion[number] != "still" if name == "any" else facts.motion[number] == name
