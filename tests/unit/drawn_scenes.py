"""Scenes drawn as rectangles that move, with exact masks, and an owner who watches the engine look at them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from unit.fakes import COLOURS, SECOND

from instructseg.core import Frame, Instruction, Segmenter, State
from instructseg.evaluation.simulated_stream import SimulatedStream
from instructseg.evaluation.timed_segmenter import Charges
from instructseg.streaming import EngineConfig, FrameResult, RejectionEvent
from instructseg.tracking.types import TargetState

HEIGHT, WIDTH = 64, 320


@dataclasses.dataclass(frozen=True)
class Thing:
    """A rectangle. left: its left edge in pixels at a time in seconds, None while it is not there."""

    colour: str
    left: Callable[[float], float | None]
    top: int = 24
    width: int = 16
    height: int = 16


class DrawnScene:
    """Things on grey ground; later ones cover earlier ones."""

    def __init__(self, **things: Thing) -> None:
        self.things = things

    def draw(self, seconds: float) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The picture (H, W, 3) uint8 and the visible pixels (H, W) bool of every thing."""
        image, ids = np.full((HEIGHT, WIDTH, 3), 127, np.uint8), np.zeros((HEIGHT, WIDTH), int)
        for number, thing in enumerate(self.things.values(), start=1):
            left = thing.left(seconds)
            if left is not None:
                x0, x1 = (int(np.clip(round(edge), 0, WIDTH)) for edge in (left, left + thing.width))
                area = (slice(thing.top, thing.top + thing.height), slice(x0, x1))
                image[area], ids[area] = COLOURS.get(thing.colour, (0, 0, 0)), number
        return image, {name: ids == number for number, name in enumerate(self.things, start=1)}

    def frame(self, seconds: float) -> Frame:
        return Frame(self.draw(seconds)[0], round(seconds * SECOND))


@dataclasses.dataclass(frozen=True, eq=False)
class Sight:
    """One target of one result: when it was published, and of which frame."""

    when: float
    stamp: float
    target: TargetState

    @property
    def state(self) -> State:
        return self.target.state


class Watcher:
    """A camera on a scene, the engine on simulated time, and everything it publishes.

    step_s, ground_s: what a call takes. Frames come at ``rate`` from 0 to ``until`` seconds.
    """

    def __init__(
        self,
        scene: DrawnScene,
        segmenter: Segmenter,
        until: float,
        rate: float = 20.0,
        step_s: float = 0.002,
        ground_s: float = 0.0,
        **config,
    ) -> None:
        self.scene, self.rate, self.until = scene, rate, until
        self.keep: Callable[[float], bool] = lambda seconds: True  # whether the camera sends the frame of that time
        self.results: list[tuple[float, FrameResult]] = []
        self.events: list[RejectionEvent] = []
        self._events: list[RejectionEvent] = []
        self.stream = SimulatedStream(
            segmenter,
            EngineConfig(**config),
            Charges(step_s, ground_s),
            on_result=lambda result: self.results.append((self.stream.clock.now_ns / SECOND, result)),
            on_rejection=self._events.append,
        )
        self.engine = self.stream.engine

    def instruct(self, seconds: float, text: str, name: str = "a") -> None:
        instruction = Instruction(name, text)
        self.stream.at(round(seconds * SECOND), lambda: self.engine.add_instruction(instruction))

    def run(self) -> Watcher:
        with self.stream:
            times = [i / self.rate for i in range(round(self.until * self.rate) + 1)]
            for seconds in filter(self.keep, times):
                self.stream.show(self.scene.frame(seconds))
            self.stream.run(round((self.until + 0.01) * SECOND))
            self.statistics = self.engine.statistics()
            self.events = list(self._events)  # before the engine is stopped, which makes everything stale
        return self

    def sights(self, name: str = "a", slot: int = 0) -> list[Sight]:
        """What was published about one slot of an instruction, oldest first."""
        found = []
        for when, result in self.results:
            targets = [target for target in result.targets if target.instruction.id == name]
            if slot < len(targets):
                found.append(Sight(when, result.frame.stamp_ns / SECOND, targets[slot]))
        return found

    def states(self, name: str = "a") -> list[State]:
        """The states of the first slot in their order, each once per stay."""
        order = [sight.state for sight in self.sights(name)]
        return [state for i, state in enumerate(order) if i == 0 or state is not order[i - 1]]

    def first_mask(self, name: str = "a") -> Sight:
        return next(sight for sight in self.sights(name) if sight.target.mask is not None)

    def shows(self, sight: Sight, thing: str) -> bool:
        """Whether the mask is exactly the visible part of the thing, on the frame of its header."""
        return np.array_equal(sight.target.mask, self.scene.draw(sight.stamp)[1][thing])
