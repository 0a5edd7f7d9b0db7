"""Token tracking: one instruction on one camera, its target slots, and the token that prompts each next frame."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core import Grounding, Instruction, State, Target, TargetMask
from .ids import InstanceIds
from .state_machine import Policy, TargetStateMachine, Verdict, judge
from .types import EVENT_STATES, RejectionEvent, TargetState

_LONGEST_BACK_OFF = 16  # periods; a model that keeps failing is still asked now and then
_SAME_OBJECT_IOU = 0.8  # a target that returns on the pixels of a live one is that one, seen twice


@dataclasses.dataclass(frozen=True)
class Schedule:
    """When to ask the reasoner: every ``period_ns`` about targets that are not live, with ``on_loss`` also about those
    that were already answered; every ``refresh_ns`` (0: never) about PRESENT ones."""

    period_ns: int = 500_000_000
    refresh_ns: int = 0
    on_loss: bool = True


@dataclasses.dataclass(eq=False)
class TrackedTarget:
    """One target slot: its state, and the recipe's opaque token."""

    slot: int
    machine: TargetStateMachine
    token: Any = None
    phrase: str = ""
    grounded_stamp_ns: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Prompt:
    """A token to segment with, and the target it was taken from."""

    target: TrackedTarget
    token: Any


class TokenTracker:
    """The targets of one instruction on one camera. There is always at least one.

    Not thread-safe: its owner calls it under a lock, and runs the model between :meth:`prompts` and :meth:`update`
    without one. ``generation`` changes whenever results that are still being computed have become obsolete.
    """

    def __init__(
        self,
        instruction: Instruction,
        camera: str,
        policy: Policy,
        schedule: Schedule,
        ids: InstanceIds,
        max_targets: int,
        stamp_ns: int,
    ) -> None:
        self.instruction = instruction
        self.camera = camera
        self.generation = 0
        self.targets = [TrackedTarget(0, TargetStateMachine(policy, stamp_ns))]
        self._policy = policy
        self._schedule = schedule
        self._ids = ids
        self._slot_ids: dict[int, int] = {}
        self._max_targets = max_targets
        self._next_ground_ns: int | None = None  # None: at once
        self.last_ground_ns = 0
        self._failures = 0
        self._events: list[RejectionEvent] = []

    def __repr__(self) -> str:
        states = ", ".join(f"{t.slot}: {t.machine!r}" for t in self.targets)
        return f"<TokenTracker {self.instruction.id!r} on {self.camera!r}: {states}>"

    @property
    def instance_ids(self) -> tuple[int, ...]:
        """Ids of the slots that were ever grounded."""
        return tuple(self._slot_ids.values())

    # When to ask the reasoner

    def due(self, stamp_ns: int) -> bool:
        """Whether the reasoner should be asked now, ``stamp_ns`` being the newest buffered frame."""
        return self.due_about(stamp_ns) is not None

    def due_about(self, stamp_ns: int) -> str | None:
        """What to ask: "missing" (targets that are not live), "all" (a refresh of the live ones too), None: not due."""
        if self._next_ground_ns is not None and stamp_ns < self._next_ground_ns:
            return None
        if any(self._wants_answer(target.machine) for target in self.targets):
            return "missing"
        refresh = self._schedule.refresh_ns
        present = any(target.machine.state is State.PRESENT for target in self.targets)
        return "all" if refresh and present and stamp_ns - self.last_ground_ns >= refresh else None

    def begin_grounding(self, key_stamp_ns: int) -> None:
        """The reasoner is about to be asked with this key frame."""
        self.last_ground_ns = key_stamp_ns
        self._next_ground_ns = key_stamp_ns + self._schedule.period_ns

    # Evidence

    def accepted(self, grounding: Grounding, refresh: bool) -> dict[int, Target]:
        """Slots to which this grounding would give a token, for a replay over newer frames before it is applied."""
        open_slots = self._open_slots(len(grounding.targets), refresh)
        return {
            slot: grounding.targets[slot]
            for slot in open_slots
            if judge(grounding.targets[slot], self._policy)[0] is Verdict.ACCEPTED
        }

    def apply_grounding(
        self, grounding: Grounding, tokens: dict[int, Any], key_stamp_ns: int, stamp_ns: int, refresh: bool
    ) -> None:
        """Take the reasoner's answer about every slot that is not live (``refresh``: about all).

        tokens: by slot, the accepted tokens after their replay up to the present frame. stamp_ns: that frame.
        """
        answers = grounding.targets[: self._max_targets]
        for slot in self._open_slots(len(answers), refresh):
            target = self._slot(slot, stamp_ns)
            answer = answers[slot]
            target.phrase, target.grounded_stamp_ns = answer.phrase, key_stamp_ns
            target.token = None
            if target.machine.grounded(answer, stamp_ns) is Verdict.ACCEPTED:
                target.token = tokens.get(slot, answer.token)
                if slot not in self._slot_ids:
                    self._slot_ids[slot] = self._ids.acquire()
        self._drop_unnamed(len(answers), stamp_ns, refresh)
        if not self.prompts():  # with prompts, the failures in a row end with the first frame that is segmented
            self._failures = 0
        self._collect()

    def prompts(self) -> list[Prompt]:
        """The tokens to segment the next frame with."""
        return [Prompt(t, t.token) for t in self.targets if t.machine.armed and t.token is not None]

    def update(
        self, stamp_ns: int, prompts: Sequence[Prompt] = (), masks: Sequence[TargetMask] = ()
    ) -> tuple[TargetState, ...]:
        """Take the masks that ``prompts`` gave on the frame of ``stamp_ns``; every target's state on that frame.

        A prompt whose target has been dropped or disarmed meanwhile is ignored. A PRESENT target without a mask on this
        frame fails closed: PRESENT lasts only while every frame brings its evidence.
        """
        shown: dict[int, TargetMask] = {}
        pairs = sorted(zip(prompts, masks, strict=True), key=lambda pair: not pair[0].target.machine.live)
        for prompt, mask in pairs:  # live ones first: who comes back must not take the place of one who is here
            target = prompt.target
            if not target.machine.armed or not any(target is known for known in self.targets):
                continue
            if target.machine.state is State.LOST and any(_same_pixels(mask.mask, m.mask) for m in shown.values()):
                target.machine.taken("what was found is already followed as another target", stamp_ns)
                continue
            target.machine.segmented(mask.score, int(np.count_nonzero(mask.mask)), stamp_ns)
            if target.token is prompt.token:  # else a newer grounding has already put its own token there
                target.token = mask.token
            if target.machine.state is State.PRESENT:
                shown[target.slot] = mask
        for target in self.targets:
            if target.machine.state is State.PRESENT and target.slot not in shown:
                target.machine.failed("no mask was computed on this frame", stamp_ns)
        if prompts:
            self._failures = 0
        self._collect()
        return tuple(self._describe(target, shown.get(target.slot)) for target in self.targets)

    def fail(self, reason: str, stamp_ns: int, only_missing: bool = False) -> None:
        """A step of the model raised: ERROR, and the next grounding later with every failure in a row.

        only_missing: leave live targets alone (the reasoner failed, their tokens are still sound).
        """
        hit = [t for t in self.targets if not (only_missing and t.machine.live)]
        fresh = any(t.machine.state is not State.ERROR or t.machine.armed for t in hit)
        for target in hit:
            target.machine.failed(reason, stamp_ns)
        if fresh or only_missing:
            self._failures += 1
            back_off = min(2 ** (self._failures - 1), _LONGEST_BACK_OFF)
            self._next_ground_ns = stamp_ns + back_off * self._schedule.period_ns
        self._collect()

    def stale(self, reason: str, stamp_ns: int) -> None:
        """No frame for too long."""
        for target in self.targets:
            target.machine.stale(reason, stamp_ns)
        self._collect()

    def resumed(self, gap_ns: int, stamp_ns: int) -> None:
        """A frame came, ``gap_ns`` after the one before."""
        for target in self.targets:
            was_stale = target.machine.state is State.STALE
            target.machine.resumed(gap_ns, stamp_ns)
            if was_stale and not target.machine.armed:
                self._next_ground_ns = None
        self._collect()

    def restart(self, reason: str, stamp_ns: int) -> None:
        """Forget targets and tokens, keep the ids of the slots; ``stamp_ns`` begins a new time base."""
        self.generation += 1
        self._next_ground_ns, self.last_ground_ns, self._failures = None, 0, 0
        for target in self.targets:
            target.machine.restart(reason, stamp_ns)
        self._collect()
        del self.targets[1:]
        self.targets[0].phrase, self.targets[0].grounded_stamp_ns = "", 0

    def abandon(self) -> None:
        """A grounding that is still being computed no longer counts."""
        self.generation += 1

    def close(self) -> None:
        """The instruction has ended: give the ids back, make running results obsolete."""
        self.abandon()
        for instance_id in self._slot_ids.values():
            self._ids.release(instance_id)
        self._slot_ids.clear()

    def take_events(self) -> list[RejectionEvent]:
        """Events since the last call, oldest first."""
        events, self._events = self._events, []
        return events

    # Inside

    def _wants_answer(self, machine: TargetStateMachine) -> bool:
        if not machine.unanswered:
            return False
        return self._schedule.on_loss or machine.state in (State.GROUNDING, State.ERROR)

    def _open_slots(self, answered: int, refresh: bool) -> list[int]:
        """Slots an answer may change: live targets keep their token and their id unless a refresh was asked for."""
        live = {t.slot for t in self.targets if t.machine.live}
        return [slot for slot in range(min(answered, self._max_targets)) if refresh or slot not in live]

    def _slot(self, slot: int, stamp_ns: int) -> TrackedTarget:
        for target in self.targets:
            if target.slot == slot:
                return target
        target = TrackedTarget(slot, TargetStateMachine(self._policy, stamp_ns))
        self.targets.append(target)
        self.targets.sort(key=lambda t: t.slot)
        return target

    def _drop_unnamed(self, answered: int, stamp_ns: int, refresh: bool) -> None:
        """Slots beyond the answer: the reasoner names fewer targets than before. The first slot always stays."""
        for target in list(self.targets):
            if target.slot < answered or (target.machine.live and not refresh):
                continue
            target.machine.dropped("no longer named by the reasoner", stamp_ns)
            if target.slot > 0:
                self._collect()
                self.targets.remove(target)

    def _collect(self) -> None:
        """After every change: its events, and no token is kept that may not be used."""
        for target in self.targets:
            if not target.machine.armed:
                target.token = None
            for change in target.machine.take_changes():
                if change.before in EVENT_STATES or change.after in EVENT_STATES:
                    self._events.append(
                        RejectionEvent(
                            self.instruction,
                            self._slot_ids.get(target.slot, 0),
                            change.before,
                            change.after,
                            change.score,
                            change.reason,
                            change.stamp_ns,
                            self.camera,
                            target.machine.rejection_score,
                        )
                    )

    def _describe(self, target: TrackedTarget, mask: TargetMask | None) -> TargetState:
        machine = target.machine
        nameless = machine.state in (State.GROUNDING, State.NO_TARGET)
        return TargetState(
            instruction=self.instruction,
            instance_id=0 if nameless else self._slot_ids.get(target.slot, 0),
            state=machine.state,
            score=machine.score,
            rejection_score=machine.rejection_score,
            reason=machine.reason,
            since_ns=machine.since_ns,
            grounded_stamp_ns=target.grounded_stamp_ns,
            phrase=target.phrase,
            mask=None if mask is None else mask.mask,
            confidence=None if mask is None else mask.confidence,
        )


def _same_pixels(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two masks show the same object."""
    union = np.count_nonzero(one | other)
    return union > 0 and np.count_nonzero(one & other) > _SAME_OBJECT_IOU * union
