"""The ways in which a protocol lets a recipe look at footage: each takes samples of one footage to their answers."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...core import BadInput, Clip, EncodedFrame, Grounding, Instruction, Segmenter, Target, TargetMask
from ...data.samples import Sample
from ...sampling import sparse_dense, spread_or_repeat
from .footages import EncodedFootage
from .masks import encode_mask, encode_soft
from .protocol import Protocol

if TYPE_CHECKING:
    from ...tracking.memory import MemoryTracker

LONGEST = 900  # characters of several sentences in one instruction; an instruction may have 1000
MOST_IN_CLIP = 512


@dataclasses.dataclass(eq=False)
class Answer:
    """What is kept of one sample: run lengths of every frame, None where there is no mask."""

    masks: list[dict | None]
    soft: list[str | None]
    refused: bool
    score: float


Way = Callable[[Segmenter, EncodedFootage, Sequence[Sample], Protocol], list[Answer]]


def find_way(name: str) -> Way:
    return _WAYS[name]


def ask(segmenter: Segmenter, clip: Clip, texts: Sequence[str]) -> list[Grounding]:
    return segmenter.ground(clip, [Instruction(str(i), text) for i, text in enumerate(texts)])


@contextlib.contextmanager
def options_set(segmenter: Segmenter, changes: dict[str, str]) -> Iterator[None]:
    """The recipe with some of its options changed for a while: those that it reads at each question."""
    recipe = getattr(segmenter, "recipe", segmenter)
    if not changes:
        yield
        return
    before = recipe.options
    recipe.options = dataclasses.replace(before, **changes)
    try:
        yield
    finally:
        recipe.options = before


# Single images


def image(segmenter: Segmenter, frames: EncodedFootage, samples: Sequence[Sample], protocol: Protocol) -> list[Answer]:
    """Each sentence by itself, or several in one conversation where the protocol says so."""
    encoded = frames.encoded(0)
    clip = Clip((encoded,))
    if protocol.together > 1:
        targets: list[list[Target]] = []
        for part in _conversations([_single_phrase(s.instruction) for s in samples], protocol.together):
            given = ask(segmenter, clip, ["; ".join(part) + ";"])[0].targets
            if len(given) != len(part):
                raise BadInput(f"{len(part)} sentences in one conversation got {len(given)} answers: {part}")
            targets += [[target] for target in given]
    else:
        targets = [list(g.targets) for g in ask(segmenter, clip, [s.instruction for s in samples])]
    answers = [_begin(given, protocol, 1) for given in targets]
    for answer, given in zip(answers, targets, strict=True):
        shown = _shown(given, protocol)
        _keep(answer, 0, segmenter.segment(encoded, [t.token for t in shown]), protocol, encoded.frame.size)
    return answers


def _single_phrase(text: str) -> str:
    """A semicolon separates phrases: within one there is none."""
    return text.replace(";", ",")


def _conversations(texts: list[str], most: int) -> Iterator[list[str]]:
    part: list[str] = []
    for text in texts:
        if part and (len(part) == most or sum(map(len, part)) + 2 * len(part) + len(text) > LONGEST):
            yield part
            part = []
        part.append(text)
    yield part


# Videos


def whole_video(
    segmenter: Segmenter, frames: EncodedFootage, samples: Sequence[Sample], protocol: Protocol
) -> list[Answer]:
    """One answer on frames spread over all of the video, its tokens on every frame."""
    count = len(frames)
    wanted = segmenter.sampling.sparse
    chosen = spread_or_repeat(count, wanted) if count > wanted else range(count)
    clip = Clip(tuple(frames.encoded(i) for i in chosen))
    given = [list(g.targets) for g in ask(segmenter, clip, [s.instruction for s in samples])]
    return _follow(segmenter, frames, given, protocol, [range(count)])


def from_key(
    segmenter: Segmenter, frames: EncodedFootage, samples: Sequence[Sample], protocol: Protocol
) -> list[Answer]:
    """One answer on the clip that a stream would have had first, its tokens from there to both ends of the video."""
    count, sampling = len(frames), segmenter.sampling
    key = min(count - 1, round(sampling.horizon_s * frames.rate))
    chosen = sparse_dense([frames.stamp_ns(i) for i in range(key + 1)], sampling)
    clip = Clip(tuple(frames.encoded(i) for i in chosen.indices), chosen.dense)
    given = [list(g.targets) for g in ask(segmenter, clip, [s.instruction for s in samples])]
    return _follow(segmenter, frames, given, protocol, [range(key, count), range(key - 1, -1, -1)])


def each_frame(
    segmenter: Segmenter, frames: EncodedFootage, samples: Sequence[Sample], protocol: Protocol
) -> list[Answer]:
    """An answer on every frame by itself: systems for single images."""
    answers = [_begin([], protocol, len(frames)) for _ in samples]
    for index in range(len(frames)):
        encoded = frames.encoded(index)
        groundings = ask(segmenter, Clip((encoded,)), [s.instruction for s in samples])
        for answer, grounding in zip(answers, groundings, strict=True):
            shown = _shown(grounding.targets, protocol)
            _keep(answer, index, segmenter.segment(encoded, [t.token for t in shown]), protocol, encoded.frame.size)
            now = _begin(grounding.targets, protocol, 0)
            answer.score = max(answer.score, now.score)
            answer.refused = now.refused and (index == 0 or answer.refused)
    return answers


def target_frames(
    segmenter: Segmenter, frames: EncodedFootage, samples: Sequence[Sample], protocol: Protocol
) -> list[Answer]:
    """Every frame in turn as the target frame of a recipe that chooses one (VISA), all frames being its clip."""
    count = min(len(frames), MOST_IN_CLIP)
    if len(frames) > MOST_IN_CLIP:
        raise BadInput(f"{frames.footage.name} has {len(frames)} frames; this protocol takes {MOST_IN_CLIP} at most")
    clip = Clip(tuple(frames.encoded(i) for i in range(count)))
    answers = [_begin([], protocol, count) for _ in samples]
    before = segmenter.frame_sampler
    try:
        for index in range(count):
            segmenter.frame_sampler = _ThisFrame(index)
            groundings = ask(segmenter, clip, [s.instruction for s in samples])
            for answer, grounding in zip(answers, groundings, strict=True):
                masks = [t.anchor.mask for t in grounding.targets if t.anchor is not None]
                _keep(answer, index, masks, protocol, clip.key.frame.size)
                now = _begin(grounding.targets, protocol, 0)
                answer.score = max(answer.score, now.score)
                answer.refused = now.refused and (index == 0 or answer.refused)
    finally:
        segmenter.frame_sampler = before
    return answers


@dataclasses.dataclass(frozen=True)
class _ThisFrame:
    index: int

    def choose(self, frames: Sequence[EncodedFrame], expression: str) -> int:
        return self.index


def neighbours(
    segmenter: Segmenter, frames: EncodedFootage, samples: Sequence[Sample], protocol: Protocol
) -> list[Answer]:
    """Every frame with its neighbours as references, future ones too: InstructSeg's own evaluation."""
    images = [frames.frame(i) for i in range(len(frames))]
    answers = []
    for sample in samples:
        masks = segmenter.segment_video(images, sample.instruction)
        answer = Answer([None] * len(images), [None] * len(images), False, max(mask.score for mask in masks))
        for index, mask in enumerate(masks):
            _keep(answer, index, [mask], protocol, images[index].size)
        answers.append(answer)
    return answers


