"""The verdict on one target over time: which evidence moves it from which state to which, and why.

    GROUNDING --accepted--> (first mask) --> PRESENT <--> OCCLUDED --too long--> LOST
        |                                                                          |
        +--rejected--> NO_TARGET      +--in between--> UNCERTAIN        accepted again, first mask --> PRESENT
    any state --no frames--> STALE        any state --exception--> ERROR

The machine holds no token, mask or clock: times are the stamps it is given, in nanoseconds. It fails closed: evidence
that is not a number is no evidence, and PRESENT is entered only by a mask that was computed on a frame.
"""

from __future__ import annotations

import dataclasses
import enum

from ..core import State, Target


@dataclasses.dataclass(frozen=True)
class Policy:
    """Thresholds of the verdict. hysteresis: how far the score of a PRESENT target may fall below the threshold before
    it counts as OCCLUDED; uncertain_band: half width of the rejection scores that decide nothing; reacquire_by_token:
    whether a LOST target may return by its old token, for owners who do not ground again on loss. collapse: how far the
    score of a PRESENT target may fall below what it usually is before the reasoner is asked again. confirmations: how
    many answers in a row must point at another thing before it is believed, under a new id. by_place: whether a thing
    that was out of sight keeps its id only where it was last seen (``whereabouts``), at most within_ns later; else
    whatever looks like it keeps the id. motion: change of a PRESENT target's velocity, in diagonals of the picture per
    second, after which the reasoner is asked again; 0: never."""

    present_threshold: float = 0.5
    reject_threshold: float = 0.5
    lost_after_ns: int = 1_000_000_000
    reacquire_by_token: bool = False
    hysteresis: float = 0.1
    uncertain_band: float = 0.05
    collapse: float = 0.25
    confirmations: int = 2
    by_place: bool = True
    within_ns: int = 30_000_000_000
    motion: float = 0.0

    @property
    def place_ns(self) -> int | None:
        """How long a place speaks for a thing; None: it is not asked."""
        return self.within_ns if self.by_place else None


class Verdict(enum.Enum):
    """What a grounding says of one target slot."""

    ACCEPTED = 0
    REJECTED = 1
    UNCERTAIN = 2


def judge(target: Target, policy: Policy) -> tuple[Verdict, str]:
    """The verdict on a grounded target, and its reason in words."""
    score, limit = target.rejection_score, policy.reject_threshold
    said = f": {target.reason}" if target.reason else ""
    if abs(score - limit) < policy.uncertain_band:
        return Verdict.UNCERTAIN, f"rejection score {score:.2f} is too close to {limit:.2f} to tell{said}"
    if not score < limit:
        return Verdict.REJECTED, f"rejection score {score:.2f}, limit {limit:.2f}{said}"
    if target.rejected or target.token is None:
        return Verdict.REJECTED, f"refused by the reasoner{said}"
    return Verdict.ACCEPTED, f"found by the reasoner, rejection score {score:.2f}{said}"


@dataclasses.dataclass(frozen=True)
class Change:
    """One change of state."""

    before: State
    after: State
    score: float
    reason: str
    stamp_ns: int


