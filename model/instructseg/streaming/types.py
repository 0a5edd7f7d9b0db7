"""What the streaming engine hands out: results, groundings, the state of the instructions; why it refused a frame."""

from __future__ import annotations

import dataclasses
import enum

from ..core import BadInput, Frame, Grounding, Instruction, State
from ..tracking.types import RejectionEvent, TargetState

__all__ = [
    "Ending",
    "FrameRefused",
    "FrameResult",
    "GroundingResult",
    "InstructionStatus",
    "RejectionEvent",
    "TargetState",
]


class FrameRefused(BadInput):
    """A frame that cannot be processed; ``cause`` is the name under which it is counted."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class Ending(enum.Enum):
    """Why an instruction is no longer worked on."""

    ANSWERED = "answered"
    TIMED_OUT = "timed out"
    CANCELLED = "cancelled"
    REPLACED = "replaced"


@dataclasses.dataclass(frozen=True, eq=False)
class FrameResult:
    """Every target on one processed frame; the masks are masks of exactly this frame.

    age_s: clock minus the frame's stamp just before publication. timings: seconds by step ("encode_s", its share where
    frames of several cameras were encoded together, "segment_s", and "ground_s" when the frame was grounded inline).
    answered: the ONE_SHOT instructions that this frame answered, as they ended. ended: every instruction that ended
    with this frame, which is the last that shows it.
    """

    frame: Frame
    targets: tuple[TargetState, ...]
    age_s: float
    timings: dict[str, float]
    answered: tuple[InstructionStatus, ...] = ()
    ended: tuple[Instruction, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class GroundingResult:
    """One reasoning result and the seconds it took. camera: whose frames it looked at."""

    instruction: Instruction
    grounding: Grounding
    duration_s: float
    camera: str = ""


@dataclasses.dataclass(frozen=True)
class InstructionStatus:
    """What the engine is doing about one instruction, summed over its targets and cameras.

    state: the best one any of its targets is in. since_ns: when that target entered it, in the time base of the frames.
    instance_ids: those in use. ending: None while it is worked on; why it ended exactly once, in the report in which it
    has, and ``reason`` then says so in words. live: number of its targets that are PRESENT or OCCLUDED. score,
    rejection_score, grounded_stamp_ns: of its best target.
    """

    instruction: Instruction
    state: State
    reason: str
    since_ns: int
    instance_ids: tuple[int, ...] = ()
    ending: Ending | None = None
    live: int = 0
    score: float = 0.0
    rejection_score: float = 0.0
    grounded_stamp_ns: int = 0

    @property
    def active(self) -> bool:
        """Whether it is still worked on."""
        return self.ending is None
