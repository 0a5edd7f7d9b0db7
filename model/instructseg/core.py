"""The words of the project as types, and the interface that keeps recipes and streaming apart.

No torch modules and no ROS here. A recipe (``recipes/<name>/``) implements :class:`Segmenter`; the streaming
engine (``streaming/``) knows nothing else of it. What a recipe computes on a frame or on an instruction travels
through the engine as an opaque object (``EncodedFrame.features``, ``Target.token``): only the recipe looks inside.
"""

from __future__ import annotations

import abc
import dataclasses
import enum
from collections.abc import Sequence
from typing import Any

import numpy as np


class InstructSegError(Exception):
    """Base of every error this package raises on purpose; the message names the thing, its value and the remedy."""


class BadInput(InstructSegError, ValueError):
    """An image, text, file or parameter from outside that cannot be used."""


@dataclasses.dataclass(frozen=True, eq=False)
class Frame:
    """One RGB image of one camera.

    image: ``(H, W, 3)`` uint8 RGB. stamp_ns: acquisition time in nanoseconds, never changed afterwards.
    camera: name of the camera. frame_id: the camera's optical frame (REP 103), passed through.
    """

    image: np.ndarray
    stamp_ns: int
    camera: str = "camera"
    frame_id: str = ""

    def __post_init__(self) -> None:
        shape, dtype = getattr(self.image, "shape", None), getattr(self.image, "dtype", None)
        if shape is None or len(shape) != 3 or shape[2] != 3 or dtype != np.uint8:
            raise BadInput(f"Frame.image must be a uint8 array of shape (H, W, 3) in RGB; got {dtype} {shape}")
        if min(shape[:2]) < 16:
            raise BadInput(f"Frame.image must be at least 16 x 16 pixels; got {shape[1]} x {shape[0]}")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.image.shape[0], self.image.shape[1]


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedFrame:
    """A frame together with what the recipe's vision encoder computed on it (once, for every later use)."""

    frame: Frame
    features: Any


@dataclasses.dataclass(frozen=True, eq=False)
class Clip:
    """The encoded frames a reasoner sees, oldest first; the last one is the key frame.

    ``dense`` holds the indices of the frames seen in full detail (VideoLISA, sec. 3.2), the others are temporal
    context.
    """

    frames: tuple[EncodedFrame, ...]
    dense: tuple[int, ...] = (-1,)

    def __post_init__(self) -> None:
        if not self.frames:
            raise BadInput("a Clip needs at least one frame; got none")

    @property
    def key(self) -> EncodedFrame:
        return self.frames[-1]


class Mode(enum.Enum):
    """What an instruction asks for: follow the targets until cancelled, or answer once."""

    TRACK = 0
    ONE_SHOT = 1


@dataclasses.dataclass(frozen=True)
class Instruction:
    """The user's text with an id. class_id (1..255) is its value in a label mask."""

    id: str
    text: str
    class_id: int = 1
    cameras: tuple[str, ...] = ()
    mode: Mode = Mode.TRACK
    timeout_s: float = 0.0
    priority: int = 0


class State(enum.Enum):
    """Verdict on one target. Only PRESENT ever carries a mask."""

    GROUNDING = 0
    PRESENT = 1
    OCCLUDED = 2
    LOST = 3
    NO_TARGET = 4
    UNCERTAIN = 5
    STALE = 6
    ERROR = 7


@dataclasses.dataclass(frozen=True, eq=False)
class Target:
    """One target slot of a grounding.

    token: the recipe's opaque target token that prompts the mask head on any frame; None when rejected.
    score: confidence in [0, 1] that the target is in the key frame. rejection_score: probability in [0, 1] that what
    the instruction names is absent. phrase: the words this slot answers, where the recipe knows them, else "".
    anchor: a mask that the recipe has made already, for whoever carries masks from frame to frame; None: ``segment``
    makes one.
    """

    token: Any
    score: float
    rejection_score: float
    rejected: bool
    phrase: str = ""
    reason: str = ""
    anchor: Anchor | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Anchor:
    """A target's mask on frame ``frame`` of the clip, 0 for the oldest; not the key frame where the answer is about an
    earlier one."""

    frame: int
    mask: TargetMask