def both_ways(
    segmenter: Segmenter, frames: EncodedFootage, samples: Sequence[Sample], protocol: Protocol
) -> list[Answer]:
    """The recipe's mask on one frame of a clip spread over the video; SAM 2's memory from there to both ends."""
    recipe, count = segmenter.recipe, len(frames)
    chosen = sorted(set(spread_or_repeat(count, min(count, recipe.sampling.sparse))))
    own = Clip(tuple(frames.encoded(i).features.own for i in chosen))
    answers = []
    for sample in samples:
        targets = list(ask(recipe, own, [sample.instruction])[0].targets)
        answer = _begin(targets, protocol, count)
        starts = []
        for target in _shown(targets, protocol):
            place = len(chosen) - 1 if target.anchor is None else target.anchor.frame
            mask = recipe.segment(own.key, [target.token])[0] if target.anchor is None else target.anchor.mask
            starts.append((chosen[place], mask.mask))
        _carry(segmenter.tracker, frames, starts, answer)
        answers.append(answer)
    return answers


def given_mask(
    segmenter: Segmenter, frames: EncodedFootage, samples: Sequence[Sample], protocol: Protocol
) -> list[Answer]:
    """Semi-supervised: the object's true mask where it comes into view, the tracker's memory from there on."""
    answers = []
    for sample in samples:
        first = int(sample.extra["key_frame"])
        truth = None if sample.truth is None else sample.truth(first)
        if truth is None:
            raise BadInput(f"{sample.id}: frame {frames.footage.frames[first]} has no mask to begin with")
        answer = Answer([None] * len(frames), [None] * len(frames), False, 1.0)
        _carry(segmenter.tracker, frames, [(first, truth.union)], answer, backwards=False)
        answers.append(answer)
    return answers


