"""A segmenter that works on plain colours, so that the streaming engine can be tested without a network.

The text "red" asks for the red pixels; a token is a colour. Each step can be slowed down, held back or made to raise.
"""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from hypothesis import HealthCheck, settings

from instructseg.core import (
    Clip,
    EncodedFrame,
    Frame,
    Grounding,
    Instruction,
    Sampling,
    Segmenter,
    State,
    Target,
    TargetMask,
)
from instructseg.streaming import EngineConfig, FrameResult, StreamingEngine

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
SECOND = 1_000_000_000

# For property tests: a machine that is busy with something else must not fail them.
unhurried = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


@dataclasses.dataclass(frozen=True, eq=False)
class ColourToken:
    """seen: stamps of the frames this token was carried over, where the fake renews its tokens."""

    rgb: tuple[int, int, int]
    seen: tuple[int, ...] = ()


class ColourSegmenter(Segmenter):
    """raising: steps that raise now. delays: seconds by step. gates: events that a step waits for before it answers;
    entered: set when a step has begun. rejection: rejection score by colour (else from the key frame's pixels).
    score: mask score from its pixels. renew_tokens: every segmentation returns a new token. broken_cameras: encode
    raises when a frame of theirs is among those given. broken_texts: likewise ground. aims: by text, the colours that
    the answer points at instead of those named."""

    name = "colours"
    max_targets = 3

    def __init__(self, sampling: Sampling | None = None, renew_tokens: bool = False) -> None:
        self.sampling = sampling or Sampling(sparse=3, dense=1, horizon_s=1.0)
        self.renew_tokens = renew_tokens
        self.raising: set[str] = set()
        self.delays: dict[str, float] = {}
        self.gates: dict[str, threading.Event] = {}
        self.entered = {step: threading.Event() for step in ("encode", "ground", "segment")}
        self.rejection: dict[str, float] = {}
        self.score: Callable[[int], float] = lambda pixels: 0.9 if pixels else 0.02
        self.broken_cameras: set[str] = set()
        self.encoded: list[int] = []
        self.batches: list[list[str]] = []  # cameras, by call of encode
        self.broken_texts: set[str] = set()
        self.aims: dict[str, list[str]] = {}
        self.clips: list[Clip] = []
        self.asked: list[list[str]] = []  # texts, by call of ground
        self.segmented: list[tuple[int, int]] = []  # (stamp, number of tokens)
        self.last_tokens: tuple[ColourToken, ...] = ()

    def encode(self, frames: Sequence[Frame]) -> list[EncodedFrame]:
        self._begin("encode")
        self.batches.append([frame.camera for frame in frames])
        if self.broken_cameras.intersection(self.batches[-1]):
            raise RuntimeError("encode broke on a camera")
        self.encoded += [frame.stamp_ns for frame in frames]
        return [EncodedFrame(frame, frame.image) for frame in frames]

    def ground(self, clip: Clip, instructions: Sequence[Instruction]) -> list[Grounding]:
        self.clips.append(clip)
        self.asked.append([instruction.text for instruction in instructions])
        self._begin("ground")
        if self.broken_texts.intersection(self.asked[-1]):
            raise RuntimeError("ground broke on a text")
        return [self._ground(clip, instruction) for instruction in instructions]

    def segment(self, encoded: EncodedFrame, tokens: Sequence[ColourToken]) -> list[TargetMask]:
        self._begin("segment")
        stamp = encoded.frame.stamp_ns
        self.segmented.append((stamp, len(tokens)))
        self.last_tokens = tuple(tokens)
        masks = []
        for token in tokens:
            mask = (encoded.features == np.array(token.rgb, np.uint8)).all(axis=-1)
            after = ColourToken(token.rgb, (*token.seen, stamp)) if self.renew_tokens else token
            masks.append(TargetMask(mask, self.score(int(mask.sum())), after, mask.astype(np.uint8) * 255))
        return masks

    def _ground(self, clip: Clip, instruction: Instruction) -> Grounding:
        targets = []
        words = [word.strip(".,") for word in instruction.text.split()]
        for name in self.aims.get(instruction.text, words):
            if name in COLOURS:
                there = (clip.key.features == np.array(COLOURS[name], np.uint8)).all(axis=-1).any()
                rejection = self.rejection.get(name, 0.05 if there else 0.95)
                token = ColourToken(COLOURS[name]) if rejection < 0.5 else None
                targets.append(Target(token, 1.0 - rejection, rejection, token is None, name))
        stamps = tuple(encoded.frame.stamp_ns for encoded in clip.frames)
        return Grounding(instruction.id, stamps[-1], stamps, tuple(targets), instruction.text)

    def _begin(self, step: str) -> None:
        self.entered[step].set()
        if step in self.gates and not self.gates[step].wait(30.0):
            raise TimeoutError(f"the gate of {step} was not opened within 30 s")
        time.sleep(self.delays.get(step, 0.0))
        if step in self.raising:
            raise RuntimeError(f"{step} broke on purpose")


@dataclasses.dataclass(frozen=True, eq=False)
class PlaceToken:
    """A colour, and where (x, y) it was on the frame of this stamp."""

    rgb: tuple[int, int, int]
    place: tuple[float, float]
    stamp_ns: int


