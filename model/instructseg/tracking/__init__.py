"""Per-target state across frames: token tracker, target state machine, instance ids, instance and label maps."""

from .identity import Sightings
from .ids import InstanceIds
from .maps import instance_map, label_map
from .state_machine import Policy, TargetStateMachine, Verdict, judge
from .timetable import Schedule
from .token_tracker import Prompt, TokenTracker
from .types import EVENT_STATES, RejectionEvent, TargetState

__all__ = [
    "EVENT_STATES",
    "InstanceIds",
    "Policy",
    "Prompt",
    "RejectionEvent",
    "Schedule",
    "Sightings",
    "TargetState",
    "TargetStateMachine",
    "TokenTracker",
    "Verdict",
    "instance_map",
    "judge",
    "label_map",
]