def _carry(
    tracker: MemoryTracker,
    frames: EncodedFootage,
    starts: list[tuple[int, np.ndarray]],
    answer: Answer,
    backwards: bool = True,
) -> None:
    """Masks at frames to masks on all frames, by memory."""
    found: dict[int, list[np.ndarray]] = {}
    for start, mask in starts:
        if not mask.any():
            continue
        found.setdefault(start, []).append(mask)
        directions = [range(start + 1, len(frames))] + ([range(start - 1, -1, -1)] if backwards else [])
        for order in directions:
            memory = tracker.start(frames.encoded(start).features.tracked(), mask)
            for index in order:
                masks, memories = tracker.step(frames.encoded(index).features.tracked(), [memory])
                found.setdefault(index, []).append(masks[0].mask)
                memory = memories[0]
    for index, masks in found.items():
        answer.masks[index] = encode_mask(np.any(masks, axis=0))


def _follow(
    segmenter: Segmenter,
    frames: EncodedFootage,
    given: list[list[Target]],
    protocol: Protocol,
    orders: Sequence[range],
) -> list[Answer]:
    """Tokens from frame to frame; a second order starts again from the tokens after the first frame of the first one,
    with time running backwards."""
    answers = [_begin(targets, protocol, len(frames)) for targets in given]
    owners = [i for i, targets in enumerate(given) for _ in _shown(targets, protocol)]
    tokens = [target.token for targets in given for target in _shown(targets, protocol)]
    begun = tokens
    for number, order in enumerate(orders):
        tokens = begun
        for index in order:
            encoded = frames.encoded(index)
            if number:
                mirrored = 2 * frames.stamp_ns(orders[0][0]) - encoded.frame.stamp_ns
                encoded = EncodedFrame(dataclasses.replace(encoded.frame, stamp_ns=mirrored), encoded.features)
            masks = segmenter.segment(encoded, tokens) if tokens else []
            tokens = [mask.token for mask in masks]
            if number == 0 and index == order[0]:
                begun = tokens
            for i, answer in enumerate(answers):
                own = [mask for mask, owner in zip(masks, owners, strict=True) if owner == i]
                _keep(answer, index, own, protocol, encoded.frame.size)
    return answers


# What is kept


def _begin(targets: Sequence[Target], protocol: Protocol, count: int) -> Answer:
    """An answer without masks yet: whether all of its targets are refused, and the surest one's score."""
    refused = all(_refused(target, protocol) for target in targets)
    return Answer([None] * count, [None] * count, refused, max((target.score for target in targets), default=0.0))


def _refused(target: Target, protocol: Protocol) -> bool:
    if target.token is None and target.anchor is None:
        return True
    return target.rejected if protocol.refuse_from is None else target.rejection_score >= protocol.refuse_from


def _shown(targets: Sequence[Target], protocol: Protocol) -> list[Target]:
    """Those whose masks are kept: where refusal is this protocol's business, refused ones too."""
    return [t for t in targets if t.token is not None and (protocol.refuse_from is not None or not t.rejected)]


def _keep(answer: Answer, index: int, masks: Sequence[TargetMask], protocol: Protocol, size: tuple[int, int]) -> None:
    seen = [mask for mask in masks if mask.score >= protocol.show_from]
    union = np.any([mask.mask for mask in seen], axis=0) if seen else np.zeros(size, bool)
    answer.masks[index] = encode_mask(union)
    if protocol.fusion == "soft" and seen and seen[0].confidence is not None:
        answer.soft[index] = encode_soft(seen[0].confidence)


_WAYS: dict[str, Way] = {
    way.__name__: way
    for way in (image, whole_video, from_key, each_frame, target_frames, neighbours, both_ways, given_mask)
}
