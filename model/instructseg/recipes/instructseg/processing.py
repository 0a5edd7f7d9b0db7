"""InstructSeg as a Segmenter. Its masks are made with the language model on every frame, as published: the token that
travels is the instruction with its reference frames, and ``segment`` asks again with one frame more."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from ...core import (
    Anchor,
    BadInput,
    Clip,
    EncodedFrame,
    Frame,
    Grounding,
    Instruction,
    Sampling,
    Segmenter,
    Target,
    TargetMask,
)
from ...options import parse_options
from .checkpoint import LoadedInstructSeg, load_checkpoint
from .configuration import REFERENCES, InstructSegOptions
from .history import Answer, History
from .query_masks import QueryMasks
from .reader import Reader
from .references import key_and_references, neighbours

EVERY_FRAME = "masks=every_frame: the language model runs on every frame and for every instruction"
_HOLD = 0.5  # share of the threshold that a mask needs to stay one of several targets


@dataclasses.dataclass(frozen=True, eq=False)
class FrameToken:
    """A target between two frames: the instruction so far, and what was found on the last frame. alone: whether it is
    the instruction's only target and so always its best mask."""

    history: History
    frame: Frame
    answer: Answer
    alone: bool


class InstructSegSegmenter(Segmenter):
    name = "instructseg"
    notes_untracked = (EVERY_FRAME,)
    carries_tokens = False  # a pass for every frame since a slow grounding would make the next one slower still

    def __init__(
        self, loaded: LoadedInstructSeg, device: torch.device, dtype: torch.dtype, options: InstructSegOptions
    ) -> None:
        self.reader = Reader(loaded, options, device, dtype)
        self.options = options
        self.device = str(device)
        self.load_report = loaded.report
        # Without a threshold every query would be a target: then the best one alone, as published.
        self.max_targets = options.max_targets if options.threshold > 0 else 1
        self.notes = _notes(options, dtype)
        if options.references == "none":
            self.sampling = Sampling(1, 1, 0.0)
        else:
            self.sampling = Sampling(REFERENCES + 1, 1, options.reference_seconds)

    def encode(self, frames: Sequence[Frame]) -> list[EncodedFrame]:
        return [EncodedFrame(frame, self.reader.features(frame)) for frame in frames]

    def ground(self, clip: Clip, instructions: Sequence[Instruction]) -> list[Grounding]:
        if not instructions:
            return []
        key, references = key_and_references(len(clip.frames), self.options.references == "published")
        if self.options.references == "none":
            references = ()
        histories = []
        for instruction in instructions:
            question = self.reader.question(instruction.text)
            seen = tuple(self.reader.reference(clip.frames[i], question) for i in references)
            histories.append(History(question, seen))
        views = self.reader.look(clip.frames[key], histories, self.options.threshold, self.max_targets)
        stamps = tuple(encoded.frame.stamp_ns for encoded in clip.frames)
        groundings = []
        for instruction, history, masks in zip(instructions, histories, views, strict=True):
            answers = self.reader.answers(masks)
            targets = self._targets(clip, key, history, answers)
            text = "; ".join(map(str, answers))
            groundings.append(Grounding(instruction.id, stamps[key], stamps, targets, text))
        return groundings

    def segment(self, encoded: EncodedFrame, tokens: Sequence[FrameToken]) -> list[TargetMask]:
        later = [t for t in tokens if t.frame is not encoded.frame]
        groups: dict[int, list[FrameToken]] = {}
        for token in later:
            groups.setdefault(id(token.history), []).append(token)
        histories = [group[0].history for group in groups.values()]
        views = self.reader.look(encoded, histories, _HOLD * self.options.threshold, self.max_targets)
        found: dict[int, FrameToken] = {}
        for history, group, masks in zip(histories, groups.values(), views, strict=True):
            after = self._after(history, encoded)
            for token, answer in zip(group, self._match(encoded.frame, group, masks), strict=True):
                found[id(token)] = FrameToken(after, encoded.frame, answer, token.alone)
        shown = [found.get(id(token), token) for token in tokens]
        return [TargetMask(t.answer.mask, t.answer.presence, t, t.answer.confidence) for t in shown]

    def segment_video(self, frames: Sequence[Frame], text: str) -> list[TargetMask]:
        """A recorded video as published: for every frame its four neighbours, future ones too, as references, and the
        best mask whatever its score. The frames' tokens stay in memory, 4 MB each at published size in half
        precision."""
        encoded = self.encode(frames)
        question = self.reader.question(text)
        references = [self.reader.reference(frame, question) for frame in encoded] if self.reader.video else []
        results = []
        for i, frame in enumerate(encoded):
            near = [references[k] for k in neighbours(i, len(encoded))] if references else []
            masks = self.reader.look(frame, [History(question, tuple(near))], 0.0, 1)[0]
            answer = self.reader.answers(masks)[0]
            results.append(TargetMask(answer.mask, answer.presence, answer, answer.confidence))
        return results

    def answer(self, encoded: EncodedFrame, question: str, limit: int = 128) -> str:
        """A question about one frame, answered in words; no masks."""
        return self.reader.chat(encoded, question, limit)

    def _targets(self, clip: Clip, key: int, history: History, answers: list[Answer]) -> tuple[Target, ...]:
        """The best mask, rejected below the threshold, and the others, which have passed it."""
        limit = self.options.threshold
        best = answers[0]
        if not best.mask.any() or best.score < limit:
            reason = f"the best mask has {best}, the limit is {limit:g} (not a published one)"
            return (Target(None, best.presence, 1.0 - best.presence, True, history.question.text, reason),)
        after, frame = self._after(history, clip.frames[key]), clip.frames[key].frame
        return tuple(
            Target(
                FrameToken(after, frame, answer, len(answers) == 1),
                answer.presence,
                1.0 - answer.presence if limit > 0 else 0.0,  # without a threshold nothing is ever refused
                False,
                history.question.text,
                str(answer),
                Anchor(key, TargetMask(answer.mask, answer.presence, None, answer.confidence)),
            )
            for answer in answers
        )

    def _after(self, history: History, encoded: EncodedFrame) -> History:
        """The history with this frame as a reference for those to come, if it is time for one."""
        interval_ns = self.options.reference_seconds * 1e9 / REFERENCES
        if not self.reader.video or not history.takes(encoded.frame.stamp_ns, interval_ns):
            return history
        return history.with_reference(self.reader.reference(encoded, history.question))

    def _match(self, frame: Frame, tokens: list[FrameToken], masks: QueryMasks) -> list[Answer]:
        """Which of the masks is which target: of an only target the best; of several the one that covers most of what
        it covered before, the score deciding where nothing does."""
        answers = self.reader.answers(masks)
        if len(tokens) == 1 and tokens[0].alone:
            return answers[:1]
        cost = [[-_overlap(t.answer.mask, a.mask) - 1e-3 * a.score for a in answers] for t in tokens]
        chosen = [self.reader.nothing(frame) for _ in tokens]
        for row, column in zip(*linear_sum_assignment(np.array(cost)), strict=True):
            chosen[row] = answers[column]
        return chosen


