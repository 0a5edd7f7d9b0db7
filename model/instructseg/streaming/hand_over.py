"""From the reasoner's answers about an earlier frame to tokens that hold on the present one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from ..core import Clip, EncodedFrame, Grounding, TargetMask
from ..tracking.identity import Sightings
from ..tracking.token_tracker import TokenTracker
from .checks import checked_likeness, checked_masks
from .state import CameraStream, StreamState

_PACE_STEPS = 4  # the pace of the camera is measured over so many replayed frames
_FASTER = 3  # how much faster than the camera a replay shall be, if need be by leaving frames out
_AT_PRESENT = 2  # times the newest frame was replayed; what came during the last time is close enough


@dataclasses.dataclass(eq=False)
class Answer:
    """The reasoner's answer to one instruction, on its way to the tracker that asked.

    generation: of the tracker when it asked; in a later one the answer is obsolete. tokens: by place in the answer.
    """

    tracker: TokenTracker
    generation: int
    refresh: bool
    grounding: Grounding
    tokens: dict[int, Any] = dataclasses.field(default_factory=dict)
    sightings: Sightings | None = None


class _Pace:
    """Which of the waiting frames is replayed next: each one, unless that gains too little on the camera; then every
    second, third, ... one. Every step of a token may grow a little, the lag with which it ends must not."""

    def __init__(self) -> None:
        self.at_present = 0
        self._stride = 1
        self._waiting = self._consumed = self._steps = 0

    def next(self, waiting: int) -> int:
        """Index of the frame to replay among ``waiting`` ones, oldest first."""
        if self._steps == 0:
            self._waiting, self._consumed = waiting, 0
        elif self._steps == _PACE_STEPS:
            came = waiting - (self._waiting - self._consumed)
            self._stride = max(self._stride, math.ceil(_FASTER * came / _PACE_STEPS))
            self._steps, self._waiting, self._consumed = 0, waiting, 0
        index = min(self._stride, waiting) - 1
        self._steps += 1
        self._consumed += index + 1
        self.at_present += index == waiting - 1
        return index


class HandOver:
    """Replays the tokens of several answers over the frames that came after the key frame, all in one call a frame,
    shows them the present frame beside the old tokens, and installs them. An answer that has become obsolete meanwhile
    drops out alone."""

    def __init__(self, state: StreamState) -> None:
        self._state = state

    def run(self, stream: CameraStream, clip: Clip, answers: Sequence[Answer]) -> list[Answer]:
        """The answers that still counted and were installed. Raises what the segmenter raises; nothing is installed
        then."""
        state, latest = self._state, clip.key
        for answer in answers:
            answer.tokens = {place: target.token for place, target in answer.tracker.accepted(answer.grounding).items()}
        pace = _Pace()
        while True:
            with state.guard:
                answers = [answer for answer in answers if state.book.holds(answer.tracker, answer.generation)]
                newer = stream.buffer.after(latest.frame.stamp_ns) if _tokens(answers) else []
                if newer and not state.segmenter.carries_tokens:
                    latest, newer = newer[-1], []
                elif pace.at_present >= _AT_PRESENT:
                    newer = []
                unseen = [] if newer else [a for a in answers if a.tokens and a.sightings is None]
                old = {id(answer): answer.tracker.witnesses() for answer in unseen}
                unseen = [answer for answer in unseen if old[id(answer)]]
                if not newer and not unseen:
                    self._install(stream, clip.key, answers)
                    return list(answers)
            if newer:
                chosen = newer[pace.next(len(newer))]
                # A recipe whose token is the same on every frame has nothing to catch up with.
                latest = chosen if self._replay(chosen, answers) else newer[-1]
            else:
                self._compare(latest, unseen, [old[id(answer)] for answer in unseen])

    def _replay(self, encoded: EncodedFrame, answers: Sequence[Answer]) -> bool:
        """Carry the tokens over one frame; whether any of them has changed."""
        before = _tokens(answers)
        masks = self._segment(encoded, before)
        after = iter(mask.token for mask in masks)
        for answer in answers:
            answer.tokens = {place: next(after) for place in answer.tokens}
        return any(token is not mask.token for token, mask in zip(before, masks, strict=True))

    def _compare(self, encoded: EncodedFrame, answers: Sequence[Answer], old: Sequence[dict[int, Any]]) -> None:
        tokens = _tokens(answers) + [token for witnesses in old for token in witnesses.values()]
        masks = iter(self._segment(encoded, tokens))
        new_masks = [{place: next(masks) for place in answer.tokens} for answer in answers]
        segmenter = self._state.segmenter
        for answer, new, witnesses in zip(answers, new_masks, old, strict=True):
            seen = {slot: next(masks) for slot in witnesses}
            pairs = [(place, slot) for place in new for slot in witnesses]
            likeness = {pair: segmenter.likeness(witnesses[pair[1]], answer.tokens[pair[0]]) for pair in pairs}
            told = {pair: value for pair, value in likeness.items() if value is not None}
            answer.sightings = Sightings(new, seen, segmenter.tokens_identify, checked_likeness(told))

    def _segment(self, encoded: EncodedFrame, tokens: list[Any]) -> Sequence[TargetMask]:
        return checked_masks(self._state.segmenter.segment(encoded, tokens), tokens, encoded.frame)

    def _install(self, stream: CameraStream, key: EncodedFrame, answers: Sequence[Answer]) -> None:
        key_ns = key.frame.stamp_ns
        stamp_ns = stream.buffer.newest_ns or key_ns
        for answer in answers:
            answer.tracker.apply_grounding(
                answer.grounding, answer.tokens, key_ns, stamp_ns, answer.refresh, answer.sightings
            )
        self._state.post_events()


def _tokens(answers: Sequence[Answer]) -> list[Any]:
    return [token for answer in answers for token in answer.tokens.values()]
