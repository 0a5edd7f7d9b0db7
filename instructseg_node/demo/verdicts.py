"""What verdict the node gave on a command of the demo, and whether it is the expected one.

Pure functions of counted pixels: no images, no bags, no ROS. A command asks for one or several slots; each slot's time
is cut into segments in which its thing is there or not, and each segment is judged on its own.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from instructseg.core import State

from .records import Expectation, Slot, TargetRecord, Window

PRESENT_SHARE = 0.6  # of the frames in the second half of a segment: below, the target was not held
PRESENT_IOU = 0.5  # mean over a segment: not above it, the mask was on something else
GONE_SHARE = 0.9  # of the frames without the thing: the state must say so
SHORTEST_S = 1.0  # a shorter segment is too short to be judged beside others


@dataclasses.dataclass(frozen=True)
class FrameCount:
    """One published frame while a command was in force, in pixels.

    time: of its stamp, s after the first image. age: s from the stamp to the recorder. targets: of this command only.
    areas: mask pixels by instance id. truth: pixels of each slot. overlaps: pixels by (instance id, slot).
    """

    time: float
    age: float
    targets: tuple[TargetRecord, ...]
    areas: Mapping[int, int]
    truth: tuple[int, ...]
    overlaps: Mapping[tuple[int, int], int]


@dataclasses.dataclass(frozen=True)
class SegmentVerdict:
    """One stretch of a slot: what was expected and given, and the figures behind it.

    share: PRESENT frames in its second half (present), or frames that are not PRESENT (gone). iou: mean over its frames
    from its first mask on, a frame without a mask counting 0; None for absent segments. false_masks: frames with a
    mask where there is nothing. instance_ids: whose masks were shown.
    """

    expected: str
    given: str
    passed: bool
    start: float
    end: float
    frames: int
    share: float
    iou: float | None
    first_mask: float | None
    false_masks: int
    instance_ids: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class CommandVerdict:
    """slots: the segments of every slot. iou: mean over all frames that the segments' means are of. first_mask_s: from
    the command to the arrival of the first mask of every slot that is to have one (the slowest counts)."""

    expectation: Expectation
    expected: str
    given: str
    passed: bool
    iou: float | None
    first_mask_s: float | None
    frames: int
    false_masks: int
    slots: tuple[tuple[SegmentVerdict, ...], ...]


def judge(command: Expectation, frames: Sequence[FrameCount]) -> CommandVerdict:
    """The verdict on one command from the frames published while it was in force, in order of time."""
    owners = assign(frames, len(command.slots))
    judged, scores, firsts = [], [], []
    for index, slot in enumerate(command.slots):
        views = [_View(frame, index, owners) for frame in frames]
        segments = cut(slot)
        judged.append(_same_identity([_judge_segment(segment, views, len(segments) > 1) for segment in segments]))
        scores += [score for segment in segments if segment.present for score in _scores(segment.inside(views))]
        if any(segment.present for segment in segments):
            firsts.append(next((v.frame.time + v.frame.age - command.start for v in views if v.area), None))
    return CommandVerdict(
        expectation=command,
        expected=_joined(judged, lambda segment: segment.expected),
        given=_joined(judged, lambda segment: segment.given),
        passed=all(segment.passed for verdicts in judged for segment in verdicts),
        iou=sum(scores) / len(scores) if scores else None,
        first_mask_s=None if not firsts or None in firsts else max(firsts),
        frames=len(frames),
        false_masks=sum(segment.false_masks for verdicts in judged for segment in verdicts),
        slots=tuple(judged),
    )


@dataclasses.dataclass(frozen=True)
class Segment:
    """A stretch in which a thing is there (or is not), with the windows in which that is clear."""

    present: bool
    start: float
    end: float
    windows: tuple[Window, ...]

    def inside(self, views: Sequence[_View]) -> list[_View]:
        return [v for v in views if any(w.start <= v.frame.time < w.end for w in self.windows)]


def cut(slot: Slot) -> list[Segment]:
    """The segments of a slot in order. Windows where either verdict is right belong to none; one too short to be
    judged is left out unless it is the only one."""
    clear = [w for w in slot.windows if w.verdict != "either"]
    parts = _merged(clear)
    return _merged([w for part in parts if part.end - part.start >= SHORTEST_S for w in part.windows]) or parts[:1]


def assign(frames: Sequence[FrameCount], slots: int) -> dict[int, int]:
    """Which slot each instance id answers: the one it covers most pixels of. One that covers none counts against a
    slot that has no other, else against the first; one that never had a mask belongs to none, unless there is but one
    slot."""
    shown = sorted({i for frame in frames for i, area in frame.areas.items() if area})
    covered: Counter[tuple[int, int]] = Counter()
    for frame in frames:
        covered.update(frame.overlaps)
    owners = {}
    for instance in shown:
        best = max(range(slots), key=lambda slot: covered[instance, slot])
        if covered[instance, best]:
            owners[instance] = best
    for instance in shown:
        if instance not in owners:
            owners[instance] = next((slot for slot in range(slots) if slot not in owners.values()), 0)
    if slots == 1:
        owners |= {target.instance_id: 0 for frame in frames for target in frame.targets}
    return owners


class _View:
    """One frame as one slot sees it."""

    def __init__(self, frame: FrameCount, slot: int, owners: Mapping[int, int]) -> None:
        mine = [i for i in frame.areas if owners.get(i) == slot]
        self.frame = frame
        self.truth = frame.truth[slot]
        self.shown = tuple(i for i in mine if frame.areas[i])
        self.area = sum(frame.areas[i] for i in mine)
        overlap = sum(frame.overlaps.get((i, slot), 0) for i in mine)
        union = self.truth + self.area - overlap
        self.iou = overlap / union if union else 0.0
        self.state = _state([t for t in frame.targets if owners.get(t.instance_id) == slot]) or _state(
            [t for t in frame.targets if t.instance_id not in owners]
        )


def _state(targets: Sequence[TargetRecord]) -> State | None:
    states = [target.state for target in targets]
    return State.PRESENT if State.PRESENT in states else states[0] if states else None


def _merged(windows: Sequence[Window]) -> list[Segment]:
    segments: list[Segment] = []
    for window in windows:
        present = window.verdict == "present"
        if segments and segments[-1].present == present:
            before = segments.pop()
            segments.append(Segment(present, before.start, window.end, (*before.windows, window)))
        else:
            segments.append(Segment(present, window.start, window.end, (window,)))
    return segments


def _scores(views: Sequence[_View]) -> list[float]:
    """IoU of every frame from the first mask on."""
    first = next((index for index, view in enumerate(views) if view.area), None)
    return [] if first is None else [view.iou for view in views[first:]]


def _judge_segment(segment: Segment, views: Sequence[_View], one_of_many: bool) -> SegmentVerdict:
    inside = segment.inside(views)
    shown = tuple(sorted({i for view in inside for i in view.shown}))
    first = next((view.frame.time for view in inside if view.area), None)
    late = [view for view in inside if view.frame.time >= (segment.start + segment.end) / 2]
    judge_it = _present if segment.present else _gone if one_of_many else _absent
    expected, given, passed, share, iou = judge_it(inside, late)
    false_masks = 0 if segment.present else sum(view.area > 0 for view in inside)
    return SegmentVerdict(
        expected, given, passed, segment.start, segment.end, len(inside), share, iou, first, false_masks, shown
    )


def _same_identity(verdicts: Sequence[SegmentVerdict]) -> tuple[SegmentVerdict, ...]:
    """What comes back must come back under the id it had: a new one means that it was taken for something else."""
    known: set[int] = set()
    checked = []
    for verdict in verdicts:
        shown = set(verdict.instance_ids)
        if verdict.expected == "PRESENT" and verdict.passed and known and not known & shown:
            verdict = dataclasses.replace(verdict, given="PRESENT AS ANOTHER", passed=False)
        known = known or (shown if verdict.expected == "PRESENT" else known)
        checked.append(verdict)
    return tuple(checked)


def _present(inside: Sequence[_View], late: Sequence[_View]) -> tuple[str, str, bool, float, float]:
    scores = _scores(inside)
    iou = sum(scores) / len(scores) if scores else 0.0
    share = _share(late, lambda view: view.state is State.PRESENT)
    if share >= PRESENT_SHARE:
        given = "PRESENT" if iou > PRESENT_IOU else "WRONG MASK"
    else:
        given = _usual(late)
        given = "UNSTEADY" if given == "PRESENT" else given
    return "PRESENT", given, given == "PRESENT", share, iou


def _gone(inside: Sequence[_View], late: Sequence[_View]) -> tuple[str, str, bool, float, None]:
    """Out of sight between two appearances: OCCLUDED, LOST, NO_TARGET, whatever but PRESENT."""
    share = _share(inside, lambda view: view.state is not State.PRESENT)
    given = "GONE" if share >= GONE_SHARE else "FALSE MASK"
    return "GONE", given, given == "GONE", share, None


def _absent(inside: Sequence[_View], late: Sequence[_View]) -> tuple[str, str, bool, float, None]:
    """Never there: not one mask, and said to be absent in the end."""
    share = _share(inside, lambda view: view.state is not State.PRESENT)
    last = inside[-1].state if inside else None
    given = "FALSE MASK" if any(view.area for view in inside) else last.name if last else "NO ANSWER"
    return "NO_TARGET", given, given == "NO_TARGET", share, None


def _share(views: Sequence[_View], holds: Callable[[_View], bool]) -> float:
    return sum(map(holds, views)) / len(views) if views else 0.0


def _usual(views: Sequence[_View]) -> str:
    """The most frequent state."""
    names = Counter(view.state.name if view.state else "NO ANSWER" for view in views)
    return names.most_common(1)[0][0] if names else "NO ANSWER"


def _joined(slots: Sequence[Sequence[SegmentVerdict]], word: Callable[[SegmentVerdict], str]) -> str:
    """EITHER for a slot in which nothing was to be judged."""
    return " + ".join(", ".join(word(segment) for segment in segments) or "EITHER" for segments in slots)