class TargetStateMachine:
    """State, reason and since of one target.

    ``armed``: a token accepted by a grounding may prompt the mask head. Changes collect in ``changes`` until their
    owner takes them. Stamps lower than the newest one count as the newest, so that time never runs backwards here;
    :meth:`restart` alone begins a new time base.
    """

    def __init__(self, policy: Policy, stamp_ns: int, reason: str = "waiting for the reasoner") -> None:
        self.policy = policy
        self.state = State.GROUNDING
        self.reason = reason
        self.since_ns = stamp_ns
        self.score = 0.0
        self.rejection_score = 0.0
        self.armed = False
        self.ever_present = False
        self.changes: list[Change] = []
        self._now_ns = stamp_ns

    def __repr__(self) -> str:
        return f"<{self.state.name} since {self.since_ns}: {self.reason}>"

    @property
    def live(self) -> bool:
        """Whether the target is being followed from frame to frame."""
        return self.state in (State.PRESENT, State.OCCLUDED)

    @property
    def unanswered(self) -> bool:
        """Whether only a grounding can say more."""
        return not self.armed and self.state not in (State.STALE, State.PRESENT, State.OCCLUDED)

    def grounded(self, target: Target, stamp_ns: int) -> Verdict:
        """Take the reasoner's answer. An accepted target becomes PRESENT with its first mask, not before."""
        verdict, reason = judge(target, self.policy)
        self.rejection_score = target.rejection_score
        self.armed = verdict is Verdict.ACCEPTED
        if self.state is State.STALE:
            return verdict  # a verdict on frames that are no longer live waits for the next frame
        if verdict is Verdict.REJECTED:
            self._move(State.NO_TARGET, reason, stamp_ns)
        elif verdict is Verdict.UNCERTAIN:
            self._move(State.UNCERTAIN, reason, stamp_ns)
        else:
            self._move(self.state, f"{reason}; waiting for its first mask", stamp_ns)
        return verdict

    def segmented(self, score: float, pixels: int, stamp_ns: int, elsewhere: str = "") -> None:
        """Take the mask head's evidence on one frame; without an armed token it says nothing and is ignored. elsewhere:
        why the mask must be another thing's, by where or when this one was last seen, in words; "": nothing says so."""
        if not self.armed:
            return
        self.score = score
        limit = self.policy.present_threshold
        if self.state is State.PRESENT:
            limit -= self.policy.hysteresis
        if pixels > 0 and score >= limit and not elsewhere:
            self.ever_present = True
            self._move(State.PRESENT, f"visible, score {score:.2f}", stamp_ns)
        elif self.state is State.LOST:
            asked_again = not self.policy.reacquire_by_token
            self._lose("found by the reasoner, but not on the present frame" if asked_again else self.reason, stamp_ns)
        elif self.state is State.OCCLUDED and stamp_ns - self.since_ns > self.policy.lost_after_ns:
            self._lose(f"not seen for more than {self.policy.lost_after_ns / 1e9:g} s", stamp_ns)
        else:
            detail = f"score {score:.2f}, limit {limit:.2f}" if pixels else "its mask is empty"
            if elsewhere and score >= limit:
                detail = elsewhere
            self._move(State.OCCLUDED, f"not visible: {detail}", stamp_ns)

    def dropped(self, reason: str, stamp_ns: int) -> None:
        """The reasoner no longer names this target."""
        self.armed = False
        self._move(State.NO_TARGET, reason, stamp_ns)

    def taken(self, reason: str, stamp_ns: int) -> None:
        """What was found is another target: this one stays, or becomes, LOST."""
        self._lose(reason, stamp_ns)

    def failed(self, reason: str, stamp_ns: int) -> None:
        """A step of the model raised: nothing is known until a grounding succeeds again."""
        self.armed = False
        self._move(State.ERROR, reason, stamp_ns)

    def stale(self, reason: str, stamp_ns: int) -> None:
        """No frame came for too long. The token is kept for a short pause."""
        self._move(State.STALE, reason, stamp_ns)

    def resumed(self, gap_ns: int, stamp_ns: int) -> None:
        """Frames are back ``gap_ns`` after the last one: a short pause goes on with the token, a long one asks anew."""
        if self.state is not State.STALE or (self.armed and gap_ns <= self.policy.lost_after_ns):
            return
        if self.ever_present:
            self._lose(f"no frames for {gap_ns / 1e9:.1f} s", stamp_ns)
        else:
            self.armed = False
            self._move(State.GROUNDING, "frames are back, waiting for the reasoner", stamp_ns)

    def restart(self, reason: str, stamp_ns: int) -> None:
        """Forget everything but the identity; ``stamp_ns`` may lie before earlier ones."""
        self.armed = self.ever_present = False
        self.score = self.rejection_score = 0.0
        self._now_ns = stamp_ns
        if self.state is State.GROUNDING:
            self.since_ns = stamp_ns
        self._move(State.GROUNDING, reason, stamp_ns)

    def take_changes(self) -> list[Change]:
        """The changes since the last call, oldest first."""
        changes, self.changes = self.changes, []
        return changes

    def _lose(self, reason: str, stamp_ns: int) -> None:
        self.armed = self.armed and self.policy.reacquire_by_token
        self._move(State.LOST, reason, stamp_ns)

    def _move(self, state: State, reason: str, stamp_ns: int) -> None:
        self._now_ns = max(self._now_ns, stamp_ns)
        self.reason = reason
        if state is self.state:
            return
        if state not in (State.PRESENT, State.OCCLUDED, State.LOST):
            self.score = 0.0
        self.changes.append(Change(self.state, state, self.score, reason, self._now_ns))
        self.state, self.since_ns = state, self._now_ns
