"""Any recipe with SAM 2's memory: the recipe says what is meant, the memory carries its mask from frame to frame.

``memory``: the recipe's own masks come at groundings and once a period, the memory's between them. Where the recipe
looks and does not see its target, what the memory goes on following is not reported until the next look. ``hybrid``:
both on every frame, and :func:`agreement.choose` decides.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core import (
    Anchor,
    BadInput,
    Clip,
    EncodedFrame,
    Frame,
    Grounding,
    Instruction,
    InstructSegError,
    Segmenter,
    Target,
    TargetMask,
)
from ..recent_images import RecentImages, Value
from .agreement import VISIBLE, Choice, HybridRule, choose, overlap
from .memory import MemoryTracker, TrackedMask
from .memory_bank import TrackMemory

IMAGES_KEPT = 8  # frames whose maps of the tracker stay; 17 MB each at 1024 pixels in float32


@dataclasses.dataclass(frozen=True, eq=False)
class View:
    """A frame as the recipe sees it, and as the tracker does (computed on demand)."""

    own: EncodedFrame
    tracked: Value


@dataclasses.dataclass(frozen=True, eq=False)
class FollowedToken:
    """A target after the frame of ``stamp_ns``.

    own: the recipe's token. memory: None while there was no mask worth remembering. shown: the result on that frame,
    its own token None. looked_ns, looked_score: when the recipe last looked, and what its mask scored. seen_ns: the
    last look that saw the target.
    """

    own: Any
    memory: TrackMemory | None
    stamp_ns: int
    shown: TargetMask
    looked_ns: int
    looked_score: float
    seen_ns: int | None


class FollowingSegmenter(Segmenter):
    """recipe: what grounds and gives the masks to begin with. anchor_period_s: seconds between two looks of the recipe
    at a target that the memory follows; 0: every frame, ``math.inf``: at groundings alone. hybrid: the rule where token
    and memory both work on every frame; anchor_period_s then says nothing.

    A mask that is empty or scores below one half is not remembered: the recipe looks again on the next frame.
    """

    carries_tokens = True  # a memory must see the frames since its key frame

    def __init__(
        self,
        recipe: Segmenter,
        tracker: MemoryTracker,
        anchor_period_s: float = math.inf,
        hybrid: HybridRule | None = None,
        images_kept: int = IMAGES_KEPT,
    ) -> None:
        if isinstance(recipe, FollowingSegmenter):
            raise BadInput(
                "a tracker carries the masks of this recipe already: set it by the recipe's own options "
                "(tracker_checkpoint) or by the parameter tracker, not by both"
            )
        if not anchor_period_s >= 0.0:
            raise BadInput(f"anchor_period_s must be 0 or more seconds; got {anchor_period_s}")
        self.recipe = recipe
        self.tracker = tracker
        self.anchor_period_s = anchor_period_s
        self.hybrid = hybrid
        self.views = RecentImages(images_kept)
        self.name, self.device = recipe.name, recipe.device
        self.joins_cameras = recipe.device != "cpu"  # fewer, larger kernels; on a CPU they only leave its cache
        self.sampling, self.max_targets = recipe.sampling, recipe.max_targets
        reports = [r for r in (recipe.load_report, tracker.load_report) if r is not None]
        self.load_report = sum(reports[1:], reports[0]) if reports else None
        self.notes = tuple(note for note in recipe.notes if note not in recipe.notes_untracked)

    @property
    def resolution_scale(self) -> float | None:
        """The recipe's own; SAM 2 has one size."""
        return self.recipe.resolution_scale

    @resolution_scale.setter
    def resolution_scale(self, scale: float) -> None:
        self.recipe.resolution_scale = scale

    @property
    def reduced_scale(self) -> float:
        return self.recipe.reduced_scale

    def encode(self, frames: Sequence[Frame]) -> list[EncodedFrame]:
        return [
            EncodedFrame(
                own.frame, View(own, self.views.value(lambda image=own.frame.image: self.tracker.encode(image)))
            )
            for own in self.recipe.encode(frames)
        ]

    def ground(self, clip: Clip, instructions: Sequence[Instruction]) -> list[Grounding]:
        own = Clip(tuple(encoded.features.own for encoded in clip.frames), clip.dense)
        groundings = self.recipe.ground(own, instructions)
        found = [target for grounding in groundings for target in grounding.targets if target.token is not None]
        begun = iter(self._begin(clip, found))
        return [
            dataclasses.replace(g, targets=tuple(t if t.token is None else next(begun) for t in g.targets))
            for g in groundings
        ]

    def segment(self, encoded: EncodedFrame, tokens: Sequence[FollowedToken]) -> list[TargetMask]:
        return self.segment_together([(encoded, tokens)])[0]

    def segment_together(
        self, frames: Sequence[tuple[EncodedFrame, Sequence[FollowedToken]]]
    ) -> list[list[TargetMask]]:
        fresh = [[token for token in tokens if token.stamp_ns != encoded.frame.stamp_ns] for encoded, tokens in frames]
        moved = self._move([(encoded, tokens) for (encoded, _), tokens in zip(frames, fresh, strict=True)])
        results = []
        for (encoded, tokens), after in zip(frames, moved, strict=True):
            each = iter(after)
            current = [token if token.stamp_ns == encoded.frame.stamp_ns else next(each) for token in tokens]
            results.append([dataclasses.replace(token.shown, token=token) for token in current])
        return results

    def likeness(self, old: FollowedToken, new: FollowedToken) -> float | None:
        return self.recipe.likeness(old.own, new.own)

    def warm_up(self, height: int = 480, width: int = 640) -> None:
        self.recipe.warm_up(height, width)
        features = self.tracker.encode(np.zeros((height, width, 3), np.uint8))
        self.tracker.step(features, [self.tracker.start(features, np.ones((height, width), bool))])

    # From the recipe's answer to a memory

    def _begin(self, clip: Clip, targets: Sequence[Target]) -> list[Target]:
        """The targets with tokens that stand for the key frame."""
        key = len(clip.frames) - 1
        unseen = [i for i, target in enumerate(targets) if target.anchor is None]
        masks = self._look(clip.key, [targets[i].token for i in unseen])
        anchors = [target.anchor for target in targets]
        owners = [target.token for target in targets]
        for i, mask in zip(unseen, masks, strict=True):
            anchors[i], owners[i] = Anchor(key, mask), mask.token
        tokens = [self._first(clip, owner, anchor) for owner, anchor in zip(owners, anchors, strict=True)]
        for index in range(1, key + 1):
            late = [i for i, anchor in enumerate(anchors) if anchor.frame < index and tokens[i].memory is not None]
            stepped = self._carry(clip.frames[index], [tokens[i] for i in late])
            for i, token in zip(late, stepped, strict=True):
                tokens[i] = token
        return [
            dataclasses.replace(
                target,
                token=token,
                score=target.score if anchor.frame == key else token.shown.score,
                anchor=None,
            )
            for target, token, anchor in zip(targets, tokens, anchors, strict=True)
        ]

    def _first(self, clip: Clip, own: Any, anchor: Anchor) -> FollowedToken:
        if not 0 <= anchor.frame < len(clip.frames):
            raise InstructSegError(
                f"an anchor must be a frame of the {len(clip.frames)} of the clip; got {anchor.frame}"
            )
        encoded, mask = clip.frames[anchor.frame], anchor.mask
        stamp_ns = encoded.frame.stamp_ns
        memory = self.tracker.start(encoded.features.tracked(), mask.mask) if _sees(mask) else None
        return FollowedToken(
            own, memory, stamp_ns, _bare(mask), stamp_ns, mask.score, stamp_ns if _sees(mask) else None
        )

    def _carry(self, encoded: EncodedFrame, tokens: Sequence[FollowedToken]) -> list[FollowedToken]:
        """One frame on by memory alone."""
        stepped = self._step([(encoded, token.memory) for token in tokens])
        return [
            dataclasses.replace(token, memory=memory, stamp_ns=encoded.frame.stamp_ns, shown=mask)
            for token, (mask, memory) in zip(tokens, stepped, strict=True)
        ]

    # From frame to frame

    def _move(self, frames: Sequence[tuple[EncodedFrame, Sequence[FollowedToken]]]) -> list[list[FollowedToken]]:
        """Each target on its frame: the recipe looks at those that are due, the memory steps where it is needed, for
        all frames at once."""
        looks = [self._looks_due(encoded, tokens) for encoded, tokens in frames]
        remembered = [
            (n, i)
            for n, (_, tokens) in enumerate(frames)
            for i, token in enumerate(tokens)
            if token.memory is not None and (self.hybrid is not None or i not in looks[n] or not _sees(looks[n][i]))
        ]  # but in hybrid, a look that saw the target takes the place of a step
        steps = self._step([(frames[n][0], frames[n][1][i].memory) for n, i in remembered])
        stepped = dict(zip(remembered, steps, strict=True))
        return [
            [self._after(encoded, token, looks[n].get(i), stepped.get((n, i))) for i, token in enumerate(tokens)]
            for n, (encoded, tokens) in enumerate(frames)
        ]

    def _looks_due(self, encoded: EncodedFrame, tokens: Sequence[FollowedToken]) -> dict[int, TargetMask]:
        due = [i for i, token in enumerate(tokens) if self._due(token, encoded.frame.stamp_ns)]
        return dict(zip(due, self._look(encoded, [tokens[i].own for i in due]), strict=True))

    def _due(self, token: FollowedToken, now_ns: int) -> bool:
        if self.hybrid is not None or token.memory is None:
            return True
        return not 0 <= now_ns - token.looked_ns < self.anchor_period_s * 1e9

    def _after(
        self,
        encoded: EncodedFrame,
        token: FollowedToken,
        look: TargetMask | None,
        step: tuple[TargetMask, TrackMemory] | None,
    ) -> FollowedToken:
        now = encoded.frame.stamp_ns
        token = dataclasses.replace(token, stamp_ns=now)
        if look is not None:
            seen_ns = now if _sees(look) else token.seen_ns
            token = dataclasses.replace(token, own=look.token, looked_ns=now, looked_score=look.score, seen_ns=seen_ns)
        if step is None:
            return dataclasses.replace(token, memory=self._remembered(encoded, token.memory, look), shown=_bare(look))
        if self.hybrid is not None:
            return self._weighed(encoded, token, look, *step, self.hybrid)
        mask, memory = step
        score = mask.score if token.looked_score >= VISIBLE else min(mask.score, token.looked_score)
        return dataclasses.replace(token, memory=memory, shown=dataclasses.replace(mask, score=score))

    def _weighed(
        self,
        encoded: EncodedFrame,
        token: FollowedToken,
        look: TargetMask,
        mask: TargetMask,
        memory: TrackMemory,
        rule: HybridRule,
    ) -> FollowedToken:
        """Both witnesses on one frame."""
        alone_s = -1.0 if token.seen_ns is None else (token.stamp_ns - token.seen_ns) / 1e9
        own_score = look.score if look.mask.any() else 0.0
        common = overlap(look.mask, mask.mask)
        choice = choose(own_score, mask.score, common, alone_s, rule)
        apart = min(own_score, mask.score) >= VISIBLE and common < rule.agreement
        disagrees = look.disagrees or apart  # whoever is believed, the reasoner is asked which it is
        if choice is Choice.TOKEN:
            memory = self.tracker.refresh(encoded.features.tracked(), memory, look.mask, stepped=True)
            return dataclasses.replace(
                token, memory=memory, shown=dataclasses.replace(_bare(look), disagrees=disagrees)
            )
        score = {
            Choice.AGREED: max(own_score, mask.score),
            Choice.MEMORY: mask.score,
            Choice.NEITHER: min(own_score, mask.score),
        }[choice]
        shown = dataclasses.replace(mask, score=score, disagrees=disagrees)
        return dataclasses.replace(token, memory=memory, shown=shown)

    def _remembered(self, encoded: EncodedFrame, memory: TrackMemory | None, look: TargetMask) -> TrackMemory | None:
        """The memory after a mask of the recipe's own, on a frame it has not stepped to."""
        if not _sees(look):
            return memory
        features = encoded.features.tracked()
        if memory is None:
            return self.tracker.start(features, look.mask)
        return self.tracker.refresh(features, memory, look.mask)

    # The two models

    def _look(self, encoded: EncodedFrame, tokens: Sequence[Any]) -> list[TargetMask]:
        if not tokens:
            return []
        masks = self.recipe.segment(encoded.features.own, tokens)
        if len(masks) != len(tokens) or not all(0.0 <= mask.score <= 1.0 for mask in masks):
            got = [mask.score for mask in masks]
            raise InstructSegError(f"segment of {len(tokens)} tokens must give as many scores in 0..1; got {got}")
        return masks

    def _step(self, memories: Sequence[tuple[EncodedFrame, TrackMemory]]) -> list[tuple[TargetMask, TrackMemory]]:
        """Each memory on the frame beside it, all in one call."""
        if not memories:
            return []
        seen = {id(encoded): encoded.features.tracked() for encoded, _ in memories}
        frames = next(iter(seen.values())) if len(seen) == 1 else [seen[id(encoded)] for encoded, _ in memories]
        masks, new = self.tracker.step(frames, [memory for _, memory in memories])
        return [(_target_mask(mask), memory) for mask, memory in zip(masks, new, strict=True)]


def _sees(mask: TargetMask) -> bool:
    return mask.score >= VISIBLE and bool(mask.mask.any())


def _bare(mask: TargetMask) -> TargetMask:
    return dataclasses.replace(mask, token=None)


def _target_mask(mask: TrackedMask) -> TargetMask:
    return TargetMask(mask.mask, mask.score, None, mask.confidence)
