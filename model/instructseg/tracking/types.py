"""What the tracker says about a target on one frame, and the event that goes with a change for the worse or better."""

from __future__ import annotations

import dataclasses

import numpy as np

from ..core import BadInput, Instruction, State

# A change into or out of one of these is an event that a planner wants to hear of, frame or no frame.
EVENT_STATES = frozenset({State.NO_TARGET, State.LOST, State.UNCERTAIN, State.STALE, State.ERROR})


@dataclasses.dataclass(frozen=True, eq=False)
class TargetState:
    """One target on one frame.

    instance_id: 1..65535 and stable for a slot of an instruction; 0 before it was first grounded, and in GROUNDING and
    NO_TARGET. score: the mask head's evidence in [0, 1] on this frame. rejection_score: of the last grounding, in
    [0, 1]. since_ns: when the state was entered; grounded_stamp_ns: the frame it was reasoned on (0: none yet); both in
    the time base of the frames. mask: ``(H, W)`` bool, confidence: ``(H, W)`` uint8 or None.

    Raises BadInput when the mask and the state contradict each other: PRESENT has a mask with pixels, no other state
    has one.
    """

    instruction: Instruction
    instance_id: int
    state: State
    score: float
    rejection_score: float
    reason: str
    since_ns: int
    grounded_stamp_ns: int
    phrase: str = ""
    mask: np.ndarray | None = None
    confidence: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.state is State.PRESENT:
            if self.mask is None or not self.mask.any():
                raise BadInput("a PRESENT target needs a mask with pixels; got none")
            if not 1 <= self.instance_id <= 65535:
                raise BadInput(f"a PRESENT target needs an instance id in 1..65535; got {self.instance_id}")
        elif self.mask is not None or self.confidence is not None:
            raise BadInput(f"only a PRESENT target carries a mask; got one with state {self.state.name}")


@dataclasses.dataclass(frozen=True)
class RejectionEvent:
    """One change into or out of NO_TARGET, LOST, UNCERTAIN, STALE or ERROR. instance_id is 0 for a target that was
    never grounded. stamp_ns: when, in the time base of the frames. camera: on whose frames. rejection_score: of the
    last grounding."""

    instruction: Instruction
    instance_id: int
    before: State
    after: State
    score: float
    reason: str
    stamp_ns: int
    camera: str = ""
    rejection_score: float = 0.0
