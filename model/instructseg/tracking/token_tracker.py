"""Token tracking: one instruction on one camera, its target slots, and the token that prompts each next frame."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core import Grounding, Instruction, State, Target, TargetMask
from .agreement import overlap
from .doubts import Doubts
from .identity import Finding, Sightings, SlotIdentities
from .ids import InstanceIds
from .state_machine import Policy, TargetStateMachine, Verdict, judge
from .timetable import Schedule, Timetable
from .types import EVENT_STATES, RejectionEvent, TargetState
from .whereabouts import Place

_SAME_OBJECT_IOU = 0.8  # a target that returns on the pixels of a live one is that one, seen twice


@dataclasses.dataclass(eq=False)
class TrackedTarget:
    """One target slot: its state, and the recipe's opaque token. usual, pace: see ``doubts.Watched``."""

    slot: int
    machine: TargetStateMachine
    token: Any = None
    phrase: str = ""
    grounded_stamp_ns: int = 0
    usual: float | None = None
    pace: tuple[float, float] | None = None


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
        self.timetable = Timetable(schedule)
        self._policy = policy
        self._identities = SlotIdentities(ids)
        self._max_targets = max_targets
        self._events: list[RejectionEvent] = []
        self._doubts = Doubts(self.timetable)

    def __repr__(self) -> str:
        states = ", ".join(f"{t.slot}: {t.machine!r}" for t in self.targets)
        return f"<TokenTracker {self.instruction.id!r} on {self.camera!r}: {states}>"

    @property
    def instance_ids(self) -> tuple[int, ...]:
        """Ids of the slots that were ever grounded."""
        return self._identities.all

    def reconfigure(self, policy: Policy, schedule: Schedule, max_targets: int) -> None:
        """Judge by these rules from the next evidence on. Targets beyond ``max_targets`` end; where there may be more
        of them than before, the reasoner is asked about all."""
        self._policy = policy
        self.timetable.reschedule(schedule)
        if max_targets > self._max_targets:
            self.timetable.at_once()
            self.timetable.doubt = "settings"
        self._max_targets = max_targets
        for target in list(self.targets):
            target.machine.policy = policy
            if target.slot >= max_targets:
                target.machine.dropped(f"max_targets is {max_targets} now", target.machine.since_ns)
                self._collect()
                self._identities.rename(target.slot)
                self.targets.remove(target)

    # When to ask the reasoner

    def due(self, stamp_ns: int) -> bool:
        """Whether the reasoner should be asked now, ``stamp_ns`` being the newest buffered frame."""
        return self.due_about(stamp_ns) is not None

    def due_about(self, stamp_ns: int) -> str | None:
        """What to ask: "missing" (targets that are not live), "all" (the live ones too), None: not due."""
        missing = any(self._wants_answer(target.machine) for target in self.targets)
        present = any(target.machine.state is State.PRESENT for target in self.targets)
        return self.timetable.about(stamp_ns, missing, present)

    def why_due(self, about: str) -> str:
        """The reason of a question about "missing" or "all", in one word."""
        if about == "all":
            return self.timetable.doubt or "age"
        new = any(target.machine.state is State.GROUNDING for target in self.targets)
        return "new" if new else "missing"

    def view_moved(self) -> None:
        """The camera looks elsewhere: what the instruction says of places may no longer hold."""
        if any(target.machine.state is State.PRESENT for target in self.targets):
            self._doubts.view_moved()

    def begin_grounding(self, key_stamp_ns: int, refresh: bool = False, turn: int = 0, look_back_ns: int = 0) -> None:
        """The reasoner is about to be asked with this key frame; ``refresh``: about the live targets too. look_back_ns:
        how far its clip goes back."""
        self._doubts.asked(key_stamp_ns, look_back_ns)
        everything = refresh or not any(target.machine.live for target in self.targets)
        self.timetable.begin(key_stamp_ns, everything, turn)

    # Evidence

    def accepted(self, grounding: Grounding) -> dict[int, Target]:
        """The targets of an answer that get a token, by their place in it."""
        answers = enumerate(grounding.targets[: self._max_targets])
        return {place: target for place, target in answers if judge(target, self._policy)[0] is Verdict.ACCEPTED}

    def witnesses(self) -> dict[int, Any]:
        """By slot, the newest token that showed its thing: :class:`Sightings` of these and of the accepted tokens, all
        on one frame, tell whether an id would move to another thing."""
        return self._identities.witnesses

    def apply_grounding(
        self,
        grounding: Grounding,
        tokens: dict[int, Any],
        key_stamp_ns: int,
        stamp_ns: int,
        refresh: bool,
        sightings: Sightings | None = None,
    ) -> None:
        """Take the reasoner's answer about every slot that is not live (``refresh``: about all).

        tokens: by place in the answer, the accepted tokens after their replay up to the present frame. stamp_ns: that
        frame. sightings: on it; None: each place of the answer is taken for the slot of the same number.
        """
        answers = grounding.targets[: self._max_targets]
        kept = {t.slot for t in self.targets if t.machine.live and not refresh}
        slots = {place: place for place in range(len(answers))}
        if sightings is not None:
            slots = sightings.slots(len(answers), kept, self._max_targets, self._lowest_score)
        for place, slot in slots.items():
            if slot in kept:
                continue
            target, answer = self._slot(slot, stamp_ns), answers[place]
            if place in tokens and self._is_refused(target, place, sightings, stamp_ns):
                continue
            target = self._slot(slot, stamp_ns)
            target.phrase, target.grounded_stamp_ns = answer.phrase, key_stamp_ns
            target.token = None
            if target.machine.grounded(answer, stamp_ns) is Verdict.ACCEPTED:
                target.token = tokens.get(place, answer.token)
                self._identities.name(slot)
                self._identities.accepted(slot, sightings.new.get(place) if sightings else None, stamp_ns)
        self._drop_unnamed(kept.union(slots.values()), len(answers), stamp_ns)
        if not self.prompts():  # with prompts, the failures in a row end with the first frame that is segmented
            self.timetable.succeeded()
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
            if target.machine.state is State.LOST and _is_shown(mask, shown):
                target.machine.taken("what was found is already followed as another target", stamp_ns)
                continue
            place = Place.of(mask.mask)
            elsewhere = "" if place is None else self._elsewhere(target.slot, place, stamp_ns)
            pixels = 0 if place is None else int(np.count_nonzero(mask.mask))
            target.machine.segmented(mask.score, pixels, stamp_ns, elsewhere)
            # Not where a newer grounding has already put its own token, nor after a look at another thing.
            if target.token is prompt.token and not elsewhere:
                target.token = mask.token
            if target.machine.state is State.PRESENT:
                shown[target.slot] = mask
                self._identities.saw(target.slot, mask.token)
                self._doubts.watch_score(target, mask, self._policy.collapse)
                self._doubts.watch_motion(
                    target, self._identities.stood(target.slot, place, stamp_ns), self._policy.motion
                )
        for target in self.targets:
            if target.machine.state is State.PRESENT and target.slot not in shown:
                target.machine.failed("no mask was computed on this frame", stamp_ns)
        if prompts:
            self.timetable.succeeded()
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
            self.timetable.failed(stamp_ns)
        self._collect()

    def stale(self, reason: str, stamp_ns: int) -> None:
        """No frame for too long."""
        for target in self.targets:
            target.machine.stale(reason, stamp_ns)
        self._collect()

    def as_of_now(self, shown: TargetState) -> TargetState | None:
        """What was described as PRESENT a moment ago: the same, or its new state without a mask; None: it is gone."""
        for target in self.targets:
            if self._identities.of(target.slot) == shown.instance_id:
                return shown if target.machine.state is State.PRESENT else self._describe(target, None)
        return None

    def resumed(self, gap_ns: int, stamp_ns: int) -> None:
        """A frame came, ``gap_ns`` after the one before."""
        for target in self.targets:
            was_stale = target.machine.state is State.STALE
            target.machine.resumed(gap_ns, stamp_ns)
            # By stamps, not by how long the silence took: a slow replay must ask when a fast one does.
            if was_stale and not target.machine.armed and gap_ns > self._policy.lost_after_ns:
                self.timetable.at_once()
        self._collect()

    def restart(self, reason: str, stamp_ns: int) -> None:
        """Forget targets and tokens, keep the ids of the slots; ``stamp_ns`` begins a new time base."""
        self.generation += 1
        self.timetable.restart()
        self._doubts.restart()
        self._identities.forget_tokens()
        for target in self.targets:
            target.machine.restart(reason, stamp_ns)
        self._collect()
        del self.targets[1:]
        first = self.targets[0]
        first.phrase, first.grounded_stamp_ns, first.usual, first.pace = "", 0, None, None

    def abandon(self) -> None:
        """A grounding that is still being computed no longer counts."""
        self.generation += 1

    def close(self) -> None:
        """The instruction has ended: give the ids back, make running results obsolete."""
        self.abandon()
        self._identities.release()

    def take_events(self) -> list[RejectionEvent]:
        """Events since the last call, oldest first."""
        events, self._events = self._events, []
        return events

    # Inside

    def _wants_answer(self, machine: TargetStateMachine) -> bool:
        if not machine.unanswered:
            return False
        return self.timetable.schedule.on_loss or machine.state in (State.GROUNDING, State.ERROR)

    @property
    def _lowest_score(self) -> float:
        """Of a mask that can be shown: of a target that is PRESENT already."""
        return self._policy.present_threshold - self._policy.hysteresis

    def _elsewhere(self, slot: int, place: Place, stamp_ns: int) -> str:
        return self._identities.elsewhere(slot, place, stamp_ns, self._policy.place_ns)

    def _is_refused(self, target: TrackedTarget, place: int, sightings: Sightings | None, stamp_ns: int) -> bool:
        """Whether an accepted answer is not believed because it would move an id to another thing. When further answers
        say the same, the id ends as LOST and the slot begins anew."""
        machine, identities = target.machine, self._identities
        finding = Finding.MAYBE if sightings is None else sightings.compare(place, target.slot, self._lowest_score)
        why = ""
        if finding is Finding.MAYBE and sightings is not None and not machine.live:
            why = sightings.unlike(place, target.slot) or identities.misplaced(
                target.slot, sightings.new.get(place), stamp_ns, self._policy.place_ns
            )
            finding = Finding.OTHER if why else Finding.MAYBE
        if finding is Finding.MAYBE:
            identities.trust(target.slot)
            return False
        if finding is Finding.UNSEEN:
            if not machine.live and machine.state is not State.STALE:
                machine.taken("found by the reasoner, but not on the present frame", stamp_ns)
            return True
        if machine.state is State.STALE or identities.doubt(target.slot) < self._policy.confirmations:
            if machine.live or machine.state is State.STALE:
                self.timetable.doubt = "contradiction"
            else:
                machine.taken(why or "what was found is not the thing that was followed", stamp_ns)
            return True
        machine.taken(why or "the reasoner means another thing now", stamp_ns)
        self._collect()
        self._identities.rename(target.slot)
        self.targets.remove(target)  # a mask that is being computed with its token must not speak for the new thing
        return False

    def _slot(self, slot: int, stamp_ns: int) -> TrackedTarget:
        for target in self.targets:
            if target.slot == slot:
                return target
        target = TrackedTarget(slot, TargetStateMachine(self._policy, stamp_ns))
        self.targets.append(target)
        self.targets.sort(key=lambda t: t.slot)
        return target

    def _drop_unnamed(self, named: set[int], answered: int, stamp_ns: int) -> None:
        """Slots that the answer says nothing of. The first slot always stays, and so does one whose place in the answer
        was about another target."""
        for target in list(self.targets):
            if target.slot in named:
                continue
            if target.slot < answered and target.machine.state is State.LOST:
                target.machine.taken("what was found is already followed as another target", stamp_ns)
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
                            self._identities.of(target.slot),
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
            instance_id=0 if nameless else self._identities.of(target.slot),
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


def _is_shown(mask: TargetMask, shown: dict[int, TargetMask]) -> bool:
    return any(overlap(mask.mask, other.mask) > _SAME_OBJECT_IOU for other in shown.values())