def build(
    checkpoint: str | Path, device: torch.device, dtype: torch.dtype | None, options: Mapping[str, str] | None = None
) -> Segmenter:
    """What ``instructseg.load("instructseg", ...)`` calls. Raises BadInput."""
    chosen = parse_options(InstructSegOptions, options, "recipe instructseg")
    if dtype == torch.float16 and device.type == "cpu":
        raise BadInput("dtype float16 works on CUDA devices only; use float32 or bfloat16 on the CPU")
    dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
    if chosen.masks == "every_frame":
        return InstructSegSegmenter(load_checkpoint(checkpoint), device, dtype, chosen)
    from ...tracking.following import FollowingSegmenter
    from ...tracking.memory_checkpoint import load_memory_tracker

    tracker = load_memory_tracker(chosen.tracker_checkpoint, device, dtype)
    return FollowingSegmenter(InstructSegSegmenter(load_checkpoint(checkpoint), device, dtype, chosen), tracker)


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    union = int(np.count_nonzero(one | other))
    return int(np.count_nonzero(one & other)) / union if union else 0.0


def _notes(options: InstructSegOptions, dtype: torch.dtype) -> tuple[str, ...]:
    limit = f"the threshold {options.threshold:g} on its score is this project's and not calibrated"
    if options.threshold == 0:
        limit = "with threshold=0 its best mask is always shown, also when the target is absent"
    notes = [f"InstructSeg publishes no rejection: {limit}"]
    if options.references == "published":
        notes.append("references=published: every answer is about the frame two references before the newest")
    if options.masks == "every_frame":
        notes.append(EVERY_FRAME)
    if dtype == torch.float16:
        notes.append("dtype float16: Phi-2's attention is known to overflow in it; bfloat16 has the range it needs")
    return tuple(notes)
