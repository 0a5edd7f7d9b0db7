"""Does the default recipe tell a thing from one like it? In rendered scenes a thing is followed for half a second, is
gone for a while, and then stands there again, or another one does: of another tone of its colour, another size, another
colour. Counted is how often the recipe's ``likeness`` and its old token take what came for the thing that went.

A twin of the same shape, size and tone gives the very same picture as the thing itself: what is counted for the thing
holds for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from instructseg.core import Clip, EncodedFrame, Frame, Instruction, Segmenter
from instructseg.data import scene, tabletop_layout
from instructseg.data.tabletop import CameraKey, PlacedObject, SceneSpec, Tabletop, Waypoint
from instructseg.data.tabletop_spec import position
from instructseg.evaluation.tabletop import mask_iou

from .figures import Figure, figure
from .options import Options

RATE = 10.0
FOLLOWED = 5  # frames
AWAY_S = (0.3, 1.5, 4.0)
SIZE = (256, 192)
KINDS = ("itself", "another tone", "another size", "another colour")
ALIKE = 0.5  # as the engine judges
SEEN = 0.4


def measure(options: Options) -> tuple[list[Figure], dict[str, Any]]:
    segmenter, wanted, rows = options.load(), options.repetitions(60, 1), []
    table, rng = Tabletop(*SIZE), np.random.default_rng(11)
    try:
        scenes = 0
        while scenes < wanted:
            trial = Trial.draw(table, segmenter, rng)
            if trial is None:
                continue
            rows += list(trial.rows(rng))
            scenes += 1
            if scenes % 10 == 0:
                options.say(f"{scenes} of {wanted} scenes")
    finally:
        table.close()
    figures = []
    for kind in KINDS:
        for where in ("where it was", "elsewhere"):
            chosen = [row for row in rows if (row.kind, row.where) == (kind, where)]
            if chosen:
                name = f"{kind}, {where}"
                share = 100 * np.mean([row.likeness >= ALIKE for row in chosen])
                figures.append(figure(f"{name}: likeness takes it for the thing", "%", float(share)))
                share = 100 * np.mean([row.seen for row in chosen])
                figures.append(figure(f"{name}: the old token sees it", "%", float(share)))
    return figures, {"scenes": wanted, "judged": len(rows), "seconds away": AWAY_S}


@dataclasses.dataclass(frozen=True)
class Row:
    """kind, where: what came, and where. likeness: of its own token and the old one. seen: by the old token."""

    kind: str
    where: str
    likeness: float
    seen: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Trial:
    """A scene without its thing, the thing, and the token that has followed it."""

    table: Tabletop
    segmenter: Segmenter
    room: SceneSpec
    thing: PlacedObject
    token: Any

    @staticmethod
    def draw(table: Tabletop, segmenter: Segmenter, rng: np.random.Generator) -> Trial | None:
        """None where the recipe does not find the thing to begin with, or nothing can be named."""
        spec = _still(tabletop_layout.draw_spec(rng, "held_out", np.arange(6) / RATE, 3, SIZE[0] / SIZE[1]))
        named = [placed for placed in spec.objects if placed.object.shape != scene.CLUTTER]
        thing = named[rng.integers(len(named))]
        if any(placed.thing == thing.thing for placed in spec.objects if placed is not thing):
            return None  # which of them its name means is not asked here
        room = dataclasses.replace(spec, objects=tuple(placed for placed in spec.objects if placed is not thing))
        trial = Trial(table, segmenter, room, thing, None)
        encoded, truth = trial.look(thing, 0.0, rng, 0.0)
        token = trial.ask(encoded, thing, truth)
        for step in range(1, FOLLOWED + 1):
            if token is None:
                return None
            encoded, truth = trial.look(thing, step / RATE, rng, 0.004)
            found = segmenter.segment(encoded, [token])[0]
            token = found.token if mask_iou(found.mask, truth) > 0.5 else None
        return dataclasses.replace(trial, token=token)

    def rows(self, rng: np.random.Generator) -> Iterator[Row]:
        others = {kind: _other(self.thing, kind, rng) for kind in KINDS}
        spots = {"where it was": self.thing.waypoints[0], "elsewhere": self._free_spot(rng)}
        for where, spot in spots.items():
            for away_s in AWAY_S if spot is not None else ():
                for kind, other in others.items():
                    placed = dataclasses.replace(other, waypoints=(spot._replace(yaw=rng.uniform(-3.0, 3.0)),))
                    encoded, truth = self.look(placed, FOLLOWED / RATE + away_s, rng, 0.01)
                    new = self.ask(encoded, placed, truth)
                    if new is not None:
                        seen = self.segmenter.segment(encoded, [self.token])[0]
                        its = seen.score >= SEEN and mask_iou(seen.mask, truth) > 0.3
                        yield Row(kind, where, self.segmenter.likeness(self.token, new), its)

    def look(
        self, thing: PlacedObject, seconds: float, rng: np.random.Generator, sway: float
    ) -> tuple[EncodedFrame, np.ndarray]:
        """The scene with the thing, seen from a place ``sway`` metres off, and the thing's pixels (H, W) bool."""
        camera = tuple(CameraKey(k.time, tuple(np.array(k.eye) + rng.normal(size=3) * sway), k.target, k.roll)
                       for k in self.room.camera)  # fmt: skip
        spec = dataclasses.replace(self.room, camera=camera, objects=(*self.room.objects, thing))
        image, ids, _ = self.table.render(spec, 0.0)
        return self.segmenter.encode([Frame(image, round(seconds * 1e9))])[0], ids == thing.object.id

    def ask(self, encoded: EncodedFrame, thing: PlacedObject, truth: np.ndarray) -> Any:
        """The token of the thing by its name; None where the recipe says it is not there, or means something else."""
        name = f"the {thing.object.size} {thing.object.color} {thing.object.shape}"
        (grounding,) = self.segmenter.ground(Clip((encoded,)), [Instruction("a", name)])
        token = grounding.targets[0].token
        if token is None or mask_iou(self.segmenter.segment(encoded, [token])[0].mask, truth) < 0.5:
            return None
        return token

    def _free_spot(self, rng: np.random.Generator) -> Waypoint | None:
        here = self.thing.waypoints[0]
        for _ in range(200):
            x, y = here.x + rng.uniform(-0.22, 0.22), here.y + rng.uniform(-0.18, 0.18)
            need = tabletop_layout.footprint(self.thing.thing, "large") + tabletop_layout.GAP
            free = all(
                np.hypot(x - o.waypoints[0].x, y - o.waypoints[0].y)
                > need + tabletop_layout.footprint(o.thing, o.object.size)
                for o in self.room.objects
            )
            if free and np.hypot(x - here.x, y - here.y) > 0.06:
                return here._replace(x=x, y=y)
        return None


def _still(spec: SceneSpec) -> SceneSpec:
    """The scene as it is at 0.3 s, for ever."""
    objects = [
        dataclasses.replace(placed, waypoints=(Waypoint(0.0, *position(placed.waypoints, 0.3)),))
        for placed in spec.objects
    ]
    return dataclasses.replace(spec, objects=tuple(objects))


def _other(thing: PlacedObject, kind: str, rng: np.random.Generator) -> PlacedObject:
    if kind == "another tone":
        return dataclasses.replace(thing, rgb=tabletop_layout.draw_rgb(rng, thing.object.color))
    if kind == "another size":
        size = "small" if thing.object.size == "large" else "large"
        return dataclasses.replace(thing, object=dataclasses.replace(thing.object, size=size))
    if kind == "another colour":
        color = str(rng.choice([name for name in scene.COLORS if name != thing.object.color]))
        described = dataclasses.replace(thing.object, color=color)
        return dataclasses.replace(thing, object=described, rgb=tabletop_layout.draw_rgb(rng, color))
    return thing
