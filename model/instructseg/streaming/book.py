"""The instructions the engine is working on, each with one tracker a camera."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator

from ..core import BadInput, Instruction, Mode, State
from ..tracking.ids import TRACKED, InstanceIds
from ..tracking.state_machine import Policy
from ..tracking.token_tracker import Schedule, TokenTracker
from .config import EngineConfig
from .types import Ending, InstructionStatus, RejectionEvent

_UNNAMED = ""  # stands for the only camera until its first frame tells its name
BEST_FIRST = (  # states of targets: the first one that any of them is in stands for all
    State.PRESENT,
    State.OCCLUDED,
    State.GROUNDING,
    State.UNCERTAIN,
    State.LOST,
    State.NO_TARGET,
    State.ERROR,
    State.STALE,
)
_ANSWERED = frozenset({State.PRESENT, State.NO_TARGET})


@dataclasses.dataclass(eq=False)
class Entry:
    """One instruction, when it came (the owner's clock), and its trackers by camera. ``first_ns``: stamp of the first
    frame each camera showed it."""

    instruction: Instruction
    started_ns: int
    trackers: dict[str, TokenTracker]
    first_ns: dict[str, int] = dataclasses.field(default_factory=dict)

    def status(self, ending: Ending | None = None, reason: str | None = None) -> InstructionStatus:
        targets = [target for tracker in self.trackers.values() for target in tracker.targets]
        best = min(targets, key=lambda target: BEST_FIRST.index(target.machine.state))
        machine = best.machine
        return InstructionStatus(
            instruction=self.instruction,
            state=machine.state,
            reason=machine.reason if reason is None else reason,
            since_ns=machine.since_ns,
            instance_ids=tuple(i for tracker in self.trackers.values() for i in tracker.instance_ids),
            ending=ending,
            live=sum(target.machine.live for target in targets),
            score=machine.score,
            rejection_score=machine.rejection_score,
            grounded_stamp_ns=best.grounded_stamp_ns,
        )


class InstructionBook:
    """Adds, replaces and ends instructions. Not thread-safe; its owner holds a lock. ids: where targets get theirs."""

    def __init__(self, config: EngineConfig, ids: InstanceIds | None = None) -> None:
        self._ids = InstanceIds(*TRACKED) if ids is None else ids
        self._pace = 1.0
        self._entries: dict[str, Entry] = {}
        self._ended: list[InstructionStatus] = []
        self._last_events: list[RejectionEvent] = []  # of those that have ended
        self.reconfigure(config)

    def reconfigure(self, config: EngineConfig) -> None:
        """Judge and ask by this configuration from now on. Instructions beyond a lower ``max_instructions`` stay."""
        self._config = config
        self._policy = Policy(
            config.present_threshold,
            config.reject_threshold,
            round(config.lost_after * 1e9),
            reacquire_by_token=not config.ground_on_loss,
            by_place=config.reacquire == "place",
            within_ns=round(config.reacquire_within * 1e9),
            motion=config.motion_change if config.ground_on_motion else 0.0,
        )
        self._schedule = Schedule(
            round(config.ground_period * 1e9), round(config.refresh_period * 1e9), config.ground_on_loss
        )
        for entry in self:
            for tracker in entry.trackers.values():
                tracker.reconfigure(self._policy, self._schedule, config.max_targets)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def trackers(self, camera: str) -> list[TokenTracker]:
        """The trackers of one camera, in the order the instructions came."""
        return [entry.trackers[camera] for entry in self if camera in entry.trackers]

    def holds(self, tracker: TokenTracker, generation: int) -> bool:
        """Whether results begun for ``tracker`` in that generation still count."""
        entry = self._entries.get(tracker.instruction.id)
        current = entry is not None and entry.trackers.get(tracker.camera) is tracker
        return current and tracker.generation == generation

    def add(
        self,
        instruction: Instruction,
        cameras: tuple[str, ...],
        newest: dict[str, int],
        now_ns: int,
        anew: bool = False,
    ) -> Instruction:
        """Add, or replace by id; the very same instruction again only begins its time-out anew, but with ``anew``. What
        is worked on now: the instruction given, or the equal one that was there.

        cameras: those known (empty: the only one has not shown itself). newest: stamp of the newest frame by camera.
        Raises BadInput for an instruction that cannot be followed, or one too many.
        """
        check_instruction(instruction, self._config.cameras)
        old = self._entries.get(instruction.id)
        if old is not None and old.instruction == instruction and not anew:
            old.started_ns = now_ns
            old.first_ns.update({name: newest[name] for name in old.first_ns if name in newest})
            return old.instruction
        if old is None and len(self._entries) >= self._config.max_instructions:
            ids = ", ".join(self._entries)
            raise BadInput(
                f"at most {self._config.max_instructions} instructions at a time (max_instructions); working on {ids}: "
                f"cancel one before adding {instruction.id!r}"
            )
        if old is not None:
            self.end(instruction.id, "replaced", Ending.REPLACED)
        names = instruction.cameras or cameras or (_UNNAMED,)
        trackers = {name: self._tracker(instruction, name, newest.get(name, now_ns)) for name in names}
        seen = {name: newest[name] for name in names if name in newest}
        self._entries[instruction.id] = Entry(instruction, now_ns, trackers, seen)
        return instruction

    def end(self, instruction_id: str, reason: str, ending: Ending = Ending.CANCELLED) -> InstructionStatus | None:
        """End one instruction; how it ended, or None where it was not there. It is reported once more, like that."""
        entry = self._entries.pop(instruction_id, None)
        if entry is None:
            return None
        status = entry.status(ending, reason)
        self._ended.append(status)
        for tracker in entry.trackers.values():
            self._last_events += tracker.take_events()
            tracker.close()
        return status

    def first_frame(self, camera: str, stamp_ns: int) -> None:
        """A frame of ``camera`` is about to be looked at: trackers that never saw one begin with its time base."""
        for entry in self:
            if _UNNAMED in entry.trackers:
                entry.trackers[camera] = entry.trackers.pop(_UNNAMED)
                entry.trackers[camera].camera = camera
            if camera in entry.trackers and camera not in entry.first_ns:
                entry.first_ns[camera] = stamp_ns
                entry.trackers[camera].restart("waiting for the reasoner", stamp_ns)

    def set_pace(self, pace: float) -> None:
        """A factor on the periods of all groundings, from the next one on."""
        self._pace = pace
        for entry in self:
            for tracker in entry.trackers.values():
                tracker.timetable.pace = pace

    def restart(self, camera: str, reason: str) -> None:
        """Forget targets and tokens of one camera; the next frame begins a new time base."""
        for entry in self:
            if camera in entry.trackers:
                stamp_ns = max(t.machine.since_ns for t in entry.trackers[camera].targets)
                entry.trackers[camera].restart(reason, stamp_ns)
                entry.first_ns.pop(camera, None)

    def settle(self, camera: str, stamp_ns: int) -> tuple[InstructionStatus, ...]:
        """After a frame: end what has been answered once, or has run out of its time by the frames' stamps; how these
        ended."""
        ended = []
        for entry in list(self):
            first = entry.first_ns.get(camera)
            if entry.instruction.mode is Mode.ONE_SHOT and _is_answered(entry):
                reason = f"answered: {entry.status().state.name}"
                ended.append(self.end(entry.instruction.id, reason, Ending.ANSWERED))
            elif first is not None and _is_over(entry, stamp_ns - first):
                ended.append(self.end(entry.instruction.id, _time_out(entry), Ending.TIMED_OUT))
        return tuple(ended)

    def expire(self, now_ns: int) -> None:
        """End what has run out of its time by the owner's clock, frames or no frames."""
        for entry in list(self):
            entry.started_ns = min(entry.started_ns, now_ns)  # a clock that was set back must not stop the time
            if _is_over(entry, now_ns - entry.started_ns):
                self.end(entry.instruction.id, _time_out(entry), Ending.TIMED_OUT)

    def statuses(self) -> tuple[InstructionStatus, ...]:
        """The instructions at work."""
        return tuple(entry.status() for entry in self)

    def take_ended(self) -> tuple[InstructionStatus, ...]:
        """Those that ended since the last call."""
        ended, self._ended = tuple(self._ended), []
        return ended

    def take_events(self) -> list[RejectionEvent]:
        """What became of targets since the last call, also of instructions that have ended meanwhile."""
        events, self._last_events = self._last_events, []
        for entry in self:
            for tracker in entry.trackers.values():
                events += tracker.take_events()
        return events

    def _tracker(self, instruction: Instruction, camera: str, stamp_ns: int) -> TokenTracker:
        tracker = TokenTracker(
            instruction, camera, self._policy, self._schedule, self._ids, self._config.max_targets, stamp_ns
        )
        tracker.timetable.pace = self._pace
        return tracker


def check_instruction(instruction: Instruction, cameras: tuple[str, ...]) -> None:
    """Raises BadInput naming the field, its value and what is allowed. cameras: the configured names (empty: any)."""
    if not isinstance(instruction, Instruction):
        raise BadInput(f"an Instruction is needed; got {type(instruction).__name__}")
    if not (isinstance(instruction.id, str) and 1 <= len(instruction.id) <= 256):
        raise BadInput(f"Instruction.id must be 1..256 characters; got {instruction.id!r}")
    if not (isinstance(instruction.text, str) and instruction.text.strip()):
        raise BadInput(f"Instruction.text must not be empty; got {instruction.text!r}")
    if not (_is_whole(instruction.class_id) and 1 <= instruction.class_id <= 255):
        raise BadInput(f"Instruction.class_id must be a whole number in 1..255; got {instruction.class_id!r}")
    if not (isinstance(instruction.timeout_s, (int, float)) and 0.0 <= instruction.timeout_s < math.inf):
        raise BadInput(f"Instruction.timeout_s must be 0 (none) or more seconds; got {instruction.timeout_s!r}")
    if not _is_whole(instruction.priority):
        raise BadInput(f"Instruction.priority must be a whole number; got {instruction.priority!r}")
    if not isinstance(instruction.mode, Mode):
        raise BadInput(f"Instruction.mode must be a Mode; got {instruction.mode!r}")
    names = instruction.cameras
    if not (isinstance(names, tuple) and all(isinstance(name, str) and name for name in names)):
        raise BadInput(f"Instruction.cameras must be a tuple of non-empty names; got {names!r}")
    unknown = [name for name in instruction.cameras if cameras and name not in cameras]
    if unknown:
        raise BadInput(f"Instruction.cameras must be among {', '.join(cameras)}; got {', '.join(unknown)}")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_answered(entry: Entry) -> bool:
    """Whether every camera that has sent frames has said of every target that it is there or not."""
    states = [t.machine.state for name in entry.first_ns for t in entry.trackers[name].targets]
    return _ANSWERED.issuperset(_without_lost(states)) and any(state in _ANSWERED for state in states)


def _without_lost(states: Iterable[State]) -> set[State]:
    """A second target that was found and went out of view must not hold an answer back for ever."""
    return {state for state in states if state is not State.LOST}


def _is_over(entry: Entry, elapsed_ns: int) -> bool:
    return entry.instruction.timeout_s > 0 and elapsed_ns >= entry.instruction.timeout_s * 1e9


def _time_out(entry: Entry) -> str:
    status = entry.status()
    return f"timed out after {entry.instruction.timeout_s:g} s in state {status.state.name}: {status.reason}"