@dataclasses.dataclass(frozen=True, eq=False)
class Grounding:
    """The reasoner's answer to one instruction on one clip."""

    instruction_id: str
    key_stamp_ns: int
    frame_stamps_ns: tuple[int, ...]
    targets: tuple[Target, ...]
    text: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class TargetMask:
    """One target on one frame.

    mask: ``(H, W)`` bool at the frame's own size. confidence: ``(H, W)`` uint8 0..255, or None.
    score: evidence in [0, 1] that the target is visible in this frame. token: the token to use on the next frame
    (the same object for recipes whose token does not change). disagrees: the recipe has two witnesses of this target
    and they see different things; the engine then asks the reasoner again.
    """

    mask: np.ndarray
    score: float
    token: Any
    confidence: np.ndarray | None = None
    disagrees: bool = False


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Which buffered frames a recipe wants in its clip: ``sparse`` frames spread over ``horizon_s`` seconds up to and
    including the key frame, of which the newest ``dense`` are seen in full detail."""

    sparse: int = 4
    dense: int = 1
    horizon_s: float = 1.5

    def __post_init__(self) -> None:
        if not 1 <= self.sparse <= 64:
            raise BadInput(f"Sampling.sparse must be in 1..64; got {self.sparse}")
        if not 1 <= self.dense <= self.sparse:
            raise BadInput(f"Sampling.dense must be in 1..sparse ({self.sparse}); got {self.dense}")
        if not 0.0 <= self.horizon_s <= 3600.0:
            raise BadInput(f"Sampling.horizon_s must be in 0..3600 seconds; got {self.horizon_s}")


class Segmenter(abc.ABC):
    """What a recipe builds: three steps, each callable from any thread, none keeping state between calls.

    ``encode`` and ``segment`` run for every processed frame, ``ground`` now and then. All tensors stay inside the
    opaque features and tokens, on the recipe's device; images and masks cross the interface as NumPy arrays.
    """

    name: str = ""
    sampling: Sampling = Sampling()
    max_targets: int = 1
    device: str = "cpu"
    carries_tokens: bool = True  # whether a token must see the frames since its key frame; False: each is read anew
    resolution_scale: float | None = None  # set by an overloaded engine to reduced_scale, else 1.0; None: one size only
    reduced_scale: float = 0.5
    tokens_identify: bool = False  # whether a token sees its thing wherever that is, and nothing in a look-alike
    joins_cameras: bool = False  # whether segment_together is worth it: frames of several cameras in one call
    load_report: Any = None  # checkpoints.LoadReport where the recipe accounts for its keys
    notes: tuple[str, ...] = ()  # what the user must know of this checkpoint; shown in the log and in diagnostics
    notes_untracked: tuple[str, ...] = ()  # those of them that no longer hold once a tracker carries the masks

    @abc.abstractmethod
    def encode(self, frames: Sequence[Frame]) -> list[EncodedFrame]:
        """One visual encoding per frame (batched where sizes agree), shared by ``ground`` and ``segment``."""

    @abc.abstractmethod
    def ground(self, clip: Clip, instructions: Sequence[Instruction]) -> list[Grounding]:
        """Understand each instruction on the clip: one Grounding an instruction, in order."""

    @abc.abstractmethod
    def segment(self, encoded: EncodedFrame, tokens: Sequence[Any]) -> list[TargetMask]:
        """A mask on this frame for each token, in order. Never raises for an invisible target: its score is low."""

    def segment_together(self, frames: Sequence[tuple[EncodedFrame, Sequence[Any]]]) -> list[list[TargetMask]]:
        """:meth:`segment` of several frames and their tokens, all at once where the recipe can."""
        return [self.segment(encoded, tokens) for encoded, tokens in frames]

    def likeness(self, old: Any, new: Any) -> float | None:
        """How much what two tokens stand for looks like one and the same thing, in [0, 1]: below one half it is another
        one. None: the recipe cannot tell."""
        return None

    def warm_up(self, height: int = 480, width: int = 640) -> None:
        """Run every step once, so that the first real frame is not slower than the others."""
        frame = Frame(np.zeros((height, width, 3), np.uint8), 0)
        encoded = self.encode([frame])[0]
        grounding = self.ground(Clip((encoded,)), [Instruction("warm-up", "the red block")])[0]
        tokens = [t.token for t in grounding.targets if t.token is not None]
        self.segment(encoded, tokens)