class FollowingSegmenter(ColourSegmenter):
    """Follows one thing among others of its colour, by its place alone: from one frame to the next a thing may move by
    ``reach`` pixels, whatever the time between them. Of several the reasoner means the leftmost one."""

    def __init__(self, reach: float = 8.0) -> None:
        super().__init__()
        self.reach = reach

    def segment(self, encoded: EncodedFrame, tokens: Sequence[PlaceToken]) -> list[TargetMask]:
        self._begin("segment")
        self.segmented.append((encoded.frame.stamp_ns, len(tokens)))
        return [self._follow(encoded, token) for token in tokens]

    def _follow(self, encoded: EncodedFrame, token: PlaceToken) -> TargetMask:
        near = [
            (math.dist(place, token.place), place, blob)
            for place, blob in blobs(encoded.features, token.rgb)
            if math.dist(place, token.place) <= self.reach
        ]
        if not near:
            return TargetMask(np.zeros(encoded.frame.size, bool), 0.02, token)
        _, place, blob = min(near, key=lambda found: found[0])
        return TargetMask(blob, 0.9, PlaceToken(token.rgb, place, encoded.frame.stamp_ns))

    def _ground(self, clip: Clip, instruction: Instruction) -> Grounding:
        targets, stamps = [], tuple(encoded.frame.stamp_ns for encoded in clip.frames)
        for name in [word for word in instruction.text.split() if word in COLOURS]:
            seen = [place for place, _ in blobs(clip.key.features, COLOURS[name])]
            token = PlaceToken(COLOURS[name], min(seen), stamps[-1]) if seen else None
            rejection = 0.05 if seen else 0.95
            targets.append(Target(token, 1.0 - rejection, rejection, token is None, name))
        return Grounding(instruction.id, stamps[-1], stamps, tuple(targets), instruction.text)


def blobs(image: np.ndarray, rgb: tuple[int, int, int]) -> list[tuple[tuple[float, float], np.ndarray]]:
    """Centre (x, y) and mask (H, W) of every connected patch of one colour."""
    same = (image == np.array(rgb, np.uint8)).all(axis=-1).astype(np.uint8)
    count, labels, _, centres = cv2.connectedComponentsWithStats(same)
    return [((float(centres[i][0]), float(centres[i][1])), labels == i) for i in range(1, count)]


def colour_frame(
    seconds: float, *colours: str, camera: str = "camera", size: tuple[int, int] = (48, 64), shift: int = 0
) -> Frame:
    """A grey frame with one 8 x 8 square a colour, side by side; ``shift`` moves them right by that many pixels."""
    image = np.full((*size, 3), 127, np.uint8)
    for place, name in enumerate(COLOURS):
        if name in colours:
            left = 4 + 12 * place + shift
            image[8:16, left : left + 8] = COLOURS[name]
    return Frame(image, round(seconds * SECOND), camera)


class ManualClock:
    """A clock that stands still until it is told to go."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.ns = round(seconds * SECOND)

    def __call__(self) -> int:
        return self.ns

    def advance(self, seconds: float) -> None:
        self.ns += round(seconds * SECOND)


def eventually(condition: Callable[[], bool], timeout_s: float = 20.0) -> bool:
    """Whether the condition becomes true within the time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


class Owner:
    """An engine on a clock that stands still, and everything it tells. As a context: the engine with its threads."""

    def __init__(self, segmenter: ColourSegmenter | None = None, **config) -> None:
        self.segmenter = segmenter or ColourSegmenter()
        self.clock = ManualClock()
        self.results, self.rejections, self.groundings, self.instructions, self.said = [], [], [], [], []
        self.engine = StreamingEngine(
            self.segmenter,
            EngineConfig(**config),
            clock_ns=self.clock,
            on_result=self.results.append,
            on_rejection=self.rejections.append,
            on_grounding=self.groundings.append,
            on_instructions=self.instructions.append,
            log=lambda level, message: self.said.append(message),
        )

    def __enter__(self) -> Owner:
        self.engine.start()
        return self

    def __exit__(self, *_: object) -> None:
        for gate in self.segmenter.gates.values():
            gate.set()
        self.engine.stop()

    # Without threads

    def show(self, seconds: float, *colours: str, **kwargs) -> FrameResult:
        """The result on one frame."""
        self.clock.ns = round(seconds * SECOND)
        return self.engine.process(colour_frame(seconds, *colours, **kwargs))

    def play(self, start: float, end: float, *colours: str, rate: float = 10.0) -> FrameResult:
        """Frames from start up to and including end; the last result."""
        steps = round((end - start) * rate)
        return [self.show(start + i / rate, *colours) for i in range(steps + 1)][-1]

    # With threads

    def send(self, seconds: float, *colours: str, **kwargs) -> None:
        """Submit a frame and wait for its result."""
        count = len(self.results)
        self.clock.ns = round(seconds * SECOND)
        self.engine.submit_frame(colour_frame(seconds, *colours, **kwargs))
        assert eventually(lambda: len(self.results) > count), f"no result for the frame of {seconds} s"

    def states(self) -> list[State]:
        """Of the targets on the newest result."""
        return states(self.results[-1])

    def wait_for(self, state: State, seconds: float, *colours: str) -> float:
        """Send frames, 0.1 s apart by their stamps, until the first target is in ``state``; the last frame's time."""
        for step in range(200):
            self.send(seconds + step / 10, *colours)
            if self.states() and self.states()[0] is state:
                return seconds + step / 10
            time.sleep(0.005)
        raise AssertionError(f"never {state.name}; last {self.states()}")


def states(result: FrameResult) -> list[State]:
    return [target.state for target in result.targets]
